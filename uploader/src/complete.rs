//! The end of a generation: the rename that proves it, or the one that says it was overtaken.

use std::path::Path;

use crate::{
    file::ClaimedFile,
    formats::{BlobName, ClaimId, OrderKey, ProcessingName, Stamp, State},
    moves::{Moved, rename_and_look},
    session::{Edges, Session},
    share::{Identity, Share, ShareError, join},
    transfer::Finish,
};

/// Renames a proven file to completed. `identity` is the state that was checked last before the commit: bytes that came later do not
/// fit the stamp and are found by the collector.
pub async fn complete<E: Edges>(
    session: &Session<E>,
    file: &ClaimedFile,
    identity: &Identity,
    resumed: u64,
) -> Result<Finish, ShareError> {
    let name = file.name.with(State::Completed(Stamp::new(&file.name.claim, identity)));
    let to = join(&file.folder, &name.to_bytes());
    let ticket = session.books().ledger.completing(session.server_now());
    let moved = rename_and_look(&session.share, &file.path(), &to).await;
    if !matches!(moved, Ok(Moved::Yes)) {
        session.books().ledger.not_completed(ticket);
        return moved.map(|_| Finish::Gone);
    }
    // The rename is the proof and is counted, whether its time can be read or not: another uploader may have collected the file.
    let attributes = session.share.attributes(&to).await;
    let ctime = attributes.map_or_else(|_| session.server_now(), |attributes| attributes.identity.ctime);
    session.saw_server_time(ctime);
    session.books().ledger.completed(ticket, &file.blob, identity.size, resumed, ctime);
    Ok(Finish::Completed)
}

/// Renames a file that a later generation of its name overtook; it is kept.
pub async fn supersede<E: Edges>(session: &Session<E>, file: &ClaimedFile) -> Result<Finish, ShareError> {
    let to = join(&file.folder, &file.name.with(State::Superseded).to_bytes());
    match rename_and_look(&session.share, &file.path(), &to).await? {
        Moved::Gone => Ok(Finish::Gone),
        Moved::Yes => {
            session.books().ledger.superseded(&file.blob);
            Ok(Finish::Superseded)
        }
    }
}

/// Makes the file `from` of `blob` in `folder` the next generation of its name, with a key above `above`. Returns its new name, or `None` if it
/// is gone.
pub async fn next_generation<E: Edges>(
    session: &Session<E>,
    blob: &BlobName,
    folder: &Path,
    from: &ProcessingName,
    above: OrderKey,
    ctime: i128,
) -> Result<Option<ProcessingName>, ShareError> {
    let key = {
        let mut books = session.books();
        books.keys.saw(blob.file().as_bytes(), above);
        books.keys.next(blob.file().as_bytes(), ctime)
    };
    let name = ProcessingName::claimed(&from.producer, ClaimId::new(key, session.process, session.random()));
    let moved = rename_and_look(&session.share, &join(folder, &from.to_bytes()), &join(folder, &name.to_bytes())).await?;
    Ok((moved == Moved::Yes).then_some(name))
}
