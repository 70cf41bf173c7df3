//! How a file is cut into blocks. (pure)
//!
//! Limits: <https://learn.microsoft.com/rest/api/storageservices/put-block-list#remarks>: 50,000 blocks of at most 4,000 MiB.

use std::collections::BTreeMap;

use crate::{
    blob::ListedBlock,
    formats::{BlockId, BlockPlanHash, ClaimId, SourceId},
    share::Identity,
};

const MOST_BLOCKS: u64 = 50_000;
const LARGEST_BLOCK: u64 = 4000 << 20;
/// Grown blocks are multiples of this, which suits the transfer size of NFS.
const GRAIN: u64 = 1 << 20;

/// A file's blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What the block ids of this plan carry.
    pub hash: BlockPlanHash,
    /// Bytes of the file.
    pub size: u64,
    /// Bytes of every block but the last.
    pub block_size: u64,
}

impl Plan {
    /// The plan for a file in a given state, with blocks of at least `block_size` bytes; `None` if the file is larger than any blob.
    pub fn new(source: &SourceId, claim: &ClaimId, identity: &Identity, block_size: u64) -> Option<Self> {
        let needed = identity.size.div_ceil(MOST_BLOCKS);
        let block_size = if needed <= block_size { block_size } else { needed.next_multiple_of(GRAIN) };
        (block_size <= LARGEST_BLOCK).then(|| Self {
            hash: BlockPlanHash::new(source, claim, identity, block_size),
            size: identity.size,
            block_size,
        })
    }

    /// Number of blocks.
    pub fn blocks(&self) -> u32 {
        u32::try_from(self.size.div_ceil(self.block_size)).unwrap_or(u32::MAX)
    }

    /// Where block `index` starts.
    pub fn offset(&self, index: u32) -> u64 {
        u64::from(index) * self.block_size
    }

    /// Bytes of block `index`.
    pub fn length(&self, index: u32) -> u32 {
        u32::try_from(self.block_size.min(self.size.saturating_sub(self.offset(index)))).unwrap_or(u32::MAX)
    }

    /// The id of block `index` with that checksum.
    pub fn id(&self, index: u32, crc64: u64) -> BlockId {
        BlockId { hash: self.hash, index, length: self.length(index), crc64 }
    }

    /// Blocks of the service's uncommitted list that are of this plan, by index. The service checked their CRC on arrival and the hash
    /// proves that the file is the same, so they need not be read or sent again.
    pub fn reusable(&self, listed: &[ListedBlock]) -> Vec<Option<BlockId>> {
        let mut blocks = vec![None; self.blocks() as usize];
        for block in listed {
            let Some(id) = BlockId::parse(&block.id) else { continue };
            if id.hash == self.hash && self.fits(&id) && block.size == u64::from(id.length) {
                blocks[id.index as usize] = Some(id);
            }
        }
        blocks
    }

    /// Blocks of the service's uncommitted list that were planned for another state of the file, for the places where `reusable` are missing:
    /// if only the file's attributes have changed since, a read shows that their content is still the file's.
    pub fn comparable(&self, listed: &[ListedBlock], reusable: &[Option<BlockId>]) -> BTreeMap<u32, Vec<BlockId>> {
        let mut comparable: BTreeMap<u32, Vec<BlockId>> = BTreeMap::new();
        for block in listed {
            let Some(id) = BlockId::parse(&block.id).filter(|id| self.fits(id) && block.size == u64::from(id.length)) else {
                continue;
            };
            if reusable[id.index as usize].is_none() {
                comparable.entry(id.index).or_default().push(id);
            }
        }
        comparable
    }

    /// Whether a block of this id has the place and the length of one of this plan.
    fn fits(&self, id: &BlockId) -> bool {
        id.index < self.blocks() && id.length == self.length(id.index)
    }

    /// Blocks in flight at a time: `concurrency`, fewer when grown blocks would take more than half of `memory_limit`.
    pub fn in_flight(&self, concurrency: usize, memory_limit: u64) -> usize {
        let fitting = usize::try_from(memory_limit / 2 / self.block_size).unwrap_or(usize::MAX);
        concurrency.min(fitting).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::{OrderKey, ProcessId};

    fn plan(size: u64, block_size: u64) -> Option<Plan> {
        let claim = ClaimId::new(OrderKey(1), ProcessId::new(1), 1);
        let identity = Identity { inode: 1, size, mtime: 1, ctime: 1 };
        Plan::new(&SourceId::new(uuid::Uuid::nil(), "s"), &claim, &identity, block_size)
    }

    #[test]
    fn blocks_cover_the_file_exactly() {
        for (size, block_size, blocks) in [(1, 4, 1), (4, 4, 1), (5, 4, 2), (12, 4, 3)] {
            let plan = plan(size, block_size).unwrap();
            assert_eq!(plan.blocks(), blocks);
            assert_eq!((0..blocks).map(|index| u64::from(plan.length(index))).sum::<u64>(), size);
        }
    }

    #[test]
    fn blocks_grow_to_fit_fifty_thousand_and_fewer_fly() {
        let terabyte = plan(1 << 40, 4 << 20).unwrap();
        assert!(terabyte.blocks() <= 50_000 && terabyte.block_size.is_multiple_of(GRAIN));
        assert_eq!(terabyte.in_flight(8, 256 << 20), 6);
        assert_eq!(plan(u64::from(u32::MAX), 4 << 20).unwrap().block_size, 4 << 20);
        assert_eq!(plan(200 << 40, 4 << 20), None);
        assert_eq!(plan(190 << 40, 4 << 20).unwrap().in_flight(8, 256 << 20), 1);
    }

    #[test]
    fn only_blocks_of_the_very_same_plan_are_reused() {
        let plan_ = plan(10, 4).unwrap();
        let listed = |id: BlockId, size| ListedBlock { id: id.to_bytes().to_vec(), size };
        let good = plan_.id(1, 77);
        assert_eq!(plan_.reusable(&[listed(good, 4)]), [None, Some(good), None]);
        let foreign_hash = plan(11, 4).unwrap().id(1, 77);
        for (what, block) in [
            ("another state of the file", listed(foreign_hash, 4)),
            ("another size than its id says", listed(good, 3)),
            ("an index beyond the end", listed(BlockId { index: 3, ..good }, 4)),
            ("a length that is not the plan's", listed(BlockId { length: 3, ..good }, 3)),
            ("somebody else's", ListedBlock { id: vec![1; 8], size: 4 }),
        ] {
            assert_eq!(plan_.reusable(&[block]), [None, None, None], "{what}");
        }
    }
}
