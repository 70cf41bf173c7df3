//! (pure) What happens between the deletion of a session and the end of its object.
//!
//! `Stop` needs nothing: owner references do everything. With `Drain` and `Release` our finalizer holds the object, the pod has no owner
//! (foreground deletion would kill the running upload), and it is replaced by one in another mode, whose success lets the object go.
//! Whatever makes that impossible lets it go as well, as `Stop` does: a deletion always ends.

use std::time::Duration;

use blobferry_crds::{DeletionPolicy, UploadSession, names};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::{
    Refusal,
    case::Outcome,
    completion::is_recorded,
    observed::Observed,
    plan::{Plan, Wait},
    pod_state::{Origin, Slot, Stage, UploaderPod},
    reasons,
    validate::ValidSession,
};
use crate::backoff::Attempts;

/// How a time is written for people.
pub const TIME: &str = "%Y-%m-%d %H:%M:%S UTC";
/// How long a pod that cannot be made is tried for.
const BLOCKED_FOR: Duration = Duration::from_mins(1);
/// What `spec.drainTimeout` is unless somebody got another past the schema.
const USUAL_TIMEOUT: Duration = Duration::from_hours(1);

/// [Finalizers](https://kubernetes.io/docs/concepts/architecture/garbage-collection/#cascading-deletion) of a deletion in the foreground,
/// and of one that leaves the children alone.
const GARBAGE_COLLECTION: [&str; 2] = ["foregroundDeletion", "orphan"];

/// What an uploader is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Take files as they appear.
    #[default]
    Watch,
    /// Upload claimed files and take no others.
    Drain,
    /// Give claimed files back.
    Release,
}

impl Mode {
    /// What the uploader of `session` is to do: something else once the session is deleted.
    pub fn of(session: &UploadSession) -> Self {
        match session.spec.deletion_policy {
            _ if session.metadata.deletion_timestamp.is_none() => Self::Watch,
            DeletionPolicy::Stop => Self::Watch,
            DeletionPolicy::Drain => Self::Drain,
            DeletionPolicy::Release => Self::Release,
        }
    }

    /// As the uploader reads it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Watch => "watch",
            Self::Drain => "drain",
            Self::Release => "release",
        }
    }

    /// What becomes of claimed files when a session is deleted.
    pub fn fate(self) -> Fate {
        match self {
            Self::Release => Fate { reason: reasons::RELEASING, verb: "give back", done: "given back", told: "Released" },
            Self::Watch | Self::Drain => Fate { reason: reasons::DRAINING, verb: "upload", done: "uploaded", told: "Drained" },
        }
    }

    /// The mode that a pod's annotation names; none means watching.
    pub fn parse(text: Option<&str>) -> Self {
        match text {
            Some("drain") => Self::Drain,
            Some("release") => Self::Release,
            _ => Self::Watch,
        }
    }
}

/// What becomes of claimed files, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    /// Reason while it happens.
    pub reason: &'static str,
    /// What the uploader does with them.
    pub verb: &'static str,
    /// The same as a participle.
    pub done: &'static str,
    /// Reason when it has happened.
    pub told: &'static str,
}

/// A deleted session that our finalizer holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Ending {
    /// What was asked for.
    pub policy: DeletionPolicy,
    /// When it is let go in any case.
    pub deadline: Timestamp,
    /// Whether files may be claimed for it.
    pub may_have_claims: bool,
    /// That its last pod cannot be made.
    pub blocked: Option<Box<Blocked>>,
}

/// That the last pod of a deleted session cannot be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// Since when.
    pub since: Timestamp,
    /// Why, as of now.
    pub why: String,
}

/// Why the object of a deleted session is let go.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// Nothing was to be done: no file can be claimed for it, or the policy is `Stop` by now.
    Nothing,
    /// Its last uploader did what was asked for; its words.
    Done(String),
    /// `drainTimeout` is over.
    TimedOut,
    /// Its namespace is being deleted.
    NamespaceEnding,
    /// It means nothing that could run; why.
    Refused(String),
    /// Its last pod cannot be made; why.
    Blocked(String),
}

/// Whether our finalizer holds the object with this metadata.
pub fn is_held(meta: &ObjectMeta) -> bool {
    meta.finalizers.iter().flatten().any(|finalizer| finalizer == names::FINALIZER)
}

/// Whether nothing is left to do for `session`: it is deleted, and nobody holds it but the garbage collector, which sees to its pod.
pub fn is_let_go(session: &UploadSession) -> bool {
    is_left(session) && session.finalizers().iter().all(|finalizer| GARBAGE_COLLECTION.contains(&finalizer.as_str()))
}

