//! (I/O) What has to be done before the operator is removed for good: nobody would take its finalizer off the sessions any more.
//!
//! The chart runs it as a hook, with rights of its own, before Helm deletes anything. It is level-triggered like everything else: it may
//! be run again at any time, and ends when no session is held.

use std::time::Duration;

use blobferry_crds::UploadSession;
use clap::Parser;
use futures::{StreamExt, stream};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
    core::PartialObjectMeta,
};
use serde_json::json;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::{
    api::{self, CallError},
    decisions::{
        build::pod_name,
        finalizer::is_held,
        pod_state::{Slot, UploaderPod},
    },
    reconcile::apply::release_object,
};

/// The first argument that asks for this in place of the operator.
pub const COMMAND: &str = "uninstall";

const PAUSE: Duration = Duration::from_secs(1);
/// Sessions that are let go at a time: a webhook may take long for each.
const AT_A_TIME: usize = 16;

/// Stops the operator and lets go of all sessions that it holds; the last thing before it is uninstalled.
#[derive(Debug, Parser)]
#[command(name = "blobferry-operator uninstall", version)]
pub struct UninstallArgs {
    /// Namespace of the operator.
    #[arg(long, env = "POD_NAMESPACE")]
    namespace: String,

    /// Name of its Deployment.
    #[arg(long, default_value = "blobferry-operator")]
    deployment: String,

    /// Selector of its pods.
    #[arg(long, default_value = "app.kubernetes.io/name=blobferry-operator")]
    selector: String,

    /// Seconds for which the end of its pods is waited for.
    #[arg(long, default_value_t = 60)]
    wait_seconds: u64,
}

/// How many sessions were let go, and how many of their pods were deleted because the session was being deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// Sessions.
    pub sessions: usize,
    /// Pods.
    pub pods: usize,
}

/// Does what [`UninstallArgs`] say.
pub async fn uninstall(args: &UninstallArgs, client: &Client) -> Result<Released, CallError> {
    stop_operator(args, client).await?;
    wait_for_its_end(args, client).await?;
    let released = release_sessions(client).await?;
    info!(sessions = released.sessions, pods = released.pods, "no session is held any more");
    Ok(released)
}

async fn stop_operator(args: &UninstallArgs, client: &Client) -> Result<(), CallError> {
    let deployments: Api<Deployment> = api::namespaced(client, &args.namespace);
    let (params, nobody) = (PatchParams::default(), Patch::Merge(json!({"spec": {"replicas": 0}})));
    let scaled = deployments.patch_scale(&args.deployment, &params, &nobody);
    match api::call(format!("scale Deployment {}", args.deployment), scaled).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

/// An operator on a node that does not answer is not waited for: what it may still write names versions and UIDs.
async fn wait_for_its_end(args: &UninstallArgs, client: &Client) -> Result<(), CallError> {
    let pods: Api<Pod> = api::namespaced(client, &args.namespace);
    let deadline = Instant::now() + Duration::from_secs(args.wait_seconds);
    let operators = ListParams::default().labels(&args.selector);
    loop {
        let left = api::call("list the pods of the operator", pods.list_metadata(&operators)).await?;
        if left.items.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            warn!(pods = left.items.len(), "the operator does not end and is not waited for any longer");
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Lets go of all sessions. One that changes meanwhile is looked at again, and one that cannot be let go keeps no other.
async fn release_sessions(client: &Client) -> Result<Released, CallError> {
    let mut total = Released::default();
    loop {
        let held = held_sessions(client).await?;
        let (before, mut changed, mut failure) = (total.sessions, false, None);
        let released = stream::iter(&held).map(|session| release_session(session, client)).buffer_unordered(AT_A_TIME);
        let released: Vec<_> = released.collect().await;
        for result in released {
            match result {
                Ok(pods) => {
                    total.sessions += 1;
                    total.pods += pods;
                }
                Err(error) if error.is_conflict() => changed = true,
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match failure {
            _ if held.is_empty() => return Ok(total),
            Some(error) if total.sessions == before && !changed => return Err(error),
            _ => {}
        }
    }
}

/// Lets go of `session`; how many pods were deleted.
async fn release_session(session: &PartialObjectMeta<UploadSession>, client: &Client) -> Result<usize, CallError> {
    let is_ending = session.metadata.deletion_timestamp.is_some();
    let pods = usize::from(is_ending && delete_pod(session, client).await?);
    release_object(&session.metadata, client).await?;
    Ok(pods)
}

async fn held_sessions(client: &Client) -> Result<Vec<PartialObjectMeta<UploadSession>>, CallError> {
    let sessions = api::list_metadata("list the sessions", &Api::all(client.clone()), ListParams::default()).await?;
    Ok(sessions.into_iter().filter(|session| is_held(&session.metadata)).collect())
}

/// Its pod would go on without a session, because it has no owner.
async fn delete_pod(session: &PartialObjectMeta<UploadSession>, client: &Client) -> Result<bool, CallError> {
    let pods: Api<Pod> = api::namespaced(client, &session.namespace().unwrap_or_default());
    let (name, uid) = (session.name_any(), session.uid().unwrap_or_default());
    let Some(pod) = api::get(&pods, &pod_name(&name)).await? else { return Ok(false) };
    let Slot::Ours(pod) = Slot::of(&UploaderPod::read(&pod), &name, &uid) else { return Ok(false) };
    match api::delete(&pods, &pod.name, &pod.uid, None).await {
        // A pod that may not be deleted must not keep the session, and its namespace, for ever.
        Err(error) if error.refusal().is_some() => {
            warn!(
                pod = pod.name,
                namespace = pod.namespace,
                error = &error as &dyn std::error::Error,
                "a pod stays: delete it by hand"
            );
            Ok(false)
        }
        deleted => deleted.map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use blobferry_crds::names;
    use serde_json::Value;

    use super::*;
    use crate::{
        fixtures,
        mock_api::{Cluster, status},
    };

    const SESSIONS: &str = "/apis/blobferry.io/v1alpha1/uploadsessions";

    fn listing(namespaces: &[&str]) -> Value {
        let item = |namespace: &&str| {
            let metadata = json!({"name": "s", "namespace": namespace, "uid": namespace, "finalizers": [names::FINALIZER]});
            json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata})
        };
        let items: Vec<_> = namespaces.iter().map(item).collect();
        json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": {}, "items": items})
    }

    fn object(namespace: &str) -> String {
        format!("PATCH /apis/blobferry.io/v1alpha1/namespaces/{namespace}/uploadsessions/s")
    }

    #[tokio::test]
    async fn session_that_cannot_be_let_go_keeps_no_other() {
        let cluster = Cluster::new(fixtures::settings());
        cluster.answers(&format!("GET {SESSIONS}"), 200, listing(&["a", "b"]));
        cluster.answers(&object("a"), 500, status(500, "InternalError", "failed calling webhook"));
        let released =
            json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": {"name": "s", "namespace": "b"}});
        cluster.answers(&object("b"), 200, released);
        let watched = async {
            let mut lines = Vec::new();
            while !lines.contains(&object("b")) {
                tokio::time::sleep(Duration::from_millis(1)).await;
                lines.extend(cluster.lines());
            }
            cluster.answers(&format!("GET {SESSIONS}"), 200, listing(&["a"]));
        };
        let (released, ()) = tokio::join!(release_sessions(&cluster.context.client), watched);
        assert!(released.is_err_and(|error| error.words().contains("failed calling webhook")));
        cluster.answers(&format!("GET {SESSIONS}"), 200, listing(&[]));
        assert_eq!(release_sessions(&cluster.context.client).await.unwrap(), Released::default());
    }
}
