//! (pure) What to do with the pod of a session.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    Observed, Refusal,
    area::Rival,
    build::spec_hash,
    pod_state::{Slot, Stage, UploaderPod},
    validate::ValidSession,
};

/// How long after its grace a pod may stay before its node is looked at.
pub const STUCK_AFTER: Duration = Duration::from_mins(5);

/// What to do with the pod of a session; one step, the next event leads to the next.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// No pod, and none is wanted.
    Rest,
    /// Make a pod.
    Create,
    /// The pod is as it should be.
    Keep,
    /// Delete the pod.
    Stop(StopReason),
    /// Delete the pod without its node's word.
    ForceDelete,
    /// Something else has to happen first.
    Wait(Wait),
}

/// Why a pod is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The session is suspended.
    Suspended,
    /// The session may not run any more.
    Refused,
    /// The session means something else now.
    Changed,
    /// The pod failed or ended.
    Lost,
}

/// What has to happen before a session gets a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Wait {
    /// The deleted pod has to end.
    Terminating,
    /// The deleted pod does not end, and its node says that it is well.
    Stuck,
    /// Time has to pass since the last attempt.
    Backoff,
    /// Another session has to leave the folders.
    Rival(Rival),
    /// The pod of an earlier session of this name has to go.
    PreviousPod,
    /// A person has to remove a pod that is not ours.
    ForeignPod,
}

/// What is known of the node of a pod that does not end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeHealth {
    /// The kubelet reports.
    Ready,
    /// The kubelet does not report, or there is no such node.
    Lost,
}

/// Decides what to do, given what the session means (or why it means nothing) and what is there.
pub fn plan(session: &Result<ValidSession, Refusal>, observed: &Observed, now: Timestamp) -> Plan {
    let pod = match &observed.slot {
        Slot::Ours(pod) => pod,
        Slot::Empty | Slot::Previous | Slot::Foreign => return without_pod(session, observed, now),
    };
    if let Some(deadline) = pod.terminating {
        return ending(deadline, observed.node, now);
    }
    match session {
        Err(_) => Plan::Stop(StopReason::Refused),
        Ok(session) if session.suspend => Plan::Stop(StopReason::Suspended),
        Ok(session) if pod.spec_hash.as_deref() != Some(spec_hash(session).as_str()) => Plan::Stop(StopReason::Changed),
        Ok(_) if !is_finished(pod) => Plan::Keep,
        Ok(_) if observed.creations.is_due(now) => Plan::Stop(StopReason::Lost),
        Ok(_) => Plan::Wait(Wait::Backoff),
    }
}

fn without_pod(session: &Result<ValidSession, Refusal>, observed: &Observed, now: Timestamp) -> Plan {
    match session {
        Err(_) => Plan::Rest,
        Ok(session) if session.suspend => Plan::Rest,
        Ok(_) if observed.slot == Slot::Previous => Plan::Wait(Wait::PreviousPod),
        Ok(_) if observed.slot == Slot::Foreign => Plan::Wait(Wait::ForeignPod),
        Ok(_) if observed.creations.is_due(now) => Plan::Create,
        Ok(_) => Plan::Wait(Wait::Backoff),
    }
}

fn ending(deadline: Timestamp, node: Option<NodeHealth>, now: Timestamp) -> Plan {
    match node {
        Some(NodeHealth::Lost) if is_overdue(deadline, now) => Plan::ForceDelete,
        Some(NodeHealth::Ready) if is_overdue(deadline, now) => Plan::Wait(Wait::Stuck),
        _ => Plan::Wait(Wait::Terminating),
    }
}

/// Whether a pod that should have been gone at `deadline` is worth a look at its node.
pub fn is_overdue(deadline: Timestamp, now: Timestamp) -> bool {
    now >= deadline + STUCK_AFTER
}

fn is_finished(pod: &UploaderPod) -> bool {
    matches!(pod.stage, Stage::Finished(..))
}
