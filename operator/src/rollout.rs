//! Brings a new uploader image to running sessions, a few at a time; idle ones first.
//!
//! A session whose pod has another image than the installation's keeps it until its turn comes. One that was well before is then on
//! trial, which it says itself and then its new pod, so that a new leader goes on where the last one was: an image that does not work
//! stops the rollout. How a session fares that was not well before says nothing of the image. A pod that another version of the
//! operator has made in another way is treated as if it had another image.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use jiff::Timestamp;
use tracing::warn;

use crate::{
    context::Context,
    decisions::{
        build::pod_name,
        mode::Mode,
        pod_state::UploaderPod,
        rollout::{
            choice::Member,
            mark,
            progress::{State, Told, state},
        },
    },
    place::Place,
    reconcile::publish::mark_trial,
    settings::Strategy,
    state::{rollout::Known, sessions::KeptSession},
};

/// Between two choices while sessions wait for their turn.
const PAUSE: Duration = Duration::from_secs(3);

/// Gives turns for as long as somebody waits for one, for ever.
pub async fn run(context: &Context) {
    let Strategy::Rolling(most) = context.settings.update else { return std::future::pending().await };
    loop {
        context.rollout.wanted().await;
        tokio::time::sleep(PAUSE).await;
        pass(context, most, (context.clock)()).await;
    }
}

/// Gives turns as far as `most` sessions on trial allow, and wakes those whose turn it is.
pub async fn pass(context: &Context, most: NonZeroUsize, now: Timestamp) {
    for member in choose(context, most, now) {
        if context.rollout.is_trial(&member.uid, member.generation) {
            let replaced = pod_of(&member, context, now).map(|pod| pod.uid.clone()).unwrap_or_default();
            let mark = mark(&member.uid, &replaced, member.generation, &context.settings.uploader_image);
            // Without it, another leader knows less.
            if let Err(error) = mark_trial(&member.place, &member.uid, &mark, context).await {
                warn!(session = %member.place, error = &error as &dyn std::error::Error, "a session cannot be told that it is on trial");
            }
        }
        context.wake.session(member.place);
    }
}

/// Gives turns; to whom.
fn choose(context: &Context, most: NonZeroUsize, now: Timestamp) -> Vec<Member> {
    let mut members = members(context, now);
    let began_before = marked(context, now);
    let (chosen, blockers, before) = {
        let Known { turns, blockers } = &mut *context.rollout.lock();
        turns.forget_others(|place, uid| Some(context.sessions.of_uid(place, uid)?.generation()));
        turns.recall(&began_before, now);
        members.extend(turns.awaited().filter(|member| is_without_pod(member, context, now)));
        turns.see(&members, now);
        let chosen = turns.give(&members, most, now);
        let before = std::mem::replace(blockers, turns.blockers(&members, most, now));
        (chosen, blockers.clone(), before)
    };
    if blockers != before {
        tell_of_blockers(&before, &blockers, &members, context);
    }
    let waiting = members.iter().filter(|member| member.state.is_outdated()).count();
    context.metrics.rolls_out(waiting, blockers.len());
    if waiting > 0 {
        context.rollout.want();
    }
    chosen
}

/// Whoever runs the installation reads the log, and the people of a session its status.
fn tell_of_blockers(before: &[Place], now: &[Place], members: &[Member], context: &Context) {
    for blocker in now.iter().filter(|blocker| !before.contains(blocker)) {
        warn!(
            namespace = blocker.namespace(),
            session = blocker.name(),
            "the rollout of the uploader's image is held up by a session that was well before its turn and is not well since"
        );
    }
    let concerns = |place: &Place| before.iter().chain(now).any(|blocker| blocker.namespace() == place.namespace());
    for member in members.iter().filter(|member| member.state.is_outdated() && concerns(&member.place)) {
        context.wake.session(member.place.clone());
    }
}

/// The sessions whose pods have the installation's image, or had.
fn members(context: &Context, now: Timestamp) -> Vec<Member> {
    let pods = context.pods.shown(|pod| pod.mode == Mode::Watch && pod.success().is_none());
    pods.iter().filter_map(|pod| member(pod, context, now)).collect()
}

/// The session of `pod`, unless no pass sees to the pod: it would neither get the new image nor become well.
fn member(pod: &UploaderPod, context: &Context, now: Timestamp) -> Option<Member> {
    let place = pod.session_place();
    let session = context.sessions.of_uid(&place, &pod.session_uid).filter(|session| session.sees_to_pod())?;
    let state = state(pod, &context.settings.uploader_image, told_by(&session), now);
    Some(Member { uid: pod.session_uid.clone(), place, generation: session.generation(), state })
}

/// What `session` says that matters here.
fn told_by(session: &KeptSession) -> Told {
    Told {
        generation: session.generation(),
        idle: session.is_idle(),
        ready_since: session.ready_since(),
        unready_since: session.unready_since(),
    }
}

/// Sessions that say that their next pod is on trial, and whose earlier one is gone or going.
fn marked(context: &Context, now: Timestamp) -> Vec<Member> {
    let marked = context.sessions.shown(|session| session.is_on_trial() && session.wants_pod());
    let members = marked.iter().map(|session| Member {
        uid: session.uid().to_owned(),
        place: session.place().clone(),
        generation: session.generation(),
        state: State::WithoutPod,
    });
    members.filter(|member| pod_of(member, context, now).is_none_or(|pod| pod.terminating.is_some())).collect()
}

/// Whether the session of `member` has no pod although it wants one, whatever keeps it from being made.
fn is_without_pod(member: &Member, context: &Context, now: Timestamp) -> bool {
    let session = context.sessions.of_uid(&member.place, &member.uid);
    pod_of(member, context, now).is_none() && session.is_some_and(|session| session.wants_pod())
}

fn pod_of(Member { uid, place, .. }: &Member, context: &Context, now: Timestamp) -> Option<Arc<UploaderPod>> {
    context.pods.find(place.namespace(), &pod_name(place.name()), uid, now).filter(|pod| pod.session_uid == *uid)
}
