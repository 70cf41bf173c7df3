//! The ledger of files and bytes. (pure)
//!
//! Lasting counts only grow and survive restarts through the status; the others are taken from the table and the schedule as of now,
//! and `filesSeen` is their sum, so that it adds up at any time.

mod counted;
mod doubts;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use blobferry_crds::{ActiveFile, Check, FileProblem, Progress, conditions::shorten};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use counted::Counted;
use doubts::Doubts;

use crate::{
    ends::End,
    formats::{BlobName, ClaimId},
    scan::Counts,
    schedule::Claimed,
};

const RECENT_FAILURES: usize = 3;
const ACTIVE_SHOWN: usize = 3;
const MESSAGE: usize = 200;
/// Reasons of waiting files that waiting does not help.
const NEEDS_A_PERSON: [&str; 2] = ["BadName", "Unreadable"];
const NAME: usize = 256;

/// A file that a worker holds.
#[derive(Clone, Debug)]
pub struct Active {
    /// Its claim.
    pub claim: ClaimId,
    /// Its name for people.
    pub name: String,
    /// Its bytes.
    pub size: u64,
    /// Since when it waits (server clock).
    pub since: i128,
    /// Bytes that the service has.
    pub sent: Arc<AtomicU64>,
}

/// Counts that come from elsewhere, as of now.
#[derive(Clone, Debug, Default)]
pub struct Now {
    /// Files in the incoming folder.
    pub incoming: Counts,
    /// Claimed files that no worker holds.
    pub claimed: Claimed,
    /// Files set aside; `None` while it is not known.
    pub set_aside: Option<u64>,
    /// The least time (server clock) from which on one of them was not uploaded.
    pub oldest_aside: Option<i128>,
    /// Why the oldest files are still there.
    pub held_back: Vec<FileProblem>,
    /// The two ends.
    pub checks: Vec<Check>,
}

/// The ledger.
#[derive(Debug, Default)]
pub struct Ledger {
    uploaded: u64,
    /// Files set aside, as an earlier process counted them.
    failed: u64,
    superseded: u64,
    withdrawn: u64,
    bytes_uploaded: u64,
    bytes_resumed: u64,
    /// Bytes of the files that this process completed.
    own_bytes: u64,
    active: BTreeMap<BlobName, Active>,
    recent_failures: VecDeque<FileProblem>,
    failing: BTreeMap<BlobName, Failing>,
    last_upload: Option<i128>,
    /// Start of the last complete scan (server clock).
    pub last_scan: Option<i128>,
    /// Passes of the collector so far.
    pub passes: u64,
    /// Start of the last complete scan after which a pass of the collector has found what others claimed (server clock).
    confirmed_scan: Option<i128>,
    /// The last complete scan when the pass that is under way began.
    scan_of_pass: Option<i128>,
    /// Files that may be there although nobody here holds them.
    pub doubts: Doubts,
    /// True once the files claimed by earlier processes are known.
    pub adopted: bool,
    /// Claimed files that are not ours to upload now: another process beats, or they could not be looked at.
    pub left: Left,
    share_free: Option<u64>,
    /// Completed files up to this time (server clock) are in a report that was taken; `None` if nobody takes reports.
    pub reported_through: Option<i128>,
    counted: Counted,
    /// What earlier processes reported.
    earlier: Progress,
}

/// A file that failed and is tried again.
#[derive(Clone, Debug)]
struct Failing {
    problem: FileProblem,
    /// The end that is to blame, if one is.
    end: Option<End>,
}

/// Claimed files that nobody here holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// How many.
    pub files: u64,
    /// The least time (server clock) from which on one of them has waited.
    pub oldest: Option<i128>,
}

impl Left {
    /// One more, with this claim.
    pub fn add(&mut self, claim: &ClaimId) {
        let since = claim.waits_since();
        self.files += 1;
        self.oldest = Some(self.oldest.map_or(since, |oldest| oldest.min(since)));
    }
}

impl Ledger {
    /// Adds the counts of earlier processes, if there are any.
    pub fn resume(&mut self, old: &Progress) {
        // Those that came after `countedThrough` are on the share still and are counted when they are found.
        self.uploaded += old.files_uploaded.saturating_sub(old.files_counted_beyond);
        self.failed = old.files_failed;
        self.superseded += old.files_superseded;
        self.withdrawn += old.files_withdrawn;
        self.bytes_uploaded += old.bytes_uploaded.saturating_sub(old.bytes_counted_beyond);
        self.bytes_resumed += old.bytes_resumed;
        self.last_upload = self.last_upload.max(old.last_upload_time.as_ref().map(|time| time.0.as_nanosecond()));
        self.earlier = old.clone();
        let found = self.counted.resume(old.counted_through.map(Timestamp::as_nanosecond));
        self.uploaded += found.files;
        self.bytes_uploaded += found.bytes;
    }

