//! (pure) Who gets a new image next.

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroUsize,
    time::Duration,
};

use jiff::Timestamp;

use crate::reconcile::pod_state::{Stage, UploaderPod};

/// A pod that has not started by then waits for its share or a node, which is not the image's fault.
const START_WITHIN: Duration = Duration::from_mins(5);

/// A turn that led to no pod after this time goes to somebody else.
const TURN: Duration = Duration::from_mins(5);

/// When whose turn began, by UID of the session; those that ended in vain are remembered.
#[derive(Debug, Default)]
pub(super) struct Turns(HashMap<String, Timestamp>);

impl Turns {
    /// Whether it is the turn of session `uid`.
    pub(super) fn has(&self, uid: &str, now: Timestamp) -> bool {
        self.0.get(uid).is_some_and(|since| is_current(*since, now))
    }

    /// Ends the turns of those of `members` that have the new image, and of sessions that are not among `sessions`.
    pub(super) fn end(&mut self, members: &[Member], sessions: &HashSet<String>) {
        let replaced = |uid: &str| members.iter().any(|member| member.uid == uid && !member.state.has_another_image());
        self.0.retain(|uid, _| sessions.contains(uid) && !replaced(uid));
    }

    /// Gives turns at `now`, so that no more than `most` are at it; whoever had one in vain waits for all others.
    pub(super) fn give(&mut self, members: &[Member], most: NonZeroUsize, now: Timestamp) -> Vec<Member> {
        let settling = members.iter().filter(|member| member.state == State::Settling && !self.has(&member.uid, now)).count();
        let current = self.0.values().filter(|since| is_current(**since, now)).count();
        let free = most.get().saturating_sub(settling + current);
        let mut waiting: Vec<(bool, &Member)> = members
            .iter()
            .filter_map(|member| match member.state {
                State::Outdated { idle } if !self.has(&member.uid, now) => Some((!idle, member)),
                _ => None,
            })
            .collect();
        waiting.sort_by_key(|(busy, member)| (self.0.get(&member.uid), *busy, &member.namespace, &member.session));
        let chosen: Vec<Member> = waiting.into_iter().take(free).map(|(_, member)| member.clone()).collect();
        self.0.extend(chosen.iter().map(|member| (member.uid.clone(), now)));
        chosen
    }
}

fn is_current(since: Timestamp, now: Timestamp) -> bool {
    since + TURN > now
}

/// A session whose uploader has the installation's image, or had.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Member {
    /// UID of the session.
    pub uid: String,
    /// Namespace of the session.
    pub namespace: String,
    /// Name of the session.
    pub session: String,
    /// How far it is.
    pub state: State,
}

/// How far a session is with the new image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It runs another image.
    Outdated {
        /// Whether it has no file to upload.
        idle: bool,
    },
    /// Its pod has another image and is being deleted: the next one has the new image.
    Leaving,
    /// Its pod has the new image and has not shown yet that it works.
    Settling,
    /// It runs the new image, or cannot for a reason of its own.
    Settled,
}

impl State {
    /// Whether the session's pod has another image than the one that is wanted.
    pub(super) fn has_another_image(self) -> bool {
        matches!(self, Self::Outdated { .. } | Self::Leaving)
    }
}

