//! One look at everything of this session below the processing folder: claimed files that nobody holds are taken up, completed files
//! are looked at once more for bytes that came late, and deleted when they have been kept for long enough, and empty folders of earlier
//! days go.
//!
//! The first pass of a process is the recovery: there is no other.

mod retention;

use std::{
    collections::{HashMap, HashSet},
    io,
    path::PathBuf,
};

use futures::{StreamExt, stream};
use tokio::time::Instant;

use crate::{
    aside,
    claims::{All, Found, find},
    complete::next_generation,
    file::ClaimedFile,
    formats::{ClaimId, Stamp, State},
    heartbeat::Heartbeats,
    ledger::Left,
    release,
    session::{Edges, Session},
    share::{Identity, Share, ShareResult},
};
use retention::{Due, Kept, Moment};

/// Calls on the share at a time.
const CALLS: usize = 16;

/// The collector of a session.
#[derive(Debug, Default)]
pub struct Collector {
    heartbeats: Heartbeats,
    kept: HashMap<PathBuf, Kept>,
    foreign: u64,
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

/// What became of a completed file that was looked at again.
#[derive(Debug)]
enum Fate {
    /// Deleted, or gone already.
    Gone,
    /// It stays. If something touched it (chmod, a new link), its minute starts again.
    Stays(Kept),
    /// Its content changed: it is the next generation now.
    Claimed,
}

impl Collector {
    /// One pass.
    pub async fn pass<E: Edges>(&mut self, session: &Session<E>) -> ShareResult<Pass> {
        session.books().ledger.pass_begins();
        self.heartbeats.look(session).await?;
        let unsure = session.books().ledger.all_unsure();
        session.books().shelf.begin();
        let All { found, foreign, empty } = find(&session.share, &session.folders).await?;
        let gone = |claim: &&ClaimId| found.iter().all(|file| file.name.claim != **claim);
        unsure.iter().filter(gone).for_each(|claim| session.books().ledger.forget(claim));
        prune(session, empty).await;
        let (mut claimed, mut completed, mut failed, mut reasons) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut superseded = Vec::new();
        for file in found {
            session.books().keys.saw(&file.producer(), file.name.claim.key);
            match file.name.state {
                State::Claimed => claimed.push(file),
                State::Completed(stamp) => completed.push((file, stamp)),
                State::Failed => failed.push(file),
                State::FailedReason => reasons.push(file),
                State::Superseded => superseded.push(file),
            }
        }
        // A listing is newer than what a client remembers of names that were absent.
        let claims = |files: &[Found]| files.iter().map(|file| file.name.claim).collect::<HashSet<ClaimId>>();
        let (held, aside) = (claims(&claimed), claims(&failed));
        session.books().listed(&held, &aside);
        let explained = claims(&reasons);
        reasons.retain(|reason| !held.contains(&reason.name.claim) && !aside.contains(&reason.name.claim));
        claimed.extend(aside::review(session, failed, &explained, reasons).await);
        let adopted = self.adopt(session, claimed).await;
        let present: HashSet<PathBuf> = completed.iter().map(|(file, _)| file.path()).collect();
        self.kept.retain(|path, _| present.contains(path));
        let deleted = self.collect(session, completed).await;
        self.report_foreign(foreign);
        if session.books().ledger.passes == 0 {
            let files = count_superseded(session, superseded).await;
            session.books().ledger.superseded_before = files;
        }
        let mut books = session.books();
        books.ledger.pass_ends();
        books.ledger.passes += 1;
        drop(books);
        Ok(Pass { adopted, deleted, foreign })
    }

    /// Takes up claimed files that nobody holds, in the order of their keys, so that no worker takes a later file of a name before an
    /// earlier one; returns how many. Those that are left to others, or cannot be looked at, are counted.
    async fn adopt<E: Edges>(&self, session: &Session<E>, claimed: Vec<Found>) -> u64 {
        let now = Instant::now();
        let all: HashSet<ClaimId> = claimed.iter().map(|file| file.name.claim).collect();
        let beats = |process| process != session.process && self.heartbeats.beats(process, &session.pod_uid, now);
        let (others, mut free): (Vec<_>, Vec<_>) = claimed.into_iter().partition(|file| beats(file.name.claim.process));
        let mut left = Left::default();
        for file in &others {
            left.add(&file.name.claim);
        }
        free.sort_unstable_by_key(|file| file.name.claim.key);
        let look = |file: Found| async move { (file.producer(), file.name.claim, look(session, file).await) };
        let mut looks = stream::iter(free).map(look).buffered(CALLS);
        let mut adopted = 0;
        // Names of which an earlier file waits for the next pass; their later ones wait for it.
        let mut waiting = HashSet::new();
        while let Some((producer, claim, look)) = looks.next().await {
            match look {
                Ok(Look::NotOurs) => {}
                Ok(Look::Ours(file)) if !waiting.contains(&producer) => adopted += u64::from(take_up(session, file)),
                Ok(Look::Ours(_)) => left.add(&claim),
                unseen => {
                    if let Err(error) = unseen {
                        tracing::warn!(error = %error.full(), "cannot take up a claimed file");
                    }
                    left.add(&claim);
                    waiting.insert(producer);
                }
            }
        }
        session.books().adopted(&all, left);
        adopted
    }