    /// True once the counts of earlier processes are in; before, the ledger must not be written over theirs.
    pub fn is_resumed(&self) -> bool {
        self.counted.is_resumed()
    }

    /// What there is to say before the first pass of the collector has found what earlier processes left: their words, and the two ends
    /// as of now. Counts of ours would lack what was not found yet.
    pub fn before_recovery(&self, checks: Vec<Check>) -> Option<Progress> {
        let last_error = self.last_error(&checks, &[]);
        (self.passes == 0).then(|| Progress { checks, caught_up: false, last_error, ..self.earlier.clone() })
    }

    /// Without counts of earlier processes, counting begins at this time of the server's clock: that of the session's beginning, because
    /// an earlier process may have died before its first report.
    pub fn count_from(&mut self, since: i128) {
        self.counted.begin(since);
    }

    /// A pass of the collector begins.
    pub fn pass_begins(&mut self) {
        self.scan_of_pass = self.last_scan;
        self.doubts.pass_begins();
    }

    /// The pass was complete: all claimed files are known, those of other uploaders too.
    pub fn pass_ends(&mut self) {
        self.adopted = true;
        // Not the greater of both: the server's clock may have stepped back.
        self.confirmed_scan = self.scan_of_pass.or(self.confirmed_scan);
        self.doubts.pass_ends();
    }

    /// A worker took a file.
    pub fn started(&mut self, blob: &BlobName, active: Active) {
        self.active.insert(blob.clone(), active);
    }

    /// True if a worker holds the file of this claim.
    pub fn is_active(&self, blob: &BlobName, claim: &ClaimId) -> bool {
        self.active.get(blob).is_some_and(|active| active.claim == *claim)
    }

    /// How many files workers hold.
    pub fn active(&self) -> u64 {
        self.active.len() as u64
    }

    /// The worker gave the file back.
    pub fn ended(&mut self, blob: &BlobName) {
        self.active.remove(blob);
    }

    /// A completed file was found on the share: it is counted unless it is in the counts already. False if that cannot be said yet.
    pub fn found_completed(&mut self, claim: &ClaimId, bytes: u64, ctime: i128) -> bool {
        let is_news = self.counted.found(claim, bytes, ctime);
        if is_news == Some(true) {
            self.uploaded += 1;
            self.bytes_uploaded += bytes;
        }
        is_news.is_some()
    }

    /// All files that earlier processes completed were found.
    pub fn found_all(&mut self) {
        self.counted.settled();
    }

    /// A file is about to be renamed to completed.
    pub fn completing(&mut self, claim: ClaimId, server_now: i128) {
        self.counted.completing(claim, server_now);
    }

    /// The rename to completed failed, and nobody knows whether it took place: whoever finds the file settles it.
    pub fn unsure(&mut self, claim: ClaimId) {
        self.counted.unsure(claim);
    }

    /// Claims that somebody must find before it is known whether they are completed.
    pub fn all_unsure(&self) -> Vec<ClaimId> {
        self.counted.all_unsure()
    }

    /// A claim is not on the share any more, or never became completed.
    pub fn forget(&mut self, claim: &ClaimId) {
        self.counted.forget(claim);
    }

    /// The server's clock has reached this time.
    pub fn saw_server_time(&mut self, server_now: i128) {
        self.counted.saw_server_time(server_now);
    }

    /// A report was taken that covers completed files up to this time.
    pub fn reported(&mut self, through: i128) {
        self.reported_through = Some(through);
        self.counted.reported(through);
    }

    /// A file was committed, proven and renamed to completed, at `ctime` if that could be read.
    pub fn completed(&mut self, claim: ClaimId, blob: &BlobName, bytes: u64, resumed: u64, ctime: Option<i128>) {
        self.counted.completed(claim, bytes, ctime);
        self.uploaded += 1;
        self.bytes_uploaded += bytes;
        self.own_bytes += bytes;
        self.bytes_resumed += resumed;
        self.last_upload = self.last_upload.max(ctime);
        self.failing.remove(blob);
    }

    /// A file was overtaken by a later one of its name.
    pub fn superseded(&mut self, blob: &BlobName) {
        self.superseded += 1;
        self.failing.remove(blob);
    }

    /// Files were gone before they were claimed, or given back.
    pub fn withdrawn(&mut self, files: u64) {
        self.withdrawn += files;
    }

    /// An attempt failed, for the sake of an end or not.
    pub fn failure(&mut self, blob: &BlobName, name: &str, reason: &str, message: &str, end: Option<End>) {
        let problem = problem(name, reason, message);
        self.failing.insert(blob.clone(), Failing { problem: problem.clone(), end });
        self.recent_failures.retain(|recent| recent.name != problem.name);
        self.recent_failures.push_front(problem);
        self.recent_failures.truncate(RECENT_FAILURES);
    }

