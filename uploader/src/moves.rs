//! Renames that are believed only after a look.
//!
//! After an error of rename(2) the file may have been renamed all the same: on NFS a reply can be lost and the request sent again,
//! which then fails with ENOENT. A stat may answer from a negative cache for 30 s, so both ends are read with fresh listings.

use std::{ffi::OsStr, io, os::unix::ffi::OsStrExt, path::Path};

use crate::share::{Listing, Share, ShareResult};

/// Where the file is after a rename to a name that nobody else uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// It has the new name.
    Yes,
    /// It has neither name: somebody else took it.
    Gone,
}

/// Renames `from` to `to`, a name that cannot exist before, and makes the target's folder again if it was pruned. An error means that
/// `from` is still there.
pub async fn rename_and_look<S: Share>(share: &S, from: &Path, to: &Path) -> ShareResult<Moved> {
    let Err(mut error) = share.rename(from, to).await else { return Ok(Moved::Yes) };
    if exists(share, to).await? {
        return Ok(Moved::Yes);
    }
    if !exists(share, from).await? {
        return Ok(Moved::Gone);
    }
    if let (true, Some(folder)) = (error.is_absent(), to.parent()) {
        share.make_folder(folder).await?;
        match share.rename(from, to).await {
            Ok(()) => return Ok(Moved::Yes),
            Err(second) => error = second,
        }
        if exists(share, to).await? {
            return Ok(Moved::Yes);
        }
        if !exists(share, from).await? {
            return Ok(Moved::Gone);
        }
    }
    Err(error)
}

/// True if a fresh listing of the folder shows the name.
pub async fn exists<S: Share>(share: &S, path: &Path) -> ShareResult<bool> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Ok(false) };
    let mut listing = match share.list(folder).await {
        Err(error) if error.is_absent() || error.kind() == io::ErrorKind::NotADirectory => return Ok(false),
        listing => listing?,
    };
    while let Some(entries) = listing.next().await? {
        if entries.iter().any(|entry| OsStr::from_bytes(&entry.name) == name) {
            return Ok(true);
        }
    }
    Ok(false)
}
