//! The formats that outlive the process: names on the share, block ids and metadata in Azure, the stamp, the marker and the
//! heartbeat. They are final: a change needs a new version beside the old one. `docs/formats.md` describes them for people.

mod base32;
mod blob_name;
mod block_id;
mod claim_id;
mod metadata;
mod processing_name;
mod share_files;
mod stamp;

pub use blob_name::{BlobName, BlobNameError, blob_name};
pub use block_id::{BlockId, BlockPlanHash};
pub use claim_id::{ClaimId, OrderKey, ProcessId};
pub use metadata::{BlobOrigin, SourceId, metadata_of};
pub use processing_name::{ProcessingName, State, longest_producer_name};
pub use share_files::{FailedReason, HEARTBEATS, Heartbeat, MARKERS, Marker, SHARE_ID, heartbeat_name};
pub use stamp::Stamp;
