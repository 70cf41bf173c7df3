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

#[cfg(test)]
mod tests {
    use blobferry_crds::UploadSession;
    use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time};

    use super::*;
    use crate::{fixtures, reconcile::validate::validate};

    const STARTED: &str = "2026-11-21T08:10:00Z";

    fn running(session: &UploadSession) -> Pod {
        fixtures::pod(session, &fixtures::running(STARTED))
    }

    fn ending(session: &UploadSession, deadline: &str) -> Pod {
        let mut pod = running(session);
        pod.metadata.deletion_timestamp = Some(Time(deadline.parse().unwrap()));
        pod
    }

    fn planned(session: &UploadSession, pod: Option<&Pod>, change: impl FnOnce(&mut Observed)) -> Plan {
        let mut observed = fixtures::observed(session, pod);
        change(&mut observed);
        plan(&validate(session, &fixtures::settings()), &observed, fixtures::now())
    }

    #[test]
    fn session_without_pod_gets_one() {
        assert_eq!(planned(&fixtures::session(""), None, |_| ()), Plan::Create);
    }

    #[test]
    fn running_pod_is_kept() {
        let session = fixtures::session("");
        assert_eq!(planned(&session, Some(&running(&session)), |_| ()), Plan::Keep);
    }

    #[test]
    fn suspended_or_refused_session_has_no_pod() {
        let session = fixtures::session("");
        let (suspended, refused) = (fixtures::session("suspend: true"), fixtures::session("pod: {image: other}"));
        assert_eq!(planned(&suspended, None, |_| ()), Plan::Rest);
        assert_eq!(planned(&refused, None, |_| ()), Plan::Rest);
        assert_eq!(planned(&suspended, Some(&running(&session)), |_| ()), Plan::Stop(StopReason::Suspended));
        assert_eq!(planned(&refused, Some(&running(&session)), |_| ()), Plan::Stop(StopReason::Refused));
    }

    #[test]
    fn changed_session_replaces_its_pod() {
        let pod = running(&fixtures::session(""));
        assert_eq!(planned(&fixtures::session("transfer: {queueSize: 8}"), Some(&pod), |_| ()), Plan::Stop(StopReason::Changed));
    }

    #[test]
    fn pod_that_ended_is_deleted_once_its_backoff_is_over() {
        let session = fixtures::session("");
        for phase in ["Failed", "Succeeded"] {
            let pod = fixtures::pod(&session, &format!("phase: {phase}"));
            assert_eq!(planned(&session, Some(&pod), |_| ()), Plan::Stop(StopReason::Lost));
            let wait = |observed: &mut Observed| observed.creations = observed.creations.next(fixtures::now(), None, 0.0);
            assert_eq!(planned(&session, Some(&pod), wait), Plan::Wait(Wait::Backoff));
        }
    }

    #[test]
    fn pod_that_is_gone_too_often_waits_for_its_backoff() {
        let wait = |observed: &mut Observed| observed.creations = observed.creations.next(fixtures::now(), None, 0.0);
        assert_eq!(planned(&fixtures::session(""), None, wait), Plan::Wait(Wait::Backoff));
    }

    #[test]
    fn ending_pod_is_waited_for_even_if_the_session_changed() {
        let pod = ending(&fixtures::session(""), "2026-11-21T08:29:00Z");
        assert_eq!(planned(&fixtures::session("transfer: {queueSize: 8}"), Some(&pod), |_| ()), Plan::Wait(Wait::Terminating));
    }

    #[test]
    fn overdue_pod_is_removed_by_force_only_from_a_node_that_is_lost() {
        let session = fixtures::session("");
        let overdue = ending(&session, "2026-11-21T08:25:00Z");
        assert_eq!(planned(&session, Some(&overdue), |it| it.node = Some(NodeHealth::Lost)), Plan::ForceDelete);
        assert_eq!(planned(&session, Some(&overdue), |it| it.node = Some(NodeHealth::Ready)), Plan::Wait(Wait::Stuck));
        assert_eq!(planned(&session, Some(&overdue), |it| it.node = None), Plan::Wait(Wait::Terminating));
        let in_time = ending(&session, "2026-11-21T08:25:01Z");
        assert_eq!(planned(&session, Some(&in_time), |it| it.node = Some(NodeHealth::Lost)), Plan::Wait(Wait::Terminating));
    }

    #[test]
    fn pod_of_an_earlier_session_of_the_name_is_waited_for_and_a_strangers_is_told() {
        let session = fixtures::session("");
        let mut pod = running(&session);
        pod.metadata.owner_references.as_mut().unwrap()[0].uid = "earlier".into();
        assert_eq!(planned(&session, Some(&pod), |_| ()), Plan::Wait(Wait::PreviousPod));
        pod.metadata.owner_references = None;
        assert_eq!(planned(&session, Some(&pod), |_| ()), Plan::Wait(Wait::ForeignPod));
    }
}
