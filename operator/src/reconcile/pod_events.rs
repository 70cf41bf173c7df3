//! (I/O in) What only the events of a pod tell, which are asked for when there may be something in them.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::{Api, api::ListParams};

use crate::{
    api::{self, CallError},
    backoff,
    context::Context,
    decisions::{
        diagnose::{LOOK_AFTER, Subject},
        observed::Look,
        pod_state::UploaderPod,
    },
    report,
};

/// Between the kubelet's word that it kills a container and the end of that: its grace, and a runtime that is busy, or a process that
/// the kernel does not let go.
const LONGEST_KILL: Duration = Duration::from_mins(5);
const WARNING: &str = "Warning";

/// Lists the events of `pod` that are worth it, now and then.
pub async fn look(
    subject: Option<(Subject, Timestamp)>,
    (uid, namespace): (&str, &str),
    pod: &UploaderPod,
    context: &Context,
    now: Timestamp,
) -> Option<Box<Look>> {
    let Some((subject, since)) = subject else {
        context.memory.update(uid, |it| it.look = None);
        return None;
    };
    let last = context.memory.recall(uid).look.filter(|look| look.pod_uid == pod.uid && look.since == since);
    let due = last.as_ref().map_or(since, |look| look.due);
    if now < due || pod.terminating.is_some() {
        return last;
    }
    let count = last.as_ref().map_or(1, |look| look.count.saturating_add(1));
    let wait = LOOK_AFTER.max(backoff::delay(count.saturating_add(4), 0.0));
    let found = match subject {
        Subject::Start => newest(namespace, &pod.uid, context).await,
        Subject::Kill => killing(namespace, &pod.uid, since, context).await,
    };
    let warning = match (report::seen(found).flatten(), subject) {
        // What went well since then, like a mount, ends what did not.
        (Some(event), Subject::Start) if event.type_.as_deref() != Some(WARNING) => None,
        (Some(event), _) => Some(reason_and_message(event)),
        (None, _) => last.and_then(|look| look.warning),
    };
    let look = Box::new(Look { pod_uid: pod.uid.clone(), since, count, due: now + wait, warning });
    context.memory.update(uid, |it| it.look = Some(look.clone()));
    Some(look)
}

/// What its node said last of a pod: the scheduler's words before are no cause any more. Of two in one second a warning is the last.
async fn newest(namespace: &str, pod_uid: &str, context: &Context) -> Result<Option<Event>, CallError> {
    let all = events(namespace, pod_uid, "reason!=FailedScheduling", context).await?;
    Ok(all.into_iter().max_by_key(|event| (when(event), event.type_.as_deref() == Some(WARNING))))
}

/// The kubelet's word, if it has one, on a kill after which the container ended at `finished`. It says so before it does it.
async fn killing(namespace: &str, pod_uid: &str, finished: Timestamp, context: &Context) -> Result<Option<Event>, CallError> {
    let newest = events(namespace, pod_uid, "reason=Killing", context).await?.into_iter().max_by_key(when);
    let is_of_this_kill = |event: &Event| when(event).is_some_and(|told| told + LONGEST_KILL >= finished);
    Ok(newest.filter(is_of_this_kill))
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
