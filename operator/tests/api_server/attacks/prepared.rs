//! Objects that somebody who has seen a session's UID prepares under the names that the operator would choose.

use anyhow::{Context as _, Result, bail, ensure};
use blobferry_crds::{UploadSession, names};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::{
    Api, Resource as _, ResourceExt,
    api::{DeleteParams, PostParams},
    core::ObjectMeta,
};
use serde_json::{Value, json};

use crate::stage::{Stage, somebodys_pod};

/// How somebody makes what is not the operator's look like it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disguise {
    Nothing,
    /// The session controls it.
    Owner,
    /// The operator's labels; nobody can put them on a pod.
    Labels,
}

const PREPARED: [(&str, Disguise); 6] = [
    ("volume", Disguise::Nothing),
    ("claim", Disguise::Nothing),
    ("claim", Disguise::Owner),
    ("claim", Disguise::Labels),
    ("pod", Disguise::Nothing),
    ("pod", Disguise::Owner),
];

/// What was prepared for one session.
struct Trap {
    session: String,
    kind: &'static str,
    disguise: Disguise,
    name: String,
    uid: Option<String>,
}

fn nfs() -> Value {
    json!({"nfs": {"server": "nas.example.com", "path": "/srv/drop/cameras"}})
}

impl Trap {
    /// Makes a session that waits, and the object.
    async fn set(stage: &Stage, kind: &'static str, disguise: Disguise, policy: &str) -> Result<Self> {
        let session = format!("{kind}-{disguise:?}-{policy}").to_ascii_lowercase();
        let waiting = json!({"suspend": true, "deletionPolicy": policy, "source": nfs()});
        let waiting = stage.session(&session, waiting).await?;
        let uid = waiting.uid().context("an object has a UID")?;
        let name = if kind == "pod" { format!("{session}-uploader") } else { format!("blobferry-{uid}") };
        let mut trap = Self { session, kind, disguise, name, uid: None };
        trap.uid = trap.create(stage, &waiting).await.with_context(|| trap.session.clone())?;
        Ok(trap)
    }

    fn metadata(&self, session: &UploadSession) -> Value {
        match self.disguise {
            Disguise::Nothing => json!({"name": self.name}),
            Disguise::Owner => json!({"name": self.name, "ownerReferences": [session.controller_owner_ref(&())]}),
            Disguise::Labels => json!({"name": self.name, "labels": {
                names::MANAGED_BY_LABEL: names::OPERATOR,
                names::SESSION_LABEL: self.session,
                names::SESSION_UID_LABEL: session.uid(),
            }}),
        }
    }

    async fn create(&self, stage: &Stage, session: &UploadSession) -> Result<Option<String>> {
        let capacity = json!({"storage": "1Gi"});
        let mut object = match self.kind {
            "volume" => json!({"spec": {
                "capacity": capacity, "accessModes": ["ReadWriteMany"], "storageClassName": "", "nfs": {"server": "nas.example.com", "path": "/"},
                "persistentVolumeReclaimPolicy": "Retain", "claimRef": {"namespace": stage.namespace, "name": "another"},
            }}),
            "claim" => json!({"spec": {
                "accessModes": ["ReadWriteMany"], "storageClassName": "", "resources": {"requests": capacity}, "volumeName": "another",
            }}),
            _ => somebodys_pod(&self.name),
        };
        object["metadata"] = self.metadata(session);
        Ok(match self.kind {
            "volume" => volumes(stage).create(&PostParams::default(), &serde_json::from_value(object)?).await?.uid(),
            "claim" => stage.create::<PersistentVolumeClaim>(object).await?.uid(),
            _ => stage.create::<Pod>(object).await?.uid(),
        })
    }

    /// Lets the session start, which it cannot.
    async fn spring(&self, stage: &Stage) -> Result<()> {
        stage.change(&self.session, json!({"suspend": false})).await?;
        let message = stage.until_condition(&self.session, "Stalled", "True", "NameTaken").await?;
        ensure!(message.contains(&self.name), "{}: {message}", self.session);
        let status = stage.status(&self.session).await?;
        ensure!(status.pod_uid.is_none(), "{}: somebody's pod is its uploader", self.session);
        Ok(())
    }

    async fn is_untouched(&self, stage: &Stage) -> Result<bool> {
        let found: Option<ObjectMeta> = match self.kind {
            "volume" => volumes(stage).get_opt(&self.name).await?.map(|it| it.metadata),
            "claim" => stage.api::<PersistentVolumeClaim>().get_opt(&self.name).await?.map(|it| it.metadata),
            _ => stage.api::<Pod>().get_opt(&self.name).await?.map(|it| it.metadata),
        };
        Ok(found.is_some_and(|found| found.uid == self.uid && found.deletion_timestamp.is_none()))
    }
}

fn volumes(stage: &Stage) -> Api<PersistentVolume> {
    Api::all(stage.client.clone())
}

/// Waits until a sweep has looked at all volumes.
async fn until_swept(stage: &Stage) -> Result<()> {
    let uid = stage.session("swept", json!({"source": nfs()})).await?.uid().unwrap_or_default();
    stage.until_pod("swept", None).await?;
    stage.delete::<UploadSession>("swept").await?;
    let name = format!("blobferry-{uid}");
    stage.until("its volume is gone", async || Ok(volumes(stage).get_opt(&name).await?.is_none())).await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn objects_that_somebody_prepared_under_our_names_are_neither_used_nor_removed() -> Result<()> {
    let stage = Stage::new("prepared-names").await?;
    let all = ["Stop", "Drain"].into_iter().flat_map(|policy| PREPARED.map(|(kind, disguise)| (kind, disguise, policy)));
    let traps = try_join_all(all.map(|(kind, disguise, policy)| Trap::set(&stage, kind, disguise, policy))).await?;
    try_join_all(traps.iter().map(|trap| trap.spring(&stage))).await?;
    for trap in &traps {
        stage.delete::<UploadSession>(&trap.session).await?;
    }
    stage.until("the sessions are gone", async || Ok(stage.list::<UploadSession>().await?.is_empty())).await?;
    until_swept(&stage).await?;
    // What somebody gave to the session goes with it, by the garbage collector.
    for trap in traps.iter().filter(|trap| trap.disguise != Disguise::Owner) {
        if !trap.is_untouched(&stage).await? {
            bail!("what was prepared for {} was removed", trap.session);
        }
    }
    for trap in traps.iter().filter(|trap| trap.kind == "volume") {
        volumes(&stage).delete(&trap.name, &DeleteParams::background()).await?;
    }
    stage.end().await
}
