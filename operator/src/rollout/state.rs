//! (pure) How far a session is with a new image.
//!
//! Everything here is read from the pod and from the session's condition `Ready`, so that a new leader judges as the last one did.

use std::time::Duration;

use jiff::Timestamp;

use crate::reconcile::{build::is_comparable, pod_state::UploaderPod};

/// A session is well when it has been ready for this time; one that ends right after its start is ready for a moment, too.
const READY_FOR: Duration = Duration::from_secs(10);

/// The same for one whose uploader has ended in this pod, and has to show that it does so no more; also the time after which trouble is
/// not blamed on the image. The kubelet forgets the ends of a container that has run for as long.
const READY_FOR_LONG: Duration = Duration::from_mins(10);

/// How far a session is with the new image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It runs another image, or a pod that another version of the operator has made in another way.
    Outdated {
        /// How it fares with that.
        health: Health,
        /// Whether it has no file to upload.
        idle: bool,
    },
    /// Its pod is being deleted; the next one has the new image.
    Leaving,
    /// It was well before it got the new image, and fares with it like this.
    OnTrial(Health),
    /// It has the new image, which proves nothing.
    Settled,
}

impl State {
    /// Whether the session waits for the new image.
    pub(super) fn is_outdated(self) -> bool {
        matches!(self, Self::Outdated { .. })
    }
}

/// How a session fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// It is not ready.
    Unwell {
        /// Whether its uploader runs nevertheless.
        runs: bool,
    },
    /// It is ready, and was not until a moment ago.
    Unproven,
    /// It is ready.
    Well,
    /// It has been ready for long.
    Proven,
}

impl Health {
    /// Whether it is ready at all.
    pub(super) fn is_ready(self) -> bool {
        !matches!(self, Self::Unwell { .. })
    }

    /// Whether it is ready and was so for long enough.
    pub(super) fn is_well(self) -> bool {
        matches!(self, Self::Well | Self::Proven)
    }

    /// How the session of `pod` fares that is ready since `ready_since`, by the clock of whichever operator has found that.
    fn of(pod: &UploaderPod, ready_since: Option<Timestamp>, now: Timestamp) -> Self {
        let Some(since) = ready_since.filter(|_| pod.ready && pod.runs()) else { return Self::Unwell { runs: pod.runs() } };
        let needed = if pod.restarts == 0 { READY_FOR } else { READY_FOR_LONG };
        if since + READY_FOR_LONG <= now {
            Self::Proven
        } else if since + needed <= now {
            Self::Well
        } else {
            Self::Unproven
        }
    }
}

/// What the status of a session says that matters here.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    /// Whether it is known to have no file to upload.
    pub idle: bool,
    /// Since when its condition `Ready` is true, if it is.
    pub ready_since: Option<Timestamp>,
}

/// Whether `pod` is not as it would be made with the image `wanted`, although its session was not changed. What another version of the
/// operator has meant by the hash cannot be compared with what this one does.
pub(super) fn is_outdated(pod: &UploaderPod, wanted: &str) -> bool {
    pod.image.as_deref().is_some_and(|image| image != wanted) || pod.spec_hash.as_deref().is_some_and(|hash| !is_comparable(hash))
}

/// How far the session of `pod`, whose status has `told` this, is with the image `wanted`.
pub(super) fn state(pod: &UploaderPod, wanted: &str, told: Told, now: Timestamp) -> State {
    let health = Health::of(pod, told.ready_since, now);
    if pod.terminating.is_some() {
        State::Leaving
    } else if is_outdated(pod, wanted) {
        State::Outdated { health, idle: told.idle }
    } else if pod.is_on_trial {
        State::OnTrial(health)
    } else {
        State::Settled
    }
}

#[cfg(test)]
mod tests {
    use blobferry_crds::names;

    use super::*;
    use crate::fixtures;

    const NEW: &str = "localhost/blobferry-uploader:dev";
    const OLD: &str = "localhost/blobferry-uploader:old";
    const SINCE: &str = "2026-11-21T08:10:00Z";
    const PULLS: &str = "{phase: Pending, containerStatuses: [{name: uploader, image: '', imageID: '', ready: false, restartCount: 0, \
                         state: {waiting: {reason: ImagePullBackOff}}}]}";
    const UNWELL: Health = Health::Unwell { runs: true };
    const STOPPED: Health = Health::Unwell { runs: false };

