//! The server's clock: skewed against everybody else's, read in ticks, and now and then set by somebody.

use tokio::time::Instant;

/// Nanoseconds since 1970 when a history begins.
const EPOCH: i128 = 1_763_712_000_000_000_000;

/// A clock.
#[derive(Debug)]
pub struct Clock {
    start: Instant,
    granularity: i128,
    offset: i128,
    reads: i128,
    last: Instant,
    /// Whether it was ever set back.
    pub stepped_back: bool,
}

impl Clock {
    /// A clock that is `offset` ahead of the world's and shows whole multiples of `granularity`, both in nanoseconds.
    pub fn new(granularity: i128, offset: i128) -> Self {
        let start = Instant::now();
        Self { start, granularity, offset, reads: 0, last: start, stepped_back: false }
    }

    /// What it shows. Two reads at one instant of the world differ by a nanosecond, as far as the granularity shows it.
    pub fn now(&mut self) -> i128 {
        let now = Instant::now();
        self.reads = if now == self.last { self.reads + 1 } else { 0 };
        self.last = now;
        let elapsed = i128::try_from(now.duration_since(self.start).as_nanos()).unwrap_or(i128::MAX);
        let exact = EPOCH + elapsed + self.offset + self.reads;
        exact - exact.rem_euclid(self.granularity)
    }

    /// Somebody sets it, by so many nanoseconds.
    pub fn step(&mut self, by: i128) {
        self.offset += by;
        self.stepped_back |= by < 0;
    }
}
