//! (pure) What one pass knows in the end.

use std::time::Duration;

use blobferry_crds::UploadSession;
use jiff::Timestamp;

use super::{
    Observed, Refusal,
    plan::{Plan, Wait},
    reasons,
    validate::ValidSession,
};
use crate::backoff::{Attempts, Failure};

/// Everything that one pass knows.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The session as it was read.
    pub session: &'a UploadSession,
    /// What it means, or why it means nothing.
    pub valid: &'a Result<ValidSession, Refusal>,
    /// What was there.
    pub observed: &'a Observed,
    /// What was to be done.
    pub plan: &'a Plan,
    /// What came of it.
    pub outcome: &'a Outcome,
    /// When.
    pub now: Timestamp,
}

/// What came of a plan.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// There was nothing to do.
    Nothing,
    /// A pod with this name and UID was made.
    Created(String, String),
    /// The pod is being deleted.
    Deleted,
    /// The session's object is deleted.
    Gone,
    /// A child cannot be made; the next attempt comes after the wait.
    Failed(Failure, Duration),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

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
}
