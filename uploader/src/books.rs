//! Everything that is known of the session's files, in one place behind one lock, so that counts always fit together. (pure)

mod order_keys;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use blobferry_crds::{FileProblem, Progress};
use tokio::time::Instant;

use crate::{
    aside::{Aside, Shelf},
    brake::Brake,
    ending::Standing,
    ends::{End, Ends},
    file::ClaimedFile,
    formats::{BlobName, ClaimId, OrderKey},
    ledger::{Ledger, Left, Now, UNKNOWN, problem},
    scan::{Believed, Counts, Gone, Held, Periods, StableFile, Table},
    schedule::{Claimed, Delay, Schedule, Task},
    session::Folders,
    share::Attributes,
    work::FILES,
};

pub use order_keys::OrderKeys;

const HELD_BACK: usize = 5;
/// Least time between two looks through all names for stable files.
const REFILL: Duration = Duration::from_secs(1);

/// The books of a session.
#[derive(Debug)]
pub struct Books {
    /// Names in the incoming folder.
    pub table: Table,
    /// Tasks that no worker holds.
    pub schedule: Schedule,
    /// Counts.
    pub ledger: Ledger,
    /// The health of the two ends.
    pub ends: Ends,
    /// Whether new files are claimed.
    pub brake: Brake,
    /// Files that are set aside.
    pub shelf: Shelf,
    /// Folders in the incoming one that are no other session's.
    pub believed: Believed,
    /// Claimed files that cannot be given back and why.
    pub stays: BTreeMap<ClaimId, FileProblem>,
    /// Claims of files that were set aside and are claimed again, until it is known what became of them.
    returning: BTreeSet<ClaimId>,
    /// Greatest order keys.
    pub keys: OrderKeys,
    scans: Scans,
    /// When stable files were last offered to the schedule.
    offered: Option<Instant>,
}

/// When scans began, on our own clock.
#[derive(Clone, Copy, Debug, Default)]
struct Scans {
    /// The one that is under way, or the last.
    latest: Option<Instant>,
    /// The last that was complete.
    complete: Option<Instant>,
}

/// Books that several parts hold.
#[derive(Clone, Debug)]
pub struct SharedBooks(Arc<Mutex<Books>>);

impl SharedBooks {
    /// Shares the books.
    pub fn new(books: Books) -> Self {
        Self(Arc::new(Mutex::new(books)))
    }

