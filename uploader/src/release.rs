//! Gives claimed files back to their producers' folder, unless they are in their blobs or a later file of the name exists.
//!
//! By link and unlink: a rename would replace a newer file of the name, link(2) refuses to. A crash between the two leaves the file
//! under both names; whoever starts next removes the claimed one.

use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::AtomicU64,
};

use crate::{
    blob::BlobStore,
    claims::{Found, find},
    file::ClaimedFile,
    ledger::problem,
    moves::exists,
    session::{Edges, Session},
    share::{Identity, Kind, Share, ShareResult},
    transfer::{Finish, Setback, Verdict, attempt, decide},
};

/// One attempt to let a claimed file go.
pub async fn release<E: Edges>(session: &Session<E>, file: &mut ClaimedFile, progress: &AtomicU64) -> Result<Finish, Setback> {
    let found = session.store.look(&file.blob).await?;
    match decide(found, &session.source, &file.name.claim, session.rules.overwrite) {
        // What is settled is completed or kept as when watching.
        Verdict::Committed(..) | Verdict::Overtaken => attempt(session, file, None, progress).await,
        Verdict::Write(_) | Verdict::Occupied(_) => put_back(session, file).await,
    }
}

async fn put_back<E: Edges>(session: &Session<E>, file: &ClaimedFile) -> Result<Finish, Setback> {
    if has_later(session, file).await? {
        return Ok(stays(session, file, "a later file of its name was claimed"));
    }
    let (from, to) = (file.path(), incoming(session, file));
    let attributes = match session.share.attributes(&from).await {
        Err(error) if error.is_absent() => return Ok(Finish::Gone),
        attributes => attributes?,
    };
    if attributes.kind == Kind::Folder {
        put_folder_back(session, file).await?;
        return Ok(Finish::Gone);
    }
    let identity = attributes.identity;
    if !leads_through_folders(session, &to).await? {
        return Ok(stays(session, file, "what was its folder in the incoming folder is no folder now"));
    }
    if !link(session, &from, &to, &identity).await? {
        return Ok(stays(session, file, "a newer file of its name is in the incoming folder"));
    }
    if let Err(error) = session.share.remove(&from).await
        && exists(&session.share, &from).await?
    {
        return Err(error.into());
    }
    let mut books = session.books();
    books.ledger.withdrawn(1);
    books.ledger.failures.recovered(&file.blob);
    tracing::info!(file_name = %file.display_name(), "the file is given back");
    Ok(Finish::Released)
}

/// A folder took the name between the look and the rename, and was claimed with all that is in it: it gets its name back. That replaces
/// no file and no folder that has something in it, see rename(2).
pub(crate) async fn put_folder_back<E: Edges>(session: &Session<E>, folder: &ClaimedFile) -> Result<(), Setback> {
    let (from, to) = (folder.path(), incoming(session, folder));
    let refused = |why: &dyn std::fmt::Display| {
        let message = format!("a folder took the name of the file and cannot be given back: {why}");
        Setback::failed("FolderInTheWay", message, false)
    };
    if !leads_through_folders(session, &to).await? {
        return Err(refused(&"what was its folder in the incoming folder is no folder now"));
    }
    let renamed = session.share.rename(&from, &to).await;
    if let Err(error) = renamed
        && exists(&session.share, &from).await?
    {
        if let (true, Some(above)) = (error.is_absent(), to.parent()) {
            session.share.make_folder(above).await?;
        }
        return Err(refused(&error.full()));
    }
    tracing::warn!(folder = %folder.display_name(), "a folder took the name of the file, and is given back");
    Ok(())
}

/// True if a later generation of the name is or was below the processing folder. The keys are those of the last pass of the collector,
/// but for names that were forgotten.
async fn has_later<E: Edges>(session: &Session<E>, file: &ClaimedFile) -> ShareResult<bool> {
    let remembered = session.books().keys.greatest(file.producer().as_bytes());
    if let Some(greatest) = remembered {
        return Ok(greatest > file.name.claim.key);
    }
    let all = find(&session.share, &session.folders).await?;
    let is_later = |other: &Found| other.producer() == file.producer().as_bytes() && other.name.claim.key > file.name.claim.key;
    Ok(all.found.iter().any(is_later))
}

/// Where the producer put the file.
fn incoming<E: Edges>(session: &Session<E>, file: &ClaimedFile) -> PathBuf {
    session.folders.incoming.join(file.producer())
}

/// False if something else than a folder, be it a link to one, has the name of one of the folders that lead from the incoming folder to
/// `path`: what would be put there is not where its producer had it, or cannot be put at all.
async fn leads_through_folders<E: Edges>(session: &Session<E>, path: &Path) -> ShareResult<bool> {
    let below = path.ancestors().skip(1).take_while(|folder| *folder != session.folders.incoming);
    for folder in below.collect::<Vec<_>>().into_iter().rev() {
        match session.share.attributes(folder).await {
            Ok(attributes) if attributes.kind != Kind::Folder => return Ok(false),
            // It is made again.
            Err(error) if error.is_absent() => return Ok(true),
            attributes => drop(attributes?),
        }
    }
    Ok(true)
}

/// Gives the file its old name; false if another file has it.
async fn link<E: Edges>(session: &Session<E>, from: &Path, to: &Path, identity: &Identity) -> ShareResult<bool> {
    let Err(mut error) = session.share.link(from, to).await else { return Ok(true) };
    if let (true, Some(folder)) = (error.is_absent(), to.parent()) {
        // Its producer removed the folder meanwhile.
        session.share.make_folder(folder).await?;
        match session.share.link(from, to).await {
            Ok(()) => return Ok(true),
            Err(second) => error = second,
        }
    }
    // A reply may have been lost: the name that exists may be the file's own.
    match session.share.attributes(to).await {
        Ok(there) => Ok(there.identity.inode == identity.inode),
        Err(absent) if absent.is_absent() || error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        Err(other) => Err(other),
    }
}

/// The file stays claimed, and is not looked at again by this process.
fn stays<E: Edges>(session: &Session<E>, file: &ClaimedFile, why: &str) -> Finish {
    let message = format!("it stays in the processing folder: {why}");
    tracing::warn!(file_name = %file.display_name(), message, "the file is not given back");
    let mut books = session.books();
    books.stays.insert(file.name.claim, problem(&file.display_name(), "LaterFile", &message));
    books.ledger.failures.recovered(&file.blob);
    Finish::Stays
}

/// Ends a release that a crash cut short: a claimed file that also has its producer's name, or another claim, loses this name. True if it
/// did, and is no claimed file any more.
pub(crate) async fn finish_earlier<E: Edges>(session: &Session<E>, file: &ClaimedFile, identity: &Identity) -> ShareResult<bool> {
    let there = match session.share.attributes(&incoming(session, file)).await {
        Err(error) if error.is_absent() || error.kind() == io::ErrorKind::NotADirectory => return Ok(false),
        there => there?.identity,
    };
    if there.inode != identity.inode {
        return Ok(false);
    }
    match session.share.remove(&file.path()).await {
        Err(error) if !error.is_absent() => Err(error),
        _ => Ok(true),
    }
}
