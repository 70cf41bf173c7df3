//! How many bytes of blocks may be under way at a time: no more than the line brings to the service in a while.
//!
//! On a slow line many blocks in flight share it, each takes minutes, and one that fails has to start again. So the line's rate is
//! measured, and blocks wait while those before them need longer than [`HORIZON`]. One block is always let through, and nothing waits
//! on a fast line, or before the rate is known.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// Bytes in flight arrive within so long at the measured rate.
const HORIZON: Duration = Duration::from_secs(30);
/// Time with blocks in flight after which a measurement counts.
const WINDOW: Duration = Duration::from_secs(5);

/// The blocks in flight of all files.
#[derive(Debug, Default)]
pub struct Flight {
    state: Mutex<State>,
    landed: Notify,
}

#[derive(Debug, Default)]
struct State {
    in_flight: u64,
    /// Bytes that arrived in this window.
    arrived: u64,
    /// Since when something is in flight, or the window began.
    since: Option<Instant>,
    /// Time with something in flight in this window before `since`.
    busy: Duration,
    /// Bytes per second.
    rate: Option<u64>,
}

/// A block in flight.
#[derive(Debug)]
pub struct Airborne<'a> {
    flight: &'a Flight,
    bytes: u64,
    arrived: bool,
}

impl Flight {
    /// Lets a block of so many bytes go as soon as there is room.
    pub async fn take_off(&self, bytes: u64) -> Airborne<'_> {
        loop {
            let landed = self.landed.notified();
            tokio::pin!(landed);
            // Registered before the look, so that no landing is lost between the look and the wait.
            landed.as_mut().enable();
            if self.state().enter(bytes, Instant::now()) {
                return Airborne { flight: self, bytes, arrived: false };
            }
            landed.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Airborne<'_> {
    /// The service has the block.
    pub fn arrived(mut self) {
        self.arrived = true;
    }
}

impl Drop for Airborne<'_> {
    fn drop(&mut self) {
        self.flight.state().leave(self.bytes, self.arrived, Instant::now());
        self.flight.landed.notify_waiters();
    }
}

impl State {
    /// True if the block may go; then it is counted.
    fn enter(&mut self, bytes: u64, now: Instant) -> bool {
        let most = self.rate.map_or(u64::MAX, |rate| rate.saturating_mul(HORIZON.as_secs()));
        if self.in_flight > 0 && self.in_flight.saturating_add(bytes) > most {
            return false;
        }
        if self.in_flight == 0 {
            self.since = Some(now);
        }
        self.in_flight += bytes;
        true
    }

    fn leave(&mut self, bytes: u64, arrived: bool, now: Instant) {
        self.in_flight -= bytes;
        self.arrived += if arrived { bytes } else { 0 };
        let busy = self.busy + self.since.map_or(Duration::ZERO, |since| now - since);
        self.since = (self.in_flight > 0).then_some(now);
        self.busy = busy;
        if busy >= WINDOW && self.arrived > 0 {
            let milliseconds = u64::try_from(busy.as_millis()).unwrap_or(u64::MAX);
            self.rate = Some(self.arrived.saturating_mul(1000) / milliseconds.max(1));
            (self.arrived, self.busy) = (0, Duration::ZERO);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const BLOCK: u64 = 4 << 20;

    /// Sends blocks over a line that all share; the most that were in flight in the end.
    async fn most_in_flight(per_second: u64, latency: Duration, senders: usize) -> u64 {
        let (flight, line) = (Arc::new(Flight::default()), Arc::new(tokio::sync::Mutex::new(())));
        for _ in 0..senders {
            let (flight, line) = (Arc::clone(&flight), Arc::clone(&line));
            tokio::spawn(async move {
                loop {
                    let block = flight.take_off(BLOCK).await;
                    let turn = line.lock().await;
                    tokio::time::sleep(Duration::from_millis(BLOCK * 1000 / per_second)).await;
                    drop(turn);
                    tokio::time::sleep(latency).await;
                    block.arrived();
                }
            });
        }
        // Until what went off before the rate was known has landed.
        tokio::time::sleep(Duration::from_mins(40)).await;
        let mut most = 0;
        for _ in 0..600 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            most = most.max(flight.state().in_flight);
        }
        most / BLOCK
    }

    #[tokio::test(start_paused = true)]
    async fn slow_line_has_few_blocks_in_flight_and_a_fast_one_all() {
        // 5 Mbit/s: 32 blocks would take 215 s.
        assert!((2..=5).contains(&most_in_flight(625_000, Duration::ZERO, 32).await));
        assert_eq!(most_in_flight(50_000_000, Duration::from_millis(500), 32).await, 32);
        // A block that takes longer than the horizon goes alone.
        assert_eq!(most_in_flight(20_000, Duration::ZERO, 8).await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn line_that_becomes_faster_is_used_again() {
        let flight = Flight::default();
        let second = Duration::from_secs(1);
        for (seconds, expected) in [(60, 1), (1, 30)] {
            for _ in 0..8 {
                let block = flight.take_off(BLOCK).await;
                tokio::time::sleep(second * seconds).await;
                block.arrived();
            }
            let rate = flight.state().rate.unwrap();
            assert_eq!((rate * HORIZON.as_secs() / BLOCK).max(1), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn block_that_failed_or_was_given_up_leaves_room_and_counts_for_nothing() {
        let flight = Flight::default();
        let block = flight.take_off(BLOCK).await;
        tokio::time::sleep(WINDOW * 2).await;
        drop(block);
        assert_eq!(flight.state().in_flight, 0);
        assert_eq!(flight.state().rate, None);
        let block = flight.take_off(BLOCK).await;
        block.arrived();
        assert_eq!(flight.state().rate, Some(BLOCK / 10), "the time of the failure counts");
    }
}
