//! The one place that logs how passes, looks and watches end.

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

/// What a look on demand has shown; that it failed is logged.
pub fn seen<T>(result: Result<T, CallError>) -> Option<T> {
    result.inspect_err(|error| warn!(error = error as &dyn std::error::Error, "a look on demand failed")).ok()
}
