//! (pure) Who gets a new image next.

use std::{collections::HashMap, num::NonZeroUsize, time::Duration};

use jiff::Timestamp;

use crate::reconcile::pod_state::{Stage, UploaderPod};

/// A pod that has not started by then waits for its share or a node, which is not the image's fault.
const START_WITHIN: Duration = Duration::from_mins(5);

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
    /// Its pod has the new image and has not shown yet that it works.
    Settling,
    /// It runs the new image, or cannot for a reason of its own.
    Settled,
}

/// How far the session of `pod` is with the image `wanted`.
pub(super) fn state(pod: &UploaderPod, wanted: &str, idle: impl FnOnce() -> bool, now: Timestamp) -> State {
    if pod.image.as_deref() != Some(wanted) {
        return State::Outdated { idle: idle() };
    }
    let young = pod.created.is_some_and(|created| now < created + START_WITHIN);
    match pod.stage {
        Stage::Waiting(..) => State::Settling,
        Stage::Running { .. } if pod.ready => State::Settled,
        Stage::Running { .. } | Stage::Creating { .. } | Stage::Unscheduled(_) if young => State::Settling,
        _ => State::Settled,
    }
}

/// Whose turn it is now, so that no more than `most` are at it, those who have their turn already included.
pub(super) fn choose(members: &[Member], turns: &HashMap<String, Timestamp>, most: NonZeroUsize) -> Vec<Member> {
    let settling = members.iter().filter(|member| member.state == State::Settling && !turns.contains_key(&member.uid)).count();
    let free = most.get().saturating_sub(settling + turns.len());
    let mut waiting: Vec<(bool, &Member)> = members
        .iter()
        .filter_map(|member| match member.state {
            State::Outdated { idle } if !turns.contains_key(&member.uid) => Some((!idle, member)),
            _ => None,
        })
        .collect();
    waiting.sort_by_key(|(busy, member)| (*busy, &member.namespace, &member.session));
    waiting.into_iter().take(free).map(|(_, member)| member.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fixtures, reconcile::pod_state::Slot};

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

    fn chosen(states: &[State], turns: &[&str], most: usize) -> Vec<String> {
        let turns = turns.iter().map(|uid| ((*uid).to_owned(), Timestamp::UNIX_EPOCH)).collect();
        choose(&members(states), &turns, NonZeroUsize::new(most).unwrap()).into_iter().map(|member| member.uid).collect()
    }

    fn state_of(status: &str, image: &str, minutes: i64) -> State {
        let session = fixtures::session("");
        let mut pod = fixtures::pod(&session, status);
        pod.metadata.creation_timestamp = Some(serde_json::from_str(r#""2026-11-21T08:30:00Z""#).unwrap());
        let Slot::Ours(pod) = Slot::of(&pod, "truck-7", session.metadata.uid.as_deref().unwrap()) else { panic!("it is ours") };
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
        assert_eq!(chosen(&[IDLE], &["uid-7"], 1), [""; 0], "its pod is gone, the next one not there yet");
        assert_eq!(chosen(&[State::Settling, IDLE], &[], 2), ["uid-1"]);
        assert_eq!(chosen(&[State::Settled, IDLE], &[], 1), ["uid-1"]);
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