    /// The file is not failing any more, for whatever reason.
    pub fn recovered(&mut self, blob: &BlobName) {
        self.failing.remove(blob);
    }

    /// Bytes that are free on the share.
    pub fn share_free(&mut self, bytes: u64) {
        self.share_free = Some(bytes);
    }

    /// Completed files with a ctime up to this time (server clock) are in the counters.
    pub fn counted_through(&self) -> Option<i128> {
        self.counted.through()
    }

    /// The ledger as the status shows it.
    pub fn progress(&self, now: &Now) -> Progress {
        let sizes: u64 = self.active.values().map(|active| active.size).sum();
        let (active, waiting, retrying) =
            (self.active.len() as u64, now.incoming.waiting + now.claimed.waiting + self.left.files, now.claimed.retrying);
        let failed = now.set_aside.unwrap_or(self.failed);
        let lasting = self.uploaded + failed + self.superseded + self.withdrawn;
        let oldest = [
            now.incoming.oldest_ctime,
            now.claimed.oldest,
            self.left.oldest,
            self.active.values().map(|active| active.since).min(),
        ];
        let oldest = oldest.into_iter().flatten().min();
        Progress {
            files_seen: lasting + waiting + active + retrying + now.incoming.ignored,
            files_uploaded: self.uploaded,
            files_failed: failed,
            files_superseded: self.superseded,
            files_withdrawn: self.withdrawn,
            files_waiting: waiting,
            files_active: active,
            files_retrying: retrying,
            files_ignored: now.incoming.ignored,
            files_failing: failed + retrying,
            bytes_total: self.bytes_uploaded + now.incoming.waiting_bytes + now.claimed.bytes + sizes,
            bytes_uploaded: self.bytes_uploaded,
            bytes_resumed: self.bytes_resumed,
            percent: String::new(),
            checks: now.checks.clone(),
            caught_up: self.adopted
                && self.last_scan.is_some()
                && waiting + active + retrying + failed == 0
                && now.incoming.unsure_since.is_none()
                && !self.doubts.wait_for_scan(),
            safe_through: self.safe_through(now, [oldest, now.oldest_aside].into_iter().flatten().min()).and_then(time),
            files_counted_beyond: self.counted.beyond().files,
            bytes_counted_beyond: self.counted.beyond().bytes,
            counted_through: self.counted_through().and_then(|time| Timestamp::from_nanosecond(time).ok()),
            oldest_waiting_since: oldest.and_then(time),
            last_upload_time: self.last_upload.and_then(time),
            last_error: self.last_error(&now.checks, &now.held_back),
            share_free_bytes: self.share_free,
            recent_failures: self.recent_failures.iter().cloned().collect(),
            held_back: now.held_back.clone(),
        }
    }

    /// Everything that the server had before this time is uploaded: nothing is said before the first complete scan and the pass of the
    /// collector after it, nor while a file waits of which no time is known.
    fn safe_through(&self, now: &Now, oldest: Option<i128>) -> Option<i128> {
        let scan = self.confirmed_scan.filter(|_| self.adopted && !now.incoming.unknown)?;
        Some([oldest, now.incoming.unsure_since, self.doubts.oldest()].into_iter().flatten().fold(scan, Ord::min))
    }

    fn last_error(&self, checks: &[Check], held_back: &[FileProblem]) -> Option<String> {
        let check = checks.iter().find(|check| !check.ok).map(|check| check.message.clone());
        let file = || self.failing().next().map(in_words);
        let held = || held_back.iter().find(|file| NEEDS_A_PERSON.contains(&file.reason.as_str())).map(in_words);
        check.or_else(file).or_else(held).map(|text| shorten(&text, MESSAGE))
    }

    /// Bytes of active files that the service has. They are in no lasting count: after a crash they may have to be sent again.
    pub fn bytes_under_way(&self) -> u64 {
        self.active.values().map(|active| active.sent.load(Ordering::Relaxed)).sum()
    }

    /// Bytes that this process brought to the service, for the rate.
    pub fn bytes_sent(&self) -> u64 {
        self.own_bytes + self.bytes_under_way()
    }

    /// The files that workers hold, for the status.
    pub fn active_files(&self) -> Vec<ActiveFile> {
        let shown = self.active.values().take(ACTIVE_SHOWN);
        shown
            .map(|active| ActiveFile {
                name: shorten(&active.name, NAME),
                bytes_sent: active.sent.load(Ordering::Relaxed),
                size: active.size,
            })
            .collect()
    }

    /// The files that are being retried, for the status.
    pub fn failing(&self) -> impl Iterator<Item = &FileProblem> {
        self.failing.values().map(|failing| &failing.problem)
    }

