//! The share as the uploader sees it: the few file operations it needs, as a trait that the real file system, a simulated NFS and
//! fault-injecting ones implement.
//!
//! Every method is one operation, and none decides anything. An error of a changing operation does not prove that nothing happened
//! (rename(2), BUGS: on NFS the reply may be lost), so callers look.

mod local;
mod pool;

use std::{fmt, io, path::Path, time::Duration};

use bytes::BytesMut;

pub use local::{LocalFile, LocalListing, LocalShare, join};
pub use pool::{Pool, Pulse};

/// What tells one state of a file from another. Times are nanoseconds since 1970 on the server's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Inode number.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Last change of the content; anybody can set it.
    pub mtime: i128,
    /// Last change of content or attributes; only the server sets it.
    pub ctime: i128,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file: the only kind that is ever opened.
    File,
    /// A folder.
    Folder,
    /// A symbolic link, a device, a socket or a pipe.
    Special,
    /// The listing did not say.
    Unknown,
}

/// Attributes as the server has them now (`statx` with `AT_STATX_FORCE_SYNC`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// What it is. Never [`Kind::Unknown`].
    pub kind: Kind,
    /// Which state of the file this is.
    pub identity: Identity,
    /// Number of names.
    pub links: u64,
}

/// A name in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name as bytes; Linux knows no encoding.
    pub name: Box<[u8]>,
    /// What the listing says that it is.
    pub kind: Kind,
}

/// An operation on the share that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}")]
pub struct ShareError {
    /// What was tried, as a verb.
    pub action: &'static str,
    /// On what.
    pub path: String,
    /// Why it failed.
    pub source: io::Error,
}

impl ShareError {
    /// The error of `action` on `path`.
    pub fn new(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self { action, path: path.display().to_string(), source }
    }

    /// The kind of the cause.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// The number of the cause, if the system gave one.
    pub fn raw_os_error(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    /// True if the name does not exist.
    pub fn is_absent(&self) -> bool {
        self.kind() == io::ErrorKind::NotFound
    }

    /// True if nothing more fits.
    pub fn is_full(&self) -> bool {
        matches!(self.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// The error with its cause, for status and logs.
    pub fn full(&self) -> impl fmt::Display {
        format!("{self}: {}", self.source)
    }
}

/// A result of an operation on the share.
pub type ShareResult<T> = Result<T, ShareError>;

/// A folder being listed, some names at a time.
pub trait Listing: Send {
    /// The next names, never an empty batch; `None` at the end. Names that come and go meanwhile may be missed or seen twice.
    fn next(&mut self) -> impl Future<Output = ShareResult<Option<Vec<Entry>>>> + Send;
}

/// An open regular file.
pub trait ShareFile: Send + Sync + 'static {
    /// Reads at `offset` until `length` bytes are read or the file ends; returns the buffer with what was read.
    fn read_at(&self, offset: u64, buffer: BytesMut, length: usize) -> impl Future<Output = ShareResult<BytesMut>> + Send;

    /// The attributes of the open file, whatever its name is now.
    fn attributes(&self) -> impl Future<Output = ShareResult<Attributes>> + Send;
}

/// The operations that the uploader needs.
pub trait Share: Send + Sync + 'static {
    /// An open file.
    type File: ShareFile;
    /// A folder being listed.
    type Listing: Listing;

    /// For how long calls have been waiting without any of them ending.
    fn silent_for(&self) -> Duration;
    /// For how long the slowest call has not come any further, whatever others do meanwhile.
    fn slowest_for(&self) -> Duration;
    /// Starts to list a folder, from the server and not from the client's cache of names.
    fn list(&self, folder: &Path) -> impl Future<Output = ShareResult<Self::Listing>> + Send;
    /// Attributes by name, from the server; a symbolic link is not followed.
    fn attributes(&self, path: &Path) -> impl Future<Output = ShareResult<Attributes>> + Send;
    /// Opens a regular file for reading; anything else is an error and is not opened.
    fn open(&self, path: &Path) -> impl Future<Output = ShareResult<Self::File>> + Send;
    /// Renames; silently replaces what has the new name.
    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = ShareResult<()>> + Send;
    /// Gives a file a second name; fails if the name exists.
    fn link(&self, from: &Path, to: &Path) -> impl Future<Output = ShareResult<()>> + Send;
    /// Removes a name of a file.
    fn remove(&self, path: &Path) -> impl Future<Output = ShareResult<()>> + Send;
    /// Makes a folder and those above it; it is no error if it exists.
    fn make_folder(&self, path: &Path) -> impl Future<Output = ShareResult<()>> + Send;
    /// Removes an empty folder.
    fn remove_folder(&self, path: &Path) -> impl Future<Output = ShareResult<()>> + Send;
    /// Reads a small file of ours.
    fn read_small(&self, path: &Path) -> impl Future<Output = ShareResult<Vec<u8>>> + Send;
    /// Makes a small file of ours; fails if the name exists.
    fn create_small(&self, path: &Path, content: &[u8]) -> impl Future<Output = ShareResult<()>> + Send;
    /// Sets a file's mtime to the server's now (`UTIME_NOW`).
    fn touch(&self, path: &Path) -> impl Future<Output = ShareResult<()>> + Send;
    /// Bytes that are free for us on the share.
    fn free_bytes(&self, path: &Path) -> impl Future<Output = ShareResult<u64>> + Send;
    /// Most bytes of a file name in a folder (`pathconf`, `_PC_NAME_MAX`).
    fn name_max(&self, folder: &Path) -> impl Future<Output = ShareResult<usize>> + Send;
}
