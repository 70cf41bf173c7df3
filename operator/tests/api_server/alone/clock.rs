//! A clock of operators that the test stops and moves.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;

/// Where it stands still.
static HANDS: Mutex<Option<Timestamp>> = Mutex::new(None);

fn hands() -> MutexGuard<'static, Option<Timestamp>> {
    HANDS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What it shows.
pub(crate) fn now() -> Timestamp {
    hands().unwrap_or_else(Timestamp::now)
}

/// It stands still.
pub(crate) fn stop() {
    *hands() = Some(Timestamp::now());
}

/// It goes on by so much, and stands still.
pub(crate) fn advance(by: Duration) {
    let then = now() + by;
    *hands() = Some(then);
}

/// It goes like any other.
pub(crate) fn run() {
    *hands() = None;
}