/// Whether `session` is deleted and we do not hold it, or do so no more.
pub fn is_left(session: &UploadSession) -> bool {
    session.metadata.deletion_timestamp.is_some() && !is_held(&session.metadata)
}

/// The finalizers that `session` should have, if they are others than it has: ours is there before the first pod, and goes when the
/// policy does not need it any more and no pod without an owner is left.
pub fn finalizers(session: &UploadSession, slot: &Slot) -> Option<Vec<String>> {
    if session.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let needed = session.spec.deletion_policy != DeletionPolicy::Stop;
    let unowned = matches!(slot, Slot::Ours(pod) if pod.origin == Origin::Unowned);
    match (needed, is_held(&session.metadata)) {
        (true, false) => Some(session.finalizers().iter().cloned().chain([names::FINALIZER.to_owned()]).collect()),
        (false, true) if !unowned => Some(without_ours(session.finalizers())),
        _ => None,
    }
}

/// `finalizers` without ours.
pub fn without_ours(finalizers: &[String]) -> Vec<String> {
    finalizers.iter().filter(|finalizer| *finalizer != names::FINALIZER).cloned().collect()
}

/// What is known of the ending of `session`, if it is one.
pub fn of(session: &UploadSession, slot: &Slot, blocked: Option<Box<Blocked>>) -> Option<Ending> {
    let deleted = session.metadata.deletion_timestamp.as_ref().filter(|_| is_held(&session.metadata))?.0;
    let timeout = session.spec.drain_timeout.parse().unwrap_or(USUAL_TIMEOUT);
    let is_over = super::completion::completed(session, slot).is_some();
    Some(Ending {
        policy: session.spec.deletion_policy,
        deadline: deleted.checked_add(timeout).unwrap_or(deleted),
        may_have_claims: !is_over && (has_run(session) || matches!(slot, Slot::Ours(pod) if may_have_run(pod))),
        blocked,
    })
}

/// Whether an uploader of `session` is known to have run.
fn has_run(session: &UploadSession) -> bool {
    session.status.as_ref().is_some_and(|status| status.start_time.is_some() || status.progress.is_some())
}

/// Whether the uploader in `pod` may have claimed a file; that a container was started is known a little late.
fn may_have_run(pod: &UploaderPod) -> bool {
    match pod.stage {
        Stage::Unscheduled(_) => false,
        Stage::Waiting(..) => pod.last_exit.is_some(),
        Stage::Creating { .. } | Stage::Running { .. } | Stage::Finished(..) => true,
    }
}

/// Whether `session` may hold the folders that it works in: it watches, or its claimed files are still to be seen to.
pub fn may_hold_folders(session: &UploadSession) -> bool {
    if session.metadata.deletion_timestamp.is_none() {
        return !session.spec.suspend && !is_recorded(session);
    }
    is_held(&session.metadata) && session.spec.deletion_policy != DeletionPolicy::Stop && has_run(session) && !is_recorded(session)
}

/// Why the object is let go now, if it is.
pub fn end(session: &Result<ValidSession, Refusal>, observed: &Observed, now: Timestamp) -> Option<End> {
    let ending = observed.ending.as_ref()?;
    if ending.policy == DeletionPolicy::Stop || !ending.may_have_claims {
        return Some(End::Nothing);
    }
    if let Some(message) = last_words(&observed.slot) {
        return Some(End::Done(message));
    }
    let failure = observed.creations.failure.as_deref();
    let blocked = ending.blocked.as_ref().filter(|blocked| now >= blocked.since + BLOCKED_FOR);
    match session {
        Err(refusal) => Some(End::Refused(refusal.message.clone())),
        Ok(_) if now >= ending.deadline => Some(End::TimedOut),
        Ok(_) if failure.is_some_and(|failure| failure.reason == reasons::NAMESPACE_ENDING) => Some(End::NamespaceEnding),
        Ok(_) => blocked.map(|blocked| End::Blocked(blocked.why.clone())),
    }
}

/// What the last uploader said, if it did what it was to do.
fn last_words(slot: &Slot) -> Option<String> {
    let Slot::Ours(pod) = slot else { return None };
    let account = pod.success().filter(|account| account.mode != Mode::Watch.as_str())?;
    Some(super::completion::sentence(&account.message))
}

