//! What exists in a namespace, an object a line, but for what was there before the session.

use anyhow::Result;
use blobferry_crds::{UploadSession, names};
use k8s_openapi::{
    api::{
        core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, ServiceAccount},
        rbac::v1::RoleBinding,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, ResourceExt, api::ListParams};

use crate::stage::Stage;

pub(crate) async fn objects(stage: &Stage) -> Result<Vec<String>> {
    let sessions = stage.list::<UploadSession>().await?;
    let mut all: Vec<_> = sessions.iter().map(session).collect();
    all.extend(stage.list::<Pod>().await?.iter().map(|it| pod(it, &sessions)));
    let accounts = stage.list::<ServiceAccount>().await?;
    let made = accounts.iter().filter(|account| account.name_any() != "default");
    all.extend(made.map(|account| format!("{}account {}", whose(&account.metadata), account.name_any())));
    all.extend(stage.list::<RoleBinding>().await?.iter().map(binding));
    let claims = stage.list::<PersistentVolumeClaim>().await?;
    all.extend(claims.iter().filter(|it| it.name_any() != "share").map(|it| claim(it, &sessions)));
    let here = ListParams::default().labels(&format!("{}={}", names::SESSION_NAMESPACE_LABEL, stage.namespace));
    let volumes = Api::<PersistentVolume>::all(stage.client.clone()).list(&here).await?;
    all.extend(volumes.iter().map(|it| format!("volume of {}", ties(&it.metadata, &sessions))));
    Ok(all)
}

fn session(session: &UploadSession) -> String {
    let held = if session.finalizers().iter().any(|it| it == names::FINALIZER) { " held" } else { "" };
    format!("session {}{held}{}", session.name_any(), leaving(&session.metadata))
}

fn pod(pod: &Pod, sessions: &[UploadSession]) -> String {
    let mode = pod.annotations().get(names::MODE_ANNOTATION).map(|mode| format!(" to {mode}")).unwrap_or_default();
    let is_told = sessions.iter().any(|it| it.status.as_ref().is_some_and(|status| status.pod_uid == pod.uid()));
    let told = if is_told { "" } else { ", which no status names" };
    format!("pod {} of {}{mode}{told}", pod.name_any(), ties(&pod.metadata, sessions))
}

fn binding(binding: &RoleBinding) -> String {
    let subjects: Vec<_> = binding.subjects.iter().flatten().map(|subject| subject.name.as_str()).collect();
    format!("{}binding {} for {}", whose(&binding.metadata), binding.name_any(), subjects.join(" and "))
}

/// Who made it, if it was not the operator.
fn whose(meta: &ObjectMeta) -> &'static str {
    let is_ours =
        meta.labels.as_ref().and_then(|labels| labels.get(names::MANAGED_BY_LABEL)).is_some_and(|by| by == names::OPERATOR);
    if is_ours { "" } else { "somebody's " }
}

fn claim(claim: &PersistentVolumeClaim, sessions: &[UploadSession]) -> String {
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    format!("claim of {}, {phase}", ties(&claim.metadata, sessions))
}

/// The session that an object was made for, and whether the garbage collector removes it with that session.
fn ties(meta: &ObjectMeta, sessions: &[UploadSession]) -> String {
    let label = |name: &str| meta.labels.as_ref().and_then(|labels| labels.get(name));
    let made_for = |session: &&UploadSession| {
        label(names::SESSION_UID_LABEL) == session.metadata.uid.as_ref()
            && label(names::SESSION_LABEL) == session.metadata.name.as_ref()
            && label(names::MANAGED_BY_LABEL).is_some_and(|by| by == names::OPERATOR)
    };
    let session = sessions.iter().find(made_for);
    let mut owners = meta.owner_references.iter().flatten().filter(|owner| owner.controller == Some(true));
    let ties = match (session, owners.next()) {
        (Some(session), Some(owner)) if session.metadata.uid.as_ref() == Some(&owner.uid) => {
            format!("{}, owned", session.name_any())
        }
        (Some(session), None) => session.name_any(),
        _ => "nobody".to_owned(),
    };
    format!("{ties}{}", leaving(meta))
}

fn leaving(meta: &ObjectMeta) -> &'static str {
    if meta.deletion_timestamp.is_some() { ", leaving" } else { "" }
}
