//! The file on the share during an attempt: opened once, looked at by name and by descriptor, read again only to compare.

use std::io;

use bytes::BytesMut;
use tokio::time::Instant;

use super::{Setback, send};
use crate::{
    file::ClaimedFile,
    formats::BlockId,
    release::put_folder_back,
    session::{Edges, Session},
    share::{Identity, Kind, Share, ShareFile},
};

/// Bytes read at a time for a comparison.
const STRIDE: u64 = 4 << 20;

/// An open claimed file and the state in which it was last seen.
#[derive(Debug)]
pub(super) struct Source<F> {
    /// The open file.
    pub(super) file: F,
    /// Its state, the same by name and by descriptor.
    pub(super) identity: Identity,
}

/// Comparisons after changes of the ctime alone; a file that is touched all the time must not be read for ever.
const COMPARISONS: u32 = 2;

/// Opens the file unless `opened` is it, and looks at it by name and by descriptor; `None` if its name is gone, or was a folder's.
pub(super) async fn open<E: Edges>(
    session: &Session<E>,
    file: &mut ClaimedFile,
    opened: Option<<E::Share as Share>::File>,
) -> Result<Option<Source<<E::Share as Share>::File>>, Setback> {
    let attributes = match session.share.attributes(&file.path()).await {
        Err(error) if error.is_absent() => return Ok(None),
        attributes => attributes?,
    };
    if attributes.kind == Kind::Folder {
        put_folder_back(session, file).await?;
        return Ok(None);
    }
    let by_name = attributes.identity;
    file.seen(by_name);
    if let Some(opened) = opened {
        match opened.attributes().await {
            Ok(attributes) if attributes.identity == by_name => {
                file.observe(by_name, Instant::now());
                return Ok(Some(Source { file: opened, identity: by_name }));
            }
            // The file that was sampled has no name any more: the rename took another one, which may even have got its inode number.
            Ok(attributes) => file.was_replaced |= attributes.links == 0,
            Err(error) if error.kind() == io::ErrorKind::StaleNetworkFileHandle => file.was_replaced = true,
            Err(error) => return Err(error.into()),
        }
    }
    let reopened = match session.share.open(&file.path()).await {
        Err(error) if error.is_absent() => return Ok(None),
        reopened => reopened?,
    };
    let identity = reopened.attributes().await?.identity;
    file.observe(identity, Instant::now());
    Ok(Some(Source { file: reopened, identity }))
}

/// The last check before a commit: by name and by descriptor the file must be what was read. A change of the ctime alone (chmod, a new
/// hard link, a backup tool) is settled by comparing the content with the blocks that were sent; where nothing was sent yet, the file
/// is simply read again.
pub(super) async fn check_unchanged<E: Edges>(
    session: &Session<E>,
    file: &mut ClaimedFile,
    source: &mut Source<<E::Share as Share>::File>,
    sent: Option<&[BlockId]>,
) -> Result<(), Setback> {
    for _ in 0..COMPARISONS {
        let by_name = session.share.attributes(&file.path()).await?.identity;
        let by_descriptor = source.file.attributes().await?.identity;
        if by_name == source.identity && by_descriptor == source.identity {
            return Ok(());
        }
        if by_name != by_descriptor || !by_name.same_content(&source.identity) {
            return Err(changed_to(session, file, by_name));
        }
        let Some(blocks) = sent else {
            file.accept_attributes(by_name);
            return Err(Setback::LookAgain);
        };
        if !is_same_content(session, source, blocks).await? {
            return Err(changed_to(session, file, by_name));
        }
        source.identity = by_name;
        file.accept_attributes(by_name);
    }
    let message = "something changes the file's attributes all the time (a backup tool?): stop it, or wait until it is done";
    Err(Setback::failed("KeepsChanging", message.into(), true))
}

/// The setback for a file that is not what it was.
pub(super) async fn changed<E: Edges>(
    session: &Session<E>,
    file: &mut ClaimedFile,
    source: &Source<<E::Share as Share>::File>,
) -> Setback {
    match source.file.attributes().await {
        Ok(attributes) => changed_to(session, file, attributes.identity),
        Err(error) => error.into(),
    }
}

fn changed_to<E: Edges>(session: &Session<E>, file: &mut ClaimedFile, identity: Identity) -> Setback {
    let now = Instant::now();
    file.sent = None;
    file.observe(identity, now);
    file.quiet_at(session.live().min_file_age, now).map_or(Setback::LookAgain, Setback::NotQuiet)
}

async fn is_same_content<E: Edges>(
    session: &Session<E>,
    source: &Source<<E::Share as Share>::File>,
    blocks: &[BlockId],
) -> Result<bool, Setback> {
    let mut offset = 0;
    for block in blocks {
        if range_crc64(session, source, offset, u64::from(block.length)).await? != Some(block.crc64) {
            return Ok(false);
        }
        offset += u64::from(block.length);
    }
    Ok(offset == source.identity.size)
}

/// The checksum of the whole content; `None` if the file is shorter than it was.
pub(super) async fn whole_crc64<E: Edges>(
    session: &Session<E>,
    source: &Source<<E::Share as Share>::File>,
) -> Result<Option<u64>, Setback> {
    range_crc64(session, source, 0, source.identity.size).await
}

/// The checksum of a part of the content; `None` if the file is shorter.
pub(super) async fn range_crc64<E: Edges>(
    session: &Session<E>,
    source: &Source<<E::Share as Share>::File>,
    start: u64,
    length: u64,
) -> Result<Option<u64>, Setback> {
    let mut buffer = session.buffers.take(usize::try_from(STRIDE.min(length)).unwrap_or(usize::MAX)).await;
    let mut crc64 = send::crc64(&[]);
    let mut done = 0;
    while done < length {
        let stride = usize::try_from(STRIDE.min(length - done)).unwrap_or(usize::MAX);
        let bytes: BytesMut = std::mem::take(&mut buffer.bytes);
        buffer.bytes = source.file.read_at(start + done, bytes, stride).await?;
        if buffer.bytes.len() != stride {
            return Ok(None);
        }
        crc64 = send::combine(crc64, send::crc64(&buffer.bytes), stride as u64);
        done += stride as u64;
    }
    Ok(Some(crc64))
}