/// Why the last pod of a session could not be made in this pass, if it could not.
pub fn obstacle(plan: &Plan, outcome: &Outcome, creations: &Attempts) -> Option<String> {
    let failure = match (plan, outcome) {
        (Plan::Create, Outcome::Failed(failure, _)) => Some(failure),
        (Plan::Wait(Wait::Rival(_) | Wait::ForeignPod | Wait::PreviousPod), _) => {
            return Some("Its folders or the name of its pod are in use.".into());
        }
        (Plan::Wait(Wait::Backoff), _) => creations.failure.as_deref(),
        _ => None,
    };
    failure
        .filter(|failure| ![reasons::STARTING, reasons::CALL_FAILED].contains(&failure.reason))
        .map(|failure| failure.message.clone())
}

impl Ending {
    /// What becomes of claimed files if nothing can be done for them, and when; none if there are none.
    pub fn how_it_ends(&self, fate: Fate) -> Option<String> {
        let matters = self.policy != DeletionPolicy::Stop && self.may_have_claims;
        matters.then(|| {
            format!(
                "If its claimed files cannot be {} until {}, they stay on the share and the session goes; at once if spec.deletionPolicy is \
                 set to Stop.",
                fate.done,
                self.deadline.strftime(TIME)
            )
        })
    }

    /// When to look again, whatever else happens.
    pub fn next_change(&self) -> Timestamp {
        self.blocked.as_ref().map_or(self.deadline, |blocked| self.deadline.min(blocked.since + BLOCKED_FOR))
    }
}

