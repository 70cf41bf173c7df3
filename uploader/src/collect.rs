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

use futures::{StreamExt, stream};
use tokio::time::Instant;

use crate::{
    complete::next_generation,
    file::ClaimedFile,
    formats::{ProcessingName, Stamp, State},
    heartbeat::Heartbeats,
    ledger::Left,
    schedule::{Delay, Task},
    session::{Edges, Session},
    share::{Entry, Kind, Listing, Share, ShareResult, join},
};
use retention::{Kept, Moment};

/// Calls on the share at a time.
const CALLS: usize = 16;

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

/// A name of ours below the processing folder.
#[derive(Clone, Debug)]
struct Found {
    date: String,
    folder: PathBuf,
    name: ProcessingName,
}

impl Found {
    fn path(&self) -> PathBuf {
        join(&self.folder, &self.name.to_bytes())
    }
}

/// What became of a completed file whose time had come.
#[derive(Debug)]
enum Fate {
    /// Deleted, or gone already.
    Gone,
    /// Something touched it (chmod, a new link): its minute starts again.
    Touched(Kept),
    /// Its content changed: it is the next generation now.
    Claimed,
}

impl Collector {
    /// One pass.
    pub async fn pass<E: Edges>(&mut self, session: &Session<E>) -> ShareResult<Pass> {
        self.heartbeats.look(session).await?;
        let (found, foreign) = find(session).await?;
        let (mut claimed, mut completed) = (Vec::new(), Vec::new());
        for file in found {
            session.books().keys.saw(&file.name.producer, file.name.claim.key);
            match file.name.state {
                State::Claimed => claimed.push(file),
                State::Completed(stamp) => completed.push((file, stamp)),
                State::Failed | State::FailedReason | State::Superseded => {}
            }
        }
        let adopted = self.adopt(session, claimed).await;
        let present: HashSet<PathBuf> = completed.iter().map(|(file, _)| file.path()).collect();
        self.kept.retain(|path, _| present.contains(path));
        let deleted = self.collect(session, completed).await;
        self.report_foreign(foreign);
        self.passes += 1;
        session.books().ledger.adopted = true;
        Ok(Pass { adopted, deleted, foreign })
    }

    /// Takes up claimed files that nobody holds; returns how many. Those that are left to others, or cannot be looked at, are counted.
    async fn adopt<E: Edges>(&self, session: &Session<E>, claimed: Vec<Found>) -> u64 {
        let now = Instant::now();
        let beats = |process| process != session.process && self.heartbeats.beats(process, &session.pod_uid, now);
        let (others, free): (Vec<_>, Vec<_>) = claimed.into_iter().partition(|file| beats(file.name.claim.process));
        let mut left = Left::default();
        for file in &others {
            left.add(file.name.claim.key);
        }
        let mut adopting = stream::iter(free)
            .map(|file| async move {
                let key = file.name.claim.key;
                (key, adopt(session, file).await)
            })
            .buffer_unordered(CALLS);
        let mut adopted = 0;
        while let Some((key, result)) = adopting.next().await {
            match result {
                Ok(taken) => adopted += u64::from(taken),
                Err(error) => {
                    tracing::warn!(error = %error.full(), "cannot take up a claimed file");
                    left.add(key);
                }
            }
        }
        session.books().ledger.left = left;
        adopted
    }

    /// Looks at new completed files and deletes those whose time has come; returns how many.
    async fn collect<E: Edges>(&mut self, session: &Session<E>, completed: Vec<(Found, Stamp)>) -> u64 {
        let moment = moment(session);
        let (known, new): (Vec<_>, Vec<_>) = completed.into_iter().partition(|(file, _)| self.kept.contains_key(&file.path()));
        let mut looks = stream::iter(new).map(|(file, _)| first_sight(session, file)).buffer_unordered(CALLS);
        while let Some(seen) = looks.next().await {
            let Some((file, kept)) = logged(seen).flatten() else { continue };
            if self.passes == 0 && file.name.claim.process != session.process {
                session.books().ledger.found_completed(kept.size, kept.ctime);
            }
            self.kept.insert(file.path(), kept);
        }
        let kept = &self.kept;
        let due = known.into_iter().filter_map(|(file, stamp)| Some((kept.get(&file.path())?.to_owned(), file, stamp)));
        let due: Vec<_> = due.filter(|(kept, ..)| kept.may_go(&moment)).collect();
        let mut ends = stream::iter(due).map(|(kept, file, stamp)| end(session, kept, file, stamp)).buffer_unordered(CALLS);
        let mut deleted = 0;
        while let Some(end) = ends.next().await {
            let Some((path, fate)) = logged(end) else { continue };
            deleted += u64::from(matches!(fate, Fate::Gone));
            match fate {
                Fate::Touched(kept) => self.kept.insert(path, kept),
                Fate::Gone | Fate::Claimed => self.kept.remove(&path),
            };
        }
        deleted
    }