    fn pod(status: &str) -> UploaderPod {
        UploaderPod::read(&fixtures::pod(&fixtures::session(""), status))
    }

    fn running() -> UploaderPod {
        pod(&fixtures::running(SINCE))
    }

    fn on_trial(pod: UploaderPod) -> UploaderPod {
        UploaderPod { is_on_trial: true, ..pod }
    }

    /// The state at [`fixtures::now`] of a session that has been ready for so many seconds.
    fn state_of(pod: &UploaderPod, wanted: &str, ready_for: Option<u64>) -> State {
        let ready_since = ready_for.map(|seconds| fixtures::now() - Duration::from_secs(seconds));
        state(pod, wanted, Told { idle: false, ready_since }, fixtures::now())
    }

    #[test]
    fn session_is_well_once_it_has_been_ready_for_a_while() {
        let health = |seconds| Health::of(&running(), Some(fixtures::now() - Duration::from_secs(seconds)), fixtures::now());
        let expected = [(9, Health::Unproven), (10, Health::Well), (599, Health::Well), (600, Health::Proven)];
        assert_eq!(expected.map(|(seconds, _)| (seconds, health(seconds))), expected);
    }

    #[test]
    fn session_whose_uploader_ended_is_well_after_a_longer_while() {
        let crashed = UploaderPod { restarts: 1, ..running() };
        assert_eq!(state_of(&on_trial(crashed.clone()), NEW, Some(599)), State::OnTrial(Health::Unproven));
        assert_eq!(state_of(&on_trial(crashed), NEW, Some(600)), State::OnTrial(Health::Proven));
    }

    #[test]
    fn session_is_not_well_without_the_word_of_its_uploader_and_of_its_kubelet() {
        let not_ready = UploaderPod { ready: false, ..running() };
        for (pod, ready_for, health) in
            [(running(), None, UNWELL), (not_ready, Some(900), UNWELL), (pod(PULLS), Some(900), STOPPED)]
        {
            assert_eq!(state_of(&on_trial(pod.clone()), NEW, ready_for), State::OnTrial(health), "{pod:?}");
        }
    }

    #[test]
    fn image_that_does_not_work_keeps_its_session_on_trial_for_ever() {
        for status in [PULLS, "{phase: Pending}", "{conditions: [{type: PodScheduled, status: 'True'}]}"] {
            let made_long_ago = UploaderPod { created: Some(Timestamp::UNIX_EPOCH), ..on_trial(pod(status)) };
            assert_eq!(state_of(&made_long_ago, NEW, None), State::OnTrial(STOPPED), "{status}");
        }
    }

    #[test]
    fn session_that_was_not_well_before_proves_nothing() {
        for pod in [pod(PULLS), running()] {
            assert_eq!(state_of(&pod, NEW, None), State::Settled);
        }
    }

    #[test]
    fn another_image_or_a_hash_of_another_version_is_outdated() {
        let other_version = UploaderPod { spec_hash: Some("v0-2f47f5315289e6a04e8c2b70ef653fd4".into()), ..running() };
        let outdated = |health| State::Outdated { health, idle: false };
        assert_eq!(state_of(&running(), OLD, Some(900)), outdated(Health::Proven));
        assert_eq!(state_of(&other_version, NEW, None), outdated(UNWELL));
        assert_eq!(state_of(&on_trial(other_version.clone()), NEW, Some(900)), outdated(Health::Proven), "that trial is over");
        assert!(is_outdated(&UploaderPod { image: None, ..other_version }, NEW), "its session names the image");
        let without_hash = UploaderPod { spec_hash: None, image: None, ..running() };
        assert!(!is_outdated(&without_hash, NEW), "it is another session's for all that is known");
    }

    #[test]
    fn pod_that_is_deleted_leaves_whatever_image_it_has() {
        let leaving = UploaderPod { terminating: Some(fixtures::now()), ..on_trial(running()) };
        assert_eq!([NEW, OLD].map(|wanted| state_of(&leaving, wanted, Some(900))), [State::Leaving; 2]);
    }

    #[test]
    fn pod_on_trial_says_so() {
        let mut pod = fixtures::pod(&fixtures::session(""), &fixtures::running(SINCE));
        assert!(!UploaderPod::read(&pod).is_on_trial);
        pod.metadata.annotations.as_mut().unwrap().insert(names::TRIAL_ANNOTATION.into(), "true".into());
        assert!(UploaderPod::read(&pod).is_on_trial);
    }
}
