//! What is known of the names in the incoming folder, each with the folders below it, and when a file is stable. (pure)
//!
//! A file is stable when size, mtime, ctime and inode were equal in two looks and have been for the quiet period on our own monotonic
//! clock: the age of an mtime lies (`cp -p`, clock skew, a write-back 30 s late).

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::Filter;
use crate::share::{Attributes, Identity, Kind};

/// Time between two tries of a file that is held back.
const HELD_LOOK: Duration = Duration::from_mins(1);
const BAD_NAME: &str = "BadName";
/// Files whose reason is shown.
const HELD_BACK: usize = 5;
/// Most names that are tracked; further ones wait in their folder and are counted.
const TRACKED: usize = 1_000_000;
/// An empty file may be a placeholder of a producer that has not flushed yet.
const EMPTY_QUIET: Duration = Duration::from_mins(1);

/// Why a file is still on the share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// `CamelCase` reason.
    pub reason: &'static str,
    /// A sentence for people.
    pub message: String,
    /// True if it can be taken when a person has done something about it; false if the share may answer at any time.
    pub lasting: bool,
}

impl Held {
    /// For a reason that somebody has to do something about.
    pub fn lasting(reason: &'static str, message: String) -> Self {
        Self { reason, message, lasting: true }
    }

    /// Because the share failed.
    pub fn unanswered(reason: &'static str, message: String) -> Self {
        Self { reason, message, lasting: false }
    }

    /// The name is the trouble. Only another name helps, so the file is not looked at again.
    pub fn bad_name(message: String) -> Self {
        Self::lasting(BAD_NAME, message)
    }
}

#[derive(Clone, Debug)]
enum Phase {
    /// Looked at until it is stable.
    Watching,
    /// Stable and handed to the schedule, in the scan of this number.
    Queued(u64),
    /// Listed, but absent when it was looked at: gone since, or the client is wrong, which it may be for a while. The next listing tells.
    Absent,
    /// Not taken for a reason of its own; looked at again at each scan that is due.
    Held(Held),
    /// Left alone because of its name.
    Ignored,
    /// Left alone because it is this and no regular file, at this time; another file may take its name.
    NoFile(Kind, Instant),
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    identity: Identity,
    since: Instant,
    looked: Instant,
    looks: u32,
}

#[derive(Debug)]
struct Candidate {
    phase: Phase,
    sample: Option<Sample>,
    /// Without a sample: what has the name came to it at this time (server clock) or later.
    since: i128,
    /// Number of the last scan that saw the name.
    seen: u64,
}

/// A stable file that can be claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StableFile {
    /// Its name in the incoming folder.
    pub name: Box<[u8]>,
    /// The state in which it was stable.
    pub sample: Identity,
}

/// A file that the folder does not show any more. Another uploader may have claimed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    /// It came to its name at this time (server clock) or later.
    pub since: i128,
    /// True if it was seen and waited for us; otherwise only its name was.
    pub was_seen: bool,
}

/// Counts of the table as of now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Files that wait.
    pub waiting: u64,
    /// Their bytes, as far as known.
    pub waiting_bytes: u64,
    /// Files that are left alone.
    pub ignored: u64,
    /// Of the files that wait, those that a person has to do something about.
    pub held: u64,
    /// The least ctime of a waiting file; `None` if none waits or one has not been looked at.
    pub oldest_ctime: Option<i128>,
    /// True if a file waits of which nothing is known yet.
    pub unknown: bool,
    /// Since when (server clock) a file may be there that was absent when it was looked at.
    pub unsure_since: Option<i128>,
}

/// The names of one incoming folder.
#[derive(Debug)]
pub struct Table {
    filter: Filter,
    /// True if folders are entered.
    recursive: bool,
    quiet: Duration,
    names: HashMap<Box<[u8]>, Candidate>,
    scan: u64,
    /// Start of the last complete scan (server clock), if it saw every name.
    scanned: i128,
    /// True if the scan did not see all names.
    blind: bool,
    untracked: u64,
    /// Names that may become stable by waiting.
    watching: usize,
    /// What was worked out since the last change, so that a folder of idle files costs nothing.
    summary: Option<Summary>,
}