    fn report_foreign(&mut self, foreign: u64) {
        if foreign != self.foreign {
            tracing::warn!(foreign, "the processing folder holds names that are not ours; they are left alone");
            self.foreign = foreign;
        }
    }
}

/// One bad file stops no other: its error is logged, and it is looked at again in the next pass.
fn logged<T>(result: ShareResult<T>) -> Option<T> {
    result.inspect_err(|error| tracing::warn!(error = %error.full(), "cannot look at a completed file")).ok()
}

/// Everything of this session, of every date, and the number of names that are not ours.
async fn find<E: Edges>(session: &Session<E>) -> ShareResult<(Vec<Found>, u64)> {
    let (mut found, mut foreign) = (Vec::new(), 0);
    for (date, folder) in session_folders(session).await? {
        let entries = match list_all(&session.share, &folder).await {
            Err(error) if error.is_absent() || error.kind() == io::ErrorKind::NotADirectory => continue,
            entries => entries?,
        };
        prune(session, &date, &folder, entries.is_empty()).await?;
        for entry in entries {
            match ProcessingName::parse(&entry.name).filter(|_| matches!(entry.kind, Kind::File | Kind::Unknown)) {
                Some(name) => found.push(Found { date: date.clone(), folder: folder.clone(), name }),
                None => foreign += 1,
            }
        }
    }
    Ok((found, foreign))
}

/// Takes up a claimed file unless a worker or the schedule holds it.
async fn adopt<E: Edges>(session: &Session<E>, file: Found) -> ShareResult<bool> {
    // A claimed name was a blob name once; only a change of the prefix could make it too long.
    let Ok(blob) = session.folders.blob(&file.date, &file.name.producer) else { return Ok(false) };
    let is_held = || {
        let books = session.books();
        books.ledger.is_active(&blob) || books.schedule.holds(&file.name, &blob)
    };
    if is_held() {
        return Ok(false);
    }
    let attributes = match session.share.attributes(&file.path()).await {
        Err(error) if error.is_absent() => return Ok(false),
        attributes => attributes?,
    };
    if is_held() {
        return Ok(false);
    }
    let mut file = ClaimedFile::adopted(file.folder, file.name, blob.clone());
    file.observe(attributes.identity, Instant::now());
    tracing::info!(file_name = %file.display_name(), claim = %file.name.claim, size = file.size, "taking up a claimed file");
    session.add(&blob, Task::Claimed(Box::new(file)), Instant::now(), Delay::Waiting);
    Ok(true)
}

async fn first_sight<E: Edges>(session: &Session<E>, file: Found) -> ShareResult<Option<(Found, Kept)>> {
    match session.share.attributes(&file.path()).await {
        Err(error) if error.is_absent() => Ok(None),
        attributes => {
            let identity = attributes?.identity;
            Ok(Some((file, Kept { since: Instant::now(), ctime: identity.ctime, size: identity.size })))
        }
    }
}

/// Deletes a completed file whose time has come, if it still is what was committed.
async fn end<E: Edges>(session: &Session<E>, kept: Kept, file: Found, stamp: Stamp) -> ShareResult<(PathBuf, Fate)> {
    let path = file.path();
    let identity = match session.share.attributes(&path).await {
        Err(error) if error.is_absent() => return Ok((path, Fate::Gone)),
        attributes => attributes?.identity,
    };
    if stamp != Stamp::new(&file.name.claim, &identity) {
        become_claimed(session, file, identity.ctime).await?;
        return Ok((path, Fate::Claimed));
    }
    if identity.ctime != kept.ctime {
        return Ok((path, Fate::Touched(Kept { since: Instant::now(), ctime: identity.ctime, ..kept })));
    }
    match session.share.remove(&path).await {
        Err(error) if !error.is_absent() => Err(error),
        _ => Ok((path, Fate::Gone)),
    }
}

fn moment<E: Edges>(session: &Session<E>) -> Moment {
    Moment {
        now: Instant::now(),
        server_now: session.server_now(),
        keep: session.rules.keep_completed_for,
        reported_through: session.books().ledger.reported_through,
    }
}

/// A completed file that changed after its commit is the next generation of its name.
async fn become_claimed<E: Edges>(session: &Session<E>, file: Found, ctime: i128) -> ShareResult<()> {
    let Ok(blob) = session.folders.blob(&file.date, &file.name.producer) else { return Ok(()) };
    let next = next_generation(session, &file.folder, &file.name, file.name.claim.key, ctime).await?;
    let Some(next) = next else { return Ok(()) };
    let file = ClaimedFile::adopted(file.folder, next, blob.clone());
    tracing::warn!(file_name = %file.display_name(), "the file changed after it was uploaded and is uploaded again");
    session.add(&blob, Task::Claimed(Box::new(file)), Instant::now(), Delay::Waiting);
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
