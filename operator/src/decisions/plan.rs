//! (pure) What to do with the pod of a session.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    Observed, Refusal,
    area::Rival,
    build::{is_comparable, spec_hash},
    end::{End, end},
    hearing::Hearing,
    observed::NodeHealth,
    pod_state::{Origin, Slot, UploaderPod},
    reasons,
    rollout::Upgrade,
    validate::ValidSession,
};

/// How long after its grace a pod may stay before it is removed without its node, or called stuck.
pub const STUCK_AFTER: Duration = Duration::from_mins(5);

/// What to do with the pod of a session; one step, the next event leads to the next.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// No pod, and none is wanted.
    Rest,
    /// The session is over; its pod stays for its log.
    Finished,
    /// The session was over for long enough: delete its object.
    Expire,
    /// The session is deleted, and nothing holds its object any more.
    LetGo(End),
    /// Make a pod.
    Create,
    /// The pod is as it should be.
    Keep,
    /// The same, but its uploader is silent, and may have lost its rights.
    RestoreRights,
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
    /// The session is deleted, and somebody else keeps its object.
    Deleted,
    /// The session means something else now.
    Changed,
    /// The session was over and is to run again.
    Again,
    /// The session is deleted, and an uploader that sees to claimed files follows.
    NewMode,
    /// It turned out, before it started, that its claim leads to folders that others may want.
    Located,
    /// The installation was upgraded, and it is this session's turn to get its image or another form of its pod.
    Outdated,
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
    /// The deleted pod has ended, and somebody's finalizer holds its object.
    Held,
    /// Time has to pass since the last attempt.
    Backoff,
    /// Another session has to leave the folders.
    Rival(Rival),
    /// The pod of an earlier session of this name has to go.
    PreviousPod,
    /// A person has to remove a pod that is not ours.
    ForeignPod,
}

/// Decides what to do, given what the session means (or why it means nothing) and what is there.
pub fn plan(session: &Result<ValidSession, Refusal>, observed: &Observed, now: Timestamp) -> Plan {
    if let Some(end) = end(session, observed, now) {
        return Plan::LetGo(end);
    }
    if let Some(completed) = &observed.completed {
        return if completed.has_expired(now) { Plan::Expire } else { Plan::Finished };
    }
    let pod = match &observed.slot {
        Slot::Ours(pod) => pod,
        Slot::Empty | Slot::Previous(_) | Slot::Foreign => return without_pod(session, observed, now),
    };
    if let Some(deadline) = pod.terminating {
        return if pod.held_by.is_some() { Plan::Wait(Wait::Held) } else { ending(deadline, observed.node, now) };
    }
    match session {
        Err(refusal) if refusal.reason == reasons::DELETED => Plan::Stop(StopReason::Deleted),
        Err(_) => Plan::Stop(StopReason::Refused),
        Ok(session) if session.suspend => Plan::Stop(StopReason::Suspended),
        Ok(session) if pod.mode != session.mode => Plan::Stop(StopReason::NewMode),
        Ok(_) if pod.success().is_some() => Plan::Stop(StopReason::Again),
        Ok(session) if differs(pod, session, observed) => Plan::Stop(StopReason::Changed),
        Ok(session) if pod.is_unstarted() && is_elsewhere(session, pod) => Plan::Stop(StopReason::Located),
        Ok(_) if !pod.has_ended() && observed.upgrade == Upgrade::Turn => Plan::Stop(StopReason::Outdated),
        Ok(_) if !pod.has_ended() => {
            let is_silent = observed.reports.hearing(pod, now) == Hearing::Silent;
            if is_silent && observed.rights_due { Plan::RestoreRights } else { Plan::Keep }
        }
        Ok(_) if observed.creations.is_due(now) => Plan::Stop(StopReason::Lost),
        Ok(_) => Plan::Wait(Wait::Backoff),
    }
}

