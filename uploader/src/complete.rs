//! The end of a generation: the rename that proves it, or the one that says it was overtaken.

use std::path::Path;

use crate::{
    file::ClaimedFile,
    formats::{BlobName, ClaimId, ProcessingName, Stamp, State},
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
    session.books().ledger.completing(file.name.claim, session.server_now());
    let moved = rename_and_look(&session.share, &file.path(), &to).await;
    match moved {
        Ok(Moved::Yes) => {}
        Ok(Moved::Gone) => {
            session.books().ledger.forget(&file.name.claim);
            return Ok(Finish::Gone);
        }
        Err(error) => {
            session.books().ledger.unsure(file.name.claim);
            return Err(error);
        }
    }
    // The rename is the proof and is counted, whether its time can be read or not: another uploader may have collected the file.
    let ctime = session.share.attributes(&to).await.ok().map(|attributes| attributes.identity.ctime);
    if let Some(ctime) = ctime {
        session.saw_server_time(ctime);
    }
    session.books().ledger.completed(file.name.claim, &file.blob, identity.size, resumed, ctime);
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

/// Makes the file `from` of `blob` in `folder` a later generation of its name, with this claim. Returns its new name, or `None` if it
/// is gone.
pub async fn next_generation<E: Edges>(
    session: &Session<E>,
    blob: &BlobName,
    folder: &Path,
    from: &ProcessingName,
    claim: ClaimId,
) -> Result<Option<ProcessingName>, ShareError> {
    session.books().keys.saw(blob.file().as_bytes(), claim.key);
    let name = ProcessingName::claimed(&from.producer, claim);
    let moved = rename_and_look(&session.share, &join(folder, &from.to_bytes()), &join(folder, &name.to_bytes())).await?;
    Ok((moved == Moved::Yes).then_some(name))
}
