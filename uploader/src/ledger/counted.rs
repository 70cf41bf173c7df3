//! Which completed files are in the counts, so that a crash between a rename and the next report neither loses nor doubles one. (pure)
//!
//! A report says how many files are counted, up to which time all of them are (`countedThrough`), and how many of those counted came
//! after it. A process that starts takes the latter off and counts what it finds on the share after that time.

use std::collections::{BTreeMap, HashMap};

use crate::formats::ClaimId;

/// Files and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// How many.
    pub(super) files: u64,
    /// Bytes of all.
    pub(super) bytes: u64,
}

/// What this process knows of a rename to completed. Times are the server's before it, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug)]
enum Rename {
    /// It is under way.
    UnderWay(i128),
    /// It failed in a way that does not say whether it took place.
    Unsure(i128),
    /// It took place and is counted, but its time could not be read.
    Untimed(i128, u64),
    /// It took place at this time and is counted.
    Done(i128),
}

impl Rename {
    fn lower_bound(self) -> Option<i128> {
        match self {
            Self::UnderWay(before) | Self::Unsure(before) | Self::Untimed(before, _) => Some(before),
            Self::Done(_) => None,
        }
    }
}

/// Up to which time (server clock, nanoseconds since 1970) completed files are counted.
#[derive(Debug, Default)]
pub(super) struct Counted {
    renames: HashMap<ClaimId, Rename>,
    /// Counted files by their ctime, of the time that no report has covered yet.
    recent: BTreeMap<i128, Tally>,
    /// When counting begins if no earlier counts say it.
    began: Option<i128>,
    /// The greatest ctime that was counted, or when counting began.
    greatest: Option<i128>,
    /// A time that the server's clock has certainly reached.
    server_now: i128,
    /// True once everything that was completed before this process started was looked at.
    settled: bool,
    earlier: Earlier,
}

/// What is known of the counts of earlier processes.
#[derive(Debug)]
enum Earlier {
    /// Nothing yet; completed files of others that were found meanwhile, as ctime and bytes.
    Unknown(Vec<(i128, u64)>),
    /// Files completed up to this time (server clock) are in them, or not ours to count.
    CountedThrough(i128),
}

impl Default for Earlier {
    fn default() -> Self {
        Self::Unknown(Vec::new())
    }
}

impl Counted {
    /// The counts of earlier processes are in, up to a time if they say one; returns what was found before and is to be counted.
    pub(super) fn resume(&mut self, through: Option<i128>) -> Tally {
        self.greatest = self.greatest.max(through);
        let floor = through.or(self.began).unwrap_or(i128::MIN);
        let mut tally = Tally::default();
        if let Earlier::Unknown(found) = std::mem::replace(&mut self.earlier, Earlier::CountedThrough(floor)) {
            for (ctime, bytes) in found.into_iter().filter(|(ctime, _)| *ctime > floor) {
                tally = Tally { files: tally.files + 1, bytes: tally.bytes + bytes };
                self.count(ctime, bytes);
            }
        }
        tally
    }

    /// True once the counts of earlier processes are in.
    pub(super) fn is_resumed(&self) -> bool {
        matches!(self.earlier, Earlier::CountedThrough(_))
    }

    /// Without counts of earlier processes, counting begins at this time.
    pub(super) fn begin(&mut self, since: i128) {
        self.began = Some(since);
        self.greatest.get_or_insert(since);
        if let Earlier::CountedThrough(floor) = &mut self.earlier {
            *floor = since.min(self.greatest.unwrap_or(since)).max(*floor);
        }
    }

    /// Everything that was completed before this process started was looked at; before, nothing after the earlier counts is covered.
    pub(super) fn settled(&mut self) {
        self.settled = true;
    }

    /// The server's clock has reached this time.
    pub(super) fn saw_server_time(&mut self, server_now: i128) {
        self.server_now = self.server_now.max(server_now);
    }