/// What the table says as a whole.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Counts.
    pub counts: Counts,
    /// The oldest files that are held back, waiting ones before ignored ones.
    pub held_back: Vec<(Box<[u8]>, Held)>,
}

impl Table {
    /// An empty table of a folder whose folders are entered or not.
    pub fn new(filter: Filter, recursive: bool) -> Self {
        let names = HashMap::new();
        Self {
            filter,
            recursive,
            quiet: Duration::MAX,
            names,
            scan: 0,
            scanned: i128::MIN,
            blind: false,
            untracked: 0,
            watching: 0,
            summary: None,
        }
    }

    /// Starts a scan with a quiet period.
    pub fn begin_scan(&mut self, quiet: Duration) {
        self.quiet = quiet;
        self.scan += 1;
        self.untracked = 0;
        self.blind = false;
    }

    /// Notes that the scan saw `name`; true if it must be looked at now.
    pub fn observe(&mut self, name: &[u8], kind: Kind, now: Instant) -> bool {
        let scan = self.scan;
        if let Some(candidate) = self.names.get_mut(name) {
            candidate.seen = scan;
            if matches!(candidate.phase, Phase::NoFile(..)) && kind == Kind::File {
                candidate.phase = Phase::Watching;
                self.summary = None;
            }
            return candidate.due(self.quiet, now) || candidate.may_be_a_file_now(kind, now);
        }
        self.summary = None;
        if self.names.len() >= TRACKED {
            self.untracked += 1;
            return false;
        }
        let phase = match kind {
            // It may be a folder, whose files have names of their own.
            Kind::Unknown if self.recursive && self.enters(name) => Phase::Watching,
            _ if !self.filter.takes(last(name)) => Phase::Ignored,
            Kind::File | Kind::Unknown => Phase::Watching,
            Kind::Folder | Kind::Special => Phase::NoFile(kind, now),
        };
        let taken = matches!(phase, Phase::Watching);
        // The scan before did not see what has the name now.
        self.names.insert(name.into(), Candidate { phase, sample: None, since: self.scanned, seen: scan });
        taken
    }

    /// True if the folder `name` is entered rather than observed.
    pub fn enters(&self, name: &[u8]) -> bool {
        self.filter.enters(last(name))
    }

    /// Notes that the folder `name` cannot be entered: what is known of its files stays.
    pub fn close(&mut self, name: &[u8], held: Held) {
        let scan = self.scan;
        self.blind = true;
        self.names.insert(name.into(), Candidate { phase: Phase::Held(held), sample: None, since: i128::MIN, seen: scan });
        for (other, candidate) in &mut self.names {
            if other.strip_prefix(name).is_some_and(|rest| rest.starts_with(b"/")) {
                candidate.seen = scan;
            }
        }
        self.summary = None;
    }

    /// Notes that something is there of which nothing can be remembered.
    pub fn leave_out(&mut self) {
        self.untracked += 1;
        self.summary = None;
    }

    /// Forgets a name that turned out to be a folder's.
    pub fn forget(&mut self, name: &[u8]) {
        self.names.remove(name);
        self.summary = None;
    }

    /// Takes what a look at `name` found. Returns since when an earlier file had the name, if another has taken it.
    pub fn sample(&mut self, name: &[u8], attributes: &Attributes, now: Instant) -> Option<i128> {
        let candidate = self.names.get_mut(name)?;
        self.summary = None;
        let is_another = |sample: &Sample| attributes.kind != Kind::File || sample.identity.inode != attributes.identity.inode;
        let replaced = candidate.sample.filter(is_another).map(|sample| sample.identity.ctime);
        if attributes.kind != Kind::File {
            candidate.phase = Phase::NoFile(attributes.kind, now);
            candidate.sample = None;
            return replaced;
        }
        if !self.filter.takes(last(name)) {
            candidate.phase = Phase::Ignored;
            return replaced;
        }
        match &mut candidate.sample {
            Some(sample) if sample.identity == attributes.identity => {
                sample.looks += 1;
                sample.looked = now;
            }
            _ => candidate.sample = Some(Sample { identity: attributes.identity, since: now, looked: now, looks: 1 }),
        }
        // What held it may be over, whether that shows in its attributes or not: it is tried again.
        if matches!(candidate.phase, Phase::Held(_) | Phase::Absent | Phase::NoFile(..)) {
            candidate.phase = Phase::Watching;
        }
        replaced
    }

