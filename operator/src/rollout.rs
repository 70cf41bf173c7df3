//! Brings a new uploader image to running sessions, a few at a time; idle ones first.
//!
//! A session whose pod has another image than the installation's keeps it until its turn comes. Who is at work on the new image is
//! read from the pods themselves, so a new leader goes on where the last one was, and an image that does not start stops the rollout.
//! Pods whose uploader does not run lose nothing and do not wait for a turn.

mod choice;

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::Notify;

use crate::{
    context::Context,
    reconcile::{ending::Mode, pod_state::UploaderPod},
};
use choice::{Member, State, choose, state};

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
/// A turn that led to no pod after this time goes to somebody else.
const TURN: Duration = Duration::from_mins(5);

/// Whose turn it is.
#[derive(Debug, Default)]
pub struct Rollout {
    /// Since when it is whose turn, by UID of the session.
    turns: Mutex<HashMap<String, Timestamp>>,
    waiting: Notify,
}

impl Rollout {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Timestamp>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `pod` has to do with the image `wanted`.
    pub fn upgrade(&self, pod: &UploaderPod, wanted: &str, strategy: Strategy) -> Upgrade {
        // One that drains is gone soon, and must not begin anew.
        if pod.mode != Mode::Watch || pod.image.as_deref().is_none_or(|image| image == wanted) {
            return Upgrade::None;
        }
        if !pod.runs() || self.lock().contains_key(&pod.session_uid) {
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
    let (members, sessions) = (members(context, now), context.sessions.uids());
    let chosen = {
        let turns = &mut *context.rollout.lock();
        // A session that is deleted in its turn keeps nobody waiting.
        turns.retain(|uid, since| {
            let replaced = members.iter().any(|member| member.uid == *uid && !matches!(member.state, State::Outdated { .. }));
            !replaced && sessions.contains(uid) && *since + TURN > now
        });
        let chosen = choose(&members, turns, most);
        turns.extend(chosen.iter().map(|member| (member.uid.clone(), now)));
        chosen
    };
    for member in &chosen {
        context.wake.session(&member.namespace, &member.session);
    }
    if members.iter().any(|member| matches!(member.state, State::Outdated { .. })) {
        context.rollout.waiting.notify_one();
    }
}

/// The sessions whose pods have the installation's image, or had.
fn members(context: &Context, now: Timestamp) -> Vec<Member> {
    let members = |pod: &UploaderPod| pod.image.is_some() && pod.mode == Mode::Watch && pod.success().is_none();
    let pods = context.pods.uploaders().into_iter().filter(|(pod, _)| members(pod));
    pods.map(|(pod, session)| {
        let state = state(&pod, &context.settings.uploader_image, || context.sessions.is_idle(&pod.namespace, &session), now);
        Member { uid: pod.session_uid, namespace: pod.namespace, session, state }
    })
    .collect()
}
