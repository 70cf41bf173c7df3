//! (pure) When the next attempt may be made: exponential backoff with jitter, per object.

use std::time::Duration;

use jiff::Timestamp;

const FIRST: Duration = Duration::from_secs(1);
const CAP: Duration = Duration::from_mins(5);
const FORGIVEN_AFTER: Duration = Duration::from_mins(10);

/// The attempts that were made for one object so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attempts {
    count: u32,
    due: Option<Timestamp>,
    /// Why the last attempt failed, if nothing in the API says it.
    pub failure: Option<Box<Failure>>,
}

/// A failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// `CamelCase` reason.
    pub reason: &'static str,
    /// A sentence that a person can act on.
    pub message: String,
}

impl Attempts {
    /// Whether an attempt may be made at `now`.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.due.is_none_or(|due| due <= now)
    }

    /// Time from `now` until the next attempt may be made.
    pub fn wait(&self, now: Timestamp) -> Duration {
        self.due.and_then(|due| Duration::try_from(due.duration_since(now)).ok()).unwrap_or_default()
    }

    /// The state after one more attempt at `now`, whose failure, if it failed at once, is `failure`. `random` of [0, 1) spreads the
    /// next attempts of many objects; attempts that are long past are forgiven.
    #[must_use]
    pub fn next(&self, now: Timestamp, failure: Option<Failure>, random: f64) -> Self {
        let forgiven = self.due.is_none_or(|due| now >= due + FORGIVEN_AFTER);
        let count = if forgiven { 1 } else { self.count.saturating_add(1) };
        Self { count, due: Some(now + delay(count, random)), failure: failure.map(Box::new) }
    }
}

/// The wait after attempt number `count`, counted from 1: doubling up to a cap, of which up to a quarter is taken off at random.
pub fn delay(count: u32, random: f64) -> Duration {
    let full = FIRST.saturating_mul(1_u32.checked_shl(count.saturating_sub(1)).unwrap_or(u32::MAX)).min(CAP);
    full.mul_f64(1.0 - 0.25 * random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn first_attempt_is_due_at_once() {
        assert!(Attempts::default().is_due(at(0)));
    }

    #[test]
    fn delay_doubles_up_to_the_cap() {
        let delays: Vec<u64> = (1..=12).map(|count| delay(count, 0.0).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        assert_eq!(delay(u32::MAX, 0.0), CAP);
    }

    #[test]
    fn jitter_shortens_by_a_quarter_at_most() {
        assert_eq!(delay(4, 0.0), Duration::from_secs(8));
        assert_eq!(delay(4, 1.0), Duration::from_secs(6));
    }

    #[test]
    fn attempts_in_a_row_wait_longer_each_time() {
        let first = Attempts::default().next(at(0), None, 0.0);
        assert!(!first.is_due(at(0)) && first.is_due(at(1)));
        let second = first.next(at(1), None, 0.0);
        assert_eq!(second.wait(at(1)), Duration::from_secs(2));
        assert_eq!(second.wait(at(9)), Duration::ZERO);
    }

    #[test]
    fn attempts_long_past_are_forgiven() {
        let mut attempts = Attempts::default();
        for _ in 0..8 {
            attempts = attempts.next(at(0), None, 0.0);
        }
        assert_eq!(attempts.wait(at(0)), Duration::from_secs(128));
        assert_eq!(attempts.next(at(10_000), None, 0.0).wait(at(10_000)), Duration::from_secs(1));
    }
}
