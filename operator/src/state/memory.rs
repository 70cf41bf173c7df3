//! What the operator remembers of a session between two looks; losing it costs a retry or a look, nothing else.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;

use crate::{
    backoff::Attempts,
    decisions::{
        deletion::Blocked,
        hearing::{Report, Run},
        observed::Look,
    },
};

/// Recollections by the UID of the session's object.
#[derive(Debug, Default)]
pub struct Memory(Mutex<HashMap<Box<str>, Box<Recollection>>>);

/// What is remembered of one session.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recollection {
    /// The last report of its uploaders.
    pub report: Option<Report>,
    /// Pods that were created.
    pub creations: Attempts,
    /// The generation for which earlier attempts were forgotten.
    pub begun: Option<i64>,
    /// Passes that failed in a row.
    pub failures: u32,
    /// Since when nothing can be done because of a call; that a session changed meanwhile is no such failure.
    pub failing_since: Option<Timestamp>,
    /// The last look at the events of a pod that does not start, or whose uploader was killed.
    pub look: Option<Box<Look>>,
    /// That the last pod of a deleted session cannot be made.
    pub blocked: Option<Box<Blocked>>,
    /// The run of the uploader's container that was seen last.
    pub run: Option<Run>,
    /// Times in a row that something had to settle before a pod could be made.
    pub settling: u32,
    /// When the rights of a silent uploader may be looked at again.
    pub rights_due: Option<Timestamp>,
    /// Whether people were warned, and not yet told that all is well again.
    pub warned: bool,
    /// When a step of the start was written to the status last.
    pub step_written: Option<Timestamp>,
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Box<Recollection>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is remembered of the session `uid`.
    pub fn recall(&self, uid: &str) -> Recollection {
        self.lock().get(uid).map(|it| Recollection::clone(it)).unwrap_or_default()
    }

    /// The watch shows at `now` that the last report of session `uid` was taken at `told`.
    pub fn heard(&self, uid: &str, told: Timestamp, now: Timestamp) {
        self.update(uid, |it| it.report = Some(Report::heard(it.report, told, now)));
    }

    /// Changes what is remembered of the session `uid`; what is nothing special takes no room.
    pub fn update(&self, uid: &str, change: impl FnOnce(&mut Recollection)) {
        let mut all = self.lock();
        let Some(recollection) = all.get_mut(uid) else {
            let mut recollection = Recollection::default();
            change(&mut recollection);
            if recollection != Recollection::default() {
                all.insert(uid.into(), Box::new(recollection));
            }
            return;
        };
        change(recollection);
        if **recollection == Recollection::default() {
            all.remove(uid);
        }
    }

    /// A pass over the session `uid` has ended, and `failed` or not; how many have failed in a row.
    pub fn count_failure(&self, uid: &str, failed: bool) -> u32 {
        let mut failures = 0;
        self.update(uid, |it| {
            it.failures = if failed { it.failures.saturating_add(1) } else { 0 };
            if !failed {
                it.failing_since = None;
            }
            failures = it.failures;
        });
        failures
    }

    /// In the pass that began at `now`, nothing could be done for the session `uid` because of a call; since when that is so.
    pub fn call_failed(&self, uid: &str, now: Timestamp) -> Timestamp {
        let mut since = now;
        self.update(uid, |it| since = *it.failing_since.get_or_insert(now));
        since
    }

    /// The session `uid` has another `generation` than before. What a person has changed, or a deletion asks for, is tried at once,
    /// however often something else failed.
    pub fn begin(&self, uid: &str, generation: Option<i64>) {
        self.update(uid, |it| {
            if it.begun != generation {
                (it.begun, it.creations) = (generation, Attempts::default());
            }
        });
    }

    /// Forgets the session `uid`, which was deleted.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// Forgets all sessions but those with `uids`.
    pub fn retain(&self, uids: &std::collections::HashSet<String>) {
        self.lock().retain(|uid, _| uids.contains(&**uid));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deleted_sessions_leave_nothing_behind() {
        let memory = Memory::default();
        memory.update("a", |it| it.failures = 1);
        memory.update("b", |it| it.failures = 1);
        memory.forget("a");
        assert!(memory.lock().len() == 1 && memory.recall("a") == Recollection::default());
        memory.retain(&std::collections::HashSet::new());
        assert!(memory.lock().is_empty());
    }

    #[test]
    fn failures_are_counted_in_a_row_and_a_session_of_which_nothing_is_known_takes_no_room() {
        let memory = Memory::default();
        assert_eq!([true, true, false, true].map(|failed| memory.count_failure("a", failed)), [1, 2, 0, 1]);
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!([7, 9].map(|second| memory.call_failed("a", at(second))), [at(7), at(7)]);
        memory.count_failure("a", true);
        assert_eq!(memory.call_failed("a", at(11)), at(7));
        memory.count_failure("a", false);
        assert!(memory.lock().is_empty());
    }
}
