//! Brings a new uploader image to running sessions, a few at a time; idle ones first.
//!
//! A session whose pod has another image than the installation's keeps it until its turn comes. Who is at work on the new image is
//! read from the pods themselves, so a new leader goes on where the last one was, and an image that does not start stops the rollout.
//! Pods whose uploader does not run lose nothing and do not wait for a turn.

mod choice;

use std::{
    collections::HashSet,
    num::NonZeroUsize,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::Notify;

use crate::{
    context::Context,
    place::Place,
    reconcile::{ending::Mode, pod_state::UploaderPod},
};
use choice::{Member, Turns, state};

/// How running sessions get a new image; the chart's `uploaders.update`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// So many sessions at a time.
    Rolling(NonZeroUsize),
    /// When their pod is replaced for another reason.
    OnRestart,
}

/// What a session's pod has to do with a new image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// Nothing: it has the image that is wanted.
    None,
    /// It runs another image until its turn comes.
    Pending,
    /// It is replaced now.
    Turn,
}

/// Between two choices while sessions wait for their turn.
const PAUSE: Duration = Duration::from_secs(3);

/// Whose turn it is.
#[derive(Debug, Default)]
pub struct Rollout {
    turns: Mutex<Turns>,
    waiting: Notify,
}

impl Rollout {
    fn lock(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `pod` has to do with the image `wanted`.
    pub fn upgrade(&self, pod: &UploaderPod, wanted: &str, strategy: Strategy, now: Timestamp) -> Upgrade {
        // One that drains is gone soon, and must not begin anew.
        if pod.mode != Mode::Watch || pod.image.as_deref().is_none_or(|image| image == wanted) {
            return Upgrade::None;
        }
        if !pod.runs() || self.lock().has(&pod.session_uid, now) {
            return Upgrade::Turn;
        }
        if strategy != Strategy::OnRestart {
            self.waiting.notify_one();
        }
        Upgrade::Pending
    }
}

/// Gives turns for as long as somebody waits for one, for ever.
pub async fn run(context: &Context) {
    let Strategy::Rolling(most) = context.settings.update else { return std::future::pending().await };
    loop {
        context.rollout.waiting.notified().await;
        tokio::time::sleep(PAUSE).await;
        pass(context, most, (context.clock)());
    }
}

/// Gives turns as far as `most` sessions at a time allow, and wakes those whose turn it is.
pub fn pass(context: &Context, most: NonZeroUsize, now: Timestamp) {
    let sessions = context.sessions.uids();
    let members = members(context, &sessions, now);
    let chosen = {
        let turns = &mut *context.rollout.lock();
        turns.end(&members, &sessions);
        turns.give(&members, most, now)
    };
    for member in &chosen {
        context.wake.session(Place::new(&member.namespace, &member.session));
    }
    if members.iter().any(|member| member.state.has_another_image()) {
        context.rollout.waiting.notify_one();
    }
}

/// The sessions whose pods have the installation's image, or had. What a session that is gone has left behind waits for nothing.
fn members(context: &Context, sessions: &HashSet<String>, now: Timestamp) -> Vec<Member> {
    let is_member = |pod: &UploaderPod| {
        pod.image.is_some() && pod.mode == Mode::Watch && pod.success().is_none() && sessions.contains(&pod.session_uid)
    };
    let pods = context.pods.shown(is_member).into_iter();
    pods.map(|pod| {
        let state = state(
            &pod,
            &context.settings.uploader_image,
            || context.sessions.is_idle(&Place::new(&pod.namespace, &pod.session)),
            now,
        );
        Member { uid: pod.session_uid.clone(), namespace: pod.namespace.clone(), session: pod.session.clone(), state }
    })
    .collect()
}