    /// Notes that a listed name was absent when it was looked at or claimed.
    pub fn absent(&mut self, name: &[u8]) {
        self.set_phase(name, Phase::Absent);
    }

    /// Ends a complete scan that started at `started` (server clock): returns the files that are gone and were not claimed by us. A
    /// listing may miss a name while the folder changes, so a name is gone when two scans missed it.
    pub fn end_scan(&mut self, started: i128) -> Vec<Gone> {
        let (scan, oldest) = (self.scan, self.scan.saturating_sub(1));
        let (mut gone, mut watching, before) = (Vec::new(), 0, self.names.len());
        self.names.retain(|_, candidate| {
            let last = if matches!(candidate.phase, Phase::Absent) { scan } else { oldest };
            let stays = candidate.seen >= last;
            gone.extend(candidate.when_gone().filter(|_| !stays));
            watching += usize::from(stays && matches!(candidate.phase, Phase::Watching));
            stays
        });
        self.scanned = if self.blind || self.untracked > 0 { i128::MIN } else { started };
        self.watching = watching;
        if self.names.len() != before {
            self.summary = None;
        }
        gone
    }

    /// Stable files that are not handed out yet, oldest first.
    pub fn stable(&self) -> Vec<StableFile> {
        if self.watching == 0 {
            return Vec::new();
        }
        let mut stable: Vec<StableFile> = self
            .names
            .iter()
            .filter(|(_, candidate)| matches!(candidate.phase, Phase::Watching) && candidate.is_stable(self.quiet))
            .filter_map(|(name, candidate)| Some(StableFile { name: name.clone(), sample: candidate.sample?.identity }))
            .collect();
        stable.sort_by(|a, b| (a.sample.ctime, &a.name).cmp(&(b.sample.ctime, &b.name)));
        stable
    }

    /// Notes that `name` was handed to the schedule.
    pub fn queued(&mut self, name: &[u8]) {
        self.set_phase(name, Phase::Queued(self.scan));
    }

    /// Notes that `name` cannot be taken now.
    pub fn hold(&mut self, name: &[u8], held: Held) {
        self.set_phase(name, Phase::Held(held));
    }

    /// Notes that the file is not what it was: it must become stable again.
    pub fn watch_again(&mut self, name: &[u8]) {
        if let Some(candidate) = self.names.get_mut(name) {
            candidate.phase = Phase::Watching;
            candidate.since = candidate.since();
            candidate.sample = None;
            self.summary = None;
        }
    }

    /// Notes that the file is ours now; true if a scan saw the name after it was handed to the schedule, which may have been the name of
    /// a newer file.
    pub fn claimed(&mut self, name: &[u8]) -> bool {
        self.summary = None;
        self.names.remove(name).is_some_and(|candidate| matches!(candidate.phase, Phase::Queued(scan) if candidate.seen > scan))
    }

    fn set_phase(&mut self, name: &[u8], phase: Phase) {
        if let Some(candidate) = self.names.get_mut(name) {
            candidate.phase = phase;
            self.summary = None;
        }
    }

    /// Counts, and why the oldest files are still there.
    pub fn summary(&mut self) -> &Summary {
        if self.summary.is_none() {
            self.summary = Some(Summary { counts: self.counts(), held_back: self.held_back() });
        }
        self.summary.get_or_insert_default()
    }

