//! (pure) What one pass knows in the end.

use std::time::Duration;

use blobferry_crds::UploadSession;
use jiff::Timestamp;

use super::{Observed, Refusal, plan::Plan, validate::ValidSession};
use crate::backoff::Failure;

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
