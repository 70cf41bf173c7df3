//! (I/O out) Writes what differs: the annotations, the operator's part of the status, and the removal of stale activity. Every write
//! carries the version that was read, so a late write of a former operator changes nothing; but for the mark of a trial, which names what it
//! is about.

use blobferry_crds::{UploadSession, UploadSessionStatus, names};
use jiff::Timestamp;
use kube::{
    Api, Resource,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use tracing::warn;

use crate::{
    api::{self, CallError},
    context::Context,
    decisions::{
        case::Case,
        identity::Identity,
        pod_state::Slot,
        start::is_step,
        status::{current, is_same},
    },
    place::Place,
    report,
    state::sessions::Sessions,
};

/// Writes the annotations and the status, if they differ from what is there; the version of the session then.
pub async fn publish(case: &Case<'_>, status: &UploadSessionStatus, context: &Context) -> Result<Version, CallError> {
    let session = case.session;
    let mut version = session.metadata.resource_version.clone();
    if let Some(identity) = Identity::of(session).ok().filter(|identity| !identity.is_annotated(session)) {
        version = match Writer::of(session, context).annotate(&identity, version.clone()).await {
            // What a restore from a backup needs must not keep people from what they see, nor the uploader from its reports.
            Err(error) if error.refusal().is_some() => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "a session is not annotated: a restored one gets another name and date"
                );
                version
            }
            Err(error) if !error.is_conflict() => {
                report::seen(write_status(session, status, version, context, case.now).await);
                return Err(error);
            }
            annotated => annotated?,
        };
    }
    write_status(session, status, version, context, case.now).await
}

/// Writes the status of a session, which is at `version`, if it differs from what is there; the version then.
pub async fn write_status(
    session: &UploadSession,
    status: &UploadSessionStatus,
    version: Version,
    context: &Context,
    now: Timestamp,
) -> Result<Version, CallError> {
    if is_same(&current(session), status) {
        return Ok(version);
    }
    let version = Writer::of(session, context).apply(status, version).await?;
    let uid = session.metadata.uid.as_deref().unwrap_or_default();
    context.memory.update(uid, |it| it.step_written = is_step(status).then_some(now));
    Ok(version)
}

/// Lets the session with `uid` at `place` say that its next pod is on trial. It is no write over what was read: nobody else says this.
pub async fn mark_trial(place: &Place, uid: &str, mark: &str, context: &Context) -> Result<Version, CallError> {
    let change = json!({"metadata": {"uid": uid, "annotations": {names::TRIAL_ANNOTATION: mark}}});
    let writer = Writer::at(place.namespace(), place.name(), context);
    let (params, change) = (manager(false), Patch::Merge(change));
    writer.written("annotate", writer.api.patch(&writer.name, &params, &change)).await
}

/// Removes the activity of a session, which is at `version`, if no uploader runs.
pub async fn remove_stale_activity(case: &Case<'_>, version: Version, context: &Context) -> Result<(), CallError> {
    if is_stale(case) {
        Writer::of(case.session, context).remove_activity(version).await?;
    }
    Ok(())
}

/// Whether the status tells of activity although no uploader runs.
fn is_stale(case: &Case<'_>) -> bool {
    let told = case.session.status.as_ref().is_some_and(|status| status.activity.is_some());
    let runs = matches!(&case.observed.slot, Slot::Ours(pod) if pod.runs());
    told && !runs
}

struct Writer<'a> {
    api: Api<UploadSession>,
    name: String,
    sessions: &'a Sessions,
}

/// Version of an object.
pub type Version = Option<String>;

impl<'a> Writer<'a> {
    fn of(session: &UploadSession, context: &'a Context) -> Self {
        let meta = &session.metadata;
        Self::at(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default(), context)
    }

    fn at(namespace: &str, name: &str, context: &'a Context) -> Self {
        Self { api: api::namespaced(&context.client, namespace), name: name.to_owned(), sessions: &context.sessions }
    }

    async fn annotate(&self, identity: &Identity, version: Version) -> Result<Version, CallError> {
        let change = json!({"metadata": {
            "resourceVersion": version,
            "annotations": {
                names::SESSION_NAME_ANNOTATION: identity.session_name,
                names::DATE_PREFIX_ANNOTATION: identity.date_prefix,
            },
        }});
        let (params, change) = (manager(false), Patch::Merge(change));
        self.written("annotate", self.api.patch(&self.name, &params, &change)).await
    }

    async fn apply(&self, status: &UploadSessionStatus, version: Version) -> Result<Version, CallError> {
        let body = json!({
            "apiVersion": UploadSession::api_version(&()),
            "kind": UploadSession::kind(&()),
            "metadata": {"name": self.name, "resourceVersion": version},
            "status": status,
        });
        self.patch_status("write the status of", manager(true), Patch::Apply(body)).await
    }

    async fn remove_activity(&self, version: Version) -> Result<Version, CallError> {
        let change = json!({"metadata": {"resourceVersion": version}, "status": {"activity": null}});
        self.patch_status("remove the activity of", manager(false), Patch::Merge(change)).await
    }

    async fn patch_status(&self, action: &str, params: PatchParams, patch: Patch<Value>) -> Result<Version, CallError> {
        self.written(action, self.api.patch_status(&self.name, &params, &patch)).await
    }

    /// The version after a write; that the watch has not shown it yet keeps no pass from building on it.
    async fn written(
        &self,
        action: &str,
        write: impl Future<Output = kube::Result<UploadSession>> + Send,
    ) -> Result<Version, CallError> {
        let session = api::call(format!("{action} session {}", self.name), write).await?;
        self.sessions.wrote(&session);
        Ok(session.metadata.resource_version)
    }
}

fn manager(force: bool) -> PatchParams {
    PatchParams { force, field_manager: Some(names::OPERATOR_MANAGER.into()), ..PatchParams::default() }
}