    fn counts(&self) -> Counts {
        let mut counts = Counts { waiting: self.untracked, unknown: self.untracked > 0, ..Counts::default() };
        for candidate in self.names.values() {
            counts.held += u64::from(matches!(&candidate.phase, Phase::Held(held) if held.lasting));
            match (&candidate.phase, candidate.sample) {
                (Phase::Ignored | Phase::NoFile(..), _) => counts.ignored += 1,
                (Phase::Absent, None) => {
                    let since = candidate.since;
                    counts.unsure_since = Some(counts.unsure_since.map_or(since, |least| least.min(since)));
                }
                (_, None) => {
                    counts.waiting += 1;
                    counts.unknown = true;
                }
                (_, Some(sample)) => {
                    counts.waiting += 1;
                    counts.waiting_bytes += sample.identity.size;
                    let ctime = sample.identity.ctime;
                    counts.oldest_ctime = Some(counts.oldest_ctime.map_or(ctime, |oldest| oldest.min(ctime)));
                }
            }
        }
        counts
    }

    fn held_back(&self) -> Vec<(Box<[u8]>, Held)> {
        let mut oldest = Vec::with_capacity(HELD_BACK + 1);
        for (name, candidate) in self.names.iter().filter(|(_, candidate)| candidate.is_held(self.quiet)) {
            let ctime = candidate.sample.map_or(i128::MAX, |sample| sample.identity.ctime);
            let key = (matches!(candidate.phase, Phase::Ignored | Phase::NoFile(..)), ctime, name);
            let place = oldest.partition_point(|(other, _)| *other <= key);
            if place < HELD_BACK {
                oldest.insert(place, (key, candidate));
                oldest.truncate(HELD_BACK);
            }
        }
        oldest.into_iter().filter_map(|((.., name), candidate)| Some((name.clone(), candidate.held()?))).collect()
    }
}

/// The last part of a path.
fn last(name: &[u8]) -> &[u8] {
    name.rsplit(|byte| *byte == b'/').next().unwrap_or(name)
}

impl Candidate {
    /// True if a look must tell, now and then: some servers never say of what kind a name is (`DT_UNKNOWN` of readdir(3)).
    fn may_be_a_file_now(&self, kind: Kind, now: Instant) -> bool {
        matches!(self.phase, Phase::NoFile(_, looked) if kind == Kind::Unknown && now.duration_since(looked) >= HELD_LOOK)
    }

    fn quiet_period(&self, quiet: Duration) -> Duration {
        match self.sample {
            Some(Sample { identity: Identity { size: 0, .. }, .. }) => quiet.max(EMPTY_QUIET),
            _ => quiet,
        }
    }

    /// True if the last look came after the quiet period and found what the first one had.
    fn is_stable(&self, quiet: Duration) -> bool {
        self.sample
            .is_some_and(|sample| sample.looks >= 2 && sample.looked.duration_since(sample.since) >= self.quiet_period(quiet))
    }

    /// True if a look is due: nothing or one look is known, or the quiet period may just have passed. Looks in between would tell
    /// nothing, because any change moves the ctime; nor would looks at a stable file that waits for room in the queue, because the
    /// claim looks again.
    fn due(&self, quiet: Duration, now: Instant) -> bool {
        match (&self.phase, self.sample) {
            (Phase::Ignored | Phase::NoFile(..) | Phase::Queued(_), _) => false,
            (Phase::Held(held), Some(_)) if held.reason == BAD_NAME => false,
            (Phase::Held(held), Some(sample)) if held.lasting => now.duration_since(sample.looked) >= HELD_LOOK,
            (Phase::Absent | Phase::Held(_), _) | (_, None) => true,
            (Phase::Watching, Some(sample)) => {
                sample.looks < 2 || (!self.is_stable(quiet) && now.duration_since(sample.since) >= self.quiet_period(quiet))
            }
        }
    }

    /// What has the name came to it at this time (server clock) or later.
    fn since(&self) -> i128 {
        self.sample.map_or(self.since, |sample| sample.identity.ctime)
    }

    /// What is gone with the name, unless it was none of ours.
    fn when_gone(&self) -> Option<Gone> {
        let is_ours = !matches!(self.phase, Phase::Ignored | Phase::NoFile(..));
        is_ours.then(|| Gone { since: self.since(), was_seen: self.sample.is_some() })
    }

