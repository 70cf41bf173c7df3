//! (pure) How far a session is with a new image.
//!
//! Everything here is read from the pod and from the session's object, so that a new leader judges as the last one did.

use std::time::Duration;

use jiff::Timestamp;

use crate::decisions::{
    build::is_comparable,
    pod_state::{Stage, UploaderPod},
};

/// A session is well when it has been ready for this time; one that ends right after its start is ready for a moment, too.
const READY_FOR: Duration = Duration::from_secs(10);

/// The same for one whose uploader has ended in this pod, and has to show that it does so no more: the kubelet forgets the ends of
/// a container that has run for as long.
const READY_AFTER_END: Duration = Duration::from_mins(10);

/// Trouble that a session has after such a time is not blamed on the image.
const PROVEN_AFTER: Duration = Duration::from_mins(10);

/// A session that has not been ready for this time, and whose uploader does not run, is not about to recover: the kubelet's longest
/// pause before it starts a container again.
const DOWN_AFTER: Duration = Duration::from_mins(5);

/// How far a session is with the new image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
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
    /// It was well before its turn came, and has no pod now, although it wants one.
    WithoutPod,
    /// It was not well before it got the new image, or was changed since: whether it becomes well proves nothing.
    Settled {
        /// Whether its uploader has run for a while, and did not end.
        works: bool,
    },
}

impl State {
    /// Whether the session waits for the new image.
    pub(crate) fn is_outdated(self) -> bool {
        matches!(self, Self::Outdated { .. })
    }
}

/// How a session fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// Its uploader does not run, and it has not been ready for long.
    Down,
    /// It is not ready.
    Unwell {
        /// Whether its uploader runs nevertheless.
        runs: bool,
    },
    /// It is ready, and was not until a moment ago.
    Unproven,
    /// It is ready.
    Well,
    /// It has been ready for long; one on trial may be so no more.
    Proven,
}

impl Health {
    /// Whether it is ready at all.
    pub(crate) fn is_ready(self) -> bool {
        !matches!(self, Self::Down | Self::Unwell { .. })
    }

    /// Whether it is ready and was so for long enough.
    pub(crate) fn is_well(self) -> bool {
        matches!(self, Self::Well | Self::Proven)
    }

    /// How the session of `pod` fares, whose status has `told` this.
    fn of(pod: &UploaderPod, told: Told, now: Timestamp) -> Self {
        let Some(since) = told.ready_since.filter(|_| pod.ready && pod.runs()) else {
            let is_down = !pod.runs() && told.unready_since.is_some_and(|since| since + DOWN_AFTER <= now);
            return if is_down { Self::Down } else { Self::Unwell { runs: pod.runs() } };
        };
        if since + PROVEN_AFTER <= now {
            Self::Proven
        } else if since + needed(pod) <= now {
            Self::Well
        } else {
            Self::Unproven
        }
    }
}

/// What a session says that matters here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    /// Generation of its object.
    pub generation: i64,
    /// Whether it is known to have no file to upload.
    pub idle: bool,
    /// Since when its condition `Ready` is true, if it is, by the clock of whichever operator has found that.
    pub ready_since: Option<Timestamp>,
    /// Since when that condition is false, if it is.
    pub unready_since: Option<Timestamp>,
}

/// Whether `pod` is not as it would be made with the image `wanted`, although its session was not changed. What another version of the
/// operator has meant by the hash cannot be compared with what this one does.
pub(crate) fn is_outdated(pod: &UploaderPod, wanted: &str) -> bool {
    pod.image.as_deref().is_some_and(|image| image != wanted) || pod.spec_hash.as_deref().is_some_and(|hash| !is_comparable(hash))
}

/// Whether the session of `pod` has stopped being ready long after the pod was made. One whose uploader ends may have been ready for
/// a moment only.
fn has_worked(pod: &UploaderPod, told: Told) -> bool {
    let times = pod.created.zip(told.unready_since).filter(|_| pod.restarts == 0);
    times.is_some_and(|(created, unready_since)| created + PROVEN_AFTER <= unready_since)
}

/// How far the session of `pod`, which has `told` this, is with the image `wanted`. One that was changed since it was put on trial is
/// not the one that was well before.
pub(crate) fn state(pod: &UploaderPod, wanted: &str, told: Told, now: Timestamp) -> State {
    let health = Health::of(pod, told, now);
    if pod.terminating.is_some() {
        State::Leaving
    } else if is_outdated(pod, wanted) {
        State::Outdated { health, idle: told.idle }
    } else if pod.trial == Some(told.generation) {
        State::OnTrial(if has_worked(pod, told) { Health::Proven } else { health })
    } else {
        State::Settled { works: has_run(pod, now) }
    }
}

