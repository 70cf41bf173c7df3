//! (I/O in) What is there: the pod from the watch, and on demand its node and its events.

use blobferry_crds::{UploadSession, names};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Node};
use kube::{Api, ResourceExt, api::ListParams};
use tracing::warn;

use super::{
    assess::{Hearing, hearing, patience},
    build::pod_name,
    completion::{Completed, completed},
    ending::{self, Ending},
    plan::{NodeHealth, is_overdue},
    pod_state::{Slot, Stage, UploaderPod},
};
use crate::{
    api::{self, CallError},
    backoff::{self, Attempts},
    context::Context,
    heard::Report,
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
    /// The last look at the events of a pod that does not start, or whose uploader was killed.
    pub look: Option<Look>,
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
/// Between the kubelet's word that it kills a container and the end of that: its grace, and a runtime that is busy.
const LONGEST_KILL: std::time::Duration = std::time::Duration::from_mins(1);

/// Looks at everything that concerns `session`. A look on demand that fails is logged and shows nothing: it must not keep the rest of
/// the pass from being done.
pub async fn observe(session: &UploadSession, context: &Context, now: Timestamp) -> Observed {
    let (namespace, name) = (session.namespace().unwrap_or_default(), session.name_any());
    let uid = session.uid().unwrap_or_default();
    let pod = context.pods.find(&namespace, &pod_name(&name), &uid, now);
    let slot = pod.map_or(Slot::Empty, |pod| Slot::of(&pod, &name, &uid));
    let mut observed = Observed {
        slot: Slot::Empty,
        completed: None,
        ending: None,
        creations: Attempts::default(),
        node: None,
        look: None,
        last_report: last_report(session).map(|told| context.heard.report(&uid, told)),
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
    let recollection = context.memory.recall(&uid);
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
    let subject = worth_a_look(pod, hearing(pod, observed, now));
    observed.look = look(subject, (uid, namespace), pod, context, now).await;
    let overdue = pod.terminating.is_some_and(|deadline| is_overdue(deadline, now));
    let silent = !pod.ready && hearing(pod, observed, now) == Hearing::Silent;
    let doubtful = pod.terminating.is_none() && pod.runs() && (pod.forsaken || silent);
    if overdue || doubtful {
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

/// What only the events of a pod tell.
#[derive(Clone, Copy)]
enum Subject {
    /// Why its container is not made for a while, like the text of a mount that fails.
    Start,
    /// That the kubelet killed its container, which had not ended when its health check failed.
    Kill,
}

/// What the events of `pod` may tell, and since when.
fn worth_a_look(pod: &UploaderPod, hearing: Hearing) -> Option<(Subject, Timestamp)> {
    match (&pod.stage, &pod.last_exit) {
        (Stage::Creating { since }, _) => since.map(|since| (Subject::Start, since + LOOK_AFTER)),
        (Stage::Waiting(..) | Stage::Running { .. }, Some(exit)) if matches!(hearing, Hearing::Absent | Hearing::NotYet) => {
            exit.finished.filter(|_| exit.is_unexplained_kill()).map(|finished| (Subject::Kill, finished))
        }
        _ => None,
    }
}

/// Lists the events of `pod` that are worth it, now and then.
async fn look(
    subject: Option<(Subject, Timestamp)>,
    (uid, namespace): (&str, &str),
    pod: &UploaderPod,
    context: &Context,
    now: Timestamp,
) -> Option<Look> {
    let Some((subject, since)) = subject else {
        context.memory.update(uid, |it| it.look = None);
        return None;
    };
    let last = context.memory.recall(uid).look.filter(|look| look.pod_uid == pod.uid && look.due > since);
    let due = last.as_ref().map_or(since, |look| look.due);
    if now < due || pod.terminating.is_some() {
        return last;
    }
    let count = last.as_ref().map_or(1, |look| look.count.saturating_add(1));
    let wait = LOOK_AFTER.max(backoff::delay(count.saturating_add(4), 0.0));
    let found = match subject {
        Subject::Start => newest_warning(namespace, &pod.uid, context).await,
        Subject::Kill => killing(namespace, &pod.uid, since, context).await,
    };
    let warning = seen(found).flatten().or_else(|| last.and_then(|look| look.warning));
    let look = Look { pod_uid: pod.uid.clone(), count, due: now + wait, warning };
    context.memory.update(uid, |it| it.look = Some(look.clone()));
    Some(look)
}

/// What keeps a pod that has a node from running: the scheduler's words before are no cause any more.
async fn newest_warning(namespace: &str, pod_uid: &str, context: &Context) -> Result<Option<(String, String)>, CallError> {
    let newest = events(namespace, pod_uid, "type=Warning,reason!=FailedScheduling", context).await?.into_iter().max_by_key(when);
    Ok(newest.map(reason_and_message))
}

/// The kubelet's word, if it has one, on a kill after which the container ended at `finished`. It says so before it does it.
async fn killing(
    namespace: &str,
    pod_uid: &str,
    finished: Timestamp,
    context: &Context,
) -> Result<Option<(String, String)>, CallError> {
    let newest = events(namespace, pod_uid, "reason=Killing", context).await?.into_iter().max_by_key(when);
    let is_of_this_kill = |event: &Event| when(event).is_some_and(|told| told + LONGEST_KILL >= finished);
    Ok(newest.filter(is_of_this_kill).map(reason_and_message))
}

async fn events(namespace: &str, pod_uid: &str, which: &str, context: &Context) -> Result<Vec<Event>, CallError> {
    let of_pod = ListParams::default().fields(&format!("involvedObject.uid={pod_uid},{which}")).limit(50);
    let events: Api<Event> = api::namespaced(&context.client, namespace);
    Ok(api::call(format!("list the events of pod {pod_uid}"), events.list(&of_pod)).await?.items)
}

/// When `event` was seen last.
fn when(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().and_then(|series| Some(series.last_observed_time.as_ref()?.0));
    series.max(event.last_timestamp.as_ref().map(|time| time.0)).max(event.event_time.as_ref().map(|time| time.0))
}

fn reason_and_message(event: Event) -> (String, String) {
    (event.reason.unwrap_or_default(), event.message.unwrap_or_default())
}
