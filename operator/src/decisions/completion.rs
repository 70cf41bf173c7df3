//! (pure) Whether a session is over by itself, and when its object goes.
//!
//! The proof comes from the uploader: it ended with exit code 0 and its own account of it, in a pod that nobody was deleting. From then
//! on the condition `Complete` keeps it, also when the pod is gone. It holds for the `runToken` of that run: another one starts the
//! session again.

use std::time::Duration;

use blobferry_crds::{UploadSession, conditions::COMPLETE, names::TerminationResult};
use jiff::Timestamp;

use super::pod_state::Slot;

/// How a session came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completed {
    /// `Completed` or `CompletedWithLeftovers`.
    pub reason: String,
    /// What was done and what is left.
    pub message: String,
    /// When it was written down; nothing if this is the first time that it is seen.
    pub since: Option<Timestamp>,
    /// How long the session's object stays after that, if it does not for ever.
    pub ttl: Option<Duration>,
}

impl Completed {
    /// When the session's object is to be deleted. If the completion was not written down before `now`, that is done now.
    pub fn expires(&self, now: Timestamp) -> Option<Timestamp> {
        self.ttl.map(|ttl| self.since.unwrap_or(now) + ttl)
    }

    /// Whether that time has come. It never has before the completion is written down.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.since.is_some() && self.expires(now).is_some_and(|expires| expires <= now)
    }
}

fn ttl(session: &UploadSession) -> Option<Duration> {
    session.spec.ttl_seconds_after_finished.map(|seconds| Duration::from_secs(seconds.into()))
}

/// The end of `session`, if it has come and no other run was asked for.
pub fn completed(session: &UploadSession, slot: &Slot) -> Option<Completed> {
    let works = matches!(slot, Slot::Ours(pod) if pod.terminating.is_none() && !pod.has_ended());
    recorded(session).filter(|_| !works).or_else(|| reported(session, slot))
}

/// Whether the status says that `session` is over, and no other run was asked for. Such a session holds no folders.
pub fn is_recorded(session: &UploadSession) -> bool {
    recorded(session).is_some()
}

fn recorded(session: &UploadSession) -> Option<Completed> {
    let status = session.status.as_ref()?;
    let condition = status.conditions.iter().find(|it| it.type_ == COMPLETE && it.status == "True")?;
    if status.completed_run_token != session.spec.run_token {
        return None;
    }
    let since = status.completion_time.as_ref()?.0;
    Some(Completed { reason: condition.reason.clone(), message: condition.message.clone(), since: Some(since), ttl: ttl(session) })
}

fn reported(session: &UploadSession, slot: &Slot) -> Option<Completed> {
    let Slot::Ours(pod) = slot else { return None };
    let account = pod.success().filter(|account| account.result == TerminationResult::Completed)?;
    let same_run = account.run_token == session.spec.run_token;
    let message = sentence(&account.message);
    same_run.then(|| Completed { reason: account.reason, message, since: None, ttl: ttl(session) })
}

/// `text` with a capital at the start and a full stop at the end.
pub(super) fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    let stop = if text.ends_with('.') { "" } else { "." };
    format!("{first}{}{stop}", characters.as_str())
}

