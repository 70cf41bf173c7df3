//! Keeps the bytes of all files together to a rate, in slices much smaller than a block.
//!
//! Who wants to send a slice waits in a queue; the first of it waits until the slices before it have had their time. So files and
//! blocks share the rate evenly, and a new rate applies to the next slice.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, watch},
    time::{Instant, sleep_until},
};

/// How finely the rate is kept.
const SLICES_PER_SECOND: u64 = 20;
/// Least and most bytes of a slice.
const LEAST_SLICE: u64 = 1024;
const MOST_SLICE: u64 = 256 * 1024;
/// Time that was not used and may be made up for: a wake-up that comes late costs nothing.
const CREDIT: Duration = Duration::from_millis(100);

/// A rate for all that share it.
#[derive(Clone, Debug)]
pub struct Pacer {
    /// When the next slice may go; held by the first of the queue.
    next: Arc<Mutex<Instant>>,
    rate: watch::Sender<Option<u64>>,
}

impl Default for Pacer {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Pacer {
    /// A pacer of so many bytes per second, or without a limit.
    pub fn new(rate: Option<u64>) -> Self {
        Self { next: Arc::new(Mutex::new(Instant::now())), rate: watch::Sender::new(rate) }
    }

    /// Changes the rate, for whoever waits now as well.
    pub fn set(&self, rate: Option<u64>) {
        self.rate.send_if_modified(|old| std::mem::replace(old, rate) != rate);
    }

    /// The most bytes to send at a time; `None` if nobody has to wait.
    pub fn slice(&self) -> Option<usize> {
        let rate = (*self.rate.borrow())?;
        usize::try_from((rate / SLICES_PER_SECOND).clamp(LEAST_SLICE, MOST_SLICE)).ok()
    }

    /// Waits until `bytes` may be sent.
    pub async fn pass(&self, bytes: usize) {
        let mut rate = self.rate.subscribe();
        let mut next = self.next.lock().await;
        loop {
            let Some(per_second) = *rate.borrow_and_update() else { return };
            let now = Instant::now();
            if *next <= now {
                let begun = (*next).max(now.checked_sub(CREDIT).unwrap_or(now));
                *next = begun + time_of(bytes as u64, per_second);
                return;
            }
            tokio::select! {
                () = sleep_until(*next) => {}
                changed = rate.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    // What was sent at the old rate is settled.
                    *next = Instant::now();
                }
            }
        }
    }
}

/// The time of so many bytes.
fn time_of(bytes: u64, per_second: u64) -> Duration {
    let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(per_second.max(1));
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// So many senders, each sending for ever; what they sent so far.
    fn senders(pacer: &Pacer, count: usize) -> Arc<AtomicU64> {
        let sent = Arc::new(AtomicU64::new(0));
        for _ in 0..count {
            let (pacer, sent) = (pacer.clone(), Arc::clone(&sent));
            tokio::spawn(async move {
                loop {
                    let slice = pacer.slice().unwrap_or(1 << 20);
                    pacer.pass(slice).await;
                    sent.fetch_add(slice as u64, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            });
        }
        sent
    }

    /// Bytes per second in the next ten seconds.
    async fn measured(sent: &AtomicU64) -> u64 {
        let before = sent.load(Ordering::Relaxed);
        tokio::time::sleep(10 * SECOND).await;
        (sent.load(Ordering::Relaxed) - before) / 10
    }

    fn assert_close(measured: u64, rate: u64) {
        assert!(measured.abs_diff(rate) * 100 < rate * 3, "{measured} instead of {rate}");
    }

    #[tokio::test(start_paused = true)]
    async fn any_number_of_senders_keeps_to_the_rate_within_three_percent_over_ten_seconds() {
        for (rate, count) in [(100_000, 1), (100_000, 64), (8 << 10, 64), (50_000_000, 1), (50_000_000, 256)] {
            let pacer = Pacer::new(Some(rate));
            let sent = senders(&pacer, count);
            tokio::time::sleep(SECOND).await;
            for _ in 0..3 {
                assert_close(measured(&sent).await, rate);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn new_rate_applies_at_once_also_to_those_who_wait() {
        let pacer = Pacer::new(Some(1));
        let sent = senders(&pacer, 8);
        tokio::time::sleep(SECOND).await;
        pacer.set(Some(1_000_000));
        tokio::time::sleep(2 * SECOND).await;
        assert!(sent.load(Ordering::Relaxed) > 1_000_000, "those who waited were not woken");
        assert_close(measured(&sent).await, 1_000_000);
        pacer.set(Some(100_000));
        tokio::time::sleep(SECOND).await;
        assert_close(measured(&sent).await, 100_000);
    }

    #[tokio::test(start_paused = true)]
    async fn time_that_was_not_used_is_not_saved_up() {
        let pacer = Pacer::new(Some(100_000));
        tokio::time::sleep(3600 * SECOND).await;
        let sent = senders(&pacer, 4);
        let first = measured(&sent).await;
        assert_close(first, 100_000);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_without_a_limit_and_after_it_was_taken_away() {
        let pacer = Pacer::new(Some(1));
        pacer.pass(1000).await;
        let waiting = tokio::spawn({
            let pacer = pacer.clone();
            async move { pacer.pass(1000).await }
        });
        tokio::time::sleep(SECOND).await;
        assert!(!waiting.is_finished());
        pacer.set(None);
        waiting.await.unwrap();
        assert_eq!(pacer.slice(), None);
        pacer.pass(usize::MAX).await;
    }
}
