//! Why an attempt did not finish, sorted by what happens next. (pure)

use std::{io, time::Duration};

use rustix::io::Errno;
use tokio::time::Instant;

use crate::{blob::BlobError, ends::End, file::ClaimedFile, metrics::Cause, share::ShareError};

/// Why an attempt did not finish.
#[derive(Debug)]
pub enum Setback {
    /// The file must have been quiet for longer: go on at that time.
    NotQuiet(Instant),
    /// Something moved meanwhile: look again at once.
    LookAgain,
    /// The attempt failed.
    Failed {
        /// `CamelCase` reason.
        reason: String,
        /// A sentence for people.
        message: String,
        /// True if the file itself is to blame, not the network, the service or a credential.
        own: bool,
        /// How long the service asks to wait.
        retry_after: Option<Duration>,
        /// The end that does not work, if one does not.
        end: Option<End>,
    },
}

impl Setback {
    /// A failure that is not that of one of the ends.
    pub fn failed(reason: &str, message: String, own: bool) -> Self {
        Self::Failed { reason: reason.into(), message, own, retry_after: None, end: None }
    }

    /// The blob's name is taken.
    pub fn occupied(message: &str) -> Self {
        Self::failed("DestinationOccupied", message.into(), false)
    }

    fn end(end: End, reason: &str, message: String, retry_after: Option<Duration>) -> Self {
        Self::Failed { reason: reason.into(), message, own: false, retry_after, end: Some(end) }
    }

    /// The error of a commit: what was sent is kept unless the service does not have it.
    pub fn of_commit(file: &mut ClaimedFile, error: BlobError) -> Self {
        if matches!(error, BlobError::BlocksMissing { .. }) {
            file.sent = None;
        }
        error.into()
    }
}

/// Whose trouble a failure is, for the metrics.
pub fn cause(reason: &str, own: bool, end: Option<End>) -> Cause {
    match (end, reason) {
        (_, "Denied") => Cause::Credential,
        (_, "DestinationOccupied" | "ContainerMissing" | "ForeignBlocks") => Cause::Destination,
        (Some(End::Source), _) => Cause::Share,
        _ if own => Cause::File,
        _ => Cause::Service,
    }
}

impl From<BlobError> for Setback {
    fn from(error: BlobError) -> Self {
        let (reason, message) = (error.reason().to_owned(), error.to_string());
        let retry_after = if let BlobError::Transient { retry_after, .. } = &error { *retry_after } else { None };
        match error {
            BlobError::Conflict { .. } => Self::LookAgain,
            BlobError::Transient { .. }
            | BlobError::Denied { .. }
            | BlobError::ContainerMissing { .. }
            | BlobError::Unsupported { .. } => Self::end(End::Destination, &reason, message, retry_after),
            // What stands in the way is not the file's fault: it waits, and so do later files of its name.
            BlobError::BlocksMissing { .. }
            | BlobError::Corrupted { .. }
            | BlobError::ForeignBlocks { .. }
            | BlobError::Protected { .. } => Self::failed(&reason, message, false),
            BlobError::Rejected { .. } => Self::failed(&reason, message, true),
        }
    }
}

/// A mount that gives up (`softerr` of nfs(5)) says so in one of these ways; no file is to blame.
fn is_the_networks(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::NotConnected
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
    )
}

/// `EMFILE`, `ENFILE` of open(2).
fn is_short_of_descriptors(error: &ShareError) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw_os_error), Some(Errno::MFILE | Errno::NFILE))
}

impl From<ShareError> for Setback {
    fn from(error: ShareError) -> Self {
        let message = error.full().to_string();
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::failed("Unreadable", message, true),
            _ if error.is_full() => Self::end(End::Source, "ShareFull", message, None),
            io::ErrorKind::ReadOnlyFilesystem => Self::end(End::Source, "ReadOnly", message, None),
            kind if is_the_networks(kind) || is_short_of_descriptors(&error) => {
                Self::end(End::Source, "ShareFailed", message, None)
            }
            // The name or the handle changed under us; the next attempt opens it anew.
            io::ErrorKind::NotFound | io::ErrorKind::StaleNetworkFileHandle => Self::failed("SourceMoved", message, false),
            _ => Self::failed("ReadFailed", message, true),
        }
    }
}
