//! Notices that somebody has set the clock, as happens on a node without a battery when it finds its time server.
//!
//! What the operator remembers of times is wrong then: an attempt that was due in a minute is due in hours, and an uploader that fell
//! silent was heard in the future. Starting again costs a second and forgets all of it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// What a time server corrects bit by bit, or two looks at two clocks one after the other differ by, is less.
const STEP: SignedDuration = SignedDuration::from_secs(30);

/// Waits until `clock` has gone another way than the time that passes; by how much.
pub async fn until_set(clock: impl Fn() -> Timestamp) -> SignedDuration {
    let mut last = (Instant::now(), clock());
    loop {
        sleep(LOOK_EVERY).await;
        let look = (Instant::now(), clock());
        let passed = SignedDuration::try_from(look.0 - last.0).unwrap_or(SignedDuration::MAX);
        let step = look.1.duration_since(last.1) - passed;
        if step.abs() >= STEP {
            return step;
        }
        last = look;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn clock_that_is_set_is_noticed_soon_and_one_that_goes_a_little_wrong_is_not() {
        for (set_by, drift, noticed) in
            [(7200, 0, true), (-7200, 0, true), (45, 0, true), (5, 0, false), (0, 1, false), (0, -1, false)]
        {
            let (begun, wrong) = (Instant::now(), AtomicI64::new(0));
            let clock = || {
                let passed = i64::try_from(begun.elapsed().as_secs()).unwrap();
                Timestamp::from_second(1_000_000 + passed + wrong.fetch_add(drift, Ordering::Relaxed)).unwrap()
            };
            let set = async {
                sleep(Duration::from_mins(3)).await;
                wrong.fetch_add(set_by, Ordering::Relaxed);
                sleep(Duration::from_hours(1)).await;
            };
            let found = tokio::select! {
                step = until_set(clock) => Some(step.as_secs()),
                () = set => None,
            };
            assert_eq!(found, noticed.then_some(set_by), "set by {set_by}, drifts by {drift}");
            assert!(!noticed || begun.elapsed() <= Duration::from_secs(200));
        }
    }
}
