//! A rate that is calm enough to be read and quick enough to be true.

use std::time::{Duration, Instant};

/// What is older than this counts for a third.
const MEMORY: f64 = 10.0;
/// After so long without a byte nothing of the past counts.
const FORGOTTEN: Duration = Duration::from_secs(30);

/// Bytes per second as an average in which the past fades away within some ten seconds.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Bytes at the last observation.
    total: u64,
    seen_at: Instant,
    /// When bytes last came.
    moved_at: Instant,
    average: f64,
    /// How much of the average is observed and not the zero that it started with, 0 to 1.
    weight: f64,
}

impl Rate {
    /// A rate of zero, from a counter that shows `total`.
    pub fn new(total: u64, now: Instant) -> Self {
        Self { total, seen_at: now, moved_at: now, average: 0.0, weight: 0.0 }
    }

    /// The rate, now that the counter shows `total`. A counter that went back has started anew.
    #[allow(clippy::cast_precision_loss)]
    pub fn observe(&mut self, total: u64, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(self.seen_at).as_secs_f64();
        if elapsed <= 0.0 {
            return self.get();
        }
        let moved = total.saturating_sub(self.total);
        let kept = (-elapsed / MEMORY).exp();
        if moved > 0 {
            self.moved_at = now;
        } else if now.saturating_duration_since(self.moved_at) >= FORGOTTEN {
            *self = Self::new(total, now);
            return 0.0;
        }
        self.average = self.average * kept + moved as f64 / elapsed * (1.0 - kept);
        self.weight = self.weight * kept + (1.0 - kept);
        (self.total, self.seen_at) = (total, now);
        self.get()
    }

    fn get(&self) -> f64 {
        if self.weight > 0.0 { self.average / self.weight } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    /// The rate after one observation a second of a counter that grows by each of `growth`.
    fn after(growth: &[u64]) -> f64 {
        let start = Instant::now();
        let mut rate = Rate::new(7, start);
        let (mut total, mut shown) = (7, 0.0);
        for (second, bytes) in (1..).zip(growth) {
            total += bytes;
            shown = rate.observe(total, start + Duration::from_secs(second));
        }
        shown
    }

    #[track_caller]
    fn near(shown: f64, expected: u32) {
        assert!((shown - f64::from(expected)).abs() < f64::from(expected) * 0.01 + 1.0, "{shown} is not {expected}");
    }

    #[test]
    fn a_steady_rate_is_shown_from_the_first_observation_on() {
        near(after(&[MB]), 1_000_000);
        near(after(&[MB; 40]), 1_000_000);
    }

    #[test]
    fn a_burst_is_spread_and_a_change_shows_within_ten_seconds() {
        let steady_then_nothing = [[MB; 60].as_slice(), &[0; 10]].concat();
        near(after(&steady_then_nothing), 368_000);
        let alternating: Vec<u64> = (0..60).map(|second| if second % 2 == 0 { 2 * MB } else { 0 }).collect();
        assert!((after(&alternating) - 1e6).abs() < 0.1e6);
    }

    #[test]
    fn silence_becomes_zero_and_the_next_burst_counts_in_full() {
        let silent = [[MB; 60].as_slice(), &[0; 30]].concat();
        near(after(&silent), 0);
        near(after(&[silent.as_slice(), &[5 * MB]].concat()), 5_000_000);
    }

    #[test]
    fn frequent_observations_show_the_same_as_rare_ones() {
        let start = Instant::now();
        let mut rate = Rate::new(0, start);
        let mut shown = 0.0;
        for step in 1..=1000_u64 {
            shown = rate.observe(step * 1000, start + Duration::from_millis(step));
        }
        near(shown, 1_000_000);
    }

    #[test]
    fn a_counter_that_went_back_and_a_clock_that_stands_are_no_rate() {
        let start = Instant::now();
        let mut rate = Rate::new(100, start);
        near(rate.observe(50, start + Duration::from_secs(1)), 0);
        near(rate.observe(5000, start + Duration::from_secs(1)), 0);
    }
}
