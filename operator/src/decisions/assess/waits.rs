//! (pure) What is true of a session that waits for something else before it gets a pod.

use std::time::Duration;

use blobferry_crds::conditions::Verdict;
use jiff::Timestamp;

use super::{Assessment, Case, STUCK_LOOK, Trouble, caused, lasting_if, passing, troubled, until};
use crate::decisions::{
    area::Rival,
    diagnose::{diagnose, disrupted},
    observed::NodeHealth,
    plan::{STUCK_AFTER, Wait, is_overdue},
    pod_state::{Slot, UploaderPod},
    reasons,
};

const RIVAL_LOOK: Duration = Duration::from_secs(10);

/// What is true of the session of `case`, which waits for this.
pub(super) fn waiting(case: &Case<'_>, wait: &Wait, slot: &Slot) -> Assessment {
    let pause = case.observed.creations.wait(case.now);
    match (wait, slot) {
        (Wait::Terminating, Slot::Ours(pod)) if case.observed.node == Some(NodeHealth::Lost) => Assessment {
            ready: Verdict::Unknown,
            ..passing(reasons::NODE_NOT_READY, &cannot_end(pod, case.session.spec.suspend)).after(until_late(pod, case.now))
        },
        (Wait::Terminating, Slot::Ours(pod)) => {
            let disruption = pod.disruption.filter(|_| !case.session.spec.suspend);
            disruption
                .map_or_else(
                    || passing(reasons::STOPPING, &format!("The pod {} is ending.", pod.name)),
                    |it| caused(&disrupted(it, pod)),
                )
                .after(until_late(pod, case.now))
        }
        (Wait::Stuck, Slot::Ours(pod)) => {
            let node = pod.node.as_deref().unwrap_or_default();
            let message = format!(
                "The pod {} does not end although its node {node} is well: look at that node (a mount that hangs?).",
                pod.name
            );
            passing(reasons::POD_STUCK, &message).after(STUCK_LOOK)
        }
        (Wait::Held, Slot::Ours(pod)) => {
            let finalizer = pod.held_by.as_deref().unwrap_or_default();
            let message = format!(
                "The pod {} has ended, and its finalizer {finalizer} holds its object: whoever set that has to take it away. Everything \
                 goes on by itself then.",
                pod.name
            );
            passing(reasons::POD_STUCK, &message).after(STUCK_LOOK)
        }
        (Wait::Backoff, Slot::Ours(pod)) => caused(&diagnose(pod, case.observed)).after(pause),
        (Wait::Backoff, _) => match &case.observed.creations.failure {
            Some(failure) => {
                troubled(lasting_if(failure.reason == reasons::NAME_TAKEN), failure.reason, &failure.message).after(pause)
            }
            None => passing(reasons::RESTARTING, "The uploader's pod is gone; a new one follows.").after(pause),
        },
        (Wait::Rival(rival), _) => in_use(rival, case.now),
        (Wait::PreviousPod, Slot::Previous(pod)) if pod.terminating.is_some_and(|due| is_overdue(due, case.now)) => {
            let node = pod.node.as_deref().unwrap_or_default();
            let message = format!(
                "The pod {} of an earlier session of this name does not end: look at its node {node} (a mount that hangs?) and at its \
                 finalizers. From a node that is lost it is removed within minutes.",
                pod.name
            );
            passing(reasons::POD_STUCK, &message).after(RIVAL_LOOK)
        }
        (Wait::ForeignPod, _) => {
            let message = "A pod with the name of the uploader's exists and was not made by Blobferry: delete or rename it.";
            troubled(Trouble::Lasting, reasons::NAME_TAKEN, message).after(RIVAL_LOOK)
        }
        _ => {
            let message = "The pod of an earlier session of this name is being removed. If it stays, something in the cluster keeps it: delete it \
                           by hand.";
            passing(reasons::PREVIOUS_POD_ENDING, message).after(RIVAL_LOOK)
        }
    }
}

/// What is true of a session whose folders `rival` has.
pub(super) fn in_use(rival: &Rival, now: Timestamp) -> Assessment {
    let who = rival.name.as_ref().map_or_else(|| "another session".to_owned(), |name| format!("the session {name}"));
    let what_to_do = if rival.gone_by.is_some_and(|due| is_overdue(due, now)) {
        ", whose pod does not end: look at that pod's node (a mount that hangs?) and at its finalizers. From a node that is lost it is \
         removed within minutes."
    } else {
        ": delete or suspend one of the two, or choose another sessionName."
    };
    let message = format!("The folders of this session are in use by {who}{what_to_do} This one starts by itself then.");
    passing(reasons::SESSION_NAME_IN_USE, &message).after(RIVAL_LOOK)
}

/// The node of a pod is looked at right after the pod should have been gone, and again when it may be removed without its node's word.
fn until_late(pod: &UploaderPod, now: Timestamp) -> Duration {
    let gone = pod.terminating.unwrap_or(now);
    let looks = [gone, gone + STUCK_AFTER];
    looks.into_iter().find(|look| *look > now).map_or(STUCK_LOOK, |look| until(look, now))
}

fn cannot_end(pod: &UploaderPod, is_last: bool) -> String {
    let node = pod.node.as_deref().unwrap_or_default();
    let removed = pod.terminating.map(|gone| (gone + STUCK_AFTER).strftime("%H:%M:%SZ").to_string()).unwrap_or_default();
    let next = if is_last { "" } else { ", and a new one starts on another node" };
    format!(
        "The node {node} does not answer, and the pod {} cannot end there: look at the node. If it stays away, the pod is removed \
         without it after {removed}{next}.",
        pod.name
    )
}