#[cfg(test)]
mod tests {
    use blobferry_crds::UploadSessionStatus;
    use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time};

    use super::*;
    use crate::fixtures;

    fn judged(session: &UploadSession, pod: Option<&Pod>) -> Option<(String, Option<Timestamp>)> {
        fixtures::observed(session, pod).completed.map(|completed| (completed.reason, completed.since))
    }

    fn ended(account: &str) -> Pod {
        fixtures::pod(&fixtures::session(""), &fixtures::succeeded(account))
    }

    /// `session` after its end was written down at [`fixtures::now`].
    fn recorded(spec: &str) -> UploadSession {
        let mut session = fixtures::session(spec);
        let condition =
            "[{type: Complete, status: 'True', reason: Completed, message: m, lastTransitionTime: '2026-11-21T08:30:00Z'}]";
        session.status = Some(UploadSessionStatus {
            completion_time: Some(Time(fixtures::now())),
            conditions: serde_norway::from_str(condition).unwrap(),
            ..UploadSessionStatus::default()
        });
        session
    }

    #[test]
    fn end_is_believed_with_exit_code_0_and_the_uploaders_own_account() {
        let session = fixtures::session("");
        let found = fixtures::observed(&session, Some(&ended(fixtures::COMPLETED))).completed.unwrap();
        assert_eq!((found.reason.as_str(), found.since), ("CompletedWithLeftovers", None));
        assert_eq!(found.message, "Everything is uploaded: 7 files so far; on the share are left: 1 set aside.");
    }

    #[test]
    fn anything_else_is_no_end() {
        let session = fixtures::session("");
        for (what, account) in [
            ("no account", String::new()),
            ("an account of another session", fixtures::COMPLETED.replace("000000000001", "000000000002")),
            ("of another mode", fixtures::COMPLETED.replace("watch", "drain")),
            ("of another result", fixtures::COMPLETED.replace("\"Completed\"", "\"Drained\"")),
            ("of a failure", fixtures::COMPLETED.replace("\"Completed\"", "\"Failed\"")),
        ] {
            assert_eq!(judged(&session, Some(&ended(&account))), None, "{what}");
        }
        let mut deleted = ended(fixtures::COMPLETED);
        deleted.metadata.deletion_timestamp = Some(Time(fixtures::now()));
        assert_eq!(judged(&session, Some(&deleted)), None, "somebody was deleting the pod");
        let killed = fixtures::succeeded(fixtures::COMPLETED).replace("exitCode: 0", "exitCode: 143");
        assert_eq!(judged(&session, Some(&fixtures::pod(&session, &killed))), None, "another exit code");
        let running = fixtures::running("2026-11-21T08:10:00Z");
        assert_eq!(judged(&session, Some(&fixtures::pod(&session, &running))), None, "it runs");
    }

    #[test]
    fn phase_means_nothing_beside_the_account() {
        let evicted = fixtures::succeeded(fixtures::COMPLETED).replace("phase: Succeeded", "phase: Failed, reason: Evicted");
        assert!(judged(&fixtures::session(""), Some(&fixtures::pod(&fixtures::session(""), &evicted))).is_some());
    }

    #[test]
    fn what_is_written_down_outlives_the_pod() {
        assert_eq!(judged(&recorded(""), None), Some(("Completed".into(), Some(fixtures::now()))));
        assert_eq!(judged(&recorded(""), Some(&ended(fixtures::COMPLETED))).unwrap().0, "Completed", "and does not change");
    }

    #[test]
    fn another_run_token_starts_the_session_again_whatever_else_changes() {
        assert_eq!(judged(&recorded("runToken: again"), None), None);
        assert_eq!(judged(&fixtures::session("runToken: again"), Some(&ended(fixtures::COMPLETED))), None);
        assert!(judged(&recorded("transfer: {queueSize: 8}"), None).is_some());
        let same = fixtures::COMPLETED.replace("\"mode\"", "\"runToken\":\"again\",\"mode\"");
        assert!(judged(&fixtures::session("runToken: again"), Some(&ended(&same))).is_some());
    }

    #[test]
    fn uploader_at_work_goes_before_what_was_written_down() {
        let pod = fixtures::pod(&fixtures::session(""), &fixtures::running("2026-11-21T08:10:00Z"));
        assert_eq!(judged(&recorded(""), Some(&pod)), None);
    }

    #[test]
    fn object_expires_after_its_time_and_never_without_one() {
        let expires = |session: &UploadSession| completed(session, &Slot::Empty).unwrap().expires(fixtures::now());
        assert_eq!(expires(&recorded("")), None);
        assert_eq!(expires(&recorded("ttlSecondsAfterFinished: 90")), Some("2026-11-21T08:31:30Z".parse().unwrap()));
    }
}