    /// The books, for a moment: never held across an await.
    pub fn lock(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    /// Empty books.
    pub fn new(table: Table, schedule: Schedule) -> Self {
        Self {
            table,
            schedule,
            ledger: Ledger::default(),
            ends: Ends::default(),
            brake: Brake::default(),
            shelf: Shelf::default(),
            believed: Believed::default(),
            stays: BTreeMap::new(),
            returning: BTreeSet::new(),
            keys: OrderKeys::default(),
            scans: Scans::default(),
            offered: None,
        }
    }

    /// A scan begins.
    pub fn scan_begins(&mut self, periods: Periods, now: Instant) {
        self.scans.latest = Some(now);
        self.table.begin_scan(periods);
        self.ledger.doubts.scan_begins();
    }

    /// A complete scan that started at `started` (server clock) has ended.
    pub fn scanned(&mut self, started: i128) {
        self.ledger.doubts.scan_ends();
        for Gone { since, was_seen } in self.table.end_scan(started) {
            self.ledger.withdrawn(u64::from(was_seen));
            self.ledger.doubts.add(since);
        }
        self.ledger.last_scan = Some(started);
        self.scans.complete = self.scans.latest;
    }

    /// A look at a name found this. If another file has taken the name, another uploader may have claimed the one before, under a key
    /// that is above the present one's if the server's clock was set back.
    pub fn looked(&mut self, name: &[u8], attributes: &Attributes, now: Instant) {
        if let Some(since) = self.table.sample(name, attributes, now) {
            self.keys.saw(name, OrderKey::at(since));
            self.ledger.doubts.add(since);
        }
    }

    /// The scan has missed what was below a folder, which may be there under another name.
    pub fn missed(&mut self) {
        self.ledger.doubts.add_incoming(self.table.scanned());
    }

    /// A stable file was not claimed because it is not what it was, or nobody knows whether it was claimed.
    pub fn not_claimed(&mut self, file: &StableFile) {
        self.table.watch_again(&file.name);
        self.ledger.doubts.add(file.since);
    }

    /// The file of this name is ours now. If a scan saw the name after the claim, another file has taken it.
    pub fn claimed(&mut self, name: &[u8], since: i128) {
        if self.table.claimed(name) {
            self.ledger.doubts.add_incoming(since);
        }
    }

    /// A file that was set aside is claimed again; it waits until it is [taken up](Self::take_up).
    pub fn taken_back(&mut self, claim: ClaimId) {
        self.shelf.take(claim);
        self.returning.insert(claim);
        self.ledger.doubts.add(claim.waits_since());
    }

    /// A file was set aside, or is found aside.
    pub fn put_aside(&mut self, claim: ClaimId, aside: Aside) {
        self.returning.remove(&claim);
        self.shelf.put(claim, aside);
    }

    /// A look at the share saw no files aside but these.
    pub fn saw_aside(&mut self, claims: impl Iterator<Item = ClaimId>) {
        if let Some(since) = self.shelf.retain(claims) {
            self.ledger.doubts.add(since);
        }
    }

    /// A listing shows these files as claimed, and those as set aside. Who was on the shelf and is claimed was taken back, by another
    /// uploader or by a call of ours that did not answer; who was to return and is gone does so no more.
    pub fn listed(&mut self, claimed: &HashSet<ClaimId>, aside: &HashSet<ClaimId>) {
        self.returning.retain(|claim| claimed.contains(claim) || aside.contains(claim));
        for claim in self.shelf.taken_by_others(claimed) {
            self.taken_back(claim);
        }
    }

    /// A claimed file that nobody held is to be uploaded.
    pub fn take_up(&mut self, file: Box<ClaimedFile>, now: Instant) {
        self.returning.remove(&file.name.claim);
        let blob = file.blob.clone();
        self.schedule.add(&blob, Task::Claimed(file), now, Delay::Waiting);
    }

    /// The pass has looked at these claimed files, and has left so many of them.
    pub fn adopted(&mut self, claims: &HashSet<ClaimId>, left: Left) {
        self.returning.retain(|claim| !claims.contains(claim));
        self.ledger.left = left;
    }

    /// Claimed files that no worker holds.
    fn claimed_files(&mut self) -> Claimed {
        let mut claimed = self.schedule.claimed();
        claimed.waiting += self.returning.len() as u64;
        claimed.oldest = self.returning.iter().map(ClaimId::waits_since).chain(claimed.oldest).min();
        claimed.newest = self.returning.iter().map(ClaimId::waits_since).max().max(claimed.newest);
        claimed
    }

    /// Moves stable files to the schedule while it has room; those with impossible names are held back, and those whose name is busy wait
    /// where they are.
    pub fn offer_stable(&mut self, folders: &Folders, longest_name: usize, now: Instant) {
        self.offered = Some(now);
        if !self.schedule.has_room() {
            return;
        }
        for file in self.table.stable() {
            let length = file.name.rsplit(|byte| *byte == b'/').next().map_or(0, <[u8]>::len);
            if length > longest_name {
                let message = format!("the name has more than {longest_name} bytes: shorten it");
                self.table.hold(&file.name, Held::bad_name(message));
                continue;
            }
            match folders.blob(&folders.date, &file.name) {
                Err(error) => self.table.hold(&file.name, Held::bad_name(error.to_string())),
                Ok(blob) if !self.schedule.is_free(&blob) => {}
                Ok(blob) if self.schedule.has_room() => {
                    self.table.queued(&file.name);
                    self.schedule.add(&blob, Task::Incoming(file), now, Delay::Waiting);
                }
                Ok(_) => return,
            }
        }
    }

    /// Does the same between two scans, when few are left in the schedule and not too often, because it looks at all names.
    pub fn refill(&mut self, folders: &Folders, longest_name: usize, now: Instant) {
        let is_due = self.offered.is_some_and(|offered| now.duration_since(offered) >= REFILL);
        if is_due && self.schedule.runs_low() {
            self.offer_stable(folders, longest_name, now);
        }
    }

    /// The next task that is due, if any. A file that is ours is active from here on, so that there is no instant at which it is in no
    /// count and the session seems to be done; one that is not waits in the table still.
    pub fn take(&mut self, now: Instant) -> Option<(BlobName, Task)> {
        let (blob, task) = self.schedule.take(now, self.brake.admits())?;
        match &task {
            Task::Incoming(stable) => {
                self.table.claiming(&stable.name);
                self.brake.admitted();
            }
            Task::Claimed(file) => drop(self.ledger.started(file)),
        }
        Some((blob, task))
    }

    /// When the next task is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.schedule.next_due(self.brake.admits())
    }

