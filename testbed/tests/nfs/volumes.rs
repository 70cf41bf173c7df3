//! A person's volume and claim, and what becomes of the operator's own.

use anyhow::{Context as _, Result, ensure};
use blobferry_crds::names;
use blobferry_testbed::{Stage, wait};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::export::{Export, PATIENCE, SERVER};

const CLAIM: &str = "nfs-share";

/// The source of a session by the volume and the claim of `k8s/samples/nfs-volume.yaml`, which a person made.
pub(crate) async fn claim(export: &Export<'_>) -> Result<Value> {
    claim_from(export, SERVER).await
}

/// The same with another server.
pub(crate) async fn claim_from(export: &Export<'_>, server: &str) -> Result<Value> {
    let share = json!({
        "mountOptions": ["hard", "nfsvers=4.1", "actimeo=5", "rsize=1048576", "wsize=1048576"],
        "nfs": {"server": server, "path": export.path},
    });
    claim_of(export.stage, share).await
}

/// The source of a session by a folder of the node's own disk.
pub(crate) async fn claim_of_folder(export: &Export<'_>, path: &str) -> Result<Value> {
    export.node.run(&format!("install -d -o 65534 -g 65534 {path} {path}/incoming")).await?;
    claim_of(export.stage, json!({"hostPath": {"path": path, "type": "Directory"}})).await
}

async fn claim_of(stage: &Stage, share: Value) -> Result<Value> {
    let name = name(stage);
    let mut volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": {
        "capacity": {"storage": "1Ti"}, "accessModes": ["ReadWriteMany"], "persistentVolumeReclaimPolicy": "Retain",
        "storageClassName": "", "claimRef": {"namespace": stage.namespace, "name": CLAIM},
    }});
    for (key, value) in share.as_object().into_iter().flatten() {
        volume["spec"][key] = value.clone();
    }
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": CLAIM}, "spec": {
        "accessModes": ["ReadWriteMany"], "storageClassName": "", "volumeName": name, "resources": {"requests": {"storage": "1Ti"}},
    }});
    let apply = PatchParams::apply("test");
    Api::<PersistentVolume>::all(stage.client()).patch(&name, &apply, &Patch::Apply(&volume)).await?;
    stage.api::<PersistentVolumeClaim>().patch(CLAIM, &apply, &Patch::Apply(&claim)).await?;
    Ok(json!({"persistentVolumeClaim": {"claimName": CLAIM}}))
}

/// The person removes the volume; it stays until its claim is gone.
pub(crate) async fn delete_volume(stage: &Stage) -> Result<()> {
    Api::<PersistentVolume>::all(stage.client()).delete(&name(stage), &DeleteParams::background()).await?;
    Ok(())
}

fn name(stage: &Stage) -> String {
    format!("{}-nfs", stage.namespace)
}

/// Deletes a session; the operator removes what it made for it.
pub(crate) async fn delete_session_with_its_volume(stage: &Stage, session: &str) -> Result<()> {
    stage.sessions().delete(session, &DeleteParams::default()).await?;
    let ours = ListParams::default().labels(&format!("{}={}", names::MANAGED_BY_LABEL, names::OPERATOR));
    wait::until(PATIENCE, "volume and claim of the session are gone", async || {
        let claims = stage.api::<PersistentVolumeClaim>().list(&ours).await?.items;
        let volumes = Api::<PersistentVolume>::all(stage.client()).list(&ours).await?.items;
        let of_stage = volumes.iter().filter(|volume| {
            let claim = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
            claim.and_then(|claim| claim.namespace.as_deref()) == Some(stage.namespace.as_str())
        });
        ensure!(claims.is_empty() && of_stage.count() == 0, "{} claims and {} volumes are left", claims.len(), volumes.len());
        Ok(Some(()))
    })
    .await
    .context("the session was deleted")
}
