//! The id of a block: 48 raw bytes, 64 characters of base64 on the wire, the same length for every block for ever.

use sha2::{Digest, Sha256};

use super::{ClaimId, SourceId};
use crate::share::Identity;

const VERSION: u8 = 1;
const HASH_LENGTH: usize = 31;

/// H of a block id: covers everything that decides which bytes a block of a given index has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockPlanHash([u8; HASH_LENGTH]);

impl BlockPlanHash {
    /// The hash for a claimed file in a given state, cut into blocks of `block_size` bytes.
    ///
    /// `identity` must come from a forced sync after the claim and before the first byte was read.
    pub fn new(source: &SourceId, claim: &ClaimId, identity: &Identity, block_size: u64) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"blobferry block plan 1\0");
        hash.update(source.to_string());
        hash.update(b"\0");
        hash.update(claim.to_string());
        for number in [identity.inode, identity.size, block_size] {
            hash.update(number.to_be_bytes());
        }
        for time in [identity.mtime, identity.ctime] {
            hash.update(time.to_be_bytes());
        }
        let mut bytes = [0; HASH_LENGTH];
        bytes.copy_from_slice(&hash.finalize()[..HASH_LENGTH]);
        Self(bytes)
    }
}

/// Version (1 byte), H (31), index (4, big endian), length (4, big endian) and CRC-64/NVME (8, big endian) of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockId {
    /// What the block was planned for.
    pub hash: BlockPlanHash,
    /// Place of the block in the blob.
    pub index: u32,
    /// Bytes of the block; at most 4000 MiB, the service's limit.
    pub length: u32,
    /// Checksum of the bytes, which the service verified when the block arrived.
    pub crc64: u64,
}

impl BlockId {
    /// Bytes of a raw id.
    pub const LENGTH: usize = 48;

    /// The raw id.
    pub fn to_bytes(&self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[0] = VERSION;
        bytes[1..32].copy_from_slice(&self.hash.0);
        bytes[32..36].copy_from_slice(&self.index.to_be_bytes());
        bytes[36..40].copy_from_slice(&self.length.to_be_bytes());
        bytes[40..48].copy_from_slice(&self.crc64.to_be_bytes());
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote; `None` for a block that is not ours or of another version.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LENGTH] = bytes.try_into().ok()?;
        if bytes[0] != VERSION {
            return None;
        }
        Some(Self {
            hash: BlockPlanHash(bytes[1..32].try_into().ok()?),
            index: u32::from_be_bytes(bytes[32..36].try_into().ok()?),
            length: u32::from_be_bytes(bytes[36..40].try_into().ok()?),
            crc64: u64::from_be_bytes(bytes[40..48].try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::{OrderKey, ProcessId};

    fn identity() -> Identity {
        Identity { inode: 1, size: 2, mtime: 3, ctime: 4 }
    }

    fn hash(claim: u64, identity: &Identity, block_size: u64) -> BlockPlanHash {
        let claim = ClaimId::new(OrderKey(claim), ProcessId::new(0), 0);
        BlockPlanHash::new(&SourceId::new(uuid::Uuid::nil(), "s"), &claim, identity, block_size)
    }

    #[test]
    fn block_ids_are_read_back() {
        let id = BlockId { hash: hash(1, &identity(), 4), index: 7, length: u32::MAX, crc64: u64::MAX - 5 };
        assert_eq!(BlockId::parse(&id.to_bytes()), Some(id));
        assert_eq!(BlockId::parse(&id.to_bytes()[..47]), None);
        let mut other_version = id.to_bytes();
        other_version[0] = 2;
        assert_eq!(BlockId::parse(&other_version), None);
    }

    #[test]
    fn every_part_of_the_plan_changes_the_hash() {
        let base = hash(1, &identity(), 4);
        assert_ne!(base, hash(2, &identity(), 4));
        assert_ne!(base, hash(1, &identity(), 5));
        for changed in [
            Identity { inode: 9, ..identity() },
            Identity { size: 9, ..identity() },
            Identity { mtime: 9, ..identity() },
            Identity { ctime: 9, ..identity() },
        ] {
            assert_ne!(base, hash(1, &changed, 4), "{changed:?}");
        }
    }

    #[test]
    fn hash_of_version_one_never_changes() {
        let id = BlockId { hash: hash(1, &identity(), 4), index: 0, length: 0, crc64: 0 };
        assert_eq!(id.to_bytes()[..8], [0x01, 0x7d, 0x1b, 0x4f, 0x06, 0x09, 0x04, 0x80]);
    }
}
