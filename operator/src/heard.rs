//! When uploaders were heard: the API server's time of a report, and ours when the watch showed it.
//!
//! The clocks of the API server, of nodes and of the operator may be minutes apart, so an age is only ever the difference of two times
//! of one clock.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;

/// A report that is older than this by the API server's clock when it is seen first was not made just now, whatever the clocks.
const CLOCKS_DIFFER_BY: Duration = Duration::from_mins(15);

/// A report of an uploader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// When the API server took it, by its clock.
    pub told: Timestamp,
    /// When it was seen, by our clock.
    pub seen: Timestamp,
}

/// The last report of each session, by the UID of the session's object.
#[derive(Debug, Default)]
pub struct Heard(Mutex<HashMap<String, Report>>);

impl Heard {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Report>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The watch shows at `now` that the last report of session `uid` was taken at `told`.
    pub fn note(&self, uid: &str, told: Timestamp, now: Timestamp) {
        let mut all = self.lock();
        match all.get_mut(uid) {
            Some(report) if report.told == told => {}
            Some(report) => *report = Report { told, seen: now },
            None => {
                let seen = if told + CLOCKS_DIFFER_BY < now { told } else { now };
                all.insert(uid.to_owned(), Report { told, seen });
            }
        }
    }

    /// The last report of session `uid`, which was taken at `told`.
    pub fn report(&self, uid: &str, told: Timestamp) -> Report {
        let known = self.lock().get(uid).copied().filter(|report| report.told == told);
        known.unwrap_or(Report { told, seen: told })
    }

    /// Forgets the session `uid`.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// Forgets all sessions but those with `uids`.
    pub fn retain(&self, uids: &HashSet<String>) {
        self.lock().retain(|uid, _| uids.contains(uid));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(60 * minute).unwrap()
    }

    #[test]
    fn report_is_as_old_as_our_own_sight_of_it_however_the_clocks_differ() {
        for told in [1000 - 10, 1000, 1000 + 10, 1000 + 500] {
            let heard = Heard::default();
            heard.note("a", at(told), at(1000));
            heard.note("a", at(told), at(1001));
            assert_eq!(heard.report("a", at(told)), Report { told: at(told), seen: at(1000) });
            heard.note("a", at(told + 1), at(1002));
            assert_eq!(heard.report("a", at(told + 1)).seen, at(1002));
        }
    }

    #[test]
    fn report_that_was_old_when_it_was_seen_first_is_no_new_one() {
        let heard = Heard::default();
        heard.note("a", at(100), at(1000));
        assert_eq!(heard.report("a", at(100)).seen, at(100));
    }

    #[test]
    fn deleted_sessions_leave_nothing_behind() {
        let heard = Heard::default();
        heard.note("a", at(1), at(1));
        heard.note("b", at(1), at(1));
        heard.forget("a");
        heard.retain(&HashSet::new());
        assert!(heard.lock().is_empty());
    }
}
