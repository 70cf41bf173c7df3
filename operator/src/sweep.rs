//! (I/O) Removes what no garbage collector removes: volumes of sessions that are gone, their claims and pods if they have no owner, their pods
//! on nodes that are lost, and the rights of namespaces without sessions.
//!
//! It is level-triggered: a pass compares what exists with what is wanted. Everything is looked at once at the start; later, what
//! deleted sessions leave behind, and what arrives after them. What fails keeps nothing else from being swept, and stays dirty for
//! the next pass.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use blobferry_crds::{UploadSession, names};
use k8s_openapi::api::{
    core::v1::{PersistentVolume, Pod, ServiceAccount},
    rbac::v1::RoleBinding,
};
use kube::{Api, ResourceExt, api::ListParams, core::PartialObjectMeta};
use tracing::{info, warn};

use crate::{
    api::{self, CallError},
    context::Context,
    decisions::{
        build::is_managed,
        observed::NodeHealth,
        plan::is_overdue,
        pod_state::{Origin, UploaderPod},
    },
    reconcile::{
        apply::{remove_claim, remove_rights, update_rights},
        observe::node_health,
    },
    state::leftovers::Dirty,
};

/// Until what could not be finished is looked at again, at first and at most: somebody may not let it be removed for days.
const RETRY: Duration = Duration::from_secs(30);
const LONGEST_RETRY: Duration = Duration::from_mins(5);
/// Between two looks for pods that should be gone: nothing but the time tells of them. It costs no call while there are none.
const LOOK: Duration = Duration::from_mins(1);

/// What a pass could not finish.
#[derive(Debug, Default)]
struct Left {
    dirty: Dirty,
    /// What failed, and how.
    failures: BTreeMap<String, CallError>,
}

impl Left {
    /// The error of `result`, if it is one, is what failed with `what`.
    fn note<T>(&mut self, what: impl Into<String>, result: Result<T, CallError>) -> Option<T> {
        result.map_err(|error| self.failures.insert(what.into(), error)).ok()
    }

    /// The same of what has to be looked at with all volumes and pods again.
    fn note_child(&mut self, what: impl Into<String>, result: Result<(), CallError>) {
        self.dirty.children |= self.note(what, result).is_none();
    }
}

/// Sweeps whenever something is marked and now and then, for ever.
pub async fn run(context: &Context) {
    let mut pause = LOOK;
    loop {
        context.leftovers.marked(pause).await;
        pause = match pass(context).await {
            true => LOOK,
            false if pause == LOOK => RETRY,
            false => (2 * pause).min(LONGEST_RETRY),
        };
    }
}

/// Looks at what is marked; what could not be finished is marked again, and makes the answer false.
pub async fn pass(context: &Context) -> bool {
    let Left { dirty, failures } = sweep(context.leftovers.take(), context).await;
    let news = context.leftovers.fails(failures.keys().cloned().collect());
    for (what, error) in failures.iter().filter(|(what, _)| news.contains(*what)) {
        warn!(error = error as &dyn std::error::Error, what, "the sweep fails, and is tried again until it does not");
    }
    let is_done = failures.is_empty() && dirty == Dirty::default();
    context.leftovers.give_back(dirty);
    is_done
}

async fn sweep(dirty: Dirty, context: &Context) -> Left {
    let mut left = Left::default();
    sweep_lost_pods(&mut left, context).await;
    let mut namespaces = dirty.namespaces;
    if dirty.all_namespaces {
        let found = left.note("all namespaces", namespaces_with_rights(context).await);
        left.dirty.all_namespaces = found.is_none();
        namespaces.extend(found.unwrap_or_default());
    }
    for namespace in namespaces {
        if left.note(format!("the namespace {namespace}"), sweep_rights(&namespace, context).await) != Some(true) {
            left.dirty.namespaces.insert(namespace);
        }
    }
    if dirty.children {
        sweep_pods(&mut left, context).await;
        sweep_volumes(&mut left, context).await;
    }
    left
}

async fn namespaces_with_rights(context: &Context) -> Result<BTreeSet<String>, CallError> {
    let accounts: Api<ServiceAccount> = Api::all(context.client.clone());
    let accounts = api::list_metadata("list the accounts of uploaders", &accounts, ours()).await?;
    let bindings: Api<RoleBinding> = Api::all(context.client.clone());
    let bindings = api::list_metadata("list the bindings of uploaders", &bindings, ours()).await?;
    let accounts = accounts.iter().map(|account| &account.metadata);
    let all = accounts.chain(bindings.iter().map(|binding| &binding.metadata));
    Ok(all.filter(|meta| meta.name.as_deref() == Some(names::UPLOADER_ACCOUNT)).filter_map(|meta| meta.namespace.clone()).collect())
}