/// Whether the uploader of `pod` has run for long enough to be trusted not to end right after its start.
fn has_run(pod: &UploaderPod, now: Timestamp) -> bool {
    let Stage::Running { since: Some(since) } = pod.stage else { return false };
    since + needed(pod) <= now
}

/// For how long an uploader must be well, or run, before it is believed.
fn needed(pod: &UploaderPod) -> Duration {
    if pod.restarts == 0 { READY_FOR } else { READY_AFTER_END }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    const NEW: &str = "localhost/blobferry-uploader:dev";
    const OLD: &str = "localhost/blobferry-uploader:old";
    const SINCE: &str = "2026-11-21T08:10:00Z";
    const PULLS: &str = "{phase: Pending, containerStatuses: [{name: uploader, image: '', imageID: '', ready: false, restartCount: 0, \
                         state: {waiting: {reason: ImagePullBackOff}}}]}";
    const GENERATION: i64 = 1;
    const UNWELL: Health = Health::Unwell { runs: true };
    const STOPPED: Health = Health::Unwell { runs: false };

    fn pod(status: &str) -> UploaderPod {
        UploaderPod::read(&fixtures::pod(&fixtures::session(""), status))
    }

    fn running() -> UploaderPod {
        pod(&fixtures::running(SINCE))
    }

    fn on_trial(pod: UploaderPod) -> UploaderPod {
        UploaderPod { trial: Some(GENERATION), ..pod }
    }

    fn ago(seconds: u64) -> Timestamp {
        fixtures::now() - Duration::from_secs(seconds)
    }

    fn ready_for(seconds: Option<u64>) -> Told {
        Told { generation: GENERATION, idle: false, ready_since: seconds.map(ago), unready_since: None }
    }

    fn unready_for(seconds: u64) -> Told {
        Told { unready_since: Some(ago(seconds)), ..ready_for(None) }
    }

    /// The state at [`fixtures::now`] of a session that has been ready for so many seconds.
    fn state_of(pod: &UploaderPod, wanted: &str, seconds: Option<u64>) -> State {
        state(pod, wanted, ready_for(seconds), fixtures::now())
    }

    #[test]
    fn session_is_well_once_it_has_been_ready_for_a_while() {
        let health = |seconds| Health::of(&running(), ready_for(Some(seconds)), fixtures::now());
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
    fn session_that_stopped_being_ready_long_after_its_pod_was_made_has_proven_the_image() {
        let not_ready = on_trial(UploaderPod { ready: false, created: Some(ago(1200)), ..running() });
        let crashed = UploaderPod { restarts: 1, ..not_ready.clone() };
        for (pod, seconds, health) in [
            (&not_ready, 600, Health::Proven),
            (&not_ready, 601, UNWELL),
            (&crashed, 600, UNWELL),
            (&on_trial(UploaderPod { created: Some(ago(1200)), ..pod(PULLS) }), 1199, Health::Down),
        ] {
            assert_eq!(state(pod, NEW, unready_for(seconds), fixtures::now()), State::OnTrial(health), "{seconds}: {pod:?}");
        }
        assert_eq!(
            state(&not_ready, OLD, unready_for(600), fixtures::now()),
            State::Outdated { health: UNWELL, idle: false },
            "it is not well for all that"
        );
    }

    #[test]
    fn session_is_down_when_its_uploader_does_not_run_for_longer_than_the_kubelet_pauses() {
        for (pod, seconds, health) in
            [(pod(PULLS), 299, STOPPED), (pod(PULLS), 300, Health::Down), (UploaderPod { ready: false, ..running() }, 300, UNWELL)]
        {
            assert_eq!(Health::of(&pod, unready_for(seconds), fixtures::now()), health, "{seconds}: {pod:?}");
        }
    }

    #[test]
    fn session_that_was_changed_since_proves_nothing() {
        let changed = Told { generation: GENERATION + 1, ..ready_for(None) };
        assert_eq!(state(&on_trial(running()), NEW, changed, fixtures::now()), State::Settled { works: true });
    }

    #[test]
    fn session_that_was_not_well_before_shows_only_whether_its_uploader_runs() {
        let began = |seconds, restarts| {
            let since = Some(fixtures::now() - Duration::from_secs(seconds));
            UploaderPod { stage: Stage::Running { since }, restarts, ..running() }
        };
        let running = [(began(9, 0), false), (began(10, 0), true), (began(599, 1), false), (began(600, 1), true)];
        for (pod, works) in running.into_iter().chain([(pod(PULLS), false)]) {
            assert_eq!(state_of(&pod, NEW, None), State::Settled { works }, "{pod:?}");
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
}
