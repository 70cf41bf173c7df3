//! One look at everything of this session below the processing folder: claimed files that nobody holds are taken up, completed files
//! that have been kept for long enough are deleted, and empty folders of earlier days go.
//!
//! The first pass of a process is the recovery: there is no other.

mod retention;

use std::{
    collections::{HashMap, HashSet},
    io,
    path::{Path, PathBuf},
};

use tokio::time::Instant;

use crate::{
    complete::next_generation,
    file::ClaimedFile,
    formats::{ProcessingName, Stamp, State},
    heartbeat::Heartbeats,
    schedule::{Delay, Task},
    session::{Edges, Session},
    share::{Entry, Kind, Listing, Share, ShareResult, join},
};
use retention::{Kept, Moment};

/// The collector of a session.
#[derive(Debug, Default)]
pub struct Collector {
    heartbeats: Heartbeats,
    kept: HashMap<PathBuf, Kept>,
    foreign: u64,
    passes: u64,
}

/// What one pass saw and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Claimed files that were taken up.
    pub adopted: u64,
    /// Completed files that were deleted.
    pub deleted: u64,
    /// Names that are not ours; they are left alone.
    pub foreign: u64,
}

impl Collector {
    /// One pass.
    pub async fn pass<E: Edges>(&mut self, session: &Session<E>) -> ShareResult<Pass> {
        self.heartbeats.look(session).await?;
        let mut pass = Pass::default();
        let mut present = HashSet::new();
        for (date, folder) in session_folders(session).await? {
            let entries = match list_all(&session.share, &folder).await {
                Err(error) if error.is_absent() => continue,
                entries => entries?,
            };
            for entry in &entries {
                self.entry(session, &date, &folder, entry, &mut present, &mut pass).await?;
            }
            prune(session, &date, &folder, entries.is_empty()).await?;
        }
        self.kept.retain(|path, _| present.contains(path));
        self.report_foreign(pass.foreign);
        self.passes += 1;
        session.books().ledger.adopted = true;
        Ok(pass)
    }

    async fn entry<E: Edges>(
        &mut self,
        session: &Session<E>,
        date: &str,
        folder: &Path,
        entry: &Entry,
        present: &mut HashSet<PathBuf>,
        pass: &mut Pass,
    ) -> ShareResult<()> {
        let Some(name) = ProcessingName::parse(&entry.name).filter(|_| matches!(entry.kind, Kind::File | Kind::Unknown)) else {
            pass.foreign += 1;
            return Ok(());
        };
        session.books().keys.saw(&name.producer, name.claim.key);
        match name.state {
            State::Claimed => pass.adopted += u64::from(self.adopt(session, date, folder, name).await?),
            State::Completed(stamp) => {
                let path = join(folder, &entry.name);
                present.insert(path.clone());
                pass.deleted += u64::from(self.consider(session, date, path, &name, stamp).await?);
            }
            State::Failed | State::FailedReason | State::Superseded => {}
        }
        Ok(())
    }

    /// Takes up a claimed file that nobody holds; true if it did.
    async fn adopt<E: Edges>(&self, session: &Session<E>, date: &str, folder: &Path, name: ProcessingName) -> ShareResult<bool> {
        // A claimed name was a blob name once; only a change of the prefix could make it too long.
        let Ok(blob) = session.folders.blob(date, &name.producer) else { return Ok(false) };
        if name.claim.process != session.process && self.heartbeats.beats(name.claim.process, &session.pod_uid, Instant::now()) {
            return Ok(false);
        }
        let held = |session: &Session<E>| {
            let books = session.books();
            books.ledger.is_active(&blob) || books.schedule.holds(&name, &blob)
        };
        if held(session) {
            return Ok(false);
        }
        let attributes = match session.share.attributes(&join(folder, &name.to_bytes())).await {
            Err(error) if error.is_absent() => return Ok(false),
            attributes => attributes?,
        };
        if held(session) {
            return Ok(false);
        }
        let mut file = ClaimedFile::adopted(folder.to_owned(), name, blob.clone());
        file.observe(attributes.identity, Instant::now());
        tracing::info!(file_name = %file.display_name(), claim = %file.name.claim, size = file.size, "taking up a claimed file");
        session.add(blob, Task::Claimed(Box::new(file)), Instant::now(), Delay::Waiting);
        Ok(true)
    }

