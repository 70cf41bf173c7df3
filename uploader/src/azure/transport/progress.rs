//! When an exchange counts as stuck.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Bytes at the end of a body that may still be in buffers on this machine when the last slice has been handed over.
const BUFFERED: u64 = 1024 * 1024;

/// How far one exchange has come.
#[derive(Debug)]
pub(super) struct Progress(Mutex<State>);

#[derive(Clone, Copy, Debug)]
struct State {
    /// Bytes of the body that the connection has not taken yet.
    left: u64,
    last: Instant,
    /// True while the body waits for its turn under a rate, which is no stall.
    paused: bool,
    /// When the last [`BUFFERED`] bytes began.
    tail: Instant,
}

impl Progress {
    /// For a body of `length` bytes.
    pub(super) fn new(length: u64) -> Self {
        let now = Instant::now();
        Self(Mutex::new(State { left: length, last: now, paused: false, tail: now }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the connection took `bytes` more, or that a part of the reply came.
    pub(super) fn advance(&self, bytes: u64) {
        let mut state = self.state();
        state.last = Instant::now();
        state.paused = false;
        if state.left > BUFFERED {
            state.tail = state.last;
        }
        state.left = state.left.saturating_sub(bytes);
    }

    /// Notes that the body waits for its turn; the next [`Self::advance`] ends that.
    pub(super) fn pause(&self) {
        self.state().paused = true;
    }

    /// Ends, with the seconds waited, when nothing has moved for `usual`, or for `reply` once the body has been taken. A body that
    /// went out slowly is still in buffers when its last slice has been taken: then the wait is as long as the last of it took to
    /// go, at most `most`.
    pub(super) async fn stalled(&self, usual: Duration, reply: Duration, most: Duration) -> u64 {
        loop {
            let state = *self.state();
            let patience = if state.left > 0 { usual } else { reply.max((state.last - state.tail).min(most)) };
            if state.paused {
                tokio::time::sleep(usual).await;
                continue;
            }
            if state.last.elapsed() >= patience {
                return patience.as_secs();
            }
            tokio::time::sleep_until(state.last + patience).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn wait(progress: &Progress) -> Duration {
        let start = Instant::now();
        progress.stalled(60 * SECOND, 120 * SECOND, 300 * SECOND).await;
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_move_is_given_up_after_the_usual_time() {
        assert_eq!(wait(&Progress::new(10)).await, 60 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn every_slice_starts_the_time_anew() {
        let progress = Progress::new(100);
        let slices = async {
            for _ in 0..9 {
                tokio::time::sleep(50 * SECOND).await;
                progress.advance(10);
            }
        };
        let (waited, ()) = tokio::join!(wait(&progress), slices);
        assert_eq!(waited, 450 * SECOND + 60 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_for_the_turn_is_no_stall_and_the_time_after_it_is() {
        let progress = Progress::new(100);
        progress.pause();
        let turn = async {
            tokio::time::sleep(600 * SECOND).await;
            progress.advance(10);
        };
        let (waited, ()) = tokio::join!(wait(&progress), turn);
        assert_eq!(waited, 660 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reply_has_its_own_time() {
        let progress = Progress::new(10);
        progress.advance(10);
        assert_eq!(wait(&progress).await, 120 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_line_gets_the_time_that_its_last_bytes_took() {
        let progress = Progress::new(4 * BUFFERED);
        for _ in 0..16 {
            tokio::time::sleep(40 * SECOND).await;
            progress.advance(BUFFERED / 4);
        }
        assert_eq!(wait(&progress).await, 160 * SECOND);
    }
}