    /// True if a file is tried again because of this end.
    pub fn waits_for(&self, end: End) -> bool {
        self.failing.values().any(|failing| failing.end == Some(end))
    }
}

/// A file and what is wrong with it, cut to what the schema takes.
pub fn problem(name: &str, reason: &str, message: &str) -> FileProblem {
    FileProblem { name: shorten(name, NAME), reason: reason.into(), message: shorten(message, MESSAGE) }
}

fn in_words(problem: &FileProblem) -> String {
    format!("{}: {}", problem.name, problem.message)
}

/// Nanoseconds since 1970 as the status writes them; `None` for years that it cannot write.
pub fn time(nanoseconds: i128) -> Option<Time> {
    Timestamp::from_nanosecond(nanoseconds).ok().map(Time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::{OrderKey, ProcessId, blob_name};

    fn blob() -> BlobName {
        blob_name("", "20261121", "s", b"a").unwrap()
    }

    fn now() -> Now {
        let incoming = Counts { waiting: 2, waiting_bytes: 20, ignored: 3, oldest_ctime: Some(50), ..Counts::default() };
        Now {
            incoming,
            claimed: Claimed { waiting: 1, retrying: 4, bytes: 7, oldest: Some(40) },
            set_aside: None,
            oldest_aside: None,
            held_back: vec![],
            checks: vec![],
        }
    }

    #[test]
    fn seen_files_are_the_sum_of_all_others() {
        let mut ledger = Ledger::default();
        ledger.resume(&Progress { files_uploaded: 10, files_superseded: 1, files_withdrawn: 1, ..Progress::default() });
        ledger.started(
            &blob(),
            Active {
                claim: ClaimId::new(OrderKey(1), ProcessId::new(1), 1),
                name: "a".into(),
                size: 9,
                since: 45,
                sent: Arc::new(AtomicU64::new(4)),
            },
        );
        let progress = ledger.progress(&now());
        assert_eq!(progress.files_seen, 10 + 1 + 1 + 3 + 1 + 4 + 3);
        assert_eq!((progress.files_waiting, progress.files_failing, progress.bytes_total, progress.bytes_uploaded), (3, 4, 36, 0));
        assert_eq!(ledger.bytes_under_way(), 4);
    }

    #[test]
    fn safe_through_is_the_last_scan_or_the_oldest_file_and_nothing_before_all_is_known() {
        let mut ledger = Ledger { last_scan: Some(100), ..Ledger::default() };
        assert_eq!(ledger.progress(&now()).safe_through, None, "not adopted yet");
        ledger.pass_begins();
        ledger.pass_ends();
        assert_eq!(ledger.progress(&now()).safe_through, time(40));
        assert_eq!(ledger.progress(&Now::default()).safe_through, time(100));
        assert!(ledger.progress(&Now::default()).caught_up);
        ledger.doubts.add(70);
        assert_eq!(ledger.progress(&Now::default()).safe_through, time(70));
        assert!(!ledger.progress(&Now::default()).caught_up);
        let unknown = Now { incoming: Counts { unknown: true, waiting: 1, ..Counts::default() }, ..Now::default() };
        assert_eq!(ledger.progress(&unknown).safe_through, None);
        assert!(!ledger.progress(&unknown).caught_up);
    }

    #[test]
    fn files_of_earlier_processes_are_counted_once_whenever_the_old_counts_are_read() {
        let old = Progress { files_uploaded: 7, counted_through: Timestamp::from_nanosecond(100).ok(), ..Progress::default() };
        for early in [true, false] {
            let mut ledger = Ledger::default();
            if early {
                ledger.resume(&old);
            }
            for (key, ctime) in [(1, 100), (2, 101)] {
                ledger.found_completed(&ClaimId::new(OrderKey(key), ProcessId::new(1), 1), 1, ctime);
            }
            ledger.found_all();
            ledger.saw_server_time(200);
            if !early {
                ledger.resume(&old);
            }
            assert_eq!(ledger.progress(&Now::default()).files_uploaded, 8);
            assert_eq!(ledger.counted_through(), Some(101));
        }
    }

    #[test]
    fn error_is_gone_when_its_cause_is() {
        let mut ledger = Ledger::default();
        ledger.failure(&blob(), "a", "Rejected", "too large", None);
        let check = Check { type_: "destination".into(), ok: false, reason: "Unreachable".into(), message: "no route".into() };
        let down = Now { checks: vec![check], ..Now::default() };
        assert_eq!(ledger.progress(&down).last_error.as_deref(), Some("no route"));
        assert_eq!(ledger.progress(&Now::default()).last_error.as_deref(), Some("a: too large"));
        ledger.completed(ClaimId::new(OrderKey(1), ProcessId::new(1), 1), &blob(), 1, 0, Some(2));
        assert_eq!(ledger.progress(&Now::default()).last_error, None);
    }
}
