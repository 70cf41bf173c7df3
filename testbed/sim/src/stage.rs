//! The local disk of one process: it may be full, keep nothing, or give back other bytes. It never survives the process.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use blobferry_uploader::stage::{Stage, StagedFile};
use bytes::{Bytes, BytesMut};

use crate::world::{Sim, World};

/// The stage.
#[derive(Clone, Debug)]
pub struct SimStage {
    sim: Sim,
}

impl SimStage {
    /// An empty disk.
    pub fn new(sim: Sim) -> Self {
        Self { sim }
    }
}

impl Stage for SimStage {
    type File = SimStaged;

    fn used(&self) -> u64 {
        0
    }

    async fn begin(&self, _size: u64) -> Option<SimStaged> {
        let mut world = self.sim.lock();
        let World { faults, random, .. } = &mut *world;
        if !faults.stage.is_there || random.chance(faults.stage.full) {
            return None;
        }
        Some(SimStaged { sim: self.sim.clone(), blocks: Arc::default() })
    }
}

/// A staged file.
#[derive(Debug)]
pub struct SimStaged {
    sim: Sim,
    blocks: Arc<Mutex<BTreeMap<u64, Bytes>>>,
}

impl StagedFile for SimStaged {
    fn keep(&self, offset: u64, block: Bytes) {
        let mut world = self.sim.lock();
        let World { faults, random, .. } = &mut *world;
        if !random.chance(faults.stage.unkept) {
            self.blocks.lock().unwrap_or_else(PoisonError::into_inner).insert(offset, Bytes::copy_from_slice(&block));
        }
    }

    async fn read(&self, offset: u64, length: usize, mut buffer: BytesMut) -> Result<BytesMut, BytesMut> {
        let kept = self.blocks.lock().unwrap_or_else(PoisonError::into_inner).get(&offset).cloned();
        let Some(block) = kept.filter(|block| block.len() == length) else { return Err(buffer) };
        buffer.clear();
        buffer.extend_from_slice(&block);
        let mut world = self.sim.lock();
        let World { faults, random, .. } = &mut *world;
        if random.chance(faults.stage.spoilt)
            && let Some(byte) = buffer.first_mut()
        {
            *byte ^= 1;
        }
        Ok(buffer)
    }
}
