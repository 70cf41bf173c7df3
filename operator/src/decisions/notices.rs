//! (pure) What people are told by events: what was done, and what is newly true. A change of reason is written once, and so told once; a
//! pod that is deleted once more, because the watch has not shown the first time yet, is one more occurrence of the same event.

use blobferry_crds::{
    Phase, UploadSession, UploadSessionStatus,
    conditions::{READY, shorten},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::events::{Event, EventType};

use super::{
    case::{Case, Outcome},
    diagnose::diagnose,
    end::End,
    mode::{Fate, Mode},
    plan::{Plan, StopReason},
    pod_state::Slot,
    reasons,
};

const NOTE_LIMIT: usize = 1000;
/// The action of an event that says what was found.
const REPORT: &str = "Report";

/// What was done in this pass.
pub fn of_action(case: &Case<'_>) -> Option<Event> {
    match (case.outcome, case.plan, &case.observed.slot) {
        (Outcome::Created(name, _), _, _) => {
            let mode = Mode::of(case.session);
            if mode != Mode::Watch {
                let Fate { reason, verb, .. } = mode.fate();
                let text = format!("Created the pod {name} to {verb} claimed files before the session goes.");
                return Some(event(EventType::Normal, reason, "CreatePod", &text));
            }
            let resumed = case.session.status.as_ref().is_some_and(|status| status.phase == Some(Phase::Suspended));
            let (reason, why) =
                if resumed { ("Resumed", " because the session is not suspended any more") } else { ("UploaderCreated", "") };
            Some(event(EventType::Normal, reason, "CreatePod", &format!("Created the pod {name}{why}.")))
        }
        (Outcome::Deleted, Plan::Stop(reason), Slot::Ours(pod)) => {
            let name = &pod.name;
            let (type_, reason, why) = match reason {
                StopReason::Suspended => (EventType::Normal, reasons::SUSPENDED, "the session is suspended".to_owned()),
                StopReason::Changed => (EventType::Normal, "UploaderReplaced", "the session was changed".to_owned()),
                StopReason::NewMode => {
                    (EventType::Normal, Mode::of(case.session).fate().reason, "the session is deleted".to_owned())
                }
                StopReason::Again => {
                    (EventType::Normal, "StartedAgain", "the session is to run again with its new runToken".to_owned())
                }
                StopReason::Located => (EventType::Normal, "UploaderReplaced", "its claim was bound just now".to_owned()),
                StopReason::Outdated => (EventType::Normal, "UploaderUpgraded", "the installation was upgraded".to_owned()),
                StopReason::Deleted => (EventType::Normal, "UploaderStopped", "the session is deleted".to_owned()),
                StopReason::Refused => (EventType::Warning, "UploaderStopped", "the session may not run".to_owned()),
                StopReason::Lost => {
                    let found = diagnose(pod, case.observed);
                    (EventType::Warning, "UploaderLost", format!("it had ended ({}: {})", found.reason, found.message))
                }
            };
            Some(event(type_, reason, "DeletePod", &format!("Deleted the pod {name} because {why}.")))
        }
        (Outcome::Deleted, Plan::RestoreRights, Slot::Ours(pod)) => {
            let text = format!(
                "Deleted the pod {} because its ServiceAccount was made anew after it: the API server takes its reports no more.",
                pod.name
            );
            Some(event(EventType::Warning, "UploaderReplaced", "DeletePod", &text))
        }
        (Outcome::Gone, Plan::LetGo(end), _) => of_end(end, case),
        (Outcome::Gone, Plan::Expire, _) => {
            let text = "Deleted the session because it was completed for as long as spec.ttlSecondsAfterFinished says.";
            Some(event(EventType::Normal, "Expired", "DeleteSession", text))
        }
        (Outcome::Deleted, Plan::ForceDelete, Slot::Ours(pod)) => {
            let node = pod.node.as_deref().unwrap_or_default();
            let text = format!("Removed the pod {} because its node {node} is gone or does not answer.", pod.name);
            Some(event(EventType::Warning, "UploaderForceDeleted", "DeletePod", &text))
        }
        _ => None,
    }
}

/// That a session cannot be read, in these words.
pub fn of_unreadable(words: &str) -> Event {
    event(EventType::Warning, reasons::UNREADABLE, "Read", words)
}

/// That the API server, in these words, does not let the operator remove what a deleted session has left.
pub fn of_rest(words: &str) -> Event {
    let text = format!(
        "The session goes, and what it has left stays until it can be removed, its uploader too: the operator tries again. It \
         {words}"
    );
    event(EventType::Warning, "CleanupRefused", "LetGo", &text)
}

/// How a deleted session ended, unless there was nothing to do.
fn of_end(end: &End, case: &Case<'_>) -> Option<Event> {
    let given_up = |why: &str| {
        let text = format!("Claimed files stay on the share for a later session of the same sessionName: {why}");
        Some(event(EventType::Warning, "DrainGivenUp", "LetGo", &text))
    };
    match end {
        End::Nothing => None,
        End::Done(words) => Some(event(EventType::Normal, Mode::of(case.session).fate().told, "LetGo", words)),
        End::TimedOut => given_up("spec.drainTimeout is over."),
        End::NamespaceEnding => given_up("the namespace is being deleted."),
        End::Refused(why) => given_up(why),
        End::Blocked(why) => given_up(&format!("the last pod could not be made. {why}")),
    }
}

/// What is newly true, once `status` is written: a session that works again, or one that does not and why.
pub fn of_change(session: &UploadSession, warned: bool, status: &UploadSessionStatus) -> Option<Event> {
    let old = session.status.as_ref().and_then(|status| ready(&status.conditions));
    let new = ready(&status.conditions)?;
    if old.is_some_and(|old| (&old.status, &old.reason) == (&new.status, &new.reason)) {
        return None;
    }
    match new.status.as_str() {
        "True" if new.reason == reasons::SUSPENDED || (reasons::is_usual(&new.reason) && !is_awaited(warned, old)) => None,
        "True" => Some(event(EventType::Normal, &new.reason, REPORT, &new.message)),
        _ if reasons::is_passage(&new.reason) => None,
        _ => Some(event(EventType::Warning, &new.reason, REPORT, &new.message)),
    }
}

/// Whether people were `warned`, so that they wait to hear that all is well. A start that goes well was told when its pod was made.
fn is_awaited(warned: bool, old: Option<&Condition>) -> bool {
    warned || old.is_some_and(|old| old.status != "True" && !reasons::is_passage(&old.reason))
}

/// Whether `event` says that all is well.
pub fn is_relief(event: &Event) -> bool {
    event.type_ == EventType::Normal && event.action == REPORT
}

fn ready(conditions: &[Condition]) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == READY)
}

fn event(type_: EventType, reason: &str, action: &str, note: &str) -> Event {
    Event { type_, reason: reason.into(), note: Some(shorten(note, NOTE_LIMIT)), action: action.into(), secondary: None }
}
