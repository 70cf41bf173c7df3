//! Which folders below the incoming one a scan enters.

use std::{
    collections::{HashMap, VecDeque},
    path::Path,
    time::Duration,
};

use tokio::time::Instant;

use super::Held;
use crate::{
    claims::DEPTH,
    formats::{MARKERS, Marker},
    session::{Edges, Session},
    share::{Share, ShareResult, join},
};

/// Most folders of one scan.
const FOLDERS: usize = 100_000;
/// How long it is believed that a folder is no other session's.
const BELIEVED: Duration = Duration::from_secs(30);

/// The folders of one scan, by their path from the incoming folder.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pending: VecDeque<Box<[u8]>>,
    entered: usize,
}

impl Walk {
    /// From the session's own folder on.
    pub(super) fn new() -> Self {
        Self { pending: VecDeque::from([Box::default()]), entered: 0 }
    }

    /// The next folder.
    pub(super) fn next(&mut self) -> Option<Box<[u8]>> {
        self.pending.pop_front()
    }

    /// Takes note of a folder, unless it is none of ours or out of bounds.
    pub(super) async fn enter<E: Edges>(&mut self, session: &Session<E>, folder: Box<[u8]>) -> ShareResult<()> {
        if folder.split(|byte| *byte == b'/').count() > DEPTH {
            let message = format!("the folder is more than {DEPTH} folders deep and is not entered");
            session.books().table.close(&folder, Held::bad_name(message));
        } else if self.entered >= FOLDERS {
            session.books().table.leave_out();
        } else if !belongs_to_another(session, &folder).await? {
            self.entered += 1;
            self.pending.push_back(folder);
        }
        Ok(())
    }
}

/// Folders that were found to be no other session's, and when.
#[derive(Debug, Default)]
pub struct Believed(HashMap<Box<[u8]>, Instant>);

impl Believed {
    fn is(&self, folder: &[u8], now: Instant) -> bool {
        self.0.get(folder).is_some_and(|since| now.duration_since(*since) < BELIEVED)
    }

    fn learn(&mut self, folder: &[u8], now: Instant) {
        if self.0.len() >= FOLDERS {
            self.0.clear();
        }
        self.0.insert(folder.into(), now);
    }
}

/// True for the processing folder, and for the folder of a session that has a marker there.
async fn belongs_to_another<E: Edges>(session: &Session<E>, folder: &[u8]) -> ShareResult<bool> {
    let now = Instant::now();
    if session.books().believed.is(folder, now) {
        return Ok(false);
    }
    let path = join(&session.folders.incoming, folder);
    if path == session.folders.processing || is_marked(session, &path).await? {
        return Ok(true);
    }
    session.books().believed.learn(folder, now);
    Ok(false)
}

async fn is_marked<E: Edges>(session: &Session<E>, path: &Path) -> ShareResult<bool> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(false) };
    let content = match session.share.read_small(&session.processing(MARKERS).join(name)).await {
        Err(error) if error.is_absent() => return Ok(false),
        content => content?,
    };
    Ok(serde_json::from_slice::<Marker>(&content).is_ok_and(|marker| Path::new(&marker.incoming_dir) == parent))
}
