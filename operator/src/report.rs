//! The one place that logs how passes and watches end.

use std::time::Duration;

use tracing::{debug, warn};

use crate::{api::CallError, place::Place};

/// Logs how a pass over `session` ended, and when the next one comes by itself.
pub fn passed(session: &Place, result: &Result<Option<Duration>, CallError>) {
    match result {
        Ok(next_look) => debug!(%session, ?next_look, "passed over a session"),
        Err(error) if error.is_conflict() => debug!(%session, "the session changed meanwhile and is looked at again"),
        Err(error) => warn!(%session, error = error as &dyn std::error::Error, "a pass over a session failed and is tried again"),
    }
}

/// Logs that a watch was interrupted; it goes on by itself.
pub fn interruption(error: &(dyn std::error::Error + 'static)) {
    warn!(error, "a watch was interrupted");
}