    /// Deletes a completed file if its time has come; true if it did.
    async fn consider<E: Edges>(
        &mut self,
        session: &Session<E>,
        date: &str,
        path: PathBuf,
        name: &ProcessingName,
        stamp: Stamp,
    ) -> ShareResult<bool> {
        let Some(kept) = self.kept.get(&path) else { return self.first_sight(session, path, name).await };
        if !kept.may_go(&moment(session)) {
            return Ok(false);
        }
        let attributes = match session.share.attributes(&path).await {
            Err(error) if error.is_absent() => return Ok(false),
            attributes => attributes?,
        };
        if stamp != Stamp::new(&name.claim, &attributes.identity) {
            self.kept.remove(&path);
            become_claimed(session, date, &path, name, attributes.identity.ctime).await?;
            return Ok(false);
        }
        if attributes.identity.ctime != kept.ctime {
            // Something touched it (chmod, a new link): its minute starts again.
            self.kept.insert(path, Kept { since: Instant::now(), ctime: attributes.identity.ctime, ..*kept });
            return Ok(false);
        }
        match session.share.remove(&path).await {
            Err(error) if !error.is_absent() => return Err(error),
            _ => {}
        }
        tracing::debug!(path = %path.display(), "deleted an uploaded file");
        self.kept.remove(&path);
        Ok(true)
    }

    async fn first_sight<E: Edges>(&mut self, session: &Session<E>, path: PathBuf, name: &ProcessingName) -> ShareResult<bool> {
        let attributes = match session.share.attributes(&path).await {
            Err(error) if error.is_absent() => return Ok(false),
            attributes => attributes?,
        };
        let kept = Kept { since: Instant::now(), ctime: attributes.identity.ctime, size: attributes.identity.size };
        if self.passes == 0 && name.claim.process != session.process {
            session.books().ledger.found_completed(kept.size, kept.ctime);
        }
        self.kept.insert(path, kept);
        Ok(false)
    }

    fn report_foreign(&mut self, foreign: u64) {
        if foreign != self.foreign {
            tracing::warn!(foreign, "the processing folder holds names that are not ours; they are left alone");
            self.foreign = foreign;
        }
    }
}

fn moment<E: Edges>(session: &Session<E>) -> Moment {
    Moment {
        now: Instant::now(),
        server_now: session.server_now(),
        keep: session.rules.keep_completed_for,
        reported_through: session.reported_through(),
    }
}

/// A completed file that changed after its commit is the next generation of its name.
async fn become_claimed<E: Edges>(
    session: &Session<E>,
    date: &str,
    path: &Path,
    name: &ProcessingName,
    ctime: i128,
) -> ShareResult<()> {
    let (Some(folder), Ok(blob)) = (path.parent(), session.folders.blob(date, &name.producer)) else { return Ok(()) };
    let Some(next) = next_generation(session, folder, name, name.claim.key, ctime).await? else { return Ok(()) };
    let file = ClaimedFile::adopted(folder.to_owned(), next, blob.clone());
    tracing::warn!(file_name = %file.display_name(), "the file changed after it was uploaded and is uploaded again");
    session.add(blob, Task::Claimed(Box::new(file)), Instant::now(), Delay::Waiting);
    Ok(())
}

/// The folders of this session, of every date.
async fn session_folders<E: Edges>(session: &Session<E>) -> ShareResult<Vec<(String, PathBuf)>> {
    let dates = list_all(&session.share, &session.folders.processing).await?;
    let is_date = |name: &str| name.len() == 8 && name.bytes().all(|byte| byte.is_ascii_digit());
    let dates = dates.into_iter().filter_map(|entry| String::from_utf8(entry.name.into()).ok()).filter(|name| is_date(name));
    Ok(dates.map(|date| (session.folders.claims(&date), date)).map(|(folder, date)| (date, folder)).collect())
}

async fn list_all<S: Share>(share: &S, folder: &Path) -> ShareResult<Vec<Entry>> {
    let mut listing = share.list(folder).await?;
    let mut all = Vec::new();
    while let Some(entries) = listing.next().await? {
        all.extend(entries);
    }
    Ok(all)
}

/// Removes the session's folder of an earlier date if it is empty, and the date's if that is empty then. A claim that comes meanwhile
/// makes its folder again.
async fn prune<E: Edges>(session: &Session<E>, date: &str, folder: &Path, is_empty: bool) -> ShareResult<()> {
    if !is_empty || date >= session.folders.date.as_str() {
        return Ok(());
    }
    for folder in [Some(folder), folder.parent()].into_iter().flatten() {
        match session.share.remove_folder(folder).await {
            Err(error) if !matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
