//! Sends the blocks of a file: read once, checksummed in the very buffer that is sent, kept on the stage at the same time.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, checksum, checksum_combine};
use futures::{StreamExt, future::BoxFuture, stream};
use tokio::time::Instant;

use super::{Buffer, Plan, Setback, source};
use crate::{
    blob::{BlobError, BlobStore, BlockListKind},
    ends::End,
    file::ClaimedFile,
    formats::BlockId,
    retry::backoff,
    session::{Edges, Session},
    share::{Identity, Share, ShareFile},
    stage::{Stage, StagedFile},
};

/// Times that one block is sent while its buffer is held; then the attempt ends and the memory is free for others.
const TRIES: u32 = 4;
/// A block that failed waits for no longer than this with its memory; then the attempt ends, and the whole file waits.
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// A block that could not be sent for so long is worth a word, although it is sent again.
const WORTH_A_WORD: Duration = Duration::from_secs(10);
/// The part of our work that says whether blocks arrive.
const BLOCKS: &str = "blocks";

/// CRC-64/NVME, the polynomial of `x-ms-content-crc64`.
pub(super) fn crc64(bytes: &[u8]) -> u64 {
    checksum(CrcAlgorithm::Crc64Nvme, bytes)
}

/// The checksum of two parts, the second of `length` bytes.
pub(super) fn combine(first: u64, second: u64, length: u64) -> u64 {
    checksum_combine(CrcAlgorithm::Crc64Nvme, first, second, length)
}

/// The checksum of the whole content, from those of its blocks.
pub(super) fn combined(blocks: &[BlockId]) -> u64 {
    blocks.iter().fold(crc64(&[]), |whole, block| combine(whole, block.crc64, u64::from(block.length)))
}

/// What was sent of a file in one state.
#[derive(Debug)]
pub struct Sent {
    identity: Identity,
    plan: Plan,
    /// Blocks that the service has.
    blocks: Vec<Option<BlockId>>,
    /// Blocks that it has of another state of the file: each counts if a read shows its content.
    comparable: BTreeMap<u32, Vec<BlockId>>,
    /// Checksums of the first read of each block.
    first_reads: Vec<Option<u64>>,
    staged: Option<Box<dyn Staged>>,
    resumed: u64,
}

impl Sent {
    /// Bytes that the service had from an earlier process.
    pub fn resumed(&self) -> u64 {
        self.resumed
    }

    /// Takes a change of the ctime alone whose content was compared.
    pub fn accept_attributes(&mut self, identity: Identity) {
        self.identity = identity;
    }

    /// Gives up the place on the local disk, for others that do not wait.
    pub fn unstage(&mut self) {
        self.staged = None;
    }

    fn bytes(&self) -> u64 {
        self.blocks.iter().flatten().map(|block| u64::from(block.length)).sum()
    }
}

/// A staged file of any stage.
trait Staged: Send + Sync + std::fmt::Debug {
    fn keep(&self, offset: u64, block: Bytes);
    fn read(&self, offset: u64, length: usize, buffer: Buffer) -> BoxFuture<'_, Result<Buffer, Buffer>>;
}

impl<F: StagedFile> Staged for F {
    fn keep(&self, offset: u64, block: Bytes) {
        StagedFile::keep(self, offset, block);
    }

    fn read(&self, offset: u64, length: usize, mut buffer: Buffer) -> BoxFuture<'_, Result<Buffer, Buffer>> {
        Box::pin(async move {
            match StagedFile::read(self, offset, length, std::mem::take(&mut buffer.bytes)).await {
                Ok(bytes) => {
                    buffer.bytes = bytes;
                    Ok(buffer)
                }
                Err(bytes) => {
                    buffer.bytes = bytes;
                    Err(buffer)
                }
            }
        })
    }
}