#[cfg(test)]
mod tests {
    use blobferry_crds::UploadSessionStatus;
    use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time};

    use super::*;
    use crate::{backoff::Failure, fixtures, reconcile::validate::validate};

    fn decided(session: &UploadSession, pod: Option<&Pod>, change: impl FnOnce(&mut Observed)) -> Option<End> {
        let mut observed = fixtures::observed(session, pod);
        change(&mut observed);
        end(&validate(session, &fixtures::settings()), &observed, fixtures::now())
    }

    /// A session that has run and was deleted ten minutes ago.
    fn deleted(spec: &str) -> UploadSession {
        let mut session = fixtures::deleted(spec, "2026-11-21T08:20:00Z");
        session.status =
            Some(UploadSessionStatus { start_time: session.metadata.creation_timestamp.clone(), ..UploadSessionStatus::default() });
        session
    }

    fn running(session: &UploadSession) -> Pod {
        fixtures::pod(session, &fixtures::running("2026-11-21T08:10:00Z"))
    }

    #[test]
    fn finalizer_is_there_for_drain_and_release_and_goes_with_them() {
        let session = fixtures::session("deletionPolicy: Drain");
        assert_eq!(finalizers(&session, &Slot::Empty), Some(vec![names::FINALIZER.to_owned()]));
        let mut held = fixtures::session("");
        held.metadata.finalizers = Some(vec!["other/one".into(), names::FINALIZER.into()]);
        assert_eq!(finalizers(&held, &Slot::Empty), Some(vec!["other/one".to_owned()]));
        let slot = fixtures::observed(&held, Some(&running(&session))).slot;
        assert_eq!(finalizers(&held, &slot), None, "a pod without an owner is left");
        let slot = fixtures::observed(&held, Some(&running(&fixtures::session("")))).slot;
        assert!(finalizers(&held, &slot).is_some(), "a pod with an owner goes by itself");
        held.spec.deletion_policy = DeletionPolicy::Release;
        assert_eq!(finalizers(&held, &Slot::Empty), None);
        assert_eq!(finalizers(&fixtures::session(""), &Slot::Empty), None);
        assert_eq!(finalizers(&deleted("deletionPolicy: Drain"), &Slot::Empty), None, "nothing can be added to a deleted object");
    }

    #[test]
    fn deleted_session_is_held_until_its_last_uploader_says_that_it_is_done() {
        for (policy, mode, result) in [("Drain", "drain", "Drained"), ("Release", "release", "Released")] {
            let session = deleted(&format!("deletionPolicy: {policy}"));
            assert_eq!(decided(&session, None, |_| ()), None);
            assert_eq!(decided(&session, Some(&running(&session)), |_| ()), None);
            let account =
                fixtures::COMPLETED.replace("\"watch\"", &format!("\"{mode}\"")).replace("\"Completed\"", &format!("\"{result}\""));
            let done = fixtures::pod(&session, &fixtures::succeeded(&account));
            assert!(
                matches!(decided(&session, Some(&done), |_| ()), Some(End::Done(message)) if message.contains("7 files so far"))
            );
            let failed = fixtures::pod(&session, &fixtures::succeeded(&account).replace("exitCode: 0", "exitCode: 1"));
            assert_eq!(decided(&session, Some(&failed), |_| ()), None);
        }
    }

    #[test]
    fn session_without_claimed_files_is_let_go_at_once() {
        let fresh = fixtures::deleted("deletionPolicy: Drain", "2026-11-21T08:20:00Z");
        assert_eq!(decided(&fresh, None, |_| ()), Some(End::Nothing), "no uploader ever ran");
        let pod = |status: &str| fixtures::pod(&fixtures::session("deletionPolicy: Drain"), status);
        assert_eq!(decided(&fresh, Some(&pod("phase: Pending")), |_| ()), Some(End::Nothing), "no node was found");
        assert_eq!(decided(&fresh, Some(&running(&fresh)), |_| ()), None, "it runs");
        let mut completed = deleted("deletionPolicy: Drain");
        let condition = "[{type: Complete, status: 'True', reason: R, message: m, lastTransitionTime: '2026-11-21T08:15:00Z'}]";
        let status = completed.status.as_mut().unwrap();
        status.conditions = serde_norway::from_str(condition).unwrap();
        status.completion_time = Some(Time(fixtures::now()));
        assert_eq!(decided(&completed, None, |_| ()), Some(End::Nothing), "everything is uploaded");
        assert_eq!(decided(&deleted("deletionPolicy: Stop"), None, |_| ()), Some(End::Nothing), "the policy was changed");
        assert_eq!(
            decided(&deleted("{deletionPolicy: Drain, suspend: true}"), None, |_| ()),
            None,
            "suspended, with claimed files"
        );
    }

    #[test]
    fn whatever_makes_the_last_upload_impossible_lets_the_session_go() {
        let session = deleted("deletionPolicy: Drain");
        let refused = deleted("{deletionPolicy: Drain, pod: {image: other}}");
        assert!(matches!(decided(&refused, None, |_| ()), Some(End::Refused(why)) if why.contains("allowPodImage")));
        assert_eq!(decided(&deleted("{deletionPolicy: Drain, drainTimeout: 10m}"), None, |_| ()), Some(End::TimedOut));
        assert_eq!(decided(&deleted("{deletionPolicy: Drain, drainTimeout: 601s}"), None, |_| ()), None);
        let failed = |reason| Some(Failure { reason, message: "exceeded quota".into() });
        let fails = |it: &mut Observed, reason| it.creations = it.creations.next(fixtures::now(), failed(reason), 0.0);
        assert_eq!(decided(&session, None, |it| fails(it, reasons::NAMESPACE_ENDING)), Some(End::NamespaceEnding));
        let blocked = |seconds: u64| {
            decided(&session, None, |it| {
                let since = fixtures::now() - Duration::from_secs(seconds);
                it.ending.as_mut().unwrap().blocked = Some(Box::new(Blocked { since, why: "exceeded quota".into() }));
            })
        };
        assert_eq!((blocked(59), blocked(60)), (None, Some(End::Blocked("exceeded quota".into()))));
    }

    #[test]
    fn pod_is_blocked_by_refusals_and_rivals_and_not_by_what_settles_by_itself() {
        let failure = |reason| Failure { reason, message: "exceeded quota".into() };
        let failed = |reason| Outcome::Failed(failure(reason), Duration::ZERO);
        let none = Attempts::default();
        let words = Some("exceeded quota".to_owned());
        assert_eq!(obstacle(&Plan::Create, &failed("PodRefused"), &none), words);
        for reason in [reasons::STARTING, reasons::CALL_FAILED] {
            assert_eq!(obstacle(&Plan::Create, &failed(reason), &none), None);
        }
        assert_eq!(obstacle(&Plan::RestoreRights, &failed("BindingRefused"), &none), None, "the last pod is there");
        assert!(obstacle(&Plan::Wait(Wait::ForeignPod), &Outcome::Nothing, &none).is_some());
        assert_eq!(obstacle(&Plan::Wait(Wait::Terminating), &Outcome::Nothing, &none), None);
        let refused = none.next(fixtures::now(), Some(failure("PodRefused")), 0.0);
        assert_eq!(obstacle(&Plan::Wait(Wait::Backoff), &Outcome::Nothing, &refused), words);
        assert_eq!(obstacle(&Plan::Wait(Wait::Backoff), &Outcome::Nothing, &none), None);
    }

    #[test]
    fn deleted_session_holds_its_folders_while_files_are_claimed() {
        assert!(may_hold_folders(&fixtures::session("")) && !may_hold_folders(&fixtures::session("suspend: true")));
        assert!(may_hold_folders(&deleted("deletionPolicy: Drain")) && !may_hold_folders(&deleted("deletionPolicy: Stop")));
        assert!(!may_hold_folders(&fixtures::deleted("deletionPolicy: Drain", "2026-11-21T08:20:00Z")), "it never ran");
    }
}