    /// A completed file was found on the share. `None` while a rename of ours is under way: ask again. True if it is to be counted now.
    pub(super) fn found(&mut self, claim: &ClaimId, bytes: u64, ctime: i128) -> Option<bool> {
        match self.renames.get(claim).copied() {
            Some(Rename::UnderWay(_)) => None,
            Some(Rename::Done(_)) => Some(false),
            Some(Rename::Unsure(_)) => {
                self.completed(*claim, bytes, Some(ctime));
                Some(true)
            }
            Some(Rename::Untimed(before, bytes)) => {
                self.uncount(before, bytes);
                self.completed(*claim, bytes, Some(ctime));
                Some(false)
            }
            None => Some(self.found_of_others(bytes, ctime)),
        }
    }

    /// When the rename of ours took place that made the file completed.
    pub(super) fn completed_at(&self, claim: &ClaimId) -> Option<i128> {
        match self.renames.get(claim) {
            Some(Rename::Done(at)) => Some(*at),
            _ => None,
        }
    }

    fn found_of_others(&mut self, bytes: u64, ctime: i128) -> bool {
        match &mut self.earlier {
            Earlier::Unknown(found) => {
                found.push((ctime, bytes));
                false
            }
            Earlier::CountedThrough(through) if ctime > *through => {
                self.count(ctime, bytes);
                true
            }
            Earlier::CountedThrough(_) => false,
        }
    }

    /// A file is about to be renamed to completed.
    pub(super) fn completing(&mut self, claim: ClaimId, server_now: i128) {
        let before = self.renames.get(&claim).and_then(|rename| rename.lower_bound());
        self.renames.insert(claim, Rename::UnderWay(before.unwrap_or(server_now)));
    }

    /// The rename failed, and nobody knows whether it took place.
    pub(super) fn unsure(&mut self, claim: ClaimId) {
        if let Some(before) = self.renames.get(&claim).and_then(|rename| rename.lower_bound()) {
            self.renames.insert(claim, Rename::Unsure(before));
        }
    }

    /// Claims whose rename nobody is sure of.
    pub(super) fn all_unsure(&self) -> Vec<ClaimId> {
        let unsure = |rename: &Rename| matches!(rename, Rename::Unsure(_) | Rename::Untimed(..));
        self.renames.iter().filter(|(_, rename)| unsure(rename)).map(|(claim, _)| *claim).collect()
    }

    /// The file is not on the share any more, or never became completed: there is nothing left to settle.
    pub(super) fn forget(&mut self, claim: &ClaimId) {
        self.renames.remove(claim);
    }

    /// The rename took place, at this time if that could be read.
    pub(super) fn completed(&mut self, claim: ClaimId, bytes: u64, ctime: Option<i128>) {
        let before = self.renames.get(&claim).and_then(|rename| rename.lower_bound()).unwrap_or(self.server_now);
        self.renames.insert(claim, ctime.map_or(Rename::Untimed(before, bytes), Rename::Done));
        self.count(ctime.unwrap_or(before), bytes);
    }

    fn count(&mut self, ctime: i128, bytes: u64) {
        let tally = self.recent.entry(ctime).or_default();
        *tally = Tally { files: tally.files + 1, bytes: tally.bytes + bytes };
        self.greatest = Some(self.greatest.map_or(ctime, |greatest| greatest.max(ctime)));
    }

    fn uncount(&mut self, ctime: i128, bytes: u64) {
        if let Some(tally) = self.recent.get_mut(&ctime) {
            *tally = Tally { files: tally.files.saturating_sub(1), bytes: tally.bytes.saturating_sub(bytes) };
        }
    }

    /// All completed files with a ctime up to this time are counted, and none will get such a ctime: a tick of the server's clock is
    /// complete when a later one was seen, and a rename that is under way may take any time after it was sent.
    pub(super) fn through(&self) -> Option<i128> {
        let greatest = self.greatest?;
        let complete = if self.server_now > greatest { greatest } else { greatest - 1 };
        if let (false, Earlier::CountedThrough(floor)) = (self.settled, &self.earlier) {
            return Some(complete.min(*floor));
        }
        let open = self.renames.values().filter_map(|rename| rename.lower_bound()).min();
        Some(open.map_or(complete, |before| complete.min(before - 1)))
    }

    /// Files that are counted although they came after [`Self::through`].
    pub(super) fn beyond(&self) -> Tally {
        let through = self.through().unwrap_or(i128::MIN);
        self.recent
            .range(through + 1..)
            .fold(Tally::default(), |sum, (_, tally)| Tally { files: sum.files + tally.files, bytes: sum.bytes + tally.bytes })
    }