/// Sends the blocks that the service does not have; returns the ids of all.
pub(super) async fn send<E: Edges>(
    session: &Session<E>,
    file: &mut ClaimedFile,
    open: &source::Source<<E::Share as Share>::File>,
    progress: &AtomicU64,
) -> Result<Vec<BlockId>, Setback> {
    let mut sent = match still_valid(session, file.sent.take(), open).await? {
        Some(sent) => sent,
        None => begin(session, file, open).await?,
    };
    progress.store(sent.bytes(), Ordering::Relaxed);
    let result = send_missing(session, file, open, &mut sent, progress).await;
    session.books().ends.works(End::Destination, BLOCKS);
    let complete: Option<Vec<BlockId>> = sent.blocks.iter().copied().collect();
    file.sent = Some(sent);
    match (result, complete) {
        (Err(Setback::LookAgain), _) => Err(source::changed(session, file, open).await),
        (Err(setback), _) => Err(setback),
        (Ok(()), Some(blocks)) => Ok(blocks),
        (Ok(()), None) => Err(Setback::failed("BlocksMissing", "not all blocks were sent".into(), false)),
    }
}

/// What an earlier attempt sent, if the file is still what it was. A change of the ctime alone costs a read of what was sent.
async fn still_valid<E: Edges>(
    session: &Session<E>,
    sent: Option<Sent>,
    open: &source::Source<<E::Share as Share>::File>,
) -> Result<Option<Sent>, Setback> {
    let Some(mut sent) = sent.filter(|sent| sent.identity.same_content(&open.identity)) else { return Ok(None) };
    if sent.identity != open.identity {
        for id in sent.blocks.iter().flatten() {
            let (offset, length) = (sent.plan.offset(id.index), u64::from(id.length));
            if source::range_crc64(session, open, offset, length).await? != Some(id.crc64) {
                return Ok(None);
            }
        }
        sent.accept_attributes(open.identity);
    }
    Ok(Some(sent))
}

async fn begin<E: Edges>(
    session: &Session<E>,
    file: &ClaimedFile,
    open: &source::Source<<E::Share as Share>::File>,
) -> Result<Sent, Setback> {
    let identity = &open.identity;
    let too_large = || Setback::failed("TooLarge", "the file is larger than a blob can be (190.7 TiB)".into(), true);
    let plan = Plan::new(&session.source, &file.name.claim, identity, session.rules.block_size).ok_or_else(too_large)?;
    if plan.block_size > session.rules.memory_limit {
        let message = format!("the file needs blocks of {} bytes: raise transfer.memoryLimit above that", plan.block_size);
        return Err(Setback::failed("BlocksTooLarge", message, true));
    }
    // A file that this process has just claimed has no blocks at the service.
    let listed = if file.is_fresh() { Vec::new() } else { session.store.blocks(&file.blob, BlockListKind::Uncommitted).await? };
    let blocks = plan.reusable(&listed);
    let comparable = plan.comparable(&listed, &blocks);
    let resumed = blocks.iter().flatten().map(|block| u64::from(block.length)).sum();
    session.metrics.resumed(resumed);
    let staged = session.stage.begin(plan.size).await.map(|staged| Box::new(staged) as Box<dyn Staged>);
    let first_reads = vec![None; blocks.len()];
    Ok(Sent { identity: *identity, plan, blocks, comparable, first_reads, staged, resumed })
}

/// How the service came to have a block.
enum Way {
    Sent,
    /// It had one of the same content.
    Known,
}

async fn send_missing<E: Edges>(
    session: &Session<E>,
    file: &ClaimedFile,
    open: &source::Source<<E::Share as Share>::File>,
    sent: &mut Sent,
    progress: &AtomicU64,
) -> Result<(), Setback> {
    let Sent { plan, blocks, comparable, first_reads, staged, resumed, .. } = sent;
    let in_flight = plan.in_flight(session.rules.concurrency, session.rules.memory_limit);
    let missing: Vec<(u32, Option<u64>)> = (0..plan.blocks())
        .filter(|index| blocks[*index as usize].is_none())
        .map(|index| (index, first_reads[index as usize]))
        .collect();
    let failing = AtomicBool::new(false);
    let bringing = Bringing { session, file, open, plan, comparable, staged: staged.as_deref(), failing: &failing };
    let mut sending =
        stream::iter(missing).map(|(index, first_read)| bringing.bring(index, first_read)).buffer_unordered(in_flight);
    // After a failure nothing is begun, but what is under way ends: the share may still write into its memory, and the service has it then.
    let mut failure = None;
    while let Some(ended) = sending.next().await {
        let outcome = ended.and_then(|ended| {
            let Some((id, outcome)) = ended else { return Ok(()) };
            first_reads[id.index as usize] = Some(id.crc64);
            let length = u64::from(id.length);
            match outcome? {
                Way::Sent => session.metrics.sent(length),
                Way::Known => {
                    *resumed += length;
                    session.metrics.resumed(length);
                }
            }
            progress.fetch_add(length, Ordering::Relaxed);
            blocks[id.index as usize] = Some(id);
            Ok(())
        });
        if let Err(setback) = outcome {
            failing.store(true, Ordering::Relaxed);
            failure.get_or_insert(setback);
        }
    }
    failure.map_or(Ok(()), Err)
}

