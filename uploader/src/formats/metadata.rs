//! The metadata that says of which file, of which share and session, a blob was made.

use std::{collections::BTreeMap, fmt};

use uuid::Uuid;

use super::ClaimId;

const FORMAT: &str = "blobferry_format";
const SOURCE: &str = "blobferry_source";
const CLAIM: &str = "blobferry_claim";
const CRC64: &str = "blobferry_crc64";
const MODIFIED: &str = "blobferry_modified";

/// What a blob belongs to: the share, by the UUID in its `.blobferry-share`, and the session name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SourceId {
    share: Uuid,
    session: String,
}

impl SourceId {
    /// The source id of a session on a share.
    pub fn new(share: Uuid, session: &str) -> Self {
        Self { share, session: session.to_owned() }
    }

    fn parse(text: &str) -> Option<Self> {
        let (share, session) = text.split_once('/')?;
        Some(Self { share: share.parse().ok()?, session: session.to_owned() })
    }
}

impl fmt::Display for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.share, self.session)
    }
}

/// Which generation of which source a blob is, read from its metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobOrigin {
    /// Where the file came from.
    pub source: SourceId,
    /// The generation.
    pub claim: ClaimId,
    /// CRC-64/NVME of the whole content.
    pub crc64: u64,
}

impl BlobOrigin {
    /// What the metadata says, or `None` if the blob is not ours or of another version.
    pub fn parse(metadata: &BTreeMap<String, String>) -> Option<Self> {
        if metadata.get(FORMAT)? != "1" {
            return None;
        }
        Some(Self {
            source: SourceId::parse(metadata.get(SOURCE)?)?,
            claim: ClaimId::parse(metadata.get(CLAIM)?.as_bytes())?,
            crc64: u64::from_str_radix(metadata.get(CRC64)?, 16).ok()?,
        })
    }
}

/// The metadata of a blob of `origin` whose file was last modified at `mtime` (nanoseconds since 1970, for people only).
pub fn metadata_of(origin: &BlobOrigin, mtime: i128) -> BTreeMap<String, String> {
    let mut metadata = BTreeMap::from([
        (FORMAT.to_owned(), "1".to_owned()),
        (SOURCE.to_owned(), origin.source.to_string()),
        (CLAIM.to_owned(), origin.claim.to_string()),
        (CRC64.to_owned(), format!("{:016x}", origin.crc64)),
    ]);
    if let Ok(modified) = jiff::Timestamp::from_nanosecond(mtime) {
        metadata.insert(MODIFIED.to_owned(), modified.to_string());
    }
    metadata
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::{OrderKey, ProcessId};

    #[test]
    fn origin_is_read_back_from_metadata() {
        let origin = BlobOrigin {
            source: SourceId::new(Uuid::from_u128(7), "truck-7"),
            claim: ClaimId::new(OrderKey(1), ProcessId::new(2), 3),
            crc64: 0xae8b_1486_0a79_9888,
        };
        let metadata = metadata_of(&origin, 1_763_712_000_000_000_000);
        assert_eq!(BlobOrigin::parse(&metadata), Some(origin));
        assert_eq!(metadata["blobferry_modified"], "2025-11-21T08:00:00Z");
    }

    #[test]
    fn foreign_blobs_have_no_origin() {
        assert_eq!(BlobOrigin::parse(&BTreeMap::new()), None);
    }
}
