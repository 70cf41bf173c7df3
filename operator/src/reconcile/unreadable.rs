//! (I/O out) A session that cannot be read, because it was written for another version of the resource: people are told, and nothing is
//! done but to let it go when it is deleted. It keeps no other session waiting.

use blobferry_crds::{
    UploadSession,
    conditions::{MESSAGE_LIMIT, READY, shorten},
};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::ObjectReference,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use kube::{
    Api, Resource,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    core::error_boundary::InvalidObject,
};
use serde_json::json;
use tracing::warn;

use super::apply::release_object;
use crate::{
    api::{self, CallError},
    context::Context,
    decisions::{finalizer::is_held, notices, reasons},
};

/// Owns nothing but the words that it wrote; whoever reads the session again writes over them.
const MANAGER: &str = "blobferry-operator-unreadable";

/// Tells people that `session` cannot be read, and lets it go if it is deleted: it cannot be drained, and must not wait for a person.
pub async fn see_to(session: &InvalidObject, context: &Context, now: Timestamp) -> Result<(), CallError> {
    let meta = &session.metadata;
    if meta.deletion_timestamp.is_some() {
        tell(session, context, now).await;
        return if is_held(meta) { release_object(meta, &context.client).await.map(drop) } else { Ok(()) };
    }
    match write(session, context, now).await {
        Err(error) if error.refusal().is_some() || error.is_not_found() => {
            warn!(error = &error as &dyn std::error::Error, "the status of a session that cannot be read stays as it was");
        }
        written => written?,
    }
    tell(session, context, now).await;
    Ok(())
}

fn note(session: &InvalidObject) -> String {
    format!(
        "The operator cannot read the session: {}. Correct it, or update the CustomResourceDefinition. Until then its uploader, if it has \
         one, goes on as it is.",
        session.error
    )
}

/// Whether the session does what it should nobody knows; its other conditions, and what its uploader reports, stay.
async fn write(session: &InvalidObject, context: &Context, now: Timestamp) -> Result<(), CallError> {
    let (meta, resource) = (&session.metadata, ApiResource::erase::<UploadSession>(&()));
    let (namespace, name) = (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
    let sessions: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), namespace, &resource);
    let ready = Condition {
        type_: READY.into(),
        status: "Unknown".into(),
        reason: reasons::UNREADABLE.into(),
        message: shorten(&note(session), MESSAGE_LIMIT),
        last_transition_time: Time(now),
        observed_generation: meta.generation,
    };
    let body = Patch::Apply(json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": name, "resourceVersion": meta.resource_version},
        "status": {"conditions": [ready]},
    }));
    let params = PatchParams::apply(MANAGER).force();
    let written = Box::pin(sessions.patch_status(name, &params, &body));
    api::call(format!("write the status of session {name}"), written).await.map(drop)
}

async fn tell(session: &InvalidObject, context: &Context, now: Timestamp) {
    let meta = &session.metadata;
    let regarding = ObjectReference {
        api_version: Some(UploadSession::api_version(&()).into_owned()),
        kind: Some(UploadSession::kind(&()).into_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        ..ObjectReference::default()
    };
    context.events.tell(&regarding, notices::of_unreadable(&note(session)), now).await;
}
