//! When a completed file is looked at again, and when it may be deleted. (pure)

use std::time::Duration;

use tokio::time::Instant;

/// A producer's kernel writes back what it still has within 30 s; nothing goes before it was seen unchanged for so long.
const UNCHANGED: Duration = Duration::from_mins(1);
/// An empty file may be a placeholder whose content comes late.
const UNCHANGED_EMPTY: Duration = Duration::from_mins(10);
/// How long collection waits for a report that has the file in its counters.
const REPORT: Duration = Duration::from_mins(10);

/// What is known of a completed file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    /// Since when this process has known it, on our own clock.
    pub(super) since: Instant,
    /// Its ctime, the server's time of the rename.
    pub(super) ctime: i128,
    /// Its bytes.
    pub(super) size: u64,
    /// Whether it is settled that the ledger counts it.
    pub(super) counted: bool,
    /// The time under which it is counted.
    pub(super) completed: i128,
    /// Whether it was looked at again when nothing could come late any more.
    pub(super) settled: bool,
}

/// What is due with a completed file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// A look whether bytes came late: they must not wait until the file has been kept for long enough.
    Look,
    /// The same look, and its deletion.
    Deletion,
}

/// What the decision depends on beside the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// Our own clock.
    pub(super) now: Instant,
    /// The server's clock, in nanoseconds since 1970.
    pub(super) server_now: i128,
    /// How long completed files are kept.
    pub(super) keep: Duration,
    /// Completed files up to this time of the server's clock are in a report that was taken; `None` if nobody takes reports.
    pub(super) reported_through: Option<i128>,
}

impl Kept {
    /// What is due with the file, if anything is.
    pub(super) fn due(&self, moment: &Moment) -> Option<Due> {
        if self.may_go(moment, moment.keep) {
            Some(Due::Deletion)
        } else {
            (!self.settled && self.may_go(moment, Duration::ZERO)).then_some(Due::Look)
        }
    }

    /// True if the file was kept for `keep`, nothing can come late any more, and a report counts it. Both clocks must agree, so that a step
    /// of one of them deletes nothing.
    fn may_go(&self, moment: &Moment, keep: Duration) -> bool {
        let unchanged = if self.size == 0 { UNCHANGED_EMPTY } else { UNCHANGED };
        let own_age = moment.now.duration_since(self.since);
        let server_age = moment.server_now - self.ctime;
        let reported = moment.reported_through.is_none_or(|through| self.completed <= through) || own_age >= REPORT;
        reported && own_age >= unchanged && server_age >= nanoseconds(unchanged.max(keep))
    }
}

fn nanoseconds(duration: Duration) -> i128 {
    i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(size: u64) -> Kept {
        Kept { since: Instant::now(), ctime: 0, size, counted: true, completed: 0, settled: false }
    }

    impl Kept {
        fn is_due_to_go(&self, moment: &Moment) -> bool {
            self.due(moment) == Some(Due::Deletion)
        }
    }

    fn after(own_seconds: u64, server_seconds: i128, keep: u64) -> Moment {
        Moment {
            now: Instant::now() + Duration::from_secs(own_seconds),
            server_now: server_seconds * 1_000_000_000,
            keep: Duration::from_secs(keep),
            reported_through: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn file_goes_after_a_minute_on_both_clocks_and_the_retention() {
        assert!(kept(1).is_due_to_go(&after(60, 60, 0)));
        assert!(!kept(1).is_due_to_go(&after(59, 900, 0)), "the server's clock stepped forward");
        assert!(!kept(1).is_due_to_go(&after(900, 59, 0)), "the server's clock stepped back");
        assert!(!kept(1).is_due_to_go(&after(900, 119, 120)));
        assert!(kept(1).is_due_to_go(&after(60, 120, 120)));
    }

    #[tokio::test(start_paused = true)]
    async fn empty_file_is_kept_for_ten_minutes() {
        assert!(!kept(0).is_due_to_go(&after(599, 900, 0)));
        assert!(kept(0).is_due_to_go(&after(600, 600, 0)));
    }

    #[tokio::test(start_paused = true)]
    async fn file_waits_for_the_report_that_counts_it_but_not_for_ever() {
        let unreported = |seconds| Moment { reported_through: Some(-1), ..after(seconds, 3600, 0) };
        assert!(!kept(1).is_due_to_go(&unreported(60)));
        assert!(kept(1).is_due_to_go(&Moment { reported_through: Some(0), ..after(60, 3600, 0) }));
        assert!(kept(1).is_due_to_go(&unreported(600)));
    }

    #[tokio::test(start_paused = true)]
    async fn file_that_is_kept_for_long_is_looked_at_once_after_its_minute_and_its_report() {
        assert_eq!(kept(1).due(&after(60, 60, 3600)), Some(Due::Look));
        assert_eq!(Kept { settled: true, ..kept(1) }.due(&after(60, 60, 3600)), None);
        assert_eq!(kept(1).due(&after(59, 60, 3600)), None);
        assert_eq!(kept(0).due(&after(60, 60, 3600)), None, "an empty one after ten minutes");
        assert_eq!(kept(1).due(&after(60, 60, 0)), Some(Due::Deletion));
        let changed_late = Kept { ctime: 1_000_000_000, completed: 0, ..kept(1) };
        for (through, due) in [(-1, None), (0, Some(Due::Look))] {
            assert_eq!(changed_late.due(&Moment { reported_through: Some(through), ..after(61, 61, 3600) }), due);
        }
    }
}
