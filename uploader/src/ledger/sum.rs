//! The ledger as the status shows it. (pure)

use std::sync::atomic::Ordering;

use blobferry_crds::{ActiveFile, Check, FileProblem, Progress, conditions::shorten};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Ledger, failures::NAME};
use crate::{scan::Counts, schedule::Claimed};

const ACTIVE_SHOWN: usize = 3;
/// Since when a file waits of which that is not known.
pub const UNKNOWN: i128 = 0;
/// By so much (nanoseconds) a file may have come after the time that is known of the server's clock, which is that of a heartbeat.
const AHEAD: i128 = 60_000_000_000;
/// The check of the share.
const SOURCE: &str = "source";

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
    /// The greatest such time.
    pub newest_aside: Option<i128>,
    /// Why the oldest files are still there.
    pub held_back: Vec<FileProblem>,
    /// The two ends.
    pub checks: Vec<Check>,
}

impl Ledger {
    /// The ledger as the status shows it.
    pub fn progress(&self, now: &Now) -> Progress {
        let sizes: u64 = self.active.values().map(|active| active.size).sum();
        let (active, waiting, retrying) =
            (self.active.len() as u64, now.incoming.waiting + now.claimed.waiting + self.left.files, now.claimed.retrying);
        let failed = now.set_aside.unwrap_or(self.failed);
        let lasting = self.uploaded + failed + self.all_superseded() + self.withdrawn;
        let oldest =
            [now.incoming.oldest, now.claimed.oldest, self.left.oldest, self.active.values().map(|active| active.since).min()];
        let oldest = || oldest.into_iter().flatten();
        let oldest_known = oldest().filter(|since| *since > UNKNOWN).min();
        let oldest = oldest().min();
        Progress {
            files_seen: lasting + waiting + active + retrying + now.incoming.ignored,
            files_uploaded: self.uploaded,
            files_failed: failed,
            files_superseded: self.all_superseded(),
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
                && !self.doubts.are_open()
                // A share that fails may hold files that nobody sees.
                && now.checks.iter().all(|check| check.ok || check.type_ != SOURCE),
            safe_through: self.safe_through(now, [oldest, now.oldest_aside].into_iter().flatten().min()).and_then(time),
            files_counted_beyond: self.counted.beyond().files,
            bytes_counted_beyond: self.counted.beyond().bytes,
            counted_through: self.counted_through().and_then(|time| Timestamp::from_nanosecond(time).ok()),
            oldest_waiting_since: oldest_known.and_then(time),
            last_upload_time: self.last_upload.and_then(time),
            last_error: self.failures.last_error(&now.checks, &now.held_back),
            share_free_bytes: self.share_free,
            recent_failures: self.failures.recent(),
            held_back: now.held_back.clone(),
        }
    }

    /// Everything that the server had before this time is uploaded: nothing is said before the first complete scan and the pass of the
    /// collector after it, nor while a file waits of which no time is known, or that came later than it is now.
    fn safe_through(&self, now: &Now, oldest: Option<i128>) -> Option<i128> {
        let active = self.active.values().map(|active| active.since).max();
        let known = [now.incoming.newest, now.claimed.newest, now.newest_aside, active];
        let newest = known.into_iter().chain([self.left.newest, self.doubts.newest()]).flatten().max();
        // The server's clock was set back, and is not where it was: its times prove no order.
        let is_ahead = newest.zip(self.server_now).is_some_and(|(newest, now)| newest > now + AHEAD);
        let scan = self.confirmed_scan.filter(|_| self.adopted && !now.incoming.unknown && !is_ahead)?;
        Some([oldest, now.incoming.unsure_since, self.doubts.oldest()].into_iter().flatten().fold(scan, Ord::min))
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
}

/// Nanoseconds since 1970 as the status writes them; `None` for years that it cannot write.
pub fn time(nanoseconds: i128) -> Option<Time> {
    Timestamp::from_nanosecond(nanoseconds).ok().map(Time)
}
