//! (I/O out) The object of a session itself: our finalizer on it, and its end.

use std::time::Duration;

use blobferry_crds::UploadSession;
use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tracing::warn;

use super::volumes;
use crate::{
    api::{self, CallError},
    context::Context,
    decisions::{
        case::{Case, Outcome, obstacle},
        deletion::{Blocked, Deletion},
        finalizer, notices,
        pod_state::Slot,
    },
};

/// Gives `session` the finalizers that it should have, before anything else is done for it; what it is then, if it had others.
pub async fn finalize(session: &UploadSession, slot: &Slot, context: &Context) -> Result<Option<Box<UploadSession>>, CallError> {
    let Some(finalizers) = finalizer::finalizers(session, slot) else { return Ok(None) };
    let version = set_finalizers(&session.metadata, &finalizers, &context.client).await?;
    Ok(Some(Box::new(note(session, finalizers, version, context))))
}

/// That `session` has these finalizers since `version`, as it is then; that the watch has not shown it yet keeps no pass from knowing it.
fn note(session: &UploadSession, finalizers: Vec<String>, version: Option<String>, context: &Context) -> UploadSession {
    let mut changed = session.clone();
    (changed.metadata.finalizers, changed.metadata.resource_version) = (Some(finalizers), version);
    context.sessions.wrote(&changed);
    changed
}

/// How long after its time something that a deleted session has left may keep its object, if no answer comes to its removal.
const UNANSWERED_FOR: Duration = Duration::from_mins(1);

/// Removes what a deleted session has left, and then what holds its object. What the operator is not let remove keeps no object: the
/// sweep goes on trying.
pub(super) async fn let_go(
    session: &UploadSession,
    slot: &Slot,
    deletion: Option<&Deletion>,
    context: &Context,
    now: Timestamp,
) -> Result<Outcome, CallError> {
    if let Err(error) = remove_rest(session, slot, context).await {
        let is_overdue = deletion.is_some_and(|deletion| now >= deletion.deadline + UNANSWERED_FOR);
        if error.refusal().is_none() && !is_overdue {
            return Err(error);
        }
        warn!(error = &error as &dyn std::error::Error, "a deleted session goes without what it has left");
        context.tell(session, notices::of_rest(&error.words())).await;
    }
    let version = release_object(&session.metadata, &context.client).await?;
    note(session, others(&session.metadata), version, context);
    Ok(Outcome::Gone)
}

/// Also what comes after something that cannot be removed.
async fn remove_rest(session: &UploadSession, slot: &Slot, context: &Context) -> Result<(), CallError> {
    let pod = match slot {
        Slot::Ours(pod) => api::delete(&api::namespaced::<Pod>(&context.client, &pod.namespace), &pod.name, &pod.uid, None).await,
        _ => Ok(()),
    };
    if session.spec.source.nfs.is_some() {
        volumes::remove_claim(&session.namespace().unwrap_or_default(), &session.uid().unwrap_or_default(), context).await?;
    }
    pod
}

/// Removes our finalizer from the object with this metadata; the sweep removes what it leaves. The version since then, unless the object
/// was gone.
pub async fn release_object(meta: &ObjectMeta, client: &Client) -> Result<Option<String>, CallError> {
    match set_finalizers(meta, &others(meta), client).await {
        Err(error) if error.is_not_found() => Ok(None),
        released => released,
    }
}

/// Finalizers that are not ours.
fn others(meta: &ObjectMeta) -> Vec<String> {
    finalizer::without_ours(meta.finalizers.as_deref().unwrap_or_default())
}

async fn set_finalizers(meta: &ObjectMeta, finalizers: &[String], client: &Client) -> Result<Option<String>, CallError> {
    let (namespace, name) = (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
    let sessions: Api<UploadSession> = api::namespaced(client, namespace);
    let change = json!({"metadata": {"resourceVersion": meta.resource_version, "finalizers": finalizers}});
    let (params, change) = (PatchParams::default(), Patch::Merge(change));
    let patched = sessions.patch_metadata(name, &params, &change);
    Ok(api::call(format!("change the finalizers of session {name}"), patched).await?.metadata.resource_version)
}

/// Remembers since when, and why, the last pod of a deleted session cannot be made.
pub fn remember_blocked(case: &Case<'_>, context: &Context) {
    if case.observed.deletion.is_some() {
        let obstacle = obstacle(case.plan, case.outcome, &case.observed.creations);
        let uid = case.session.uid().unwrap_or_default();
        context.memory.update(&uid, |it| {
            let since = it.blocked.as_ref().map_or(case.now, |blocked| blocked.since);
            it.blocked = obstacle.map(|why| Box::new(Blocked { since, why }));
        });
    }
}

/// Deletes the session's object as it was read: if a person has changed it meanwhile, that has to be looked at first.
pub(super) async fn expire(session: &UploadSession, context: &Context) -> Result<Outcome, CallError> {
    let sessions: Api<UploadSession> = api::namespaced(&context.client, &session.namespace().unwrap_or_default());
    api::delete_version(&sessions, session).await?;
    Ok(Outcome::Gone)
}
