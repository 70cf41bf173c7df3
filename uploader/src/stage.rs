//! The copy of a file on the local disk while it is uploaded, so that a later attempt does not read the share again.
//!
//! A stage never slows an upload down: what cannot be kept at once is not kept, and is read from the share again if it is needed.

mod disk;

use bytes::{Bytes, BytesMut};

pub use disk::{Budget, DiskStage};

/// A place for staged files.
pub trait Stage: Send + Sync + 'static {
    /// A staged file.
    type File: StagedFile;

    /// Bytes that are staged now.
    fn used(&self) -> u64;

    /// What is wrong with the local disk, if something is: files are streamed meanwhile.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// Lets go whoever waits for a disk that hangs; to be called again and again.
    fn let_go(&self) {}

    /// Starts to stage a file of `size` bytes; `None` if there is no room or staging is off.
    fn begin(&self, size: u64) -> impl Future<Output = Option<Self::File>> + Send;
}

/// A file being staged. Dropping it removes it.
pub trait StagedFile: Send + Sync + std::fmt::Debug + 'static {
    /// Keeps a block if that is possible without waiting.
    fn keep(&self, offset: u64, block: Bytes);

    /// The block of `length` bytes at `offset`, or the buffer unchanged if it was not kept. The caller checks the content.
    fn read(&self, offset: u64, length: usize, buffer: BytesMut) -> impl Future<Output = Result<BytesMut, BytesMut>> + Send;
}