/// False if it has to be looked at again.
async fn sweep_rights(namespace: &str, context: &Context) -> Result<bool, CallError> {
    if context.sessions.exist_in(namespace) {
        return update_rights(namespace, context).await;
    }
    // The watch may lag behind the creation of a session by another operator.
    let sessions: Api<UploadSession> = api::namespaced(&context.client, namespace);
    let live = api::call("list the sessions of a namespace", sessions.list_metadata(&ListParams::default().limit(1))).await?;
    if live.items.is_empty() {
        info!(namespace, "removing the account and binding of a namespace without sessions");
        return remove_rights(namespace, context).await;
    }
    Ok(true)
}

/// Pods without an owner are left when somebody has taken our finalizer away, or the operator was stopped right before it could.
async fn sweep_pods(left: &mut Left, context: &Context) {
    let sessions = context.sessions.uids();
    for pod in context.pods.shown(|pod| pod.terminating.is_none() && pod.origin == Origin::Unowned) {
        if !sessions.contains(&pod.session_uid) {
            left.note_child(what(&pod), remove_orphan(&pod, context).await);
        }
    }
}

async fn remove_orphan(pod: &UploaderPod, context: &Context) -> Result<(), CallError> {
    if lives(context, &pod.namespace, &pod.session, &pod.session_uid).await? {
        return Ok(());
    }
    info!(namespace = pod.namespace, pod = pod.name, "removing the pod of a session that is gone");
    let pods: Api<Pod> = api::namespaced(&context.client, &pod.namespace);
    api::delete(&pods, &pod.name, &pod.uid, None).await
}

/// Nobody but its node ends a pod, and a node that is lost does not. A session's pass sees to its own pod; this to those of sessions that
/// are gone, which keep their names and their folders. Every pass looks at all of them.
async fn sweep_lost_pods(left: &mut Left, context: &Context) {
    let now = (context.clock)();
    let is_late = |pod: &UploaderPod| {
        pod.origin != Origin::Foreign && pod.held_by.is_none() && pod.terminating.is_some_and(|due| is_overdue(due, now))
    };
    for pod in context.pods.shown(is_late) {
        if context.sessions.see_to_pod(&pod.session_place(), &pod.session_uid)
            || node_health(&pod, context).await != Some(NodeHealth::Lost)
        {
            continue;
        }
        info!(
            namespace = pod.namespace,
            pod = pod.name,
            node = pod.node,
            "removing the pod of a session that is gone from a lost node"
        );
        let pods: Api<Pod> = api::namespaced(&context.client, &pod.namespace);
        left.note(what(&pod), api::delete(&pods, &pod.name, &pod.uid, Some(0)).await);
    }
}

fn what(pod: &UploaderPod) -> String {
    format!("the pod {} of the namespace {}", pod.name, pod.namespace)
}

/// Volumes are listed before sessions are asked for, so that no volume is younger than what is known of sessions.
async fn sweep_volumes(left: &mut Left, context: &Context) {
    let volumes: Api<PersistentVolume> = Api::all(context.client.clone());
    let Some(found) = left.note("all volumes", api::list_metadata("list the volumes of sessions", &volumes, ours()).await) else {
        left.dirty.children = true;
        return;
    };
    let sessions = context.sessions.uids();
    for volume in found.iter().filter(|volume| is_managed(&volume.metadata) && volume.metadata.deletion_timestamp.is_none()) {
        let is_known = volume.labels().get(names::SESSION_UID_LABEL).is_some_and(|uid| sessions.contains(uid));
        if !is_known {
            left.note_child(format!("the volume {}", volume.name_any()), remove_volume(&volumes, volume, context).await);
        }
    }
}

async fn remove_volume(
    volumes: &Api<PersistentVolume>,
    volume: &PartialObjectMeta<PersistentVolume>,
    context: &Context,
) -> Result<(), CallError> {
    let label = |name: &str| volume.labels().get(name).map(String::as_str);
    let (Some(uid), Some(namespace)) = (label(names::SESSION_UID_LABEL), label(names::SESSION_NAMESPACE_LABEL)) else {
        return Ok(());
    };
    if lives(context, namespace, label(names::SESSION_LABEL).unwrap_or_default(), uid).await? {
        return Ok(());
    }
    info!(volume = volume.name_any(), "removing the volume of a session that is gone");
    remove_claim(namespace, uid, context).await?;
    api::delete(volumes, &volume.name_any(), &volume.uid().unwrap_or_default(), None).await
}

/// Asks the API server itself, because the watch may lag behind another operator.
async fn lives(context: &Context, namespace: &str, name: &str, uid: &str) -> Result<bool, CallError> {
    let sessions: Api<UploadSession> = api::namespaced(&context.client, namespace);
    let found = api::call(format!("read session {name}"), sessions.get_metadata_opt(name)).await?;
    Ok(found.is_some_and(|session| session.metadata.uid.as_deref() == Some(uid)))
}

fn ours() -> ListParams {
    ListParams::default().labels(&format!("{}={}", names::MANAGED_BY_LABEL, names::OPERATOR))
}
