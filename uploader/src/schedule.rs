//! Which file a worker takes next. (pure)
//!
//! Files of one blob name go one at a time and in the order of their keys, so that a blob never goes back to an earlier generation;
//! an earlier generation that fails for its own sake does not hold up the next. Otherwise who is due first goes first.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio::time::Instant;

use crate::{
    file::ClaimedFile,
    formats::{BlobName, ClaimId},
    scan::StableFile,
};

/// Something that a worker can do.
#[derive(Debug)]
pub enum Task {
    /// Claim a stable file, then upload it.
    Incoming(StableFile),
    /// Upload a file that is ours.
    Claimed(Box<ClaimedFile>),
}

/// Why a task is not due yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delay {
    /// It waits for its turn or must become quiet.
    Waiting,
    /// It failed; true if for its own sake.
    Failed(bool),
}

#[derive(Debug)]
struct Queued {
    task: Task,
    due: Instant,
    order: u64,
    delay: Delay,
}

/// A task's place among those of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Claimed(ClaimId),
    Incoming,
}

/// The tasks of one blob name.
#[derive(Debug, Default)]
struct Lane {
    active: bool,
    /// In the order of their claims; a file that is not claimed yet comes after all that are.
    waiting: BTreeMap<Place, Queued>,
    /// The lane's place among those that are due.
    place: Option<(Instant, u64)>,
}

/// All tasks that no worker holds.
#[derive(Debug)]
pub struct Schedule {
    lanes: HashMap<BlobName, Lane>,
    due: BTreeSet<(Instant, u64, BlobName)>,
    incoming: usize,
    capacity: usize,
    order: u64,
    /// What was counted since the last change.
    counted: Option<Claimed>,
}

/// Counts of claimed files that no worker holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claimed {
    /// Files that wait for their turn or must become quiet.
    pub waiting: u64,
    /// Files that failed and are tried again.
    pub retrying: u64,
    /// Bytes of both.
    pub bytes: u64,
    /// The least time (server clock) from which on one of them has waited.
    pub oldest: Option<i128>,
    /// The greatest such time.
    pub newest: Option<i128>,
}

impl Schedule {
    /// A schedule that takes `capacity` files that are not claimed yet.
    pub fn new(capacity: usize) -> Self {
        Self { lanes: HashMap::new(), due: BTreeSet::new(), incoming: 0, capacity, order: 0, counted: None }
    }

    /// Files that are not claimed yet and wait here.
    pub fn queued(&self) -> usize {
        self.incoming
    }

    /// True if a further file that is not claimed yet fits.
    pub fn has_room(&self) -> bool {
        self.incoming < self.capacity
    }

    /// True if files that are not claimed yet have become few.
    pub fn runs_low(&self) -> bool {
        self.incoming <= self.capacity / 2
    }

    /// True if a file of this name that is not claimed yet would be next: one that has to wait for earlier ones takes no room.
    pub fn is_free(&self, blob: &BlobName) -> bool {
        self.lanes.get(blob).is_none_or(|lane| {
            !lane.active
                && lane.waiting.iter().all(|(place, queued)| *place == Place::Incoming || queued.delay == Delay::Failed(true))
        })
    }

    /// Adds a task that is due at `due`.
    pub fn add(&mut self, blob: &BlobName, task: Task, due: Instant, delay: Delay) {
        let key = match &task {
            Task::Incoming(_) => {
                self.incoming += 1;
                Place::Incoming
            }
            Task::Claimed(file) => Place::Claimed(file.name.claim),
        };
        self.order += 1;
        self.counted = None;
        let queued = Queued { task, due, order: self.order, delay };
        let replaced = self.lanes.entry(blob.clone()).or_default().waiting.insert(key, queued);
        // A name that vanished and came again while it waited.
        self.incoming -= usize::from(replaced.is_some_and(|old| matches!(old.task, Task::Incoming(_))));
        self.place(blob);
    }

