//! Sessions that have to be looked at although the watches show nothing new of them.

use std::sync::{Mutex, PoisonError};

use futures::{Stream, stream};
use tokio::sync::mpsc::{self, Receiver, Sender};

use crate::place::Place;

/// More than this at a time are looked at when their own time comes.
const BOUND: usize = 10_000;

/// Wakes the controller for sessions.
#[derive(Debug)]
pub struct Wake {
    sender: Sender<Place>,
    receiver: Mutex<Option<Receiver<Place>>>,
}

impl Default for Wake {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(BOUND);
        Self { sender, receiver: Mutex::new(Some(receiver)) }
    }
}

impl Wake {
    /// Has the session at `place` looked at soon.
    pub fn session(&self, place: Place) {
        // A full queue loses nothing but time, because every session has a next look anyway.
        let _ = self.sender.try_send(place);
    }

    /// The sessions that are woken, for the one controller.
    pub fn stream(&self) -> impl Stream<Item = Place> + Send + use<> {
        let receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take();
        stream::unfold(receiver, |receiver| async move {
            let mut receiver = receiver?;
            let session = receiver.recv().await?;
            Some((session, Some(receiver)))
        })
    }
}