    /// False for what only waits for its turn.
    fn is_held(&self, quiet: Duration) -> bool {
        match self.phase {
            Phase::Queued(_) | Phase::Absent => false,
            Phase::Watching => self.sample.is_some() && !self.is_stable(quiet),
            Phase::Held(_) | Phase::Ignored | Phase::NoFile(..) => true,
        }
    }

    fn held(&self) -> Option<Held> {
        let held = |reason, message: &str| Some(Held::lasting(reason, message.to_owned()));
        match (&self.phase, self.sample) {
            (Phase::Held(known), _) => Some(known.clone()),
            (Phase::Ignored, _) => held("Ignored", "left alone by watch.ignore or watch.fileExtensions"),
            (Phase::NoFile(Kind::Folder, _), _) => held("Ignored", "a folder; its files are taken only with watch.recursive: true"),
            (Phase::NoFile(..), _) => held("Ignored", "left alone because it is no regular file"),
            (Phase::Watching, Some(sample)) if sample.looks < 2 => {
                held("StillGrowing", "it is new or has changed since the look before")
            }
            (Phase::Watching, Some(_)) => held("TooYoung", "unchanged for less than watch.minFileAge (60 s for an empty file)"),
            (Phase::Watching, None) | (Phase::Queued(_) | Phase::Absent, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_secs(5);
    const SCANNED: i128 = 100;

    fn table() -> Table {
        Table::new(Filter::new(&[], &["*.tmp".to_owned()]).unwrap(), false)
    }

    fn file(size: u64, ctime: i128) -> Attributes {
        Attributes { kind: Kind::File, identity: Identity { inode: 1, size, mtime: 0, ctime }, links: 1 }
    }

    /// One scan that sees `name` with `attributes` at `now`.
    fn scan(table: &mut Table, name: &[u8], attributes: &Attributes, now: Instant) {
        table.begin_scan(QUIET);
        if table.observe(name, Kind::File, now) {
            table.sample(name, attributes, now);
        }
        table.end_scan(SCANNED);
    }

    #[tokio::test(start_paused = true)]
    async fn listed_name_that_does_not_answer_is_in_doubt_since_the_scan_before_it_came_and_gone_when_no_listing_shows_it() {
        let (mut table, start) = (table(), Instant::now());
        table.begin_scan(QUIET);
        assert!(table.end_scan(10).is_empty());
        for started in [20, 30] {
            table.begin_scan(QUIET);
            assert!(table.observe(b"a", Kind::File, start), "it is looked at in each scan");
            table.absent(b"a");
            assert!(table.end_scan(started).is_empty());
        }
        assert_eq!(table.summary().counts, Counts { unsure_since: Some(10), ..Counts::default() });
        table.begin_scan(QUIET);
        assert_eq!(table.end_scan(40), [Gone { since: 10, was_seen: false }], "another uploader may have claimed it");
        assert_eq!(table.summary().counts, Counts::default());
    }

    #[tokio::test(start_paused = true)]
    async fn file_whose_name_another_one_took_is_told_and_one_that_changed_is_not() {
        let (mut table, start) = (table(), Instant::now());
        scan(&mut table, b"a", &file(1, 7), start);
        assert_eq!(table.sample(b"a", &file(2, 8), start), None);
        let other = Attributes { identity: Identity { inode: 2, ..file(2, 9).identity }, ..file(2, 9) };
        assert_eq!(table.sample(b"a", &other, start), Some(8));
        assert_eq!(table.sample(b"a", &Attributes { kind: Kind::Special, ..other }, start), Some(9));
    }

    #[tokio::test(start_paused = true)]
    async fn file_that_changed_before_its_claim_has_waited_since_its_sample() {
        let (mut table, start) = (table(), Instant::now());
        scan(&mut table, b"a", &file(1, 7), start);
        table.watch_again(b"a");
        for gone in [None, Some(Gone { since: 7, was_seen: false })] {
            table.begin_scan(QUIET);
            assert_eq!(table.end_scan(SCANNED).pop(), gone);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn file_is_stable_after_two_equal_looks_and_the_quiet_period() {
        let (mut table, start) = (table(), Instant::now());
        scan(&mut table, b"a", &file(1, 1), start);
        assert!(table.stable().is_empty(), "one look is not enough");
        scan(&mut table, b"a", &file(1, 1), start + Duration::from_secs(2));
        assert!(table.stable().is_empty(), "too young");
        scan(&mut table, b"a", &file(1, 1), start + QUIET);
        assert_eq!(table.stable().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn change_seen_at_the_last_look_starts_the_quiet_period_again() {
        let (mut table, start) = (table(), Instant::now());
        scan(&mut table, b"a", &file(1, 1), start);
        scan(&mut table, b"a", &file(1, 1), start + Duration::from_secs(2));
        scan(&mut table, b"a", &file(2, 2), start + QUIET);
        assert!(table.stable().is_empty());
        scan(&mut table, b"a", &file(2, 2), start + QUIET * 2);
        assert_eq!(table.stable()[0].sample.size, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn empty_file_waits_a_minute() {
        let (mut table, start) = (table(), Instant::now());
        for seconds in [0, 2, 59] {
            scan(&mut table, b"a", &file(0, 1), start + Duration::from_secs(seconds));
            assert!(table.stable().is_empty());
        }
        scan(&mut table, b"a", &file(0, 1), start + EMPTY_QUIET);
        assert_eq!(table.stable().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn name_missed_by_one_scan_stays_and_by_two_is_withdrawn() {
        let (mut table, start) = (table(), Instant::now());
        scan(&mut table, b"a", &file(1, 1), start);
        table.begin_scan(QUIET);
        assert!(table.end_scan(SCANNED).is_empty());
        table.begin_scan(QUIET);
        assert_eq!(table.end_scan(SCANNED).len(), 1);
        assert_eq!(table.summary().counts, Counts::default());
    }

    #[tokio::test(start_paused = true)]
    async fn known_quiet_names_are_not_looked_at() {
        let (mut table, start) = (table(), Instant::now());
        scan(&mut table, b"a", &file(1, 1), start);
        scan(&mut table, b"a", &file(1, 1), start + QUIET);
        table.queued(b"a");
        table.begin_scan(QUIET);
        assert!(!table.observe(b"a", Kind::File, start + QUIET * 9));
        assert!(!table.observe(b"x.tmp", Kind::File, start));
        assert!(!table.observe(b"x.tmp", Kind::File, start + QUIET));
    }

    #[tokio::test(start_paused = true)]
    async fn stable_file_that_waits_for_room_is_not_looked_at_again_and_nothing_holds_it_back() {
        let (mut table, start) = (table(), Instant::now());
        scan(&mut table, b"a", &file(1, 1), start);
        scan(&mut table, b"a", &file(1, 1), start + QUIET);
        table.begin_scan(QUIET);
        assert!(!table.observe(b"a", Kind::File, start + QUIET * 9));
        assert_eq!((table.stable().len(), table.summary().held_back.len()), (1, 0));
        table.begin_scan(QUIET * 2);
        assert!(table.observe(b"a", Kind::File, start + QUIET * 2), "the quiet period was made longer");
        assert_eq!((table.stable().len(), table.summary().counts.waiting), (0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn held_file_is_tried_again_after_a_minute_and_a_link_that_became_a_file_at_once() {
        let (mut table, start) = (table(), Instant::now());
        scan(&mut table, b"a", &file(1, 1), start);
        scan(&mut table, b"a", &file(1, 1), start + QUIET);
        table.hold(b"a", Held::lasting("Unreadable", String::new()));
        scan(&mut table, b"a", &file(1, 1), start + QUIET * 2);
        assert!(table.stable().is_empty());
        scan(&mut table, b"a", &file(1, 1), start + QUIET + HELD_LOOK);
        assert_eq!(table.stable().len(), 1);
        table.begin_scan(QUIET);
        assert!(!table.observe(b"link", Kind::Special, start));
        assert!(table.observe(b"link", Kind::File, start));
    }

    #[tokio::test(start_paused = true)]
    async fn name_of_unknown_kind_is_looked_at_again_now_and_then_because_a_file_may_have_taken_it() {
        let (mut table, start) = (table(), Instant::now());
        let link = Attributes { kind: Kind::Special, ..file(1, 1) };
        let observe = |table: &mut Table, now| {
            table.begin_scan(QUIET);
            table.observe(b"a", Kind::Unknown, now)
        };
        assert!(observe(&mut table, start));
        table.sample(b"a", &link, start);
        assert!(!observe(&mut table, start + QUIET));
        assert_eq!(table.summary().counts.ignored, 1);
        assert!(observe(&mut table, start + HELD_LOOK));
        table.sample(b"a", &link, start + HELD_LOOK);
        assert!(!observe(&mut table, start + HELD_LOOK + QUIET));
        assert!(observe(&mut table, start + HELD_LOOK * 2));
        table.sample(b"a", &file(1, 1), start + HELD_LOOK * 2);
        assert_eq!(table.summary().counts.waiting, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn folder_of_unknown_kind_is_looked_at_when_folders_are_entered_whatever_files_are_taken() {
        let filter = || Filter::new(&[".bin".to_owned()], &["*.tmp".to_owned()]).unwrap();
        let start = Instant::now();
        for (recursive, name, expected) in [(true, "folder", true), (true, "x.tmp", false), (false, "folder", false)] {
            let mut table = Table::new(filter(), recursive);
            table.begin_scan(QUIET);
            assert_eq!(table.observe(name.as_bytes(), Kind::Unknown, start), expected, "{name}");
            if expected {
                table.sample(name.as_bytes(), &file(1, 1), start);
                assert_eq!(table.summary().counts, Counts { ignored: 1, ..Counts::default() }, "it was a file and is not wanted");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn bad_name_is_not_looked_at_again() {
        let (mut table, start) = (table(), Instant::now());
        scan(&mut table, b"a", &file(1, 1), start);
        table.hold(b"a", Held::bad_name("shorten it".into()));
        table.begin_scan(QUIET);
        assert!(!table.observe(b"a", Kind::File, start + HELD_LOOK * 9));
        assert_eq!(table.summary().counts.held, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn file_of_which_the_share_said_nothing_is_shown_looked_at_again_at_once_and_not_left_for_a_person() {
        let (mut table, start) = (table(), Instant::now());
        scan(&mut table, b"a", &file(1, 1), start);
        table.hold(b"a", Held::unanswered("Unreadable", "input/output error".into()));
        assert_eq!(table.summary().held_back[0].1.reason, "Unreadable");
        assert_eq!((table.summary().counts.waiting, table.summary().counts.held), (1, 0));
        table.begin_scan(QUIET);
        assert!(table.observe(b"a", Kind::File, start));
    }

    #[tokio::test(start_paused = true)]
    async fn links_and_ignored_names_are_counted_as_ignored() {
        let (mut table, start) = (table(), Instant::now());
        table.begin_scan(QUIET);
        assert!(!table.observe(b"link", Kind::Special, start));
        assert!(!table.observe(b"x.tmp", Kind::File, start));
        assert!(table.observe(b"a", Kind::Unknown, start));
        table.sample(b"a", &Attributes { kind: Kind::Special, ..file(1, 1) }, start);
        assert_eq!(table.summary().counts, Counts { ignored: 3, ..Counts::default() });
    }

    #[tokio::test(start_paused = true)]
    async fn folder_that_is_closed_is_shown_and_its_files_are_not_taken_for_withdrawn() {
        let (mut table, start) = (table(), Instant::now());
        scan(&mut table, b"a/x", &file(1, 1), start);
        for _ in 0..3 {
            table.begin_scan(QUIET);
            table.close(b"a", Held::lasting("Unreadable", String::new()));
            assert!(table.end_scan(SCANNED).is_empty());
        }
        let counts = table.summary().counts;
        assert_eq!((counts.waiting, counts.held, counts.unknown), (2, 1, true));
        for gone in [vec![], vec![(1, true), (i128::MIN, false)]] {
            table.begin_scan(QUIET);
            let mut found = table.end_scan(SCANNED);
            found.sort_by_key(|gone| !gone.was_seen);
            assert_eq!(found.iter().map(|gone| (gone.since, gone.was_seen)).collect::<Vec<_>>(), gone);
        }
    }
}