    /// A report up to this time was taken; what came before it needs no memory.
    pub(super) fn reported(&mut self, through: i128) {
        self.recent = self.recent.split_off(&(through.saturating_add(1)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::{OrderKey, ProcessId};

    fn claim(key: u64) -> ClaimId {
        ClaimId::new(OrderKey(key), ProcessId::new(1), key)
    }

    fn counting() -> Counted {
        let mut counted = Counted::default();
        counted.resume(Some(5));
        counted.saw_server_time(10);
        counted.settled();
        counted
    }

    #[test]
    fn counted_through_stays_below_renames_that_are_under_way_and_says_what_is_counted_beyond() {
        let mut counted = counting();
        counted.completing(claim(1), 10);
        counted.completing(claim(2), 20);
        counted.completed(claim(2), 7, Some(21));
        counted.saw_server_time(30);
        assert_eq!((counted.through(), counted.beyond()), (Some(9), Tally { files: 1, bytes: 7 }));
        counted.completed(claim(1), 1, Some(15));
        assert_eq!((counted.through(), counted.beyond()), (Some(21), Tally::default()));
    }

    #[test]
    fn tick_of_the_servers_clock_is_covered_only_when_it_is_over() {
        let mut counted = counting();
        counted.completing(claim(1), 10);
        counted.completed(claim(1), 7, Some(20));
        counted.saw_server_time(20);
        assert_eq!((counted.through(), counted.beyond()), (Some(19), Tally { files: 1, bytes: 7 }));
        counted.saw_server_time(21);
        assert_eq!((counted.through(), counted.beyond()), (Some(20), Tally::default()));
    }

    #[test]
    fn rename_that_nobody_is_sure_of_is_counted_once_when_it_is_found() {
        let mut counted = counting();
        counted.completing(claim(1), 10);
        assert_eq!(counted.found(&claim(1), 7, 12), None, "its own worker counts it");
        counted.unsure(claim(1));
        assert_eq!(counted.all_unsure(), [claim(1)]);
        assert_eq!(counted.found(&claim(1), 7, 12), Some(true));
        assert_eq!(counted.found(&claim(1), 7, 12), Some(false));
        counted.saw_server_time(30);
        assert_eq!(counted.through(), Some(12));
    }

    #[test]
    fn file_whose_time_could_not_be_read_is_counted_once_and_holds_the_time_back() {
        let mut counted = counting();
        counted.completing(claim(1), 10);
        counted.completed(claim(1), 7, None);
        counted.saw_server_time(30);
        assert_eq!((counted.through(), counted.beyond()), (Some(9), Tally { files: 1, bytes: 7 }));
        assert_eq!(counted.found(&claim(1), 7, 12), Some(false));
        assert_eq!((counted.through(), counted.beyond()), (Some(12), Tally::default()));
    }

    #[test]
    fn files_of_others_are_counted_from_the_time_on_that_earlier_counts_cover() {
        let mut counted = counting();
        assert_eq!(counted.found(&claim(1), 7, 5), Some(false));
        assert_eq!(counted.found(&claim(2), 7, 6), Some(true));
        let mut first = Counted::default();
        first.begin(10);
        assert_eq!(first.found(&claim(1), 7, 9), Some(false));
        assert_eq!(first.found(&claim(2), 7, 11), Some(false), "the earlier counts are not known yet");
        assert_eq!(first.resume(None), Tally { files: 1, bytes: 7 });
        first.saw_server_time(30);
        assert_eq!((first.through(), first.beyond()), (Some(10), Tally { files: 1, bytes: 7 }), "others may be there");
        first.settled();
        assert_eq!((first.through(), first.beyond()), (Some(11), Tally::default()));
    }

    #[test]
    fn what_an_earlier_process_completed_is_counted_although_the_first_answer_comes_after_files_of_our_own() {
        let mut counted = Counted::default();
        counted.begin(10);
        assert_eq!(counted.found(&claim(1), 7, 11), Some(false));
        counted.completing(claim(2), 20);
        counted.completed(claim(2), 1, Some(20));
        assert_eq!(counted.resume(None), Tally { files: 1, bytes: 7 });
    }
}