/// What the blocks of a file have in common while they are brought to the service.
struct Bringing<'a, E: Edges> {
    session: &'a Session<E>,
    file: &'a ClaimedFile,
    open: &'a source::Source<<E::Share as Share>::File>,
    plan: &'a Plan,
    comparable: &'a BTreeMap<u32, Vec<BlockId>>,
    staged: Option<&'a dyn Staged>,
    /// True once one of them has failed.
    failing: &'a AtomicBool,
}

impl<E: Edges> Bringing<'_, E> {
    /// Reads a block and sends it, unless the service has one of the same content; `None` if it was not begun.
    async fn bring(&self, index: u32, first_read: Option<u64>) -> Result<Option<(BlockId, Result<Way, Setback>)>, Setback> {
        // Before its memory is taken: a block that must wait holds up no other file.
        let airborne = self.session.flight.take_off(u64::from(self.plan.length(index))).await;
        if self.failing.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let (body, crc64) = read_block(self.session, self.open, self.plan, index, first_read, self.staged).await?;
        if let Some(known) = self.comparable.get(&index).and_then(|ids| ids.iter().find(|id| id.crc64 == crc64)) {
            return Ok(Some((*known, Ok(Way::Known))));
        }
        let id = self.plan.id(index, crc64);
        let outcome = put_block(self.session, self.file, &id, body).await;
        if outcome.is_ok() {
            airborne.arrived();
        }
        Ok(Some((id, outcome.map(|()| Way::Sent))))
    }
}

/// The bytes of a block with their checksum. Bytes that are read again must have the checksum of the first read.
async fn read_block<E: Edges>(
    session: &Session<E>,
    open: &source::Source<<E::Share as Share>::File>,
    plan: &Plan,
    index: u32,
    first_read: Option<u64>,
    staged: Option<&dyn Staged>,
) -> Result<(Bytes, u64), Setback> {
    let (offset, length) = (plan.offset(index), plan.length(index) as usize);
    let mut buffer = session.buffers.take(length).await;
    if let (Some(expected), Some(staged)) = (first_read, staged) {
        match staged.read(offset, length, buffer).await {
            Ok(kept) if crc64(&kept.bytes) == expected => return Ok((kept.freeze(), expected)),
            Ok(spoilt) | Err(spoilt) => buffer = spoilt,
        }
    }
    buffer.bytes = open.file.read_at(offset, std::mem::take(&mut buffer.bytes), length).await?;
    let crc64 = crc64(&buffer.bytes);
    if buffer.bytes.len() != length || first_read.is_some_and(|expected| expected != crc64) {
        return Err(Setback::LookAgain);
    }
    let body = buffer.freeze();
    if let Some(staged) = staged {
        staged.keep(offset, body.clone());
    }
    Ok((body, crc64))
}

async fn put_block<E: Edges>(session: &Session<E>, file: &ClaimedFile, id: &BlockId, body: Bytes) -> Result<(), Setback> {
    let began = Instant::now();
    for failures in 1.. {
        let error = match session.store.put_block(&file.blob, id, body.clone(), id.crc64).await {
            Ok(()) => {
                session.books().ends.works(End::Destination, BLOCKS);
                return Ok(());
            }
            Err(error) => error,
        };
        let wait = match &error {
            BlobError::Transient { retry_after, .. } => backoff(failures, session.jitter(), *retry_after),
            BlobError::Corrupted { .. } => Duration::ZERO,
            _ => return Err(error.into()),
        };
        if failures >= TRIES || wait > LONGEST_WAIT {
            return Err(error.into());
        }
        tracing::warn!(%error, failures, index = id.index, "a block is sent again");
        if failures > 1 || began.elapsed() > WORTH_A_WORD {
            session.books().ends.fails(End::Destination, BLOCKS, error.reason(), &error.to_string());
        }
        tokio::time::sleep(wait).await;
    }
    Ok(())
}
