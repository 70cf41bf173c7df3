//! The blob service as one uploader's node sees it: the service in memory with Azure's rules, behind a network.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use blobferry_uploader::{
    blob::{BlobError, BlobStore, BlockListKind, Condition, ETag, Found, ListedBlock, Properties, memory::MemoryStore},
    formats::{BlobName, BlockId},
};
use bytes::Bytes;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

use crate::{
    crash::Life,
    faults::Refusal,
    oracle::Intent,
    world::{Sim, World},
};

/// The container of one process.
#[derive(Clone, Debug)]
pub struct SimStore {
    sim: Sim,
    life: Arc<Life>,
    service: MemoryStore,
}

/// A request that changes something.
#[derive(Clone, Debug)]
enum Write {
    Block { name: BlobName, id: BlockId, body: Bytes, crc64: u64 },
    Blob { name: BlobName, body: Bytes, crc64: u64, condition: Condition, properties: Properties, intent: Option<Intent> },
    Commit { name: BlobName, blocks: Vec<BlockId>, condition: Condition, properties: Properties, intent: Option<Intent> },
    Prepare,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Normal,
    Refused(Refusal),
    Rejected,
    Lost,
    Late(u64),
    Twice(u64),
}

fn lost() -> BlobError {
    BlobError::Transient { message: "connection closed before the reply".into(), retry_after: None }
}

fn refused(refusal: Refusal, random: u64) -> BlobError {
    match refusal {
        Refusal::Denied => BlobError::Denied { message: "AuthorizationFailure".into() },
        Refusal::Busy => {
            BlobError::Transient { message: "ServerBusy".into(), retry_after: Some(Duration::from_secs(1 + random % 20)) }
        }
        Refusal::Unreachable => BlobError::Transient { message: "no route to host".into(), retry_after: None },
    }
}

impl SimStore {
    /// The container as `life` sees it.
    pub fn new(sim: Sim, life: Arc<Life>) -> Self {
        let service = sim.lock().store.clone();
        Self { sim, life, service }
    }

    fn fate(&self, is_write: bool, is_of_a_file: bool) -> (Fate, u64, u64) {
        let mut world = self.sim.lock();
        let World { faults, random, .. } = &mut *world;
        let (before, after) = faults.delays_of_blob(random);
        let rates = faults.blob;
        let later = random.between(500, 120_000);
        let fate = match faults.blob_refuses {
            Some((until, refusal)) if until > Instant::now() => Fate::Refused(refusal),
            _ if random.chance(rates.error) => Fate::Refused(Refusal::Unreachable),
            _ if random.chance(rates.busy) => Fate::Refused(Refusal::Busy),
            _ if is_of_a_file && random.chance(rates.rejected) => Fate::Rejected,
            _ if is_write && random.chance(rates.lost) => Fate::Lost,
            _ if is_write && random.chance(rates.late) => Fate::Late(later),
            _ if is_write && random.chance(rates.twice) => Fate::Twice(later),
            _ => Fate::Normal,
        };
        (fate, before, after)
    }

    fn say(&self, what: impl FnOnce() -> String) {
        self.sim.say(&self.life.name, what);
    }

    async fn read<T: std::fmt::Debug>(
        &self,
        what: &str,
        read: impl Future<Output = Result<T, BlobError>> + Send,
    ) -> Result<T, BlobError> {
        self.life.turn().await;
        let (fate, before, after) = self.fate(false, false);
        pass(before).await;
        self.life.turn().await;
        let found = match fate {
            Fate::Refused(refusal) => Err(refused(refusal, before)),
            _ => read.await,
        };
        self.say(|| format!("{what}: {found:?}"));
        pass(after).await;
        self.life.turn().await;
        found
    }

    async fn write(&self, what: &str, write: Write) -> Result<ETag, BlobError> {
        let effect = self.life.before(&self.sim).await;
        let (fate, before, after) = self.fate(true, !matches!(write, Write::Prepare));
        self.say(|| format!("{what}, {fate:?}"));
        let result = match fate {
            Fate::Refused(refusal) => {
                pass(before).await;
                Err(refused(refusal, before))
            }
            Fate::Rejected => {
                pass(before).await;
                Err(BlobError::Rejected { code: "InvalidInput".into(), message: "the service does not take it".into() })
            }
            Fate::Normal => self.send(before, write).await,
            Fate::Lost => self.send(before, write).await.and_then(|_| Err(lost())),
            Fate::Late(milliseconds) => {
                self.send_unseen(before + milliseconds, write);
                pass(before).await;
                Err(lost())
            }
            Fate::Twice(milliseconds) => {
                self.send_unseen(before + milliseconds, write.clone());
                self.send(before, write).await
            }
        };
        self.life.turn().await;
        self.say(|| format!("{what}: {result:?}"));
        self.life.after(&self.sim, effect).await;
        pass(after).await;
        self.life.turn().await;
        result
    }

