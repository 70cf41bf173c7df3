//! (pure) What happens between the deletion of a session and the end of its object.
//!
//! `Stop` needs nothing: owner references do everything. With `Drain` and `Release` our finalizer holds the object, the pod has no owner
//! (foreground deletion would kill the running upload), and it is replaced by one in another mode, whose success lets the object go.
//! Whatever makes that impossible lets it go as well, as `Stop` does: a deletion always ends.

use std::time::Duration;

use blobferry_crds::{DeletionPolicy, UploadSession};
use jiff::Timestamp;

use super::{
    completion::{completed, is_recorded},
    finalizer::is_held,
    mode::Fate,
    pod_state::{Slot, Stage, UploaderPod},
};

/// How a time is written for people.
pub const TIME: &str = "%Y-%m-%d %H:%M:%S UTC";
/// How long a pod that cannot be made is tried for.
pub const BLOCKED_FOR: Duration = Duration::from_mins(1);
/// What `spec.drainTimeout` is unless somebody got another past the schema.
const USUAL_TIMEOUT: Duration = Duration::from_hours(1);

/// A deleted session that our finalizer holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Deletion {
    /// What was asked for.
    pub policy: DeletionPolicy,
    /// When it is let go in any case.
    pub deadline: Timestamp,
    /// Whether files may be claimed for it.
    pub may_have_claimed_files: bool,
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

/// What is known of the deletion of `session`, if our finalizer holds it.
pub fn of(session: &UploadSession, slot: &Slot, blocked: Option<Box<Blocked>>) -> Option<Deletion> {
    let deleted = session.metadata.deletion_timestamp.as_ref().filter(|_| is_held(&session.metadata))?.0;
    let timeout = match session.spec.deletion_policy {
        DeletionPolicy::Stop => Duration::ZERO,
        DeletionPolicy::Drain | DeletionPolicy::Release => session.spec.drain_timeout.parse().unwrap_or(USUAL_TIMEOUT),
    };
    let is_over = completed(session, slot).is_some();
    Some(Deletion {
        policy: session.spec.deletion_policy,
        deadline: deleted.checked_add(timeout).unwrap_or(deleted),
        may_have_claimed_files: !is_over && (has_run(session) || matches!(slot, Slot::Ours(pod) if may_have_run(pod))),
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

impl Deletion {
    /// What becomes of claimed files if nothing can be done for them, and when; none if there are none.
    pub fn how_it_ends(&self, fate: Fate) -> Option<String> {
        let matters = self.policy != DeletionPolicy::Stop && self.may_have_claimed_files;
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
    use super::*;
    use crate::fixtures;

    #[test]
    fn deleted_session_holds_its_folders_while_files_are_claimed() {
        assert!(may_hold_folders(&fixtures::session("")) && !may_hold_folders(&fixtures::session("suspend: true")));
        assert!(
            may_hold_folders(&fixtures::deleted_after_a_run("deletionPolicy: Drain"))
                && !may_hold_folders(&fixtures::deleted_after_a_run("deletionPolicy: Stop"))
        );
        assert!(!may_hold_folders(&fixtures::deleted("deletionPolicy: Drain", "2026-11-21T08:20:00Z")), "it never ran");
    }
}
