//! (pure) What an uploader is to do, and what becomes of claimed files.

use blobferry_crds::{DeletionPolicy, UploadSession};

use super::reasons;

/// What an uploader is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Take files as they appear.
    #[default]
    Watch,
    /// Upload claimed files and take no others.
    Drain,
    /// Give claimed files back.
    Release,
}

impl Mode {
    /// What the uploader of `session` is to do: something else once the session is deleted.
    pub fn of(session: &UploadSession) -> Self {
        match session.spec.deletion_policy {
            _ if session.metadata.deletion_timestamp.is_none() => Self::Watch,
            DeletionPolicy::Stop => Self::Watch,
            DeletionPolicy::Drain => Self::Drain,
            DeletionPolicy::Release => Self::Release,
        }
    }

    /// As the uploader reads it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Watch => "watch",
            Self::Drain => "drain",
            Self::Release => "release",
        }
    }

    /// What becomes of claimed files when a session is deleted.
    pub fn fate(self) -> Fate {
        match self {
            Self::Release => Fate { reason: reasons::RELEASING, verb: "give back", done: "given back", told: "Released" },
            Self::Watch | Self::Drain => Fate { reason: reasons::DRAINING, verb: "upload", done: "uploaded", told: "Drained" },
        }
    }

    /// The mode that a pod's annotation names; none means watching.
    pub fn parse(text: Option<&str>) -> Self {
        match text {
            Some("drain") => Self::Drain,
            Some("release") => Self::Release,
            _ => Self::Watch,
        }
    }
}

/// What becomes of claimed files, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    /// Reason while it happens.
    pub reason: &'static str,
    /// What the uploader does with them.
    pub verb: &'static str,
    /// The same as a participle.
    pub done: &'static str,
    /// Reason when it has happened.
    pub told: &'static str,
}