/// Whether `pod` was made for something else than `session` means now. Of a pod that another version of the operator has made this is
/// known only if its session was changed since.
fn differs(pod: &UploaderPod, session: &ValidSession, observed: &Observed) -> bool {
    let means_something_else = match &pod.spec_hash {
        Some(hash) if !is_comparable(hash) => observed.is_new_spec,
        hash => hash.as_deref() != Some(spec_hash(session).as_str()),
    };
    (pod.origin == Origin::Owned) != session.owns || means_something_else
}

fn without_pod(session: &Result<ValidSession, Refusal>, observed: &Observed, now: Timestamp) -> Plan {
    match session {
        Err(_) => Plan::Rest,
        Ok(session) if session.suspend => Plan::Rest,
        Ok(_) if matches!(observed.slot, Slot::Previous(_)) => Plan::Wait(Wait::PreviousPod),
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

/// Whether a pod that should have been gone at `deadline` is there for too long.
pub fn is_overdue(deadline: Timestamp, now: Timestamp) -> bool {
    now >= deadline + STUCK_AFTER
}

/// Whether `pod` was made before it was known where the session's claim leads.
fn is_elsewhere(session: &ValidSession, pod: &UploaderPod) -> bool {
    session.export.is_some() && pod.area.as_ref().is_some_and(|area| *area != session.area())
}

#[cfg(test)]
mod tests {
    use blobferry_crds::{UploadSession, names};
    use k8s_openapi::{
        api::core::v1::Pod,
        apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    };

    use super::*;
    use crate::{decisions::validate::validate, fixtures};

    const STARTED: &str = "2026-11-21T08:10:00Z";

    fn running(session: &UploadSession) -> Pod {
        fixtures::pod(session, &fixtures::running(STARTED))
    }

    fn ending(session: &UploadSession, deadline: &str) -> Pod {
        let mut pod = running(session);
        pod.metadata.deletion_timestamp = Some(Time(deadline.parse().unwrap()));
        pod
    }

    #[test]
    fn pod_whose_object_somebody_holds_is_not_deleted_again() {
        let session = fixtures::session("");
        let mut held = ending(&session, "2026-11-21T08:00:00Z");
        held.metadata.finalizers = Some(vec!["example.com/audit".into()]);
        let lost = |it: &mut Observed| it.node = Some(NodeHealth::Lost);
        assert_eq!(planned(&session, Some(&held), lost), Plan::ForceDelete);
        held.metadata.deletion_grace_period_seconds = Some(0);
        assert_eq!(planned(&session, Some(&held), lost), Plan::Wait(Wait::Held));
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
    fn pod_with_a_hash_of_another_version_gets_ours_in_its_turn_unless_the_session_was_changed_since() {
        let session = fixtures::session("");
        let hashed = |hash: Option<&str>| {
            let mut pod = running(&session);
            let annotations = pod.metadata.annotations.as_mut().unwrap();
            annotations.remove(names::SPEC_HASH_ANNOTATION);
            annotations.extend(hash.map(|hash| (names::SPEC_HASH_ANNOTATION.to_owned(), hash.to_owned())));
            pod
        };
        let other = hashed(Some("v0-2f47f5315289e6a04e8c2b70ef653fd4"));
        assert_eq!(planned(&session, Some(&other), |_| ()), Plan::Keep);
        assert_eq!(planned(&session, Some(&other), |it| it.upgrade = Upgrade::Turn), Plan::Stop(StopReason::Outdated));
        assert_eq!(planned(&session, Some(&other), |it| it.is_new_spec = true), Plan::Stop(StopReason::Changed));
        for hash in [Some("v1-2f47f5315289e6a04e8c2b70ef653fd5"), None] {
            assert_eq!(planned(&session, Some(&hashed(hash)), |_| ()), Plan::Stop(StopReason::Changed), "{hash:?}");
        }
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
    fn deleted_session_gets_its_pod_anew_in_another_mode_also_when_it_is_suspended() {
        let session = fixtures::session("deletionPolicy: Drain");
        for spec in ["deletionPolicy: Drain", "{deletionPolicy: Drain, suspend: true}"] {
            let deleted = fixtures::deleted(spec, "2026-11-21T08:29:00Z");
            assert_eq!(planned(&deleted, Some(&running(&session)), |_| ()), Plan::Stop(StopReason::NewMode));
            assert_eq!(planned(&deleted, None, |it| it.deletion.as_mut().unwrap().may_have_claimed_files = true), Plan::Create);
            assert_eq!(planned(&deleted, Some(&running(&deleted)), |_| ()), Plan::Keep);
        }
    }

    #[test]
    fn policy_with_another_owner_replaces_the_pod() {
        let changed = |from: &str, to: &str| planned(&fixtures::session(to), Some(&running(&fixtures::session(from))), |_| ());
        assert_eq!(changed("", "deletionPolicy: Drain"), Plan::Stop(StopReason::Changed));
        assert_eq!(changed("deletionPolicy: Release", "deletionPolicy: Stop"), Plan::Stop(StopReason::Changed));
        assert_eq!(changed("deletionPolicy: Release", "deletionPolicy: Drain"), Plan::Keep);
        let session = fixtures::session("");
        let mut forged = running(&session);
        forged.metadata.owner_references = None;
        assert_eq!(planned(&session, Some(&forged), |_| ()), Plan::Stop(StopReason::Changed), "whatever its annotations say");
    }

    #[test]
    fn session_that_is_over_keeps_its_pod_and_runs_again_when_asked_to() {
        let (session, again) = (fixtures::session(""), fixtures::session("runToken: again"));
        let pod = fixtures::pod(&session, &fixtures::succeeded(fixtures::COMPLETED));
        assert_eq!(planned(&session, Some(&pod), |_| ()), Plan::Finished);
        assert_eq!(planned(&fixtures::session("suspend: true"), Some(&pod), |_| ()), Plan::Finished);
        assert_eq!(planned(&fixtures::session("pod: {image: other}"), Some(&pod), |_| ()), Plan::Finished, "also when refused");
        assert_eq!(planned(&again, Some(&pod), |_| ()), Plan::Stop(StopReason::Again));
    }

    #[test]
    fn object_of_a_session_that_is_over_is_deleted_when_its_time_has_come() {
        let session = fixtures::session("");
        let pod = fixtures::pod(&session, &fixtures::succeeded(fixtures::COMPLETED));
        let planned = |since: Option<Timestamp>, ttl: u64| {
            planned(&session, Some(&pod), |it| {
                let completed = it.completed.as_mut().unwrap();
                (completed.since, completed.ttl) = (since, Some(Duration::from_secs(ttl)));
            })
        };
        let since = Some(fixtures::now() - Duration::from_mins(1));
        assert_eq!((planned(since, 60), planned(since, 61)), (Plan::Expire, Plan::Finished));
        assert_eq!(planned(None, 0), Plan::Finished, "it is written down first");
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
        assert_eq!(planned(&session, Some(&running(&fixtures::earlier(&session))), |_| ()), Plan::Wait(Wait::PreviousPod));
        let forged = |change: fn(&mut ObjectMeta)| {
            let mut pod = running(&session);
            change(&mut pod.metadata);
            planned(&session, Some(&pod), |_| ())
        };
        assert_eq!(forged(|meta| (meta.owner_references, meta.labels) = (None, None)), Plan::Wait(Wait::ForeignPod));
        assert_eq!(forged(|meta| meta.labels = None), Plan::Wait(Wait::ForeignPod), "anybody can name an owner");
        let owner = |meta: &mut ObjectMeta| meta.owner_references.as_mut().unwrap()[0].uid = "other".into();
        assert_eq!(forged(owner), Plan::Wait(Wait::ForeignPod), "it says that it belongs to another session");
    }
}
