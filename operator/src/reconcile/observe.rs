//! (I/O in) What is there: the pod from the watch, and on demand its node and its events.

use blobferry_crds::{UploadSession, names};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, ResourceExt};
use tracing::warn;

use super::{
    build::pod_name,
    completion::{Completed, completed},
    diagnose::worth_a_look,
    ending::{self, Ending},
    hearing::{Hearing, Report, hearing, patience},
    plan::NodeHealth,
    pod_events,
    pod_state::{Slot, UploaderPod},
};
use crate::{
    api::{self, CallError},
    backoff::Attempts,
    context::Context,
    memory::{Look, Run},
    rollout::Upgrade,
};

/// What is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// Who has the name of the session's pod.
    pub slot: Slot,
    /// Whether the spec was changed since a pass wrote the status last.
    pub is_new_spec: bool,
    /// How the session came to its end, if it has.
    pub completed: Option<Completed>,
    /// What is known of the session's ending, if it is deleted.
    pub ending: Option<Ending>,
    /// Pods that were created so far.
    pub creations: Attempts,
    /// Health of the node of a pod that does not end.
    pub node: Option<NodeHealth>,
    /// The last look at the events of a pod that does not start, or whose uploader was killed.
    pub look: Option<Box<Look>>,
    /// The last report of the session's uploaders.
    pub last_report: Option<Report>,
    /// The run of the uploader's container.
    pub run: Option<Run>,
    /// How old the last report may be.
    pub patience: std::time::Duration,
    /// Sessions in the cluster.
    pub sessions: usize,
    /// Whether the rights of a silent uploader may be looked at again.
    pub rights_due: bool,
    /// Whether people were warned, and not yet told that all is well again.
    pub warned: bool,
    /// When a step of the start was written to the status last.
    pub step_written: Option<Timestamp>,
    /// What the pod has to do with a new image.
    pub upgrade: Upgrade,
}

/// Looks at everything that concerns `session`. A look on demand that fails is logged and shows nothing: it must not keep the rest of
/// the pass from being done.
pub async fn observe(session: &UploadSession, context: &Context, now: Timestamp) -> Observed {
    let (namespace, name) = (session.namespace().unwrap_or_default(), session.name_any());
    let uid = session.uid().unwrap_or_default();
    let pod = context.pods.find(&namespace, &pod_name(&name), &uid, now);
    let slot = pod.map_or(Slot::Empty, |pod| Slot::of(&pod, &name, &uid));
    let is_new_spec = is_new_spec(session);
    if is_new_spec {
        // What a person has changed, or a deletion asks for, is tried at once.
        context.memory.update(&uid, |it| it.creations = Attempts::default());
    }
    let recollection = context.memory.recall(&uid);
    let mut observed = Observed {
        slot: Slot::Empty,
        is_new_spec,
        completed: None,
        ending: None,
        creations: Attempts::default(),
        node: None,
        look: None,
        last_report: last_report(session).map(|told| Report::taken(told, recollection.report)),
        run: None,
        patience: patience(session),
        sessions: context.sessions.count(),
        rights_due: false,
        warned: false,
        step_written: None,
        upgrade: Upgrade::None,
    };
    if let Slot::Ours(pod) = &slot {
        observe_pod(pod, &mut observed, (&uid, &namespace), context, now).await;
    }
    observed.ending = ending::of(session, &slot, recollection.blocked);
    observed.completed = completed(session, &slot).filter(|_| observed.ending.is_none());
    observed.creations = recollection.creations;
    (observed.warned, observed.step_written) = (recollection.warned, recollection.step_written);
    observed.rights_due = recollection.rights_due.is_none_or(|due| due <= now);
    Observed { slot, ..observed }
}

fn is_new_spec(session: &UploadSession) -> bool {
    let observed = session.status.as_ref().and_then(|status| status.observed_generation);
    observed.zip(session.metadata.generation).is_some_and(|(observed, generation)| observed < generation)
}

/// What matters only where there is a pod.
async fn observe_pod(
    pod: &UploaderPod,
    observed: &mut Observed,
    (uid, namespace): (&str, &str),
    context: &Context,
    now: Timestamp,
) {
    if pod.runs() {
        observed.run = Some(remember_run(uid, pod, context, now));
    }
    observed.upgrade = context.rollout.upgrade(pod, &context.settings.uploader_image, context.settings.update, now);
    let subject = worth_a_look(pod, hearing(pod, observed, now));
    observed.look = pod_events::look(subject, (uid, namespace), pod, context, now).await;
    let late = pod.held_by.is_none() && pod.terminating.is_some_and(|deadline| deadline < now);
    let silent = !pod.ready && hearing(pod, observed, now) == Hearing::Silent;
    let doubtful = pod.terminating.is_none() && pod.runs() && (pod.forsaken || silent);
    if late || doubtful {
        observed.node = node_health(pod, context).await;
    }
}

fn remember_run(uid: &str, pod: &UploaderPod, context: &Context, now: Timestamp) -> Run {
    let run = Run::seen(context.memory.recall(uid).run, &pod.uid, pod.restarts, now);
    context.memory.update(uid, |it| it.run = Some(run.clone()));
    run
}

/// When the API server last took a change from the uploader; it costs no call and is the API server's clock.
pub(crate) fn last_report(session: &UploadSession) -> Option<Timestamp> {
    let fields = session.metadata.managed_fields.iter().flatten();
    fields
        .filter(|entry| entry.manager.as_deref() == Some(names::UPLOADER_MANAGER))
        .filter_map(|entry| Some(entry.time.as_ref()?.0))
        .max()
}

/// The node is asked about only when something is wrong that it can explain: its pod does not end, or is silent.
pub(crate) async fn node_health(pod: &UploaderPod, context: &Context) -> Option<NodeHealth> {
    let node = pod.node.as_ref()?;
    let found: Option<Node> = seen(api::get(&Api::all(context.client.clone()), node).await)?;
    let ready = found
        .and_then(|node| node.status?.conditions)
        .is_some_and(|all| all.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"));
    Some(if ready { NodeHealth::Ready } else { NodeHealth::Lost })
}

pub(crate) fn seen<T>(result: Result<T, CallError>) -> Option<T> {
    result.inspect_err(|error| warn!(error = error as &dyn std::error::Error, "a look on demand failed")).ok()
}
