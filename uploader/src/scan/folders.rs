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
        } else {
            match owner(session, &folder).await? {
                Owner::Session => {
                    self.entered += 1;
                    self.pending.push_back(folder);
                }
                Owner::OtherSession(marker) => {
                    let message = format!(
                        "the folder belongs to another session, says {marker}: give one of the two other folders; if that session is gone for good, delete that file"
                    );
                    session.books().table.close(&folder, Held::lasting("OtherSession", message));
                }
                Owner::Claims => {}
            }
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

/// Whose a folder below the incoming one is.
enum Owner {
    Session,
    /// Another session's, by this marker. Its files are not ours, but nobody must think that they are cared for.
    OtherSession(String),
    /// It is the processing folder.
    Claims,
}

async fn owner<E: Edges>(session: &Session<E>, folder: &[u8]) -> ShareResult<Owner> {
    let now = Instant::now();
    if session.books().believed.is(folder, now) {
        return Ok(Owner::Session);
    }
    let path = join(&session.folders.incoming, folder);
    if path == session.folders.processing {
        return Ok(Owner::Claims);
    }
    if let Some(marker) = marker_of(session, &path).await? {
        return Ok(Owner::OtherSession(marker));
    }
    session.books().believed.learn(folder, now);
    Ok(Owner::Session)
}

/// The marker by which the folder is a session's.
async fn marker_of<E: Edges>(session: &Session<E>, path: &Path) -> ShareResult<Option<String>> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
    let marker = session.processing(MARKERS).join(name);
    let content = match session.share.read_small(&marker).await {
        Err(error) if error.is_absent() => return Ok(None),
        content => content?,
    };
    let is_its_own = |marker: Marker| Path::new(&marker.incoming_dir) == parent;
    Ok(serde_json::from_slice(&content).is_ok_and(is_its_own).then(|| marker.display().to_string()))
}
