//! The API server as far as an uploader needs it: it keeps the session's progress.

use blobferry_crds::Progress;

/// The session's object.
#[derive(Debug, Default)]
pub struct Api {
    /// What was reported last.
    pub progress: Option<Progress>,
}
