//! How long to wait before the next attempt. (pure)

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_mins(1);
/// Whoever asks for more is asked again all the same.
const LONGEST_ASKED: Duration = Duration::from_mins(15);

/// The wait after the `failures`-th failure in a row (1 is the first): exponential from one second to one minute, with the half of it
/// drawn by `random` in `0.0..1.0`, and not less than the service asked for, up to a quarter of an hour.
pub fn backoff(failures: u32, random: f64, asked: Option<Duration>) -> Duration {
    let doubled = FIRST.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX)).min(LONGEST);
    doubled.mul_f64(0.5 + random / 2.0).max(asked.unwrap_or_default().min(LONGEST_ASKED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_a_minute_and_honours_the_service() {
        let seconds: Vec<u64> = [1, 2, 3, 7, 8, 40].map(|failures| backoff(failures, 1.0, None).as_secs()).into();
        assert_eq!(seconds, [1, 2, 4, 60, 60, 60]);
        assert_eq!(backoff(3, 0.0, None), Duration::from_secs(2));
        assert_eq!(backoff(1, 0.5, Some(Duration::from_secs(90))), Duration::from_secs(90));
        assert_eq!(backoff(1, 0.5, Some(Duration::MAX)), LONGEST_ASKED);
    }
}
