//! Whose turn it is to get a new image.

use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::Notify;

use crate::{
    decisions::{
        mode::Mode,
        pod_state::UploaderPod,
        rollout::{Upgrade, choice::Turns, progress::is_outdated},
    },
    place::Place,
    settings::Strategy,
};

/// Whose turn it is.
#[derive(Debug, Default)]
pub struct Rollout {
    known: Mutex<Known>,
    waiting: Notify,
}

#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Whose turn it is, and was.
    pub(crate) turns: Turns,
    /// Where the sessions are that hold up the rollout, in order.
    pub(crate) blockers: Vec<Place>,
}

impl Rollout {
    /// Alone with what is known.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `pod` has to do with the image `wanted`.
    pub fn upgrade(&self, pod: &UploaderPod, wanted: &str, strategy: Strategy, now: Timestamp) -> Upgrade {
        // One that drains is gone soon, and must not begin anew.
        if pod.mode != Mode::Watch || !is_outdated(pod, wanted) {
            return Upgrade::None;
        }
        let known = self.lock();
        let is_due = match strategy {
            Strategy::Rolling(_) => known.turns.has(&pod.session_uid, now),
            // It loses nothing.
            Strategy::OnRestart => !pod.runs(),
        };
        if is_due {
            return Upgrade::Turn;
        }
        if strategy != Strategy::OnRestart {
            self.want();
        }
        // Of another namespace a person here may know nothing.
        let blocker = known.blockers.iter().find(|blocker| blocker.namespace() == pod.namespace);
        Upgrade::Pending { behind: blocker.map(|blocker| blocker.name().to_owned()) }
    }

    /// Somebody waits for a turn.
    pub(crate) fn want(&self) {
        self.waiting.notify_one();
    }

    /// Ends when somebody waits for a turn.
    pub(crate) async fn wanted(&self) {
        self.waiting.notified().await;
    }

    /// Whether the next pod of session `uid` is on trial, if the session has this `generation`.
    pub fn is_trial(&self, uid: &str, generation: i64) -> bool {
        self.lock().turns.is_trial(uid, generation)
    }
}
