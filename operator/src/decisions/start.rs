//! (pure) Whether a status may wait before it is written. A start passes through several steps within a few seconds, and each of them
//! would be a write that nobody reads.

use std::time::Duration;

use blobferry_crds::{UploadSessionStatus, conditions::READY};

use super::{case::Case, reasons, status::current};

/// A step that lasts longer than this is worth telling.
const BRIEF: Duration = Duration::from_secs(3);

/// How long `status` may wait, if all that it says newly is how far a start is that was told just now.
pub fn hold(case: &Case<'_>, status: &UploadSessionStatus) -> Option<Duration> {
    let told = current(case.session);
    if !is_step(&told) || !is_step(status) || but_steps(&told) != but_steps(status) {
        return None;
    }
    let due = case.observed.step_written? + BRIEF;
    Duration::try_from(due.duration_since(case.now)).ok().filter(|wait| !wait.is_zero())
}

/// Whether `status` tells of a step of a start that goes well so far.
pub fn is_step(status: &UploadSessionStatus) -> bool {
    let ready = status.conditions.iter().find(|condition| condition.type_ == READY);
    ready.is_some_and(|ready| ready.status == "False" && reasons::is_step(&ready.reason))
}

/// `status` without what a step changes.
fn but_steps(status: &UploadSessionStatus) -> UploadSessionStatus {
    UploadSessionStatus { conditions: Vec::new(), phase: None, start_time: None, ..status.clone() }
}