    /// Sends a request. One that is on its way arrives even if the process does not live to see it.
    async fn send(&self, milliseconds: u64, write: Write) -> Result<ETag, BlobError> {
        let write = self.spoil(write);
        if milliseconds == 0 {
            return arrive(&self.sim, &self.service, write).await;
        }
        let (reply, result) = oneshot::channel();
        let (sim, service) = (self.sim.clone(), self.service.clone());
        tokio::spawn(async move {
            pass(milliseconds).await;
            // Nobody may be there any more.
            let _ = reply.send(arrive(&sim, &service, write).await);
        });
        result.await.unwrap_or_else(|_| Err(lost()))
    }

    /// Sends a request whose reply nobody will see. The service has its own copy of the bytes.
    fn send_unseen(&self, milliseconds: u64, mut write: Write) {
        if let Write::Block { body, .. } | Write::Blob { body, .. } = &mut write {
            *body = Bytes::copy_from_slice(body);
        }
        let (sim, service) = (self.sim.clone(), self.service.clone());
        tokio::spawn(async move {
            pass(milliseconds).await;
            let _ = arrive(&sim, &service, write).await;
        });
    }

    /// A bit may flip on the way, and uncommitted blocks may vanish before the request arrives.
    fn spoil(&self, mut write: Write) -> Write {
        let mut world = self.sim.lock();
        let World { faults, random, .. } = &mut *world;
        let (flips, expires) = (random.chance(faults.blob.flipped), random.chance(faults.blob.expired));
        match &mut write {
            Write::Block { body, .. } | Write::Blob { body, .. } if flips && !body.is_empty() => {
                let mut bytes = body.to_vec();
                let place = usize::try_from(random.below(bytes.len() as u64)).unwrap_or_default();
                bytes[place] ^= 4;
                *body = bytes.into();
            }
            Write::Block { name, .. } | Write::Commit { name, .. } if expires => {
                self.service.expire_blocks(name);
            }
            _ => {}
        }
        write
    }
}

async fn arrive(sim: &Sim, service: &MemoryStore, write: Write) -> Result<ETag, BlobError> {
    let (name, intent, result) = match write {
        Write::Prepare => return service.prepare().await.map(|()| ETag(String::new())),
        Write::Block { name, id, body, crc64 } => {
            return service.put_block(&name, &id, body, crc64).await.map(|()| ETag(String::new()));
        }
        Write::Blob { name, body, crc64, condition, properties, intent } => {
            let result = service.put_blob(&name, body, crc64, &condition, &properties).await;
            (name, intent, result)
        }
        Write::Commit { name, blocks, condition, properties, intent } => {
            let result = service.commit(&name, &blocks, &condition, &properties).await;
            (name, intent, result)
        }
    };
    let mut world = sim.lock();
    world.log.say("service", || format!("commit of {name}: {result:?}"));
    if let (Ok(_), Some(intent)) = (&result, intent) {
        let content = service.content(&name).unwrap_or_default();
        world.oracle.committed(&name, &intent, content);
    }
    result
}

async fn pass(milliseconds: u64) {
    if milliseconds > 0 {
        sleep(Duration::from_millis(milliseconds)).await;
    }
}

impl BlobStore for SimStore {
    async fn look(&self, name: &BlobName) -> Result<Option<Found>, BlobError> {
        self.read("look at the blob", self.service.look(name)).await
    }

    async fn put_block(&self, name: &BlobName, id: &BlockId, body: Bytes, crc64: u64) -> Result<(), BlobError> {
        let write = Write::Block { name: name.clone(), id: *id, body, crc64 };
        self.write("put block", write).await.map(drop)
    }

    async fn put_blob(
        &self,
        name: &BlobName,
        body: Bytes,
        crc64: u64,
        condition: &Condition,
        properties: &Properties,
    ) -> Result<ETag, BlobError> {
        let intent = self.sim.lock().oracle.intends(self.life.number, properties);
        let (condition, properties) = (condition.clone(), properties.clone());
        self.write("put blob", Write::Blob { name: name.clone(), body, crc64, condition, properties, intent }).await
    }

    async fn commit(
        &self,
        name: &BlobName,
        blocks: &[BlockId],
        condition: &Condition,
        properties: &Properties,
    ) -> Result<ETag, BlobError> {
        let intent = self.sim.lock().oracle.intends(self.life.number, properties);
        let (condition, properties) = (condition.clone(), properties.clone());
        self.write("commit", Write::Commit { name: name.clone(), blocks: blocks.to_vec(), condition, properties, intent }).await
    }

    async fn blocks(&self, name: &BlobName, kind: BlockListKind) -> Result<Vec<ListedBlock>, BlobError> {
        self.read("list blocks", self.service.blocks(name, kind)).await
    }

    async fn prepare(&self) -> Result<(), BlobError> {
        self.write("prepare", Write::Prepare).await.map(drop)
    }

    async fn refresh(&self) {}
}

/// Writes or deletes a blob as a consumer or another source would.
pub fn disturb(sim: &Sim, name: &BlobName, content: Option<&'static [u8]>) {
    let mut world = sim.lock();
    world.oracle.disturbed(name);
    match content {
        Some(content) => {
            world.store.write_as_another(name, Bytes::from_static(content), &BTreeMap::new());
        }
        None => world.store.delete_as_another(name),
    }
    world.log.say("others", || format!("{} {name}", if content.is_some() { "write" } else { "delete" }));
}
