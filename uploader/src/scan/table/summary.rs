//! What a table says as a whole. (pure)

use super::{
    Table,
    candidate::{Held, Phase},
};

/// Files whose reason is shown.
const HELD_BACK: usize = 5;

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
    /// When the first of the waiting files came (server clock), as far as they have been looked at.
    pub oldest: Option<i128>,
    /// When the last of them came.
    pub newest: Option<i128>,
    /// True if a file waits of which nothing is known yet.
    pub unknown: bool,
    /// Since when (server clock) a file may be there that was absent when it was looked at.
    pub unsure_since: Option<i128>,
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
    pub(super) fn counts(&self) -> Counts {
        let untracked = self.untracked.max(self.untracked_before);
        let mut counts = Counts { waiting: untracked, unknown: untracked > 0, ..Counts::default() };
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
                    counts.oldest = Some(counts.oldest.map_or(sample.came, |oldest| oldest.min(sample.came)));
                    counts.newest = counts.newest.max(Some(sample.came));
                }
            }
        }
        counts
    }

    pub(super) fn held_back(&self) -> Vec<(Box<[u8]>, Held)> {
        let mut oldest = Vec::with_capacity(HELD_BACK + 1);
        for (name, candidate) in self.names.iter().filter(|(_, candidate)| candidate.is_held(self.periods.quiet)) {
            let since = candidate.sample.map_or(i128::MAX, |sample| sample.came);
            let key = (matches!(candidate.phase, Phase::Ignored | Phase::NoFile(..)), since, name);
            let place = oldest.partition_point(|(other, _)| *other <= key);
            if place < HELD_BACK {
                oldest.insert(place, (key, candidate));
                oldest.truncate(HELD_BACK);
            }
        }
        oldest.into_iter().filter_map(|((.., name), candidate)| Some((name.clone(), candidate.held()?))).collect()
    }
}
