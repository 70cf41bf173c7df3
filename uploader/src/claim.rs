//! The claim: one rename of a stable file from incoming to processing, to a name that cannot exist. After it the file is ours.

use std::{io, path::PathBuf};

use crate::{
    file::ClaimedFile,
    formats::{BlobName, ProcessingName},
    moves::{Moved, rename_and_look},
    scan::{Held, StableFile},
    session::{Edges, Session},
    share::{Share, ShareError, ShareFile, join},
};

/// How a claim went.
#[derive(Debug)]
pub enum Claim<F> {
    /// The file is ours. It is open if it is the very file that was sampled.
    Ours(Box<ClaimedFile>, F),
    /// It was gone.
    Gone,
    /// It is not what was sampled: it must become stable again.
    Changed,
    /// It cannot be taken.
    Held(Held),
}

/// Claims a stable file. What cannot be read is not claimed.
pub async fn claim<E: Edges>(
    session: &Session<E>,
    stable: &StableFile,
    blob: &BlobName,
) -> Result<Claim<<E::Share as Share>::File>, ShareError> {
    let from = join(&session.folders.incoming, &stable.name);
    let open = match session.share.open(&from).await {
        Ok(open) => open,
        Err(error) if error.is_absent() || error.kind() == io::ErrorKind::NotADirectory => return Ok(Claim::Gone),
        Err(error) if is_the_files_own(&error) => {
            return Ok(Claim::Held(Held::lasting("Unreadable", error.full().to_string())));
        }
        Err(error) => return Err(error),
    };
    if open.attributes().await?.identity != stable.sample {
        return Ok(Claim::Changed);
    }
    let key = session.books().keys.next(&stable.name, stable.sample.ctime);
    let (folder, producer) = place(session.claims_today(), &stable.name);
    let name = ProcessingName::claimed(producer, session.claim_id(key, &stable.sample, stable.since));
    let file = ClaimedFile::claimed(folder, name, blob.clone(), stable);
    if rename_and_look(&session.share, &from, &file.path()).await? == Moved::Gone {
        return Ok(Claim::Gone);
    }
    // What was renamed may be another file than the one that was opened; the transfer sees that by comparing both, and whoever adopts
    // the claim by its fingerprint.
    Ok(Claim::Ours(Box::new(file), open))
}

/// Where a file with that path from the incoming folder is claimed, and its last name.
fn place(claims: PathBuf, path: &[u8]) -> (PathBuf, &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (join(&claims, &path[..slash]), &path[slash + 1..]),
        None => (claims, path),
    }
}

/// True if the error speaks of this file and not of the share.
fn is_the_files_own(error: &ShareError) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput)
}
