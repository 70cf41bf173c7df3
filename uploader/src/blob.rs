//! The blob service as the uploader sees it: a small trait that Azure, an in-memory service and fault-injecting ones implement.
//!
//! The trait offers the calls of the Azure REST API for block blobs, one request each, and no policy: what to send, when to look and
//! when to try again is decided by its callers. No method repeats a request by itself.

#[cfg(any(test, feature = "test-support"))]
pub mod memory;

use std::{collections::BTreeMap, time::Duration};

use blobferry_crds::AccessTier;
use bytes::Bytes;

use crate::formats::{BlobName, BlockId};

/// An entity tag: equal tags mean equal content and metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ETag(pub String);

/// What is under a blob's name now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The version that this is.
    pub etag: ETag,
    /// Bytes of content.
    pub size: u64,
    /// User-defined metadata, names in lower case.
    pub metadata: BTreeMap<String, String>,
}

/// When a write may take place.
/// See <https://learn.microsoft.com/rest/api/storageservices/specifying-conditional-headers-for-blob-service-operations>.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Only if there is no blob (`If-None-Match: *`).
    Absent,
    /// Only if the blob is the one that was looked at (`If-Match`).
    Matches(ETag),
}

/// What a commit gives the blob besides its content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// User-defined metadata.
    pub metadata: BTreeMap<String, String>,
    /// Index tags.
    pub tags: BTreeMap<String, String>,
    /// How the content is stored; the account's default if `None`.
    pub access_tier: Option<AccessTier>,
    /// MIME type of the content; `application/octet-stream` if `None`.
    pub content_type: Option<String>,
}

/// A block in the service's own list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedBlock {
    /// The raw id, base64 decoded. Blocks of others have ids of any length.
    pub id: Vec<u8>,
    /// Bytes of the block.
    pub size: u64,
}

/// Which list of blocks is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockListKind {
    /// Blocks of the blob's content, in order.
    Committed,
    /// Blocks that were sent and not committed, kept for seven days.
    Uncommitted,
}

/// Why a request failed, sorted by what the caller does next. The messages hold no credential.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    /// The network or the service is in trouble: try again later. It is unknown whether the request was applied.
    #[error("{message}")]
    Transient {
        /// What happened, with the service's code.
        message: String,
        /// How long the service asks to wait.
        retry_after: Option<Duration>,
    },
    /// The credential does not allow it (401, 403) or there is none: refresh it and try again.
    #[error("{message}")]
    Denied {
        /// What was refused, with the service's code.
        message: String,
    },
    /// A condition did not hold, or another write was faster (409, 412): look again.
    #[error("{message}")]
    Conflict {
        /// What happened, with the service's code.
        message: String,
    },
    /// A block of the commit is not there (`InvalidBlockList`): list and send again.
    #[error("{message}")]
    BlocksMissing {
        /// What happened, with the service's code.
        message: String,
    },
    /// Uncommitted blocks of somebody else stand in the way (`InvalidBlobOrBlock`, `BlockCountExceedsLimit`): wait.
    #[error("{message}")]
    ForeignBlocks {
        /// What happened, with the service's code.
        message: String,
    },
    /// The blob cannot be overwritten (archived, immutable, leased, another kind of blob): wait and say so.
    #[error("{message}")]
    Protected {
        /// The service's code, `CamelCase`.
        code: String,
        /// What happened.
        message: String,
    },
    /// The bytes were not those of the checksum (`Crc64Mismatch`): send again.
    #[error("{message}")]
    Corrupted {
        /// What happened, with the service's code.
        message: String,
    },
    /// The container does not exist or is being deleted.
    #[error("{message}")]
    ContainerMissing {
        /// What happened, with the service's code.
        message: String,
    },
    /// The account has not what the session asks for with every file (`accessTier`, `tags`): no file's own failure.
    #[error("{message}")]
    Unsupported {
        /// The service's code, `CamelCase`.
        code: String,
        /// What happened.
        message: String,
    },
    /// The service will never take this request (400, 413, ...): the file's own failure.
    #[error("{message}")]
    Rejected {
        /// The service's code, `CamelCase`.
        code: String,
        /// What happened.
        message: String,
    },
}

impl BlobError {
    /// Whether the blob's content is offline, with its list of blocks; its metadata is not.
    /// See <https://learn.microsoft.com/azure/storage/blobs/access-tiers-overview#archive-access-tier>.
    pub fn is_archived(&self) -> bool {
        matches!(self, Self::Protected { code, .. } if code == "BlobArchived" || code == "BlobBeingRehydrated")
    }

    /// `CamelCase` reason for status.
    pub fn reason(&self) -> &str {
        match self {
            Self::Transient { .. } => "Unreachable",
            Self::Denied { .. } => "Denied",
            Self::Conflict { .. } => "Conflict",
            Self::BlocksMissing { .. } => "BlocksMissing",
            Self::ForeignBlocks { .. } => "ForeignBlocks",
            Self::Corrupted { .. } => "Corrupted",
            Self::ContainerMissing { .. } => "ContainerMissing",
            Self::Protected { code, .. } | Self::Unsupported { code, .. } | Self::Rejected { code, .. } => code,
        }
    }
}

/// A container for block blobs.
///
/// A checksum is CRC-64/NVME, which the service verifies on arrival
/// (<https://learn.microsoft.com/rest/api/storageservices/put-block>, `x-ms-content-crc64`).
pub trait BlobStore: Send + Sync + 'static {
    /// What is under `name` now (Get Blob Properties); `None` if there is nothing.
    fn look(&self, name: &BlobName) -> impl Future<Output = Result<Option<Found>, BlobError>> + Send;

    /// Sends one block (Put Block).
    fn put_block(
        &self,
        name: &BlobName,
        id: &BlockId,
        body: Bytes,
        crc64: u64,
    ) -> impl Future<Output = Result<(), BlobError>> + Send;

    /// Sends a whole blob (Put Blob); it is visible at once.
    fn put_blob(
        &self,
        name: &BlobName,
        body: Bytes,
        crc64: u64,
        condition: &Condition,
        properties: &Properties,
    ) -> impl Future<Output = Result<ETag, BlobError>> + Send;

    /// Makes the blob from uncommitted blocks, in this order (Put Block List, all of them `Uncommitted`).
    fn commit(
        &self,
        name: &BlobName,
        blocks: &[BlockId],
        condition: &Condition,
        properties: &Properties,
    ) -> impl Future<Output = Result<ETag, BlobError>> + Send;

    /// The blocks under `name` (Get Block List); empty if there is nothing.
    fn blocks(&self, name: &BlobName, kind: BlockListKind) -> impl Future<Output = Result<Vec<ListedBlock>, BlobError>> + Send;

    /// Makes sure that the container can be used: makes it if it is absent and allowed, and checks that reading is allowed.
    fn prepare(&self) -> impl Future<Output = Result<(), BlobError>> + Send;

    /// Reads the credential again, after [`BlobError::Denied`] or when its Secret changed.
    fn refresh(&self) -> impl Future<Output = ()> + Send;
}