/// How far the session of `pod` is with the image `wanted`.
pub(super) fn state(pod: &UploaderPod, wanted: &str, idle: impl FnOnce() -> bool, now: Timestamp) -> State {
    if pod.image.as_deref() != Some(wanted) {
        return if pod.terminating.is_some() { State::Leaving } else { State::Outdated { idle: idle() } };
    }
    let young = pod.created.is_some_and(|created| now < created + START_WITHIN);
    match pod.stage {
        Stage::Waiting(..) => State::Settling,
        Stage::Running { .. } if pod.ready => State::Settled,
        Stage::Running { .. } | Stage::Creating { .. } | Stage::Unscheduled(_) if young => State::Settling,
        _ => State::Settled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixtures,
        reconcile::pod_state::{Slot, UploaderPod},
    };

    const NEW: &str = "localhost/blobferry-uploader:dev";
    const BUSY: State = State::Outdated { idle: false };
    const IDLE: State = State::Outdated { idle: true };

    fn members(states: &[State]) -> Vec<Member> {
        let member = |(number, state): (usize, &State)| Member {
            uid: format!("uid-{number}"),
            namespace: "cameras".into(),
            session: format!("truck-{number}"),
            state: *state,
        };
        states.iter().enumerate().map(member).collect()
    }

    fn given(turns: &mut Turns, states: &[State], most: usize, minute: i64) -> Vec<String> {
        let (members, now) = (members(states), Timestamp::from_second(60 * minute).unwrap());
        let sessions = (0..9).map(|number| format!("uid-{number}")).collect();
        turns.end(&members, &sessions);
        turns.give(&members, NonZeroUsize::new(most).unwrap(), now).into_iter().map(|member| member.uid).collect()
    }

    fn chosen(states: &[State], turns: &[&str], most: usize) -> Vec<String> {
        let mut turns = Turns(turns.iter().map(|uid| ((*uid).to_owned(), Timestamp::UNIX_EPOCH)).collect());
        given(&mut turns, states, most, 0)
    }

    fn state_of(status: &str, image: &str, minutes: i64) -> State {
        let session = fixtures::session("");
        let mut pod = fixtures::pod(&session, status);
        pod.metadata.creation_timestamp = Some(serde_json::from_str(r#""2026-11-21T08:30:00Z""#).unwrap());
        let Slot::Ours(pod) = Slot::of(&UploaderPod::read(&pod), "truck-7", session.metadata.uid.as_deref().unwrap()) else {
            panic!("it is ours")
        };
        state(&pod, image, || false, fixtures::now() + Duration::from_mins(minutes.unsigned_abs()))
    }

    #[test]
    fn idle_sessions_go_first_and_no_more_than_allowed() {
        assert_eq!(chosen(&[BUSY, IDLE, IDLE], &[], 1), ["uid-1"]);
        assert_eq!(chosen(&[BUSY, IDLE, IDLE], &[], 2), ["uid-1", "uid-2"]);
        assert_eq!(chosen(&[BUSY, BUSY], &[], 9), ["uid-0", "uid-1"]);
    }

    #[test]
    fn whoever_is_at_it_keeps_others_waiting() {
        assert_eq!(chosen(&[State::Settling, IDLE], &[], 1), [""; 0]);
        assert_eq!(chosen(&[BUSY, IDLE], &["uid-0"], 1), [""; 0], "its pod still has the old image");
        assert_eq!(chosen(&[State::Leaving, IDLE], &["uid-0"], 1), [""; 0]);
        assert_eq!(chosen(&[IDLE], &["uid-7"], 1), [""; 0], "its pod is gone, the next one not there yet");
        assert_eq!(chosen(&[IDLE], &["uid-10"], 1), ["uid-0"], "that session is gone");
        assert_eq!(chosen(&[State::Settling, IDLE], &[], 2), ["uid-1"]);
        assert_eq!(chosen(&[State::Settled, IDLE], &[], 1), ["uid-1"]);
    }

    #[test]
    fn turn_in_vain_goes_to_the_others_first() {
        let mut turns = Turns::default();
        assert_eq!(given(&mut turns, &[IDLE, IDLE, BUSY], 1, 0), ["uid-0"]);
        assert_eq!(given(&mut turns, &[IDLE, IDLE, BUSY], 1, 4), [""; 0]);
        assert_eq!(given(&mut turns, &[IDLE, IDLE, BUSY], 1, 5), ["uid-1"]);
        assert_eq!(given(&mut turns, &[IDLE, State::Settled, BUSY], 1, 6), ["uid-2"], "though uid-0 is idle");
        assert_eq!(given(&mut turns, &[IDLE, State::Settled, State::Settled], 1, 7), ["uid-0"]);
    }

    #[test]
    fn pod_that_does_not_end_holds_the_others_for_a_turn_only() {
        let mut turns = Turns::default();
        assert_eq!(given(&mut turns, &[IDLE, IDLE], 1, 0), ["uid-0"]);
        assert_eq!(given(&mut turns, &[State::Leaving, IDLE], 1, 1), [""; 0]);
        assert_eq!(given(&mut turns, &[State::Leaving, IDLE], 1, 5), ["uid-1"]);
        assert_eq!(given(&mut turns, &[State::Leaving, State::Settled], 1, 6), [""; 0]);
    }

    #[test]
    fn image_that_does_not_start_stops_the_rollout_for_ever() {
        let waiting = "{phase: Pending, containerStatuses: [{name: uploader, image: '', imageID: '', ready: false, restartCount: 0, \
                       state: {waiting: {reason: ImagePullBackOff}}}]}";
        assert_eq!(state_of(waiting, NEW, 600), State::Settling);
    }

    #[test]
    fn pod_that_waits_for_its_share_or_a_node_holds_the_rollout_for_a_while_only() {
        for status in ["{phase: Pending}", "{conditions: [{type: PodScheduled, status: 'True'}]}"] {
            assert_eq!((state_of(status, NEW, 4), state_of(status, NEW, 5)), (State::Settling, State::Settled), "{status}");
        }
    }

    #[test]
    fn ready_uploader_is_done_and_another_image_is_outdated() {
        let running = fixtures::running("2026-11-21T08:30:00Z");
        assert_eq!(state_of(&running, NEW, 0), State::Settled);
        assert_eq!(state_of(&running, "other", 0), BUSY);
    }
}
