//! (pure) Whether the object of a deleted session is let go.

use blobferry_crds::DeletionPolicy;
use jiff::Timestamp;

use super::{
    Observed, Refusal, completion::sentence, deletion::BLOCKED_FOR, mode::Mode, pod_state::Slot, reasons, validate::ValidSession,
};

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

/// Why the object is let go now, if it is.
pub fn end(session: &Result<ValidSession, Refusal>, observed: &Observed, now: Timestamp) -> Option<End> {
    let deletion = observed.deletion.as_ref()?;
    if deletion.policy == DeletionPolicy::Stop || !deletion.may_have_claimed_files {
        return Some(End::Nothing);
    }
    if let Some(message) = last_words(&observed.slot) {
        return Some(End::Done(message));
    }
    let failure = observed.creations.failure.as_deref();
    let blocked = deletion.blocked.as_ref().filter(|blocked| now >= blocked.since + BLOCKED_FOR);
    match session {
        Err(refusal) => Some(End::Refused(refusal.message.clone())),
        Ok(_) if now >= deletion.deadline => Some(End::TimedOut),
        Ok(_) if failure.is_some_and(|failure| failure.reason == reasons::NAMESPACE_ENDING) => Some(End::NamespaceEnding),
        Ok(_) => blocked.map(|blocked| End::Blocked(blocked.why.clone())),
    }
}

/// What the last uploader said, if it did what it was to do.
fn last_words(slot: &Slot) -> Option<String> {
    let Slot::Ours(pod) = slot else { return None };
    let account = pod.success().filter(|account| account.mode != Mode::Watch.as_str())?;
    Some(sentence(&account.message))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use blobferry_crds::UploadSession;
    use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time};

    use super::*;
    use crate::{
        backoff::Failure,
        decisions::{deletion::Blocked, validate::validate},
        fixtures::{self, deleted_after_a_run as deleted, running_pod as running},
    };

    fn decided(session: &UploadSession, pod: Option<&Pod>, change: impl FnOnce(&mut Observed)) -> Option<End> {
        let mut observed = fixtures::observed(session, pod);
        change(&mut observed);
        end(&validate(session, &fixtures::settings()), &observed, fixtures::now())
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
                it.deletion.as_mut().unwrap().blocked = Some(Box::new(Blocked { since, why: "exceeded quota".into() }));
            })
        };
        assert_eq!((blocked(59), blocked(60)), (None, Some(End::Blocked("exceeded quota".into()))));
    }
}
