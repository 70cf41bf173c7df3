//! Brings a new uploader image to running sessions, a few at a time; idle ones first.
//!
//! A session whose pod has another image than the installation's keeps it until its turn comes. One that was well before is then on
//! trial, which its new pod says, so that a new leader goes on where the last one was: an image that does not work stops the rollout. How
//! a session fares that was not well before says nothing of the image. A pod that another version of the operator has made in
//! another way is treated as if it had another image.

mod choice;
mod state;

use std::{
    collections::HashSet,
    num::NonZeroUsize,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::Notify;
use tracing::warn;

use crate::{
    context::Context,
    place::Place,
    reconcile::{ending::Mode, pod_state::UploaderPod},
};
use choice::{Member, Turns};
use state::{Told, is_outdated, state};

/// How running sessions get a new image; the chart's `uploaders.update`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// So many sessions at a time.
    Rolling(NonZeroUsize),
    /// When their pod is replaced for another reason.
    OnRestart,
}

/// What a session's pod has to do with a new image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// Nothing: it has the image that is wanted.
    None,
    /// It runs another image until its turn comes.
    Pending {
        /// The session of the same namespace that holds up the rollout, if one does.
        behind: Option<String>,
    },
    /// It is replaced now.
    Turn,
}

/// Between two choices while sessions wait for their turn.
const PAUSE: Duration = Duration::from_secs(3);

/// Whose turn it is.
#[derive(Debug, Default)]
pub struct Rollout {
    known: Mutex<Known>,
    waiting: Notify,
}

#[derive(Debug, Default)]
struct Known {
    turns: Turns,
    /// Where the sessions are that hold up the rollout, in order.
    blockers: Vec<Place>,
}

impl Rollout {
    fn lock(&self) -> MutexGuard<'_, Known> {
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
            self.waiting.notify_one();
        }
        // Of another namespace a person here may know nothing.
        let blocker = known.blockers.iter().find(|blocker| blocker.namespace() == pod.namespace);
        Upgrade::Pending { behind: blocker.map(|blocker| blocker.name().to_owned()) }
    }

    /// Whether the next pod of session `uid` is on trial.
    pub fn is_trial(&self, uid: &str) -> bool {
        self.lock().turns.is_trial(uid)
    }

    /// The session `uid` was changed: how it fares from now on says nothing of the image.
    pub fn changed(&self, uid: &str) {
        self.lock().turns.forget(uid);
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

/// Gives turns as far as `most` sessions on trial allow, and wakes those whose turn it is.
pub fn pass(context: &Context, most: NonZeroUsize, now: Timestamp) {
    let sessions = context.sessions.uids();
    let members = members(context, &sessions, now);
    let (chosen, blockers, before) = {
        let Known { turns, blockers } = &mut *context.rollout.lock();
        turns.see(&members, &sessions, now);
        let chosen = turns.give(&members, most, now);
        let before = std::mem::replace(blockers, turns.blockers(&members, most, now));
        (chosen, blockers.clone(), before)
    };
    for member in &chosen {
        context.wake.session(member.place.clone());
    }
    if blockers != before {
        tell_of_blockers(&before, &blockers, &members, context);
    }
    let waiting = members.iter().filter(|member| member.state.is_outdated()).count();
    context.metrics.rolls_out(waiting, blockers.len());
    if waiting > 0 {
        context.rollout.waiting.notify_one();
    }
}

/// Whoever runs the installation reads the log, and the people of a session its status.
fn tell_of_blockers(before: &[Place], now: &[Place], members: &[Member], context: &Context) {
    for blocker in now.iter().filter(|blocker| !before.contains(blocker)) {
        warn!(
            namespace = blocker.namespace(),
            session = blocker.name(),
            "the rollout of the uploader's image is held up by a session that was well before it got the image and is not well with it"
        );
    }
    let concerns = |place: &Place| before.iter().chain(now).any(|blocker| blocker.namespace() == place.namespace());
    for member in members.iter().filter(|member| member.state.is_outdated() && concerns(&member.place)) {
        context.wake.session(member.place.clone());
    }
}

/// The sessions whose pods have the installation's image, or had. What a session that is gone has left behind waits for nothing.
fn members(context: &Context, sessions: &HashSet<String>, now: Timestamp) -> Vec<Member> {
    let is_member = |pod: &UploaderPod| pod.mode == Mode::Watch && pod.success().is_none() && sessions.contains(&pod.session_uid);
    let pods = context.pods.shown(is_member).into_iter();
    pods.map(|pod| {
        let place = Place::new(&pod.namespace, &pod.session);
        let told = context
            .sessions
            .find(&place)
            .map_or_else(Told::default, |session| Told { idle: session.is_idle(), ready_since: session.ready_since() });
        let state = state(&pod, &context.settings.uploader_image, told, now);
        Member { uid: pod.session_uid.clone(), place, state }
    })
    .collect()
}
