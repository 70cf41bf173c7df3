//! One attempt to bring a claimed file into its blob.
//!
//! Open and look at the source, look at the blob, decide; send what the service does not have; wait until the file was quiet; look at
//! the blob and at the source again; commit under the condition of that look; prove; rename to completed. Each step may end the
//! attempt with a [`Setback`], and what was sent is kept for the next.

mod buffers;
mod confirm;
mod decide;
mod flight;
mod plan;
mod send;
mod setback;
mod source;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    blob::{BlobStore, BlockListKind, Condition, ListedBlock, Properties},
    complete::{complete, supersede},
    file::ClaimedFile,
    formats::{BlobOrigin, BlockId, OrderKey, metadata_of},
    session::{Edges, Session},
    share::{Identity, Share, ShareFile},
};

pub use buffers::{Buffer, Buffers};
pub use decide::{Verdict, decide};
pub use flight::Flight;
pub use plan::Plan;
pub use send::Sent;
pub use setback::{Setback, cause};

/// Nothing is read of a file within so long of a change that was observed: two writes within one tick of the server's clock look like
/// one, and what was read between them would look like all of it.
const SETTLED: Duration = Duration::from_secs(1);

/// How a file left our hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// Committed, proven and renamed to completed.
    Completed,
    /// A later generation was committed first; it is kept under that name.
    Superseded,
    /// Somebody else took it.
    Gone,
    /// It failed too often for its own sake.
    SetAside,
    /// It was given back to the incoming folder.
    Released,
    /// It cannot be given back.
    Stays,
}

/// One attempt. `opened` is the file opened before its claim, `progress` the bytes that the service has.
pub async fn attempt<E: Edges>(
    session: &Session<E>,
    file: &mut ClaimedFile,
    opened: Option<<E::Share as Share>::File>,
    progress: &AtomicU64,
) -> Result<Finish, Setback> {
    let Some(open) = source::open(session, file, opened).await? else { return Ok(Finish::Gone) };
    let is_caught = file.is_caught(&open.identity);
    if is_caught && file.sample.is_some() {
        // A newer file took the name between the look and the rename; it must not go under the older one's key. The older one may be
        // another uploader's by now.
        session.books().ledger.doubts.add(file.since);
        let key = key_of_caught(file, &open.identity);
        return confirm::become_next_generation(session, file, &open.identity, key).await;
    }
    must_be_quiet(file, SETTLED.min(session.live().min_file_age))?;
    let size = open.identity.size;
    let small = size <= session.rules.single_put_size;
    // A fresh small name costs one request: its condition is the look.
    let verdict = if small && file.is_fresh() { Verdict::Write(Condition::Absent) } else { look(session, file).await? };
    match verdict {
        Verdict::Committed(found, origin) => confirm::confirm(session, file, &open, &found, &origin).await,
        // Another claim may have the same key, for the file that this one was made for.
        _ if is_caught => confirm::become_next_generation(session, file, &open.identity, key_of_caught(file, &open.identity)).await,
        Verdict::Overtaken => Ok(supersede(session, file).await?),
        Verdict::Occupied(message) => Err(Setback::occupied(message)),
        Verdict::Write(condition) if small => put(session, file, open, &condition, progress).await,
        Verdict::Write(_) => send_and_commit(session, file, open, progress).await,
    }
}

async fn look<E: Edges>(session: &Session<E>, file: &ClaimedFile) -> Result<Verdict, Setback> {
    let found = session.store.look(&file.blob).await?;
    Ok(decide(found, &session.source, &file.name.claim, session.rules.overwrite))
}

/// A small file: one Put Blob.
async fn put<E: Edges>(
    session: &Session<E>,
    file: &mut ClaimedFile,
    mut open: source::Source<<E::Share as Share>::File>,
    condition: &Condition,
    progress: &AtomicU64,
) -> Result<Finish, Setback> {
    must_be_quiet(file, session.live().min_file_age)?;
    let length = usize::try_from(open.identity.size).unwrap_or(usize::MAX);
    let mut buffer = session.buffers.take(length).await;
    buffer.bytes = open.file.read_at(0, std::mem::take(&mut buffer.bytes), length).await?;
    if buffer.bytes.len() != length {
        return Err(source::changed(session, file, &open).await);
    }
    let body = buffer.freeze();
    let crc64 = send::crc64(&body);
    source::check_unchanged(session, file, &mut open, None).await?;
    let properties = properties(session, file, &open.identity, crc64);
    session.store.put_blob(&file.blob, body, crc64, condition, &properties).await?;
    progress.store(open.identity.size, Ordering::Relaxed);
    session.metrics.sent(open.identity.size);
    Ok(complete(session, file, &open.identity, 0).await?)
}

