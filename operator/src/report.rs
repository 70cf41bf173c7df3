//! The one place that logs how passes end.

use kube::runtime::{
    controller::{Action, Error},
    reflector::ObjectRef,
    watcher,
};
use tracing::{debug, warn};

use crate::{api::CallError, sessions::KeptSession};

/// Logs how a pass, or a watch, ended.
pub fn outcome(result: Result<(ObjectRef<KeptSession>, Action), Error<CallError, watcher::Error>>) {
    match result {
        Ok((session, action)) => debug!(%session, ?action, "passed over a session"),
        Err(Error::ReconcilerFailed(error, session)) if error.is_conflict() => {
            debug!(%session, "the session changed meanwhile and is looked at again");
        }
        Err(Error::ReconcilerFailed(error, session)) => {
            warn!(%session, error = &error as &dyn std::error::Error, "a pass over a session failed and is tried again");
        }
        Err(Error::ObjectNotFound(session)) => debug!(%session, "the session is gone"),
        Err(error) => interruption(&error),
    }
}

/// Logs that a watch was interrupted; it goes on by itself.
pub fn interruption(error: &(dyn std::error::Error + 'static)) {
    warn!(error, "a watch was interrupted");
}