    /// The container took a file, or no file waits for it.
    pub fn destination_works(&mut self) {
        self.ends.works(End::Destination, FILES);
        self.brake.works();
    }

    /// The container answered. Whether it takes files is for those to say that it did not take.
    pub fn destination_answers(&mut self) {
        if self.ledger.failures.wait_for(End::Destination) {
            self.brake.answers();
        } else {
            self.destination_works();
        }
    }

    /// Since when the oldest file waits (server clock), of those that are not active.
    pub fn oldest_waiting(&mut self) -> Option<i128> {
        let oldest = [self.table.summary().counts.oldest, self.claimed_files().oldest];
        oldest.into_iter().flatten().filter(|oldest| *oldest > UNKNOWN).min()
    }

    /// What the end of the run depends on; `scanned` if the incoming folder must have been seen. A `runToken` that is new has files that
    /// were set aside tried again: until that is done, the run is not over.
    pub fn standing(&mut self, scanned: bool, run_token: Option<&str>) -> Standing {
        let counts = self.table.summary().counts;
        let claimed = self.claimed_files();
        Standing {
            incoming: counts.waiting.saturating_sub(counts.held),
            held: counts.held,
            claimed: claimed.waiting + claimed.retrying + self.ledger.active() + self.ledger.left.files + self.shelf.due(run_token),
            known: self.ledger.knows_claims() && (!scanned || self.ends.is_ok(End::Source) && self.is_incoming_known(&counts)),
            passes: self.ledger.passes,
            scan_began: self.scans.complete,
        }
    }

    /// True if no file can be in the incoming folder that was there at the last complete scan and is not counted.
    fn is_incoming_known(&self, counts: &Counts) -> bool {
        self.ledger.last_scan.is_some() && counts.unsure_since.is_none() && !self.ledger.doubts.are_open()
    }

    /// True if no file is known that is to be uploaded; what a person has to see to first is not.
    pub fn is_idle(&mut self) -> bool {
        let standing = self.standing(false, None);
        standing.incoming + standing.claimed == 0
    }

    /// True if nothing but a pass of the collector goes on with a file, or tells whether all is uploaded.
    pub fn waits_for_pass(&mut self) -> bool {
        let is_open = !self.ledger.knows_claims() || self.ledger.doubts.wait_for_pass();
        self.ledger.left.files > 0 || is_open && self.is_idle()
    }

    /// The share is worked on, and no file waits for it.
    pub fn source_works(&mut self) {
        if !self.ledger.failures.wait_for(End::Source) {
            self.ends.works(End::Source, FILES);
        }
    }

