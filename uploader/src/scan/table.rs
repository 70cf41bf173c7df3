//! What is known of the names in the incoming folder, each with the folders below it, and when a file is stable. (pure)
//!
//! A file is stable when size, mtime, ctime and inode were equal in two looks and have been for the quiet period on our own monotonic
//! clock: the age of an mtime lies (`cp -p`, clock skew, a write-back 30 s late).

mod candidate;
mod summary;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::Filter;
use crate::share::{Attributes, Identity, Kind};
use candidate::{Candidate, HELD_LOOK, Phase, Sample};

pub use candidate::{Held, Periods};
pub use summary::{Counts, Summary};

/// Most names that are tracked; further ones wait in their folder and are counted.
const TRACKED: usize = 1_000_000;

/// A stable file that can be claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StableFile {
    /// Its name in the incoming folder.
    pub name: Box<[u8]>,
    /// The state in which it was stable.
    pub sample: Identity,
    /// It has waited since this time (server clock).
    pub since: i128,
}

/// A file that the folder does not show any more. Another uploader may have claimed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    /// It came to its name at this time (server clock) or later.
    pub since: i128,
    /// True if it was seen and waited for us; otherwise only its name was.
    pub was_seen: bool,
}

/// The names of one incoming folder.
#[derive(Debug)]
pub struct Table {
    filter: Filter,
    /// True if folders are entered.
    recursive: bool,
    periods: Periods,
    names: HashMap<Box<[u8]>, Candidate>,
    scan: u64,
    /// Start of the last complete scan (server clock), if it saw every name.
    scanned: i128,
    /// True if the scan did not see all names.
    blind: bool,
    untracked: u64,
    /// How many the scan before left out, until this one is complete.
    untracked_before: u64,
    /// Names that may become stable by waiting.
    watching: usize,
    /// What was worked out since the last change, so that a folder of idle files costs nothing.
    summary: Option<Summary>,
}

impl Table {
    /// An empty table of a folder whose folders are entered or not.
    pub fn new(filter: Filter, recursive: bool) -> Self {
        let names = HashMap::new();
        Self {
            filter,
            recursive,
            periods: Periods { quiet: Duration::MAX, held: HELD_LOOK },
            names,
            scan: 0,
            scanned: i128::MIN,
            blind: false,
            untracked: 0,
            untracked_before: 0,
            watching: 0,
            summary: None,
        }
    }

    /// Starts a scan.
    pub fn begin_scan(&mut self, periods: Periods) {
        self.periods = periods;
        self.scan += 1;
        self.untracked_before = self.untracked_before.max(self.untracked);
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
            return candidate.due(self.periods, now) || candidate.may_be_a_file_now(kind, self.periods.held, now);
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

    /// Takes what a look at `name` found. Returns since when an earlier file had the name, if another has taken it, or may have since the
    /// name was listed and absent.
    pub fn sample(&mut self, name: &[u8], attributes: &Attributes, now: Instant) -> Option<i128> {
        let candidate = self.names.get_mut(name)?;
        self.summary = None;
        let is_another = |sample: &Sample| attributes.kind != Kind::File || sample.identity.inode != attributes.identity.inode;
        let was_absent = matches!(candidate.phase, Phase::Absent) && candidate.sample.is_none();
        let seen = candidate.sample.filter(is_another).map(|sample| sample.came);
        let replaced = if was_absent { Some(candidate.since) } else { seen };
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
            before => *before = Some(Sample::first(attributes.identity, *before, now)),
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
            let stays = candidate.seen >= last || matches!(candidate.phase, Phase::Claiming(_));
            gone.extend(candidate.when_gone().filter(|_| !stays));
            watching += usize::from(stays && matches!(candidate.phase, Phase::Watching));
            stays
        });
        self.scanned = if self.blind || self.untracked > 0 { i128::MIN } else { started };
        self.watching = watching;
        if self.names.len() != before || self.untracked_before > 0 {
            self.summary = None;
        }
        self.untracked_before = 0;
        gone
    }

    /// What no complete scan has seen came after this time (server clock).
    pub fn scanned(&self) -> i128 {
        self.scanned
    }

    /// Stable files that are not handed out yet, oldest first.
    pub fn stable(&self) -> Vec<StableFile> {
        if self.watching == 0 {
            return Vec::new();
        }
        let mut stable: Vec<StableFile> = self
            .names
            .iter()
            .filter(|(_, candidate)| matches!(candidate.phase, Phase::Watching) && candidate.is_stable(self.periods.quiet))
            .filter_map(|(name, candidate)| {
                Some(StableFile { name: name.clone(), sample: candidate.sample?.identity, since: candidate.since() })
            })
            .collect();
        stable.sort_by(|a, b| (a.sample.ctime, &a.name).cmp(&(b.sample.ctime, &b.name)));
        stable
    }

    /// Notes that `name` was handed to the schedule.
    pub fn queued(&mut self, name: &[u8]) {
        self.set_phase(name, Phase::Queued(self.scan));
    }

    /// Notes that `name` is being claimed: whether it was is said later, by whatever the claim comes to.
    pub fn claiming(&mut self, name: &[u8]) {
        if let Some(candidate) = self.names.get_mut(name)
            && let Phase::Queued(scan) = candidate.phase
        {
            candidate.phase = Phase::Claiming(scan);
        }
    }

    /// Notes that `name` cannot be taken now.
    pub fn hold(&mut self, name: &[u8], held: Held) {
        self.set_phase(name, Phase::Held(held));
    }

    /// Notes that the file is not what it was, or may not be: it must be seen to be stable again. What was seen is kept, to tell
    /// another file that takes its name from it.
    pub fn watch_again(&mut self, name: &[u8]) {
        if let Some(candidate) = self.names.get_mut(name) {
            candidate.phase = Phase::Watching;
            candidate.sample = candidate.sample.map(|sample| Sample { looks: 0, ..sample });
            self.summary = None;
        }
    }

    /// Notes that the file is ours now; true if a scan saw the name after it was handed to the schedule, which may have been the name of
    /// a newer file.
    pub fn claimed(&mut self, name: &[u8]) -> bool {
        self.summary = None;
        self.names.remove(name).is_some_and(
            |candidate| matches!(candidate.phase, Phase::Queued(scan) | Phase::Claiming(scan) if candidate.seen > scan),
        )
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
}

/// The last part of a path.
fn last(name: &[u8]) -> &[u8] {
    name.rsplit(|byte| *byte == b'/').next().unwrap_or(name)
}
