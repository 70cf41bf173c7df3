//! (I/O in) What is there: the pod from the watch, and on demand its node and its events.

use blobferry_crds::{UploadSession, names};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Node};
use kube::{Api, ResourceExt, api::ListParams};
use tracing::warn;

use super::{
    build::pod_name,
    completion::{Completed, completed},
    ending::{self, Ending},
    hearing::{Hearing, Report, hearing, patience},
    plan::NodeHealth,
    pod_state::{Slot, Stage, UploaderPod},
};
use crate::{
    api::{self, CallError},
    backoff::{self, Attempts},
    context::Context,
    memory::{Look, Run},
    rollout::Upgrade,
};

/// What is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// Who has the name of the session's pod.
    pub slot: Slot,
    /// How the session came to its end, if it has.
    pub completed: Option<Completed>,
    /// What is known of the session's ending, if it is deleted.
    pub ending: Option<Ending>,
    /// Pods that were created so far.
    pub creations: Attempts,
    /// Health of the node of a pod that does not end.
    pub node: Option<NodeHealth>,
    /// The last look at the events of a pod that does not start.
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

/// How long a pod may be made before its events are worth a look: pulling and mounting usually take less.
pub const LOOK_AFTER: std::time::Duration = std::time::Duration::from_secs(20);

/// Looks at everything that concerns `session`. A look on demand that fails is logged and shows nothing: it must not keep the rest of
/// the pass from being done.
pub async fn observe(session: &UploadSession, context: &Context, now: Timestamp) -> Observed {
    let (namespace, name) = (session.namespace().unwrap_or_default(), session.name_any());
    let uid = session.uid().unwrap_or_default();
    let pod = context.pods.find(&namespace, &pod_name(&name), &uid, now);
    let slot = pod.map_or(Slot::Empty, |pod| Slot::of(&pod, &name, &uid));
    let recollection = context.memory.recall(&uid);
    let mut observed = Observed {
        slot: Slot::Empty,
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
    observed.ending = ending::of(session, &slot, recollection.blocked_since);
    observed.completed = completed(session, &slot).filter(|_| observed.ending.is_none());
    observed.creations = recollection.creations;
    (observed.warned, observed.step_written) = (recollection.warned, recollection.step_written);
    observed.rights_due = recollection.rights_due.is_none_or(|due| due <= now);
    Observed { slot, ..observed }
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
    observed.look = look(uid, namespace, pod, context, now).await;
    let late = pod.terminating.is_some_and(|deadline| deadline < now);
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

fn seen<T>(result: Result<T, CallError>) -> Option<T> {
    result.inspect_err(|error| warn!(error = error as &dyn std::error::Error, "a look on demand failed")).ok()
}

/// Lists the warnings of a pod whose container is not made for a while: only there is the text of a mount that fails.
async fn look(uid: &str, namespace: &str, pod: &UploaderPod, context: &Context, now: Timestamp) -> Option<Box<Look>> {
    let Stage::Creating { since: Some(since) } = pod.stage else {
        context.memory.update(uid, |it| it.look = None);
        return None;
    };
    let last = context.memory.recall(uid).look.filter(|look| look.pod_uid == pod.uid);
    let due = last.as_ref().map_or(since + LOOK_AFTER, |look| look.due);
    if now < due || pod.terminating.is_some() {
        return last;
    }
    let count = last.as_ref().map_or(1, |look| look.count.saturating_add(1));
    let wait = LOOK_AFTER.max(backoff::delay(count.saturating_add(4), 0.0));
    let warning = seen(newest_warning(namespace, &pod.uid, context).await).flatten().or_else(|| last.and_then(|look| look.warning));
    let look = Box::new(Look { pod_uid: pod.uid.clone(), count, due: now + wait, warning });
    context.memory.update(uid, |it| it.look = Some(look.clone()));
    Some(look)
}

/// What keeps a pod that has a node from running: the scheduler's words before are no cause any more.
async fn newest_warning(namespace: &str, pod_uid: &str, context: &Context) -> Result<Option<(String, String)>, CallError> {
    let fields = format!("involvedObject.uid={pod_uid},type=Warning,reason!=FailedScheduling");
    let of_pod = ListParams::default().fields(&fields).limit(50);
    let events: Api<Event> = api::namespaced(&context.client, namespace);
    let events = api::call(format!("list the events of pod {pod_uid}"), events.list(&of_pod)).await?;
    let when = |event: &Event| {
        let series = event.series.as_ref().and_then(|series| Some(series.last_observed_time.as_ref()?.0));
        series.max(event.last_timestamp.as_ref().map(|time| time.0)).max(event.event_time.as_ref().map(|time| time.0))
    };
    let newest = events.items.into_iter().max_by_key(when);
    Ok(newest.map(|event| (event.reason.unwrap_or_default(), event.message.unwrap_or_default())))
}
