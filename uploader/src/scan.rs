//! One look at the incoming folder: names first, then a look from the server at each name that is new or may have become stable.
//!
//! Polling only, because NFS tells nobody about new files (inotify(7) sees local changes only).

mod filter;
mod folders;
mod table;

use std::io;

use futures::{StreamExt, stream};
use tokio::time::Instant;

use crate::{
    session::{Edges, Session},
    share::{Kind, Listing, Share, ShareError, join},
};

use folders::Walk;

pub use filter::Filter;
pub use folders::Believed;
pub use table::{Counts, Gone, Held, Periods, StableFile, Summary, Table};

/// Looks at names at a time.
const LOOKS: usize = 16;

/// Scans once; stable files are handed to the schedule as far as its queue has room.
pub async fn pass<E: Edges>(session: &Session<E>) -> Result<(), ShareError> {
    let started = session.server_now();
    let live = session.live();
    session.books().scan_begins(Periods::new(live.min_file_age, live.idle_timeout), Instant::now());
    let mut walk = Walk::new();
    while let Some(folder) = walk.next() {
        match scan_folder(session, &folder, &mut walk).await {
            // It may have another name by now, which was listed already.
            Err(error) if !folder.is_empty() && is_gone(&error) => session.books().missed(),
            // One folder that cannot be read stops no other.
            Err(error) if !folder.is_empty() => {
                tracing::warn!(error = %error.full(), "a folder is left out");
                session.books().table.close(&folder, unreadable(&error));
            }
            scanned => scanned?,
        }
    }
    session.books().scanned(started);
    session.offer_stable();
    Ok(())
}

/// True if a name, or a folder above it, is not there any more.
fn is_gone(error: &ShareError) -> bool {
    error.is_absent() || error.kind() == io::ErrorKind::NotADirectory
}

/// Why a file or folder cannot be taken that could not be looked at: a person must let us, or the share did not answer.
fn unreadable(error: &ShareError) -> Held {
    let message = error.full().to_string();
    if error.kind() == io::ErrorKind::PermissionDenied {
        Held::lasting("Unreadable", message)
    } else {
        Held::unanswered("Unreadable", message)
    }
}

async fn scan_folder<E: Edges>(session: &Session<E>, folder: &[u8], walk: &mut Walk) -> Result<(), ShareError> {
    let path = if folder.is_empty() { session.folders.incoming.clone() } else { join(&session.folders.incoming, folder) };
    let mut listing = session.share.list(&path).await?;
    while let Some(entries) = listing.next().await? {
        let now = Instant::now();
        let (mut due, mut folders) = (Vec::new(), Vec::new());
        {
            let table = &mut session.books().table;
            for entry in entries {
                let name = below(folder, entry.name);
                if session.rules.recursive && entry.kind == Kind::Folder && table.enters(&name) {
                    folders.push(name);
                } else if table.observe(&name, entry.kind, now) {
                    due.push(name);
                }
            }
        }
        folders.extend(look_at(session, due).await);
        for folder in folders {
            walk.enter(session, folder).await?;
        }
    }
    Ok(())
}

/// The path from the incoming folder of a name in `folder`.
fn below(folder: &[u8], name: Box<[u8]>) -> Box<[u8]> {
    if folder.is_empty() { name } else { [folder, b"/", &name].concat().into() }
}

/// Looks at names; returns those that are folders to be entered, which a listing may not say.
async fn look_at<E: Edges>(session: &Session<E>, names: Vec<Box<[u8]>>) -> Vec<Box<[u8]>> {
    let mut looks = stream::iter(names)
        .map(|name| async move {
            let found = session.share.attributes(&join(&session.folders.incoming, &name)).await;
            (name, found)
        })
        .buffer_unordered(LOOKS);
    let mut folders = Vec::new();
    while let Some((name, found)) = looks.next().await {
        match found {
            Ok(attributes) if session.rules.recursive && attributes.kind == Kind::Folder => {
                let mut books = session.books();
                books.looked(&name, &attributes, Instant::now());
                books.table.forget(&name);
                folders.push(name);
            }
            Ok(attributes) => session.books().looked(&name, &attributes, Instant::now()),
            Err(error) if is_gone(&error) => session.books().table.absent(&name),
            // The handle behind the name changed under the look; the next scan looks again.
            Err(error) if error.kind() == io::ErrorKind::StaleNetworkFileHandle => {}
            // One bad file stops no other.
            Err(error) => {
                session.books().table.hold(&name, unreadable(&error));
            }
        }
    }
    folders
}
