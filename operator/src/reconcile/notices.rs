//! (pure) What people are told by events: what was done, and what is newly true. Nothing is told twice, because doing happens once
//! and a change of reason is written once.

use blobferry_crds::{
    Phase, UploadSessionStatus,
    conditions::{READY, shorten},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::events::{Event, EventType};

use super::{
    apply::Outcome,
    assess::Case,
    diagnose::diagnose,
    plan::{Plan, StopReason},
    pod_state::Slot,
};

const NOTE_LIMIT: usize = 1000;

/// What was done in this pass.
pub fn of_action(case: &Case<'_>) -> Option<Event> {
    match (case.outcome, case.plan, &case.observed.slot) {
        (Outcome::Created(name, _), _, _) => {
            let resumed = case.session.status.as_ref().is_some_and(|status| status.phase == Some(Phase::Suspended));
            let (reason, why) =
                if resumed { ("Resumed", " because the session is not suspended any more") } else { ("UploaderCreated", "") };
            Some(event(EventType::Normal, reason, "CreatePod", &format!("Created the pod {name}{why}.")))
        }
        (Outcome::Deleted, Plan::Stop(reason), Slot::Ours(pod)) => {
            let name = &pod.name;
            let (type_, reason, why) = match reason {
                StopReason::Suspended => (EventType::Normal, "Suspended", "the session is suspended".to_owned()),
                StopReason::Changed => (EventType::Normal, "UploaderReplaced", "the session was changed".to_owned()),
                StopReason::Refused => (EventType::Warning, "UploaderStopped", "the session may not run".to_owned()),
                StopReason::Lost => {
                    let found = diagnose(pod, case.observed);
                    (EventType::Warning, "UploaderLost", format!("it had ended ({}: {})", found.reason, found.message))
                }
            };
            Some(event(type_, reason, "DeletePod", &format!("Deleted the pod {name} because {why}.")))
        }
        (Outcome::Deleted, Plan::ForceDelete, Slot::Ours(pod)) => {
            let node = pod.node.as_deref().unwrap_or_default();
            let text = format!("Removed the pod {} because its node {node} is gone or does not answer.", pod.name);
            Some(event(EventType::Warning, "UploaderForceDeleted", "DeletePod", &text))
        }
        _ => None,
    }
}

/// What is newly true, once `status` is written: a session that works again, or one that does not and why.
pub fn of_change(case: &Case<'_>, status: &UploadSessionStatus) -> Option<Event> {
    let old = case.session.status.as_ref().and_then(|status| ready(&status.conditions));
    let new = ready(&status.conditions)?;
    if old.is_some_and(|old| (&old.status, &old.reason) == (&new.status, &new.reason)) {
        return None;
    }
    match new.status.as_str() {
        "True" if new.reason == "Running" => Some(event(EventType::Normal, "Running", "Report", &new.message)),
        "True" => None,
        _ if is_passage(&new.reason) => None,
        _ => Some(event(EventType::Warning, &new.reason, "Report", &new.message)),
    }
}

/// Reasons that every healthy session passes through, or that an action has already told.
fn is_passage(reason: &str) -> bool {
    const PASSAGES: [&str; 11] = [
        "Starting",
        "Scheduling",
        "ContainerCreating",
        "UploaderNotReady",
        "Suspending",
        "Replacing",
        "Stopping",
        "Restarting",
        "PreviousPodEnding",
        "NodeLost",
        "Waiting",
    ];
    PASSAGES.contains(&reason)
}

fn ready(conditions: &[Condition]) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == READY)
}

fn event(type_: EventType, reason: &str, action: &str, note: &str) -> Event {
    Event { type_, reason: reason.into(), note: Some(shorten(note, NOTE_LIMIT)), action: action.into(), secondary: None }
}
