//! (pure) When uploaders were heard, and whether the one of a pod is.
//!
//! The clocks of the API server, of nodes and of the operator may be minutes apart, so an age is only ever the difference of two times
//! of one clock.

use std::time::Duration;

use blobferry_crds::UploadSession;
use jiff::Timestamp;

use super::pod_state::{Stage, UploaderPod};

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

/// Whether the uploader of a pod reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hearing {
    /// No uploader runs.
    Absent,
    /// It has started and has not reported yet.
    NotYet,
    /// Its last report is young enough.
    Heard,
    /// Its last report is too old.
    Silent,
}

/// What is older than this by another clock than ours was not just now, however the clocks are set.
const CLOCKS_DIFFER_BY: Duration = Duration::from_mins(15);
const FIRST_REPORT_WITHIN: Duration = Duration::from_mins(2);
const IDLE_SILENCE: Duration = Duration::from_mins(11);
const DEFAULT_INTERVAL: u32 = 5;

/// A run of the uploader's container, between two starts of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The pod.
    pub pod_uid: Box<str>,
    /// How often its container was started again before.
    pub restarts: i32,
    /// Since when it is known to run, by our clock.
    pub since: Timestamp,
    /// Whether an earlier run of the same pod was seen: only what was reported since then comes from this one.
    pub follows: bool,
}

impl Run {
    /// The run of the pod `pod_uid` after `restarts`, seen at `now`, given the one that was seen before.
    pub fn seen(before: Option<Self>, pod_uid: &str, restarts: i32, now: Timestamp) -> Self {
        let of_pod = before.filter(|run| *run.pod_uid == *pod_uid);
        match of_pod {
            Some(run) if run.restarts == restarts => run,
            other => Self { pod_uid: pod_uid.into(), restarts, since: now, follows: other.is_some() },
        }
    }
}

/// What is known of the reports of a session's uploaders.
#[derive(Clone, Debug, PartialEq)]
pub struct Reports {
    /// The last one.
    pub last: Option<Report>,
    /// The run of the uploader's container.
    pub run: Option<Run>,
    /// How old the last report may be.
    pub patience: Duration,
}

impl Reports {
    /// Whether the uploader in `pod` reports. Ages are differences of two times of one clock, mostly of ours; only a start that the node
    /// says was long ago is believed, so that a new operator calls an uploader silent that was silent before.
    pub fn hearing(&self, pod: &UploaderPod, now: Timestamp) -> Hearing {
        let Stage::Running { since: told_start } = pod.stage else { return Hearing::Absent };
        let age = |time: Timestamp| Duration::try_from(now.duration_since(time)).unwrap_or_default();
        let is_its_own = |report: &Report| match &self.run {
            Some(run) if run.follows => report.seen >= run.since,
            _ => pod.created.is_none_or(|created| report.told >= created),
        };
        let is_fresh = age(self.run.as_ref().map_or(now, |run| run.since)) <= FIRST_REPORT_WITHIN
            && age(told_start.unwrap_or(now)) <= CLOCKS_DIFFER_BY;
        match self.last.filter(is_its_own) {
            Some(report) if age(report.seen) <= self.patience => Hearing::Heard,
            None if is_fresh => Hearing::NotYet,
            _ => Hearing::Silent,
        }
    }
}

/// How old the last report of an uploader may be: a few intervals while it works on files, and while it is idle more than its slow beat
/// as well.
pub fn patience(session: &UploadSession) -> Duration {
    let status = session.status.as_ref();
    let active = status.and_then(|status| status.progress.as_ref()).is_some_and(|progress| progress.files_active > 0);
    if active { active_patience(session) } else { active_patience(session).max(IDLE_SILENCE) }
}

/// The same for one that works on files.
pub fn active_patience(session: &UploadSession) -> Duration {
    let interval = session.status.as_ref().and_then(|status| status.report_interval).unwrap_or(DEFAULT_INTERVAL);
    Duration::from_secs(3 * u64::from(interval) + 30)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_uploader_of_very_many_has_as_much_time_as_an_active_one() {
        let mut session = crate::fixtures::session("");
        for (interval, silent) in [(5, IDLE_SILENCE), (656, Duration::from_secs(3 * 656 + 30))] {
            session.status.get_or_insert_default().report_interval = Some(interval);
            assert_eq!(patience(&session), silent);
        }
    }

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
