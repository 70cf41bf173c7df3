//! How much is too much. (pure)

use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::{
    block_list::From,
    body::Content,
    call::Call,
    refusal::{self, Refusal},
};

/// Most blocks of a blob.
const COMMITTED_BLOCKS: usize = 50_000;
/// Most uncommitted blocks under a name.
pub(super) const UNCOMMITTED_BLOCKS: usize = 100_000;
/// Most bytes of a raw block id.
const BLOCK_ID: usize = 64;
const MIB: u64 = 1 << 20;

/// Most bytes of a Put Block and of a Put Blob, by the version of the protocol.
fn largest(version: &str) -> (u64, u64) {
    match version {
        version if version >= "2019-12-12" => (4000 * MIB, 5000 * MIB),
        version if version >= "2016-05-31" => (100 * MIB, 256 * MIB),
        _ => (4 * MIB, 64 * MIB),
    }
}

fn check_size(call: &Call, content: &Content, most: impl Fn((u64, u64)) -> u64) -> Result<(), Refusal> {
    let most = most(largest(call.header("x-ms-version").unwrap_or("2009-09-19")));
    if content.size > most { Err(refusal::REQUEST_BODY_TOO_LARGE) } else { Ok(()) }
}

pub(super) fn check_put_blob(call: &Call, content: &Content) -> Result<(), Refusal> {
    match call.header("x-ms-blob-type") {
        Some("BlockBlob") => check_size(call, content, |(_, blob)| blob),
        Some("PageBlob" | "AppendBlob") => Err(refusal::INVALID_BLOB_TYPE),
        _ => Err(refusal::INVALID_HEADER_VALUE),
    }
}

/// Checks a Put Block; returns the raw id.
pub(super) fn check_put_block(call: &Call, content: &Content) -> Result<Vec<u8>, Refusal> {
    let id = call.parameter("blockid").and_then(|id| BASE64_STANDARD.decode(id).ok());
    let id = id.filter(|id| (1..=BLOCK_ID).contains(&id.len())).ok_or(refusal::INVALID_BLOCK_ID)?;
    if content.size == 0 {
        return Err(refusal::INVALID_HEADER_VALUE);
    }
    check_size(call, content, |(block, _)| block)?;
    Ok(id)
}

pub(super) fn check_block_list(list: &[(From, Vec<u8>)]) -> Result<(), Refusal> {
    if list.len() > COMMITTED_BLOCKS { Err(refusal::BLOCK_LIST_TOO_LONG) } else { Ok(()) }
}
