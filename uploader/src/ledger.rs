//! The ledger of files and bytes. (pure)
//!
//! Lasting counts only grow and survive restarts through the status; the others are taken from the table and the schedule as of now,
//! and `filesSeen` is their sum, so that it adds up at any time.

mod counted;
mod doubts;
mod failures;
mod sum;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use blobferry_crds::{Check, Progress};
use jiff::Timestamp;

use crate::{
    file::ClaimedFile,
    formats::{BlobName, ClaimId},
};
use counted::Counted;
use doubts::Doubts;
use failures::Failures;

pub use failures::problem;
pub use sum::{Now, UNKNOWN, time};

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

impl Active {
    /// Nothing of this file has been sent yet.
    fn of(file: &ClaimedFile) -> Self {
        Self {
            claim: file.name.claim,
            name: file.display_name(),
            size: file.size,
            since: file.since,
            sent: Arc::new(AtomicU64::new(0)),
        }
    }
}

/// The ledger.
#[derive(Debug, Default)]
pub struct Ledger {
    uploaded: u64,
    /// Files set aside, as an earlier process counted them.
    failed: u64,
    /// Files that this process superseded.
    superseded: u64,
    /// Those of this session that the first pass found: earlier processes superseded them, the last of which may have died before it
    /// reported all of them.
    pub superseded_before: u64,
    withdrawn: u64,
    bytes_uploaded: u64,
    bytes_resumed: u64,
    /// Bytes of the files that this process completed.
    own_bytes: u64,
    active: BTreeMap<BlobName, Active>,
    /// Files that failed and are tried again.
    pub failures: Failures,
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
    /// True once the files claimed by earlier processes are known, and as long as it is known what became of our own claims.
    adopted: bool,
    /// Whether something happened since the last pass began that only a later pass can tell the end of.
    lost_track: bool,
    /// Claimed files that are not ours to upload now: another process beats, or they could not be looked at.
    pub left: Left,
    /// A time that the server's clock has reached, at most a heartbeat old.
    server_now: Option<i128>,
    share_free: Option<u64>,
    /// Completed files up to this time (server clock) are in a report that was taken; `None` if nobody takes reports.
    pub reported_through: Option<i128>,
    counted: Counted,
    /// What earlier processes reported.
    earlier: Progress,
}

/// Claimed files that nobody here holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// How many.
    pub files: u64,
    /// The least time (server clock) from which on one of them has waited.
    pub oldest: Option<i128>,
    /// The greatest such time.
    pub newest: Option<i128>,
}

impl Left {
    /// One more, with this claim.
    pub fn add(&mut self, claim: &ClaimId) {
        let since = claim.waits_since();
        self.files += 1;
        self.oldest = Some(self.oldest.map_or(since, |oldest| oldest.min(since)));
        self.newest = self.newest.max(Some(since));
    }
}

impl Ledger {
    /// Adds the counts of earlier processes, if there are any.
    pub fn resume(&mut self, old: &Progress) {
        // Those that came after `countedThrough` are on the share still and are counted when they are found.
        self.uploaded += old.files_uploaded.saturating_sub(old.files_counted_beyond);
        self.failed = old.files_failed;
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
        let last_error = self.failures.last_error(&checks, &[]);
        let old = &self.earlier;
        (self.passes == 0).then(|| Progress {
            checks,
            caught_up: false,
            last_error,
            // Nobody is at work on them, and what they wait for is not known yet.
            files_waiting: old.files_waiting + old.files_active + old.files_retrying,
            files_active: 0,
            files_retrying: 0,
            files_failing: old.files_failed,
            oldest_waiting_since: None,
            held_back: Vec::new(),
            ..old.clone()
        })
    }

    /// Without counts of earlier processes, counting begins at this time of the server's clock: that of the session's beginning, because
    /// an earlier process may have died before its first report.
    pub fn count_from(&mut self, since: i128) {
        self.counted.begin(since);
    }

    /// A pass of the collector begins.
    pub fn pass_begins(&mut self) {
        self.scan_of_pass = self.last_scan;
        self.lost_track = false;
        self.doubts.pass_begins();
    }

    /// The pass was complete: all claimed files are known, those of other uploaders too.
    pub fn pass_ends(&mut self) {
        self.adopted = !self.lost_track;
        // Not the greater of both: the server's clock may have stepped back.
        self.confirmed_scan = self.scan_of_pass.or(self.confirmed_scan);
        self.doubts.pass_ends();
    }

    /// A file may be claimed of which nobody here knows, and have come at this time (server clock) or later: a pass that begins from now on
    /// tells.
    pub fn loses_track(&mut self, since: i128) {
        self.doubts.add(since);
        (self.adopted, self.lost_track) = (false, true);
    }

    /// True if all claimed files are known.
    pub fn knows_claims(&self) -> bool {
        self.adopted
    }

    /// A worker has this file; what counts its bytes on their way to the service.
    pub fn started(&mut self, file: &ClaimedFile) -> Arc<AtomicU64> {
        let active = Active::of(file);
        let known = self.active.entry(file.blob.clone()).or_insert_with(|| active.clone());
        if known.claim != active.claim {
            *known = active;
        }
        Arc::clone(&known.sent)
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

    /// The time under which a completed file is counted, if this process made it completed: a later change of the file moves its ctime.
    pub fn completed_at(&self, claim: &ClaimId) -> Option<i128> {
        self.counted.completed_at(claim)
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
        self.server_now = Some(server_now);
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
        self.failures.recovered(blob);
    }

    /// A file was overtaken by a later one of its name.
    pub fn superseded(&mut self, blob: &BlobName) {
        self.superseded += 1;
        self.failures.recovered(blob);
    }

    /// Files that were overtaken, by this process and earlier ones.
    fn all_superseded(&self) -> u64 {
        self.superseded + self.superseded_before.max(self.earlier.files_superseded)
    }

    /// Files were gone before they were claimed, or given back.
    pub fn withdrawn(&mut self, files: u64) {
        self.withdrawn += files;
    }

    /// Bytes that are free on the share.
    pub fn share_free(&mut self, bytes: u64) {
        self.share_free = Some(bytes);
    }

    /// Completed files with a ctime up to this time (server clock) are in the counters.
    pub fn counted_through(&self) -> Option<i128> {
        self.counted.through()
    }

    /// Bytes of active files that the service has. They are in no lasting count: after a crash they may have to be sent again.
    pub fn bytes_under_way(&self) -> u64 {
        self.active.values().map(|active| active.sent.load(Ordering::Relaxed)).sum()
    }

    /// Bytes that this process brought to the service, for the rate.
    pub fn bytes_sent(&self) -> u64 {
        self.own_bytes + self.bytes_under_way()
    }
}