    /// The ledger as the status shows it.
    pub fn progress(&mut self) -> Progress {
        if let Some(earlier) = self.ledger.before_recovery(self.ends.checks()) {
            return earlier;
        }
        let mut claimed = self.claimed_files();
        let summary = self.table.summary();
        claimed.waiting += self.stays.len() as u64;
        let failing = self.ledger.failures.failing().cloned();
        let aside = self.stays.values().chain(self.shelf.problems()).cloned();
        let waiting = summary.held_back.iter();
        let waiting = waiting.map(|(name, held)| problem(&String::from_utf8_lossy(name), held.reason, &held.message));
        self.ledger.progress(&Now {
            incoming: summary.counts,
            claimed,
            set_aside: self.shelf.files(),
            oldest_aside: self.shelf.oldest(),
            newest_aside: self.shelf.newest(),
            held_back: failing.chain(aside).chain(waiting).take(HELD_BACK).collect(),
            checks: self.ends.checks(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        formats::{ProcessId, ProcessingName, blob_name},
        scan::Filter,
        share::{Identity, Kind},
    };

    #[tokio::test(start_paused = true)]
    async fn queue_is_filled_again_between_two_scans_when_few_are_left_and_not_all_the_time() {
        let folders = Folders {
            incoming: "/incoming/s".into(),
            processing: "/processing".into(),
            session: "s".into(),
            date: "20261121".into(),
            prefix: String::new(),
        };
        let table = Table::new(Filter::new(&[], &[]).unwrap(), false);
        let mut books = Books::new(table, Schedule::new(2));
        let (quiet, start) = (Duration::from_secs(5), Instant::now());
        let stable = start + quiet;
        for now in [start, stable] {
            books.scan_begins(Periods::new(quiet, None), now);
            for inode in 1..=3 {
                let name = inode.to_string().into_bytes();
                assert!(books.table.observe(&name, Kind::File, now));
                let identity = Identity { inode, size: 1, mtime: 0, ctime: 0 };
                books.looked(&name, &Attributes { kind: Kind::File, identity, links: 1 }, now);
            }
            books.scanned(0);
        }
        books.offer_stable(&folders, 255, stable);
        assert_eq!(books.schedule.queued(), 2);
        let (blob, _) = books.take(stable).unwrap();
        books.schedule.finished(&blob);
        for (later, queued) in [(Duration::ZERO, 1), (REFILL, 2)] {
            books.refill(&folders, 255, stable + later);
            assert_eq!(books.schedule.queued(), queued);
        }
    }

    /// Books that have nothing to do.
    fn caught_up(now: Instant) -> Books {
        let mut books = Books::new(Table::new(Filter::new(&[], &[]).unwrap(), false), Schedule::new(2));
        books.scan_begins(Periods::new(Duration::ZERO, None), now);
        books.scanned(100);
        books.ledger.passes = 1;
        books.ledger.pass_begins();
        books.ledger.pass_ends();
        assert!(books.progress().caught_up);
        books
    }

    fn claimed(key: u64) -> Box<ClaimedFile> {
        let claim = ClaimId::new(OrderKey(key), ProcessId::new(1), 1);
        let blob = blob_name("", "20261121", "s", b"a").unwrap();
        Box::new(ClaimedFile::adopted("/p/20261121/s".into(), ProcessingName::claimed(b"a", claim), blob))
    }

    fn aside() -> Aside {
        Aside { problem: problem("a", "SetAside", "too large"), run_token: None }
    }

    #[tokio::test(start_paused = true)]
    async fn file_that_was_set_aside_and_is_listed_as_claimed_waits() {
        let mut books = caught_up(Instant::now());
        let (claim, nobodys) = (claimed(7).name.claim, HashSet::new());
        books.put_aside(claim, aside());
        books.shelf.begin();
        books.listed(&HashSet::from([claim]), &nobodys);
        let progress = books.progress();
        assert_eq!((progress.files_waiting, progress.files_failed, progress.caught_up), (1, 0, false));
        // One that a worker sets aside while the listing is read is in it as claimed, and stays aside.
        books.put_aside(claim, aside());
        books.listed(&HashSet::from([claim]), &nobodys);
        assert_eq!(books.shelf.claims().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn share_fails_until_the_file_that_it_fails_goes_on() {
        let mut books = caught_up(Instant::now());
        let file = claimed(7);
        books.ends.fails(End::Source, FILES, "ShareFull", "no space");
        books.ledger.failures.add(&file, "ShareFull", "no space", Some(End::Source));
        books.source_works();
        assert!(!books.ends.is_ok(End::Source), "another file went well");
        books.ledger.failures.recovered(&file.blob);
        books.source_works();
        assert!(books.ends.is_ok(End::Source));
    }

    #[tokio::test(start_paused = true)]
    async fn collector_is_called_early_only_if_nothing_else_is_to_be_done() {
        let now = Instant::now();
        let mut books = caught_up(now);
        assert!(!books.waits_for_pass());
        books.ledger.doubts.add(7);
        assert!(books.waits_for_pass());
        books.take_up(claimed(7), now);
        assert!(!books.waits_for_pass(), "a file waits anyway");
        let mut books = caught_up(now);
        books.ledger.doubts.add_incoming(7);
        assert!(!books.waits_for_pass(), "no pass shows it");
        books.ledger.left.add(&claimed(7).name.claim);
        assert!(books.waits_for_pass(), "whose uploader may be gone by now");
    }

    #[tokio::test(start_paused = true)]
    async fn pass_that_began_before_a_claim_was_lost_track_of_says_nothing_of_it() {
        let mut books = caught_up(Instant::now());
        books.ledger.pass_begins();
        books.ledger.loses_track(7);
        books.ledger.pass_ends();
        assert!(!books.ledger.knows_claims() && !books.progress().caught_up);
        books.scan_begins(Periods::new(Duration::ZERO, None), Instant::now());
        books.scanned(200);
        books.ledger.pass_begins();
        books.ledger.pass_ends();
        assert!(books.ledger.knows_claims() && books.progress().caught_up);
    }

    #[tokio::test(start_paused = true)]
    async fn file_that_a_worker_is_given_is_in_the_counts_at_every_instant() {
        let now = Instant::now();
        let (mut books, file) = (caught_up(now), claimed(7));
        let claim = file.name.claim;
        books.take_up(file, now);
        let waiting = books.progress();
        assert_eq!((waiting.files_waiting, waiting.caught_up), (1, false));
        let (blob, _) = books.take(now).unwrap();
        let active = books.progress();
        assert_eq!((active.files_active, active.caught_up, active.safe_through), (1, false, waiting.safe_through));
        assert!(books.ledger.is_active(&blob, &claim), "the collector leaves it alone");
    }

    #[tokio::test(start_paused = true)]
    async fn file_that_is_taken_back_waits_until_it_is_known_what_became_of_it() {
        type Fate = fn(&mut Books, ClaimId, Instant);
        let now = Instant::now();
        let claim = claimed(7).name.claim;
        let nobodys = HashSet::new();
        let fates: [(Fate, u64); 4] = [
            (|books, _, now| books.take_up(claimed(7), now), 1),
            (|books, claim, _| books.adopted(&HashSet::from([claim]), Left::default()), 0),
            (|books, _, _| books.listed(&HashSet::new(), &HashSet::new()), 0),
            (|books, claim, _| books.put_aside(claim, aside()), 0),
        ];
        for (fate, waiting) in fates {
            let mut books = caught_up(now);
            books.taken_back(claim);
            // What sees it, and has not looked at it, says nothing of it.
            books.adopted(&nobodys, Left::default());
            books.listed(&HashSet::from([claim]), &nobodys);
            books.listed(&nobodys, &HashSet::from([claim]));
            let progress = books.progress();
            assert_eq!((progress.files_waiting, progress.caught_up), (1, false));
            assert_eq!((books.standing(false, None).claimed, books.oldest_waiting()), (1, Some(claim.waits_since())));
            fate(&mut books, claim, now);
            assert_eq!(books.progress().files_waiting, waiting);
        }
    }
}
