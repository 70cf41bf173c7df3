//! When uploaders were heard: the API server's time of a report, and ours when the watch showed it.
//!
//! The clocks of the API server, of nodes and of the operator may be minutes apart, so an age is only ever the difference of two times
//! of one clock.

use std::time::Duration;

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

impl Report {
    /// The last report of a session if the watch shows at `now` that it was taken at `told`, given the one that was known before.
    pub fn heard(before: Option<Self>, told: Timestamp, now: Timestamp) -> Self {
        match before {
            Some(report) if report.told == told => report,
            Some(_) => Self { told, seen: now },
            None => Self { told, seen: if told + CLOCKS_DIFFER_BY < now { told } else { now } },
        }
    }

    /// The report that was taken at `told`, if `known` is what the watch has shown last.
    pub fn taken(told: Timestamp, known: Option<Self>) -> Self {
        known.filter(|report| report.told == told).unwrap_or(Self { told, seen: told })
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
            let first = Report::heard(None, at(told), at(1000));
            let again = Report::heard(Some(first), at(told), at(1001));
            assert_eq!(Report::taken(at(told), Some(again)), Report { told: at(told), seen: at(1000) });
            let next = Report::heard(Some(again), at(told + 1), at(1002));
            assert_eq!(Report::taken(at(told + 1), Some(next)).seen, at(1002));
        }
    }

    #[test]
    fn report_that_was_old_when_it_was_seen_first_is_no_new_one() {
        let first = Report::heard(None, at(100), at(1000));
        assert_eq!(Report::taken(at(100), Some(first)).seen, at(100));
    }
}
