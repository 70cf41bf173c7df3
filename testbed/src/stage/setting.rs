//! What a stage is made of, and its removal.

use std::{fs, io, time::Duration};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Namespace, PersistentVolume, PersistentVolumeClaim};
use kube::{
    Api, Resource,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{CLAIM, Stage};
use crate::wait;

const LONGEST_CLEANUP: Duration = Duration::from_mins(5);
const LONGEST_BINDING: Duration = Duration::from_mins(2);

impl Stage {
    pub(super) async fn create_objects(&self) -> Result<()> {
        let namespace: Namespace = manifest(json!({
            "metadata": {"name": self.namespace, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        }))?;
        create(&Api::all(self.client()), &namespace).await?;
        let volume: PersistentVolume = manifest(json!({
            "metadata": {"name": self.namespace},
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "capacity": {"storage": "1Gi"},
                "claimRef": {"namespace": self.namespace, "name": CLAIM},
                "hostPath": {"path": self.share, "type": "Directory"},
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": "",
            },
        }))?;
        create(&Api::all(self.client()), &volume).await?;
        let claim: PersistentVolumeClaim = manifest(json!({
            "metadata": {"name": CLAIM},
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "resources": {"requests": {"storage": "1Gi"}},
                "storageClassName": "",
                "volumeName": self.namespace,
            },
        }))?;
        create(&self.api(), &claim).await?;
        self.put_secret(&self.bed.account.secret()).await?;
        // Else now and then it would be the first thing that people are told.
        wait::until(LONGEST_BINDING, "the claim is bound", async || {
            let claim: PersistentVolumeClaim = self.api().get(CLAIM).await?;
            Ok((claim.status.and_then(|status| status.phase).as_deref() == Some("Bound")).then_some(()))
        })
        .await
    }

    pub(super) async fn clean_up(&self) -> Result<()> {
        self.delete_namespace().await?;
        absent(Api::<PersistentVolume>::all(self.client()).delete(&self.namespace, &DeleteParams::background()).await)?;
        self.blobs.delete_container().await?;
        match fs::remove_dir_all(&self.share) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Deletes the stage's namespace, if it is there, and waits until it is gone with everything in it.
    ///
    /// # Errors
    ///
    /// When it stays.
    pub async fn delete_namespace(&self) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client());
        absent(namespaces.delete(&self.namespace, &DeleteParams::background()).await)?;
        wait::until(LONGEST_CLEANUP, "the namespace is gone", async || {
            Ok(namespaces.get_opt(&self.namespace).await?.is_none().then_some(()))
        })
        .await
    }

    /// Makes the objects of the stage again, whose namespace somebody has deleted. The share and the blobs are as they were.
    ///
    /// # Errors
    ///
    /// When the API server refuses.
    pub async fn set_up_again(&self) -> Result<()> {
        let volumes: Api<PersistentVolume> = Api::all(self.client());
        volumes.delete(&self.namespace, &DeleteParams::background()).await?;
        wait::until(LONGEST_CLEANUP, "the volume is gone", async || {
            Ok(volumes.get_opt(&self.namespace).await?.is_none().then_some(()))
        })
        .await?;
        self.create_objects().await
    }

    /// Makes the claim again that was read before somebody deleted it, as soon as that is gone, and lets the stage's volume have it: a
    /// volume remembers the UID of the claim that it was bound to, until a person takes that away.
    ///
    /// # Errors
    ///
    /// When it cannot be made within minutes.
    pub async fn make_claim_again(&self, claim: &PersistentVolumeClaim) -> Result<()> {
        let again = PersistentVolumeClaim {
            metadata: ObjectMeta { name: claim.metadata.name.clone(), ..ObjectMeta::default() },
            spec: claim.spec.clone(),
            status: None,
        };
        wait::until(LONGEST_CLEANUP, "the claim can be made again", async || {
            Ok(Some(self.api().create(&PostParams::default(), &again).await?))
        })
        .await?;
        let release = json!({"spec": {"claimRef": {"uid": null, "resourceVersion": null}}});
        let volumes: Api<PersistentVolume> = Api::all(self.client());
        volumes.patch(&self.namespace, &PatchParams::default(), &Patch::Merge(&release)).await?;
        Ok(())
    }
}

/// That an object is gone already is what its deletion wants.
fn absent<T>(deleted: kube::Result<T>) -> Result<()> {
    match deleted {
        Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

async fn create<K>(api: &Api<K>, object: &K) -> Result<()>
where
    K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + std::fmt::Debug,
{
    let meta: &ObjectMeta = object.meta();
    let what = format!("cannot create {} {}", K::kind(&()), meta.name.as_deref().unwrap_or_default());
    api.create(&PostParams::default(), object).await.context(what)?;
    Ok(())
}

fn manifest<K: DeserializeOwned>(value: Value) -> Result<K> {
    serde_json::from_value(value).context("the test's own manifest is wrong")
}