    /// Takes the next task that is due, if any; its blob name is busy until [`Self::finished`]. Without `incoming` only files that are
    /// claimed already.
    pub fn take(&mut self, now: Instant, incoming: bool) -> Option<(BlobName, Task)> {
        let blob = self.next(incoming).filter(|(due, _)| *due <= now)?.1.clone();
        let lane = self.lanes.get_mut(&blob)?;
        let key = lane.next()?;
        let queued = lane.waiting.remove(&key)?;
        lane.active = true;
        self.counted = None;
        self.incoming -= usize::from(matches!(queued.task, Task::Incoming(_)));
        self.place(&blob);
        Some((blob, queued.task))
    }

    /// When the next task is due.
    pub fn next_due(&self, incoming: bool) -> Option<Instant> {
        self.next(incoming).map(|(due, _)| due)
    }

    fn next(&self, incoming: bool) -> Option<(Instant, &BlobName)> {
        let is_claimed = |blob: &BlobName| self.lanes.get(blob).and_then(Lane::next).is_some_and(|place| place != Place::Incoming);
        let found = self.due.iter().find(|(_, _, blob)| incoming || is_claimed(blob));
        found.map(|(due, _, blob)| (*due, blob))
    }

    /// Notes that no worker holds a task of `blob` any more.
    pub fn finished(&mut self, blob: &BlobName) {
        if let Some(lane) = self.lanes.get_mut(blob) {
            lane.active = false;
            self.place(blob);
        }
    }

    /// True if the claim is here.
    pub fn holds(&self, file: &crate::formats::ProcessingName, blob: &BlobName) -> bool {
        self.lanes.get(blob).is_some_and(|lane| {
            lane.waiting.values().any(|queued| matches!(&queued.task, Task::Claimed(held) if held.name.claim == file.claim))
        })
    }

    /// Counts as of now.
    pub fn claimed(&mut self) -> Claimed {
        if let Some(counted) = self.counted {
            return counted;
        }
        let counts = self.count();
        self.counted = Some(counts);
        counts
    }

    fn count(&self) -> Claimed {
        let mut counts = Claimed::default();
        for queued in self.lanes.values().flat_map(|lane| lane.waiting.values()) {
            let Task::Claimed(file) = &queued.task else { continue };
            match queued.delay {
                Delay::Waiting => counts.waiting += 1,
                Delay::Failed(_) => counts.retrying += 1,
            }
            counts.bytes += file.size;
            counts.oldest = Some(counts.oldest.map_or(file.since, |oldest| oldest.min(file.since)));
            counts.newest = counts.newest.max(Some(file.since));
        }
        counts
    }

    /// Puts the lane of `blob` where its next task belongs.
    fn place(&mut self, blob: &BlobName) {
        let Some(lane) = self.lanes.get_mut(blob) else { return };
        if let Some((due, order)) = lane.place.take() {
            self.due.remove(&(due, order, blob.clone()));
        }
        if lane.waiting.is_empty() && !lane.active {
            self.lanes.remove(blob);
            return;
        }
        if lane.active {
            return;
        }
        if let Some(queued) = lane.next().and_then(|key| lane.waiting.get(&key)) {
            lane.place = Some((queued.due, queued.order));
            self.due.insert((queued.due, queued.order, blob.clone()));
        }
    }
}

impl Lane {
    /// The key of the task that goes next: the least one, but one that failed for its own sake lets those after it go first if they are
    /// due earlier.
    fn next(&self) -> Option<Place> {
        let blocking = self.waiting.iter().position(|(_, queued)| queued.delay != Delay::Failed(true));
        self.waiting
            .iter()
            .take(blocking.map_or(usize::MAX, |position| position + 1))
            .min_by_key(|(_, queued)| (queued.due, queued.order))
            .map(|(key, _)| *key)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        formats::{OrderKey, ProcessId, ProcessingName, blob_name},
        share::Identity,
    };

    fn identity() -> Identity {
        Identity { inode: 1, size: 10, mtime: 0, ctime: 7 }
    }

    fn incoming(name: &str) -> (BlobName, Task) {
        let blob = blob_name("", "20261121", "s", name.as_bytes()).unwrap();
        (blob, Task::Incoming(StableFile { name: name.as_bytes().into(), sample: identity(), since: identity().ctime }))
    }