    /// Looks at completed files that are new or have rested, and deletes those whose time has come; returns how many.
    async fn collect<E: Edges>(&mut self, session: &Session<E>, completed: Vec<(Found, Stamp)>) -> u64 {
        let moment = moment(session);
        let (known, new): (Vec<_>, Vec<_>) = completed.into_iter().partition(|(file, _)| self.kept.contains_key(&file.path()));
        let mut looks = stream::iter(new).map(|(file, _)| first_sight(session, file)).buffer_unordered(CALLS);
        let mut found_all = true;
        while let Some(seen) = looks.next().await {
            found_all &= seen.is_ok();
            let Some((file, mut kept)) = logged(seen).flatten() else { continue };
            count(session, &file, &mut kept);
            self.kept.insert(file.path(), kept);
        }
        if found_all {
            session.books().ledger.found_all();
        }
        for (file, _) in &known {
            if let Some(kept) = self.kept.get_mut(&file.path()).filter(|kept| !kept.counted) {
                count(session, file, kept);
            }
        }
        let kept = &self.kept;
        let due = known.into_iter().filter_map(|(file, stamp)| {
            let kept = kept.get(&file.path())?.to_owned();
            Some((kept.due(&moment)?, kept, file, stamp))
        });
        let due: Vec<_> = due.collect();
        let mut ends =
            stream::iter(due).map(|(due, kept, file, stamp)| end(session, due, kept, file, stamp)).buffer_unordered(CALLS);
        let mut deleted = 0;
        while let Some(end) = ends.next().await {
            let Some((claim, path, fate)) = logged(end) else { continue };
            deleted += u64::from(matches!(fate, Fate::Gone));
            match fate {
                Fate::Stays(kept) => self.kept.insert(path, kept),
                Fate::Gone | Fate::Claimed => {
                    session.books().ledger.forget(&claim);
                    self.kept.remove(&path)
                }
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

/// What a look at a claimed file says.
#[derive(Debug)]
enum Look {
    /// It waits for somebody to take it up.
    Ours(Box<ClaimedFile>),
    /// There is nothing to take up: it is held already, or was given back.
    NotOurs,
    /// It was listed and cannot be said to be done: it did not answer, being gone since or because the client remembers that its name was
    /// absent once. The next pass tells.
    Unseen,
}

/// Looks at a claimed file unless a worker or the schedule holds it.
async fn look<E: Edges>(session: &Session<E>, file: Found) -> ShareResult<Look> {
    // A claimed name was a blob name once; only a change of the prefix could make it too long. It is not forgotten then.
    let Ok(blob) = session.folders.blob(&file.date, &file.producer()) else { return Ok(Look::Unseen) };
    let mut file = ClaimedFile::adopted(file.folder, file.name, blob);
    if is_held(session, &file) {
        return Ok(Look::NotOurs);
    }
    let attributes = match session.share.attributes(&file.path()).await {
        Err(error) if error.is_absent() => return Ok(Look::Unseen),
        attributes => attributes?,
    };
    // A worker may have taken it meanwhile, and its second name be that of a file that is being given back.
    if is_held(session, &file) || attributes.links > 1 && release::finish_earlier(session, &file, &attributes.identity).await? {
        return Ok(Look::NotOurs);
    }
    file.observe(attributes.identity, Instant::now());
    Ok(Look::Ours(Box::new(file)))
}

fn is_held<E: Edges>(session: &Session<E>, file: &ClaimedFile) -> bool {
    let books = session.books();
    books.ledger.is_active(&file.blob, &file.name.claim)
        || books.schedule.holds(&file.name, &file.blob)
        || books.stays.contains_key(&file.name.claim)
}

/// Hands a claimed file to the schedule unless that, or a worker, has it by now.
fn take_up<E: Edges>(session: &Session<E>, file: Box<ClaimedFile>) -> bool {
    if is_held(session, &file) {
        return false;
    }
    tracing::info!(file_name = %file.display_name(), claim = %file.name.claim, size = file.size, "taking up a claimed file");
    session.take_up(file);
    true
}

/// How many of these files the session has superseded, and not an earlier one of its name.
async fn count_superseded<E: Edges>(session: &Session<E>, files: Vec<Found>) -> u64 {
    let look = |file: Found| async move { session.share.attributes(&file.path()).await };
    let mut looks = stream::iter(files).map(look).buffer_unordered(CALLS);
    let mut count = 0;
    while let Some(look) = looks.next().await {
        count += u64::from(look.is_ok_and(|attributes| attributes.identity.ctime > session.since));
    }
    count
}

async fn first_sight<E: Edges>(session: &Session<E>, file: Found) -> ShareResult<Option<(Found, Kept)>> {
    match session.share.attributes(&file.path()).await {
        Err(error) if error.is_absent() => Ok(None),
        attributes => {
            let Identity { ctime, size, .. } = attributes?.identity;
            Ok(Some((file, Kept { since: Instant::now(), ctime, size, counted: false, completed: ctime, settled: false })))
        }
    }
}

/// Sees to it that the ledger counts a completed file.
fn count<E: Edges>(session: &Session<E>, file: &Found, kept: &mut Kept) {
    let ledger = &mut session.books().ledger;
    kept.counted = ledger.found_completed(&file.name.claim, kept.size, kept.ctime);
    kept.completed = ledger.completed_at(&file.name.claim).unwrap_or(kept.ctime);
}

/// Looks whether a completed file still is what was committed, and deletes it if that is due.
async fn end<E: Edges>(
    session: &Session<E>,
    due: Due,
    kept: Kept,
    file: Found,
    stamp: Stamp,
) -> ShareResult<(ClaimId, PathBuf, Fate)> {
    let path = file.path();
    let claim = file.name.claim;
    let identity = match session.share.attributes(&path).await {
        Err(error) if error.is_absent() => return Ok((claim, path, Fate::Gone)),
        attributes => attributes?.identity,
    };
    if stamp != Stamp::new(&claim, &identity) || was_written_since(&kept, &identity) {
        become_claimed(session, file, &identity).await?;
        return Ok((claim, path, Fate::Claimed));
    }
    if identity.ctime != kept.ctime {
        return Ok((claim, path, Fate::Stays(Kept { since: Instant::now(), ctime: identity.ctime, settled: false, ..kept })));
    }
    if due == Due::Look {
        return Ok((claim, path, Fate::Stays(Kept { settled: true, ..kept })));
    }
    match session.share.remove(&path).await {
        Err(error) if !error.is_absent() => Err(error),
        _ => Ok((claim, path, Fate::Gone)),
    }
}

/// Whether a completed file was written to since it was seen first: a write leaves both times alike. The stamp has no ctime, and cannot
/// tell a write at the very time to which the mtime had been set before.
fn was_written_since(kept: &Kept, identity: &Identity) -> bool {
    identity.ctime != kept.ctime && identity.ctime == identity.mtime
}

fn moment<E: Edges>(session: &Session<E>) -> Moment {
    Moment {
        now: Instant::now(),
        server_now: session.server_now(),
        keep: session.live().keep_completed_for,
        reported_through: session.books().ledger.reported_through,
    }
}

/// A completed file that changed after its commit is a later generation of its name, but an earlier one than a file that came to the
/// name after it.
async fn become_claimed<E: Edges>(session: &Session<E>, file: Found, identity: &Identity) -> ShareResult<()> {
    let Ok(blob) = session.folders.blob(&file.date, &file.producer()) else { return Ok(()) };
    let key = file.name.claim.key.next();
    let claim = session.claim_id(key, identity, i128::from(key.0));
    let next = next_generation(session, &blob, &file.folder, &file.name, claim).await;
    // It may have its new name all the same.
    let next = next.inspect_err(|_| session.books().ledger.loses_track(i128::from(key.0)))?;
    let Some(next) = next else { return Ok(()) };
    let file = ClaimedFile::adopted(file.folder, next, blob);
    tracing::warn!(file_name = %file.display_name(), "the file changed after it was uploaded and is uploaded again");
    session.take_up(Box::new(file));
    Ok(())
}

/// Removes empty folders: the session's of an earlier date with the date's, if that is empty then, and those in it of any date. A claim
/// that comes meanwhile makes its folder again.
async fn prune<E: Edges>(session: &Session<E>, empty: Vec<(String, PathBuf, bool)>) {
    for (date, folder, whole) in empty {
        if whole && date >= session.folders.date {
            continue;
        }
        let above = folder.parent().filter(|_| whole);
        for folder in [Some(folder.as_path()), above].into_iter().flatten() {
            match session.share.remove_folder(folder).await {
                // A folder that stays costs a name; nothing waits for its end.
                Err(error) if !matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound) => {
                    tracing::warn!(error = %error.full(), "an empty folder stays");
                }
                _ => {}
            }
        }
    }
}