/// A large file: blocks, then the commit.
async fn send_and_commit<E: Edges>(
    session: &Session<E>,
    file: &mut ClaimedFile,
    mut open: source::Source<<E::Share as Share>::File>,
    progress: &AtomicU64,
) -> Result<Finish, Setback> {
    let blocks = send::send(session, file, &open, progress).await?;
    must_be_quiet(file, session.live().min_file_age)?;
    let condition = match look(session, file).await? {
        Verdict::Write(condition) => condition,
        Verdict::Committed(found, origin) => return confirm::confirm(session, file, &open, &found, &origin).await,
        Verdict::Overtaken => return Ok(supersede(session, file).await?),
        Verdict::Occupied(message) => return Err(Setback::occupied(message)),
    };
    source::check_unchanged(session, file, &mut open, Some(&blocks)).await?;
    let properties = properties(session, file, &open.identity, send::combined(&blocks));
    if let Err(error) = session.store.commit(&file.blob, &blocks, &condition, &properties).await {
        return Err(Setback::of_commit(file, error));
    }
    prove(session, file, &blocks).await?;
    let resumed = file.sent.as_ref().map_or(0, Sent::resumed);
    Ok(complete(session, file, &open.identity, resumed).await?)
}

/// The committed list must be the plan, id by id and size by size: our own metadata would also be there if blocks had been swapped.
async fn prove<E: Edges>(session: &Session<E>, file: &ClaimedFile, blocks: &[BlockId]) -> Result<(), Setback> {
    let committed = match session.store.blocks(&file.blob, BlockListKind::Committed).await {
        Err(error) if error.is_archived() => return prove_archived(session, file, blocks).await,
        committed => committed?,
    };
    let same = |(listed, id): (&ListedBlock, &BlockId)| listed.id == id.to_bytes() && listed.size == u64::from(id.length);
    if committed.len() == blocks.len() && committed.iter().zip(blocks).all(same) {
        return Ok(());
    }
    Err(not_proven())
}

/// An archived blob does not say its blocks: what came with the same commit must have the claim, the size and the checksum of what was sent.
async fn prove_archived<E: Edges>(session: &Session<E>, file: &ClaimedFile, blocks: &[BlockId]) -> Result<(), Setback> {
    let size: u64 = blocks.iter().map(|block| u64::from(block.length)).sum();
    match look(session, file).await? {
        Verdict::Committed(found, origin) if found.size == size && origin.crc64 == send::combined(blocks) => Ok(()),
        _ => Err(not_proven()),
    }
}

fn not_proven() -> Setback {
    Setback::failed("NotProven", "the committed blob has other blocks than were sent: somebody else writes to it".into(), false)
}

/// The key of a file that took the name between the look and the rename. The rename set its ctime, and whatever came to the name later
/// has at least that one. A ctime that is the mtime too may be that of a later write; then the file is only known to follow the sampled
/// one.
fn key_of_caught(file: &ClaimedFile, identity: &Identity) -> OrderKey {
    let next = file.name.claim.key.beyond_changes();
    let ctime = file.ctime_of(identity);
    let is_of_the_rename = file.is_fresh() || ctime != identity.mtime;
    if is_of_the_rename { next.max(OrderKey::at(ctime - 1)) } else { next }
}

fn must_be_quiet(file: &ClaimedFile, period: Duration) -> Result<(), Setback> {
    file.quiet_at(period, Instant::now()).map_or(Ok(()), |at| Err(Setback::NotQuiet(at)))
}

fn properties<E: Edges>(session: &Session<E>, file: &ClaimedFile, identity: &Identity, crc64: u64) -> Properties {
    let origin = BlobOrigin { source: session.source.clone(), claim: file.name.claim, crc64 };
    let mut properties = session.rules.properties.clone();
    properties.metadata.extend(metadata_of(&origin, identity.mtime));
    properties
}