    fn claimed(name: &str, key: u64) -> (BlobName, Task) {
        let (blob, _) = incoming(name);
        let id = ClaimId::new(OrderKey(key), ProcessId::new(1), key);
        let file = ClaimedFile::adopted("/p/20261121/s".into(), ProcessingName::claimed(name.as_bytes(), id), blob.clone());
        (blob, Task::Claimed(Box::new(file)))
    }

    fn key_of(taken: Option<(BlobName, Task)>) -> Option<u64> {
        match taken?.1 {
            Task::Incoming(_) => Some(u64::MAX),
            Task::Claimed(file) => Some(file.name.claim.key.0),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn generations_of_one_name_go_one_at_a_time_in_key_order() {
        let (mut schedule, now) = (Schedule::new(9), Instant::now());
        for (blob, task) in [incoming("a"), claimed("a", 2), claimed("a", 1)] {
            schedule.add(&blob, task, now, Delay::Waiting);
        }
        let blob = incoming("a").0;
        assert_eq!(key_of(schedule.take(now, true)), Some(1));
        assert_eq!(key_of(schedule.take(now, true)), None, "the name is busy");
        schedule.finished(&blob);
        assert_eq!(key_of(schedule.take(now, true)), Some(2));
        schedule.finished(&blob);
        assert_eq!(key_of(schedule.take(now, true)), Some(u64::MAX));
        schedule.finished(&blob);
        assert!(schedule.lanes.is_empty() && schedule.due.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn outage_holds_up_later_generations_but_a_failure_of_the_file_itself_does_not() {
        for (own, expected) in [(false, None), (true, Some(2))] {
            let (mut schedule, now) = (Schedule::new(9), Instant::now());
            let later = now + Duration::from_mins(1);
            let (blob, first) = claimed("a", 1);
            schedule.add(&blob, first, later, Delay::Failed(own));
            let (blob, second) = claimed("a", 2);
            schedule.add(&blob, second, now, Delay::Waiting);
            assert_eq!(key_of(schedule.take(now, true)), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn file_that_would_have_to_wait_for_an_earlier_one_is_not_let_in() {
        for (delay, expected) in [(Delay::Waiting, false), (Delay::Failed(false), false), (Delay::Failed(true), true)] {
            let (mut schedule, now) = (Schedule::new(9), Instant::now());
            let (blob, task) = claimed("a", 1);
            assert!(schedule.is_free(&blob));
            schedule.add(&blob, task, now, delay);
            assert_eq!(schedule.is_free(&blob), expected);
            assert_eq!(key_of(schedule.take(now, true)), Some(1));
            assert!(!schedule.is_free(&blob), "a worker holds it");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn while_nothing_new_is_wanted_only_claimed_files_are_taken() {
        let (mut schedule, now) = (Schedule::new(9), Instant::now());
        let (blob, task) = incoming("a");
        schedule.add(&blob, task, now, Delay::Waiting);
        assert_eq!((schedule.next_due(false), key_of(schedule.take(now, false))), (None, None));
        let (blob, task) = claimed("b", 1);
        schedule.add(&blob, task, now, Delay::Waiting);
        assert_eq!((schedule.next_due(false), key_of(schedule.take(now, false))), (Some(now), Some(1)));
        assert_eq!(key_of(schedule.take(now, true)), Some(u64::MAX));
    }

    #[tokio::test(start_paused = true)]
    async fn other_names_are_not_held_up_and_capacity_counts_unclaimed_files_only() {
        let (mut schedule, now) = (Schedule::new(1), Instant::now());
        let (blob, task) = claimed("a", 1);
        schedule.add(&blob, task, now + Duration::from_secs(9), Delay::Failed(false));
        assert!(schedule.has_room());
        let (blob, task) = incoming("b");
        schedule.add(&blob, task, now, Delay::Waiting);
        assert!(!schedule.has_room());
        let (blob, again) = incoming("b");
        schedule.add(&blob, again, now, Delay::Waiting);
        assert_eq!(schedule.queued(), 1, "the same name again takes no second place");
        assert_eq!(key_of(schedule.take(now, true)), Some(u64::MAX));
        assert_eq!(schedule.next_due(true), Some(now + Duration::from_secs(9)));
        assert_eq!(schedule.claimed(), Claimed { waiting: 0, retrying: 1, bytes: 0, oldest: Some(1), newest: Some(1) });
    }
}
