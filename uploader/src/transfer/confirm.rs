//! A blob that was made of this very claim, found after a crash or a lost reply: is the file still what was committed?

use tokio::time::Instant;

use super::{Finish, Plan, Setback, source};
use crate::{
    blob::{BlobStore, BlockListKind, Found, ListedBlock},
    complete::{complete, next_generation},
    file::ClaimedFile,
    formats::{BlobOrigin, BlockId, OrderKey},
    session::{Edges, Session},
    share::{Identity, Share},
};

/// Completes the file if it is what the blob was made of; else it is a later generation.
pub(super) async fn confirm<E: Edges>(
    session: &Session<E>,
    file: &mut ClaimedFile,
    open: &source::Source<<E::Share as Share>::File>,
    found: &Found,
    origin: &BlobOrigin,
) -> Result<Finish, Setback> {
    if found.size == open.identity.size && is_committed(session, file, open, origin).await? {
        return Ok(complete(session, file, &open.identity, 0).await?);
    }
    become_next_generation(session, file, &open.identity, origin.claim.key.next()).await
}

/// Gives the file a new claim with this key; it must become quiet and is then sent.
pub(super) async fn become_next_generation<E: Edges>(
    session: &Session<E>,
    file: &mut ClaimedFile,
    identity: &Identity,
    key: OrderKey,
) -> Result<Finish, Setback> {
    let claim = session.claim_id(key, identity, file.since);
    let Some(name) = next_generation(session, &file.blob, &file.folder, &file.name, claim).await? else {
        return Ok(Finish::Gone);
    };
    // Something of it may have waited since before its new key.
    let since = file.since;
    *file = ClaimedFile { since, ..ClaimedFile::adopted(file.folder.clone(), name, file.blob.clone()) };
    file.size = identity.size;
    Err(Setback::NotQuiet(Instant::now()))
}

/// True if the committed content is the file's. Block ids that carry the hash of the file's present state prove that without a read;
/// otherwise (a chmod changed the ctime, or the blob was one Put Blob) the file is read and compared.
async fn is_committed<E: Edges>(
    session: &Session<E>,
    file: &ClaimedFile,
    open: &source::Source<<E::Share as Share>::File>,
    origin: &BlobOrigin,
) -> Result<bool, Setback> {
    let listed = match session.store.blocks(&file.blob, BlockListKind::Committed).await {
        // Its blocks are not told, its checksum is.
        Err(error) if error.is_archived() => Vec::new(),
        listed => listed?,
    };
    if listed.is_empty() {
        return Ok(source::whole_crc64(session, open).await? == Some(origin.crc64));
    }
    let Some(blocks) = own_blocks(&listed) else { return Ok(false) };
    if is_plan_of_present_state(session, file, &open.identity, &blocks) {
        return Ok(true);
    }
    let mut offset = 0;
    for block in &blocks {
        if source::range_crc64(session, open, offset, u64::from(block.length)).await? != Some(block.crc64) {
            return Ok(false);
        }
        offset += u64::from(block.length);
    }
    Ok(offset == open.identity.size)
}

/// The ids of a committed list, if all of them are ours and have the size that they say.
fn own_blocks(listed: &[ListedBlock]) -> Option<Vec<BlockId>> {
    listed.iter().map(|block| BlockId::parse(&block.id).filter(|id| u64::from(id.length) == block.size)).collect()
}

fn is_plan_of_present_state<E: Edges>(session: &Session<E>, file: &ClaimedFile, identity: &Identity, blocks: &[BlockId]) -> bool {
    let Some(first) = blocks.first() else { return false };
    let Some(plan) = Plan::new(&session.source, &file.name.claim, identity, u64::from(first.length)) else { return false };
    // The only block of a file may be shorter than the block size that its hash covers; then the content is compared.
    plan.blocks() as usize == blocks.len()
        && blocks
            .iter()
            .enumerate()
            .all(|(index, block)| u32::try_from(index).is_ok_and(|index| *block == plan.id(index, block.crc64)))
}
