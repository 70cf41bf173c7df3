//! One look at the incoming folder: names first, then a look from the server at each name that is new or may have become stable.
//!
//! Polling only, because NFS tells nobody about new files (inotify(7) sees local changes only).

mod filter;
mod table;

use std::io;

use futures::{StreamExt, stream};
use tokio::time::Instant;

use crate::{
    session::{Edges, Session},
    share::{Listing, Share, ShareError, join},
};

pub use filter::Filter;
pub use table::{Counts, Held, StableFile, Summary, Table};

/// Looks at names at a time.
const LOOKS: usize = 16;

/// Scans once; stable files are handed to the schedule as far as its queue has room.
pub async fn pass<E: Edges>(session: &Session<E>) -> Result<(), ShareError> {
    let started = session.server_now();
    session.books().table.begin_scan();
    let mut listing = session.share.list(&session.folders.incoming).await?;
    while let Some(entries) = listing.next().await? {
        let now = Instant::now();
        let due: Vec<Box<[u8]>> = {
            let mut books = session.books();
            entries.into_iter().filter(|entry| books.table.observe(&entry.name, entry.kind, now)).map(|entry| entry.name).collect()
        };
        look_at(session, due).await;
    }
    session.books().scanned(started);
    session.offer_stable();
    Ok(())
}

async fn look_at<E: Edges>(session: &Session<E>, names: Vec<Box<[u8]>>) {
    let mut looks = stream::iter(names)
        .map(|name| async move {
            let found = session.share.attributes(&join(&session.folders.incoming, &name)).await;
            (name, found)
        })
        .buffer_unordered(LOOKS);
    while let Some((name, found)) = looks.next().await {
        match found {
            Ok(attributes) => session.books().table.sample(&name, &attributes, Instant::now()),
            Err(error) if error.is_absent() => session.books().vanished(&name),
            // The handle behind the name changed under the look; the next scan looks again.
            Err(error) if error.kind() == io::ErrorKind::StaleNetworkFileHandle => {}
            // One bad file stops no other.
            Err(error) => {
                let held = Held { reason: "Unreadable", message: error.full().to_string() };
                session.books().table.hold(&name, held);
            }
        }
    }
}
