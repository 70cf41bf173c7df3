//! When a report is due. Pure: time and randomness are arguments.
//!
//! All sessions of a cluster together may write some 50 reports a second. The operator divides that among them as `reportInterval`;
//! here a session keeps to it. A change of state is worth more than a counter: it goes out at once, then at most every 5 s, and
//! after a few in a row only at the interval, so that a session which flaps for hours costs no more than one which is busy. What many
//! sessions find at one moment, because they share a file server or an account, goes out within a part of the interval that is longer the
//! more they are.

use std::time::{Duration, Instant};

use blobferry_crds::Progress;

use super::Report;

/// The interval until the operator has published one.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);
/// Least time between two reports.
const LEAST: Duration = Duration::from_secs(5);
/// Time between two reports when nothing changes.
const IDLE: Duration = Duration::from_mins(5);
/// Changes of state in a row that go out before the interval.
const URGENT: f64 = 3.0;
/// Over this part of what the interval is longer than the least one, the changes of state of a moment are spread, and those of a session are
/// further apart by as much.
const SPREAD: f64 = 0.1;
/// Reports come up to this part earlier or later, so that sessions that started together drift apart.
const JITTER: f64 = 0.1;
/// The same for the first report at a longer interval: when many sessions start, all of them hear of one within a short time, and would
/// report at the same moments for hours.
const FIRST_JITTER: f64 = 0.5;
/// First and longest wait after a report that did not arrive.
const RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_mins(1);

/// What two reports differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Nothing that somebody waits for; the times and the free space may differ.
    Nothing,
    /// Counters, or what is being done.
    Counters,
    /// Something that a person or the operator should know now.
    State,
}

impl Change {
    /// What happened between two reports.
    pub fn between(old: &Report, new: &Report) -> Self {
        if state(&old.progress) != state(&new.progress) {
            Self::State
        // An uploader at work that says nothing is called silent, and a block may take minutes.
        } else if counters(old) != counters(new) || new.progress.files_active > 0 {
            Self::Counters
        } else {
            Self::Nothing
        }
    }
}

fn state(progress: &Progress) -> impl PartialEq + use<'_> {
    (&progress.checks, progress.caught_up, &progress.last_error, progress.files_failing)
}

/// A report without what changes by itself all the time.
fn counters(report: &Report) -> impl PartialEq + use<'_> {
    let Report { progress, activity } = report;
    let files = [
        progress.files_seen,
        progress.files_uploaded,
        progress.files_failed,
        progress.files_superseded,
        progress.files_withdrawn,
        progress.files_waiting,
        progress.files_active,
        progress.files_retrying,
        progress.files_ignored,
        // A file is collected only after a report covers it: a lone one must not wait for the idle report.
        progress.files_counted_beyond,
    ];
    let bytes = [progress.bytes_total, progress.bytes_uploaded, progress.bytes_resumed];
    let shown = (&activity.rate, &activity.eta, &activity.active_files, activity.applied_generation);
    (files, bytes, &progress.recent_failures, &progress.held_back, shown)
}

/// The reports of one session: when the last one went out and how many urgent ones may follow.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    interval: Duration,
    last: Option<Instant>,
    /// Reports that arrived.
    arrived: u32,
    /// How many changes of state may still go out before the interval; one comes back per interval.
    urgent: f64,
    jitter: f64,
    /// This session's place among those that share a moment, from 0 to 1.
    place: f64,
    failures: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { interval: DEFAULT_INTERVAL, last: None, arrived: 0, urgent: URGENT, jitter: 1.0, place: 0.0, failures: 0 }
    }
}

impl Pace {
    /// When the next report is due if what there is to tell has been `change` since `since`. The first one is due at once.
    pub fn due(&self, change: Change, since: Instant, now: Instant) -> Instant {
        let Some(last) = self.last else { return now };
        if self.failures > 0 {
            return last + self.retry_after();
        }
        let usual = self.interval.mul_f64(self.jitter).max(LEAST);
        let wait = match change {
            Change::State if self.tokens(now) >= 1.0 => {
                let spread = self.interval.saturating_sub(LEAST).mul_f64(SPREAD);
                return (last + LEAST + spread).max(since + spread.mul_f64(self.place));
            }
            Change::State | Change::Counters => usual,
            // The first one may have come before the operator knew of its process.
            Change::Nothing if self.arrived < 2 => usual,
            // Only earlier than five minutes, because the operator calls an uploader silent that is late; with a longer interval it waits
            // longer.
            Change::Nothing => IDLE.mul_f64(1.0 - (self.jitter - 1.0).abs()).max(usual),
        };
        last + wait
    }

    /// A report arrived, with the interval that the reply named. `random` is from 0 to 1.
    pub fn sent(&mut self, change: Change, interval: Option<Duration>, now: Instant, random: f64) {
        let early = self.last.is_some_and(|last| now < last + self.interval);
        let tokens = self.tokens(now);
        self.urgent = if change == Change::State && early { (tokens - 1.0).max(0.0) } else { tokens };
        self.arrived = self.arrived.saturating_add(1);
        self.last = Some(now);
        self.failures = 0;
        let before = self.interval;
        self.interval = interval.map_or(before, |interval| interval.max(LEAST));
        self.jitter = jitter(if self.interval > before { FIRST_JITTER } else { JITTER }, random);
        self.place = random;
    }

    /// A report did not arrive: the next try waits twice as long as the one before.
    pub fn failed(&mut self, now: Instant, random: f64) {
        self.urgent = self.tokens(now);
        self.last = Some(now);
        self.failures = self.failures.saturating_add(1);
        self.jitter = jitter(JITTER, random);
    }

    /// Tries in a row that did not arrive.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    fn tokens(&self, now: Instant) -> f64 {
        let since = self.last.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        (self.urgent + since.as_secs_f64() / self.interval.as_secs_f64()).min(URGENT)
    }

    fn retry_after(&self) -> Duration {
        let doubled = RETRY.saturating_mul(1 << (self.failures - 1).min(10));
        doubled.min(LONGEST_RETRY).mul_f64(self.jitter)
    }
}

fn jitter(most: f64, random: f64) -> f64 {
    1.0 - most + 2.0 * most * random.clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests;
