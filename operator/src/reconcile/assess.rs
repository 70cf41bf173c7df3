//! (pure) What is true of a session after a pass, and when to look again.

use std::time::Duration;

use blobferry_crds::{
    Check, Phase, UploadSession,
    conditions::{HANGING, Verdict},
};
use jiff::Timestamp;

use super::{
    Observed, Refusal,
    apply::{NAME_TAKEN, Outcome},
    area::Rival,
    completion::Completed,
    diagnose::{Cause, LOOK_AFTER, diagnose, disrupted},
    ending::{Ending, Mode},
    hearing::{Hearing, active_patience, hearing},
    plan::{NodeHealth, Plan, STUCK_AFTER, StopReason, Wait, is_overdue},
    pod_state::{Slot, Stage, UploaderPod},
    validate::ValidSession,
};
use crate::rollout::Upgrade;

/// Everything that one pass knows.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The session as it was read.
    pub session: &'a UploadSession,
    /// What it means, or why it means nothing.
    pub valid: &'a Result<ValidSession, Refusal>,
    /// What was there.
    pub observed: &'a Observed,
    /// What was to be done.
    pub plan: &'a Plan,
    /// What came of it.
    pub outcome: &'a Outcome,
    /// When.
    pub now: Timestamp,
}

/// What is true of a session.
#[derive(Clone, Debug, PartialEq)]
pub struct Assessment {
    /// Summary for people.
    pub phase: Phase,
    /// Whether the session does what it should.
    pub ready: Verdict,
    /// What keeps it from that.
    pub trouble: Trouble,
    /// Reason of the conditions.
    pub reason: String,
    /// Message of the conditions.
    pub message: String,
    /// Whether the share is to blame.
    pub source: bool,
    /// Whether an uploader reports.
    pub hearing: Hearing,
    /// When to look again although nothing happens.
    pub next_look: Option<Duration>,
}

/// What keeps a session from doing what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    None,
    /// Something that the operator does, or that heals itself.
    Passing,
    /// Something that a person has to change.
    Lasting,
}

const RIVAL_LOOK: Duration = Duration::from_secs(10);
const STUCK_LOOK: Duration = Duration::from_mins(1);
/// The longest time without a look, whatever may happen unseen.
const FALLBACK_LOOK: Duration = Duration::from_mins(30);

/// What is true of the session of `case`.
pub fn assess(case: &Case<'_>) -> Assessment {
    let suspended = case.session.spec.suspend;
    let mut assessment = match (case.outcome, case.valid) {
        (Outcome::Failed(failure, wait), _) => {
            troubled(lasting_if(failure.reason == NAME_TAKEN), failure.reason, &failure.message).after(*wait)
        }
        (_, Err(refusal)) if case.observed.completed.is_none() => troubled(Trouble::Lasting, refusal.reason, &refusal.message),
        _ => by_plan(case),
    };
    if suspended && assessment.trouble != Trouble::Lasting && case.observed.completed.is_none() {
        assessment.phase = Phase::Suspended;
    }
    assessment.next_look = Some(assessment.next_look.map_or(FALLBACK_LOOK, |look| look.min(FALLBACK_LOOK)));
    match &case.observed.ending {
        Some(ending) => assessment.of_ending(ending, Mode::of(case.session), case.now),
        None => assessment,
    }
}

fn by_plan(case: &Case<'_>) -> Assessment {
    let (observed, suspended) = (case.observed, case.session.spec.suspend);
    if let Some(completed) = &observed.completed {
        return finished(completed, case);
    }
    match (case.plan, &observed.slot) {
        (Plan::Rest, _) => Assessment {
            phase: Phase::Suspended,
            ready: Verdict::True,
            trouble: Trouble::None,
            ..troubled(Trouble::Passing, "Suspended", "No uploader runs because spec.suspend is true; files stay where they are.")
        },
        (Plan::Keep, Slot::Ours(pod)) => kept(case, pod),
        (Plan::Stop(StopReason::Suspended), _) => {
            passing("Suspending", "The uploader is being stopped because spec.suspend is true.")
        }
        (Plan::Stop(StopReason::Changed), _) => {
            passing("Replacing", "The session was changed: its pod is being replaced by one with the new settings.")
        }
        (Plan::Stop(StopReason::Ending), _) => {
            let (reason, done) = fate(Mode::of(case.session));
            let message = format!("The session is deleted: its pod is replaced by one by which claimed files are {done}.");
            passing(reason, &message)
        }
        (Plan::Stop(StopReason::Again), _) => {
            passing("Restarting", "The session was completed and is started again because of its new runToken.")
        }
        (Plan::Stop(StopReason::Located), _) => passing(
            "Replacing",
            "The session's claim was bound just now: its pod is made anew if nobody else works in those folders.",
        ),
        (Plan::Stop(StopReason::Outdated), _) => {
            passing("Upgrading", "The installation was upgraded: the uploader's pod is being replaced by one with its new image.")
        }
        (Plan::Stop(_), Slot::Ours(pod)) => caused(&diagnose(pod, observed)),
        (Plan::ForceDelete, _) => {
            let next = if suspended { "." } else { ", a new one follows." };
            passing("NodeLost", &format!("The pod's node is gone or does not answer: the pod is removed{next}"))
        }
        (Plan::Wait(wait), slot) => waiting(case, wait, slot),
        _ => passing("Starting", "The uploader's pod was created."),
    }
}

fn finished(completed: &Completed, case: &Case<'_>) -> Assessment {
    // Before it is written down, its time begins now.
    let ttl = case.session.spec.ttl_seconds_after_finished.filter(|_| completed.since.is_none());
    let expires = completed.expires.or_else(|| ttl.map(|seconds| case.now + Duration::from_secs(seconds.into())));
    Assessment {
        phase: Phase::Completed,
        ready: Verdict::True,
        trouble: Trouble::None,
        ..passing(&completed.reason, &completed.message)
    }
    .maybe_after(expires.map(|expires| until(expires, case.now)))
}

fn waiting(case: &Case<'_>, wait: &Wait, slot: &Slot) -> Assessment {
    let pause = case.observed.creations.wait(case.now);
    match (wait, slot) {
        (Wait::Terminating, Slot::Ours(pod)) if case.observed.node == Some(NodeHealth::Lost) => Assessment {
            ready: Verdict::Unknown,
            ..passing("NodeNotReady", &cannot_end(pod, case.session.spec.suspend)).after(until_late(pod, case.now))
        },
        (Wait::Terminating, Slot::Ours(pod)) => {
            let disruption = pod.disruption.filter(|_| !case.session.spec.suspend);
            disruption
                .map_or_else(|| passing("Stopping", &format!("The pod {} is ending.", pod.name)), |it| caused(&disrupted(it, pod)))
                .after(until_late(pod, case.now))
        }
        (Wait::Stuck, Slot::Ours(pod)) => {
            let node = pod.node.as_deref().unwrap_or_default();
            let message = format!(
                "The pod {} does not end although its node {node} is well: look at that node (a mount that hangs?).",
                pod.name
            );
            passing("PodStuck", &message).after(STUCK_LOOK)
        }
        (Wait::Held, Slot::Ours(pod)) => {
            let finalizer = pod.held_by.as_deref().unwrap_or_default();
            let message = format!(
                "The pod {} has ended, and its finalizer {finalizer} holds its object: whoever set that has to take it away. Everything \
                 goes on by itself then.",
                pod.name
            );
            passing("PodStuck", &message).after(STUCK_LOOK)
        }
        (Wait::Backoff, Slot::Ours(pod)) => caused(&diagnose(pod, case.observed)).after(pause),
        (Wait::Backoff, _) => match &case.observed.creations.failure {
            Some(failure) => troubled(lasting_if(failure.reason == NAME_TAKEN), failure.reason, &failure.message).after(pause),
            None => passing("Restarting", "The uploader's pod is gone; a new one follows.").after(pause),
        },
        (Wait::Rival(rival), _) => in_use(rival, case.now),
        (Wait::PreviousPod, Slot::Previous(pod)) if pod.terminating.is_some_and(|due| is_overdue(due, case.now)) => {
            let node = pod.node.as_deref().unwrap_or_default();
            let message = format!(
                "The pod {} of an earlier session of this name does not end: look at its node {node} (a mount that hangs?). From a node \
                 that is lost it is removed within minutes.",
                pod.name
            );
            passing("PodStuck", &message).after(RIVAL_LOOK)
        }
        (Wait::ForeignPod, _) => {
            let message = "A pod with the name of the uploader's exists and was not made by Blobferry: delete or rename it.";
            troubled(Trouble::Lasting, NAME_TAKEN, message).after(RIVAL_LOOK)
        }
        _ => passing("PreviousPodEnding", "The pod of an earlier session of this name is being removed.").after(RIVAL_LOOK),
    }
}

fn in_use(rival: &Rival, now: Timestamp) -> Assessment {
    let who = rival.name.as_ref().map_or_else(|| "another session".to_owned(), |name| format!("the session {name}"));
    let what_to_do = if rival.gone_by.is_some_and(|due| is_overdue(due, now)) {
        ", whose pod does not end: look at that pod's node (a mount that hangs?). From a node that is lost it is removed within minutes."
    } else {
        ": delete or suspend one of the two, or choose another sessionName."
    };
    let message = format!("The folders of this session are in use by {who}{what_to_do} This one starts by itself then.");
    passing("SessionNameInUse", &message).after(RIVAL_LOOK)
}

fn kept(case: &Case<'_>, pod: &UploaderPod) -> Assessment {
    let observed = case.observed;
    let unheard = || caused(&diagnose(pod, observed));
    let hearing = hearing(pod, observed, case.now);
    let mut assessment = match hearing {
        Hearing::Absent => unheard().maybe_after(next_events(pod, observed, case.now)),
        Hearing::NotYet => unheard().after(Duration::from_secs(5)),
        Hearing::Heard | Hearing::Silent if observed.node == Some(NodeHealth::Lost) => {
            Assessment { ready: Verdict::Unknown, ..passing("NodeNotReady", &node_not_ready(pod)).after(STUCK_LOOK) }
        }
        Hearing::Silent => {
            Assessment { ready: Verdict::Unknown, ..passing("UploaderSilent", silent(case.session)).after(STUCK_LOOK) }
        }
        Hearing::Heard => heard(case, pod).after(until_silent(case)),
    };
    assessment.hearing = hearing;
    if hearing != Hearing::Absent && assessment.trouble != Trouble::Lasting {
        assessment.phase = Phase::Running;
    }
    assessment
}

/// The kubelet stops an uploader whose share hangs, and its process cannot end while the kernel closes the files that it had open
/// (seen on Linux 6.1, in `nfs4_do_close` of an exiting thread).
fn silent(session: &UploadSession) -> &'static str {
    if hanging(session).is_some() {
        "The uploader has sent no report since calls on the share do not end. It may have been stopped meanwhile and cannot end before the \
         file server answers; everything goes on by itself then. If the file server is well, look at the uploader's log."
    } else {
        "The uploader runs but has sent no report for too long: look at its log."
    }
}

fn node_not_ready(pod: &UploaderPod) -> String {
    let node = pod.node.as_deref().unwrap_or_default();
    format!(
        "The node {node} does not answer: look at it. If it stays away, Kubernetes gives the pod up after some minutes, and a new one \
         starts on another node."
    )
}

fn cannot_end(pod: &UploaderPod, is_last: bool) -> String {
    let node = pod.node.as_deref().unwrap_or_default();
    let removed = pod.terminating.map(|gone| (gone + STUCK_AFTER).strftime("%H:%M:%SZ").to_string()).unwrap_or_default();
    let next = if is_last { "" } else { ", and a new one starts on another node" };
    format!(
        "The node {node} does not answer, and the pod {} cannot end there: look at the node. If it stays away, the pod is removed \
         without it after {removed}{next}.",
        pod.name
    )
}

fn heard(case: &Case<'_>, pod: &UploaderPod) -> Assessment {
    match (failed_check(case.session), &case.observed.upgrade) {
        (Some(check), _) => passing(&check.reason, &check.message),
        _ if !pod.ready => passing("UploaderNotReady", "The uploader runs and is not ready yet."),
        (_, Upgrade::Pending { behind }) => well("UpgradePending", &upgrade_pending(behind.as_deref())),
        _ => well("Running", "The uploader ferries files."),
    }
}

fn upgrade_pending(behind: Option<&str>) -> String {
    let text = "The uploader ferries files with an earlier image; its pod gets the installation's new image when its turn comes, or when it \
                is restarted.";
    match behind {
        Some(session) => format!(
            "{text} The session {session} holds up the others: it was well before it got the new image and is not well with it. See what \
             its own condition says; while it is suspended it holds up nobody."
        ),
        None => text.to_owned(),
    }
}

/// What the uploader found of one of the two ends.
pub fn check<'a>(session: &'a UploadSession, type_: &str) -> Option<&'a Check> {
    session.status.as_ref()?.progress.as_ref()?.checks.iter().find(|check| check.type_ == type_)
}

/// The last report of a share that hangs. It stands until somebody has looked again.
pub fn hanging(session: &UploadSession) -> Option<&Check> {
    check(session, "source").filter(|check| !check.ok && check.reason == HANGING)
}

fn failed_check(session: &UploadSession) -> Option<&Check> {
    ["source", "destination"].iter().find_map(|type_| check(session, type_).filter(|check| !check.ok))
}

fn next_events(pod: &UploaderPod, observed: &Observed, now: Timestamp) -> Option<Duration> {
    let Stage::Creating { since } = pod.stage else { return None };
    let due = observed.look.as_ref().map_or_else(|| since.unwrap_or(now) + LOOK_AFTER, |look| look.due);
    Some(until(due, now))
}

/// Time until the uploader would be silent. One that has files may begin to work on them at any time, of which nothing wakes anybody.
fn until_silent(case: &Case<'_>) -> Duration {
    let silent = case.observed.last_report.map_or(case.now, |report| report.seen) + case.observed.patience;
    let progress = case.session.status.as_ref().and_then(|status| status.progress.as_ref());
    let has_files = progress.is_some_and(|progress| !progress.caught_up);
    until(if has_files { silent.min(case.now + active_patience(case.session)) } else { silent }, case.now)
}

/// The node of a pod is looked at right after the pod should have been gone, and again when it may be removed without its node's word.
fn until_late(pod: &UploaderPod, now: Timestamp) -> Duration {
    let gone = pod.terminating.unwrap_or(now);
    let looks = [gone, gone + STUCK_AFTER];
    looks.into_iter().find(|look| *look > now).map_or(STUCK_LOOK, |look| until(look, now))
}

/// Time until `due`, and a second so that it has passed by then.
fn until(due: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(due.duration_since(now)).unwrap_or_default() + Duration::from_secs(1)
}

fn well(reason: &str, message: &str) -> Assessment {
    Assessment { ready: Verdict::True, trouble: Trouble::None, ..passing(reason, message) }
}

fn lasting_if(lasting: bool) -> Trouble {
    if lasting { Trouble::Lasting } else { Trouble::Passing }
}

fn passing(reason: &str, message: &str) -> Assessment {
    troubled(Trouble::Passing, reason, message)
}

fn caused(cause: &Cause) -> Assessment {
    Assessment { source: cause.source, ..troubled(lasting_if(cause.is_final), &cause.reason, &cause.message) }
}

fn troubled(trouble: Trouble, reason: &str, message: &str) -> Assessment {
    Assessment {
        phase: if trouble == Trouble::Lasting { Phase::Failed } else { Phase::Pending },
        ready: Verdict::False,
        trouble,
        reason: reason.to_owned(),
        message: message.to_owned(),
        source: false,
        hearing: Hearing::Absent,
        next_look: None,
    }
}

/// What becomes of claimed files in a mode.
fn fate(mode: Mode) -> (&'static str, &'static str) {
    match mode {
        Mode::Release => ("Releasing", "given back"),
        _ => ("Draining", "uploaded"),
    }
}

impl Assessment {
    /// A session that is deleted is never ready: what its uploader does well is to end it.
    fn of_ending(self, ending: &Ending, mode: Mode, now: Timestamp) -> Self {
        let due = until(ending.next_change(), now);
        let next_look = self.next_look.map(|look| look.min(due));
        let phase = if self.trouble == Trouble::Lasting { Phase::Failed } else { Phase::Draining };
        let (reason, done) = fate(mode);
        let deadline = ending.deadline.strftime("%Y-%m-%d %H:%M:%S");
        if self.ready != Verdict::True {
            let message = format!(
                "{} If its claimed files cannot be {done} until {deadline} UTC, they stay on the share and the session goes; at once if \
                 spec.deletionPolicy is set to Stop.",
                self.message
            );
            return Self { phase, message, next_look, ..self };
        }
        let message = format!("The session is deleted: claimed files are {done} first, until {deadline} UTC at the latest.");
        Self { phase, next_look, hearing: self.hearing, ready: Verdict::False, ..passing(reason, &message) }
    }

    fn after(self, wait: Duration) -> Self {
        self.maybe_after(Some(wait))
    }

    fn maybe_after(self, wait: Option<Duration>) -> Self {
        Self { next_look: wait, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixtures::{self, ALL_WELL},
        reconcile::{plan::plan, validate::validate},
    };

    const STARTED: &str = "2026-11-21T08:10:00Z";

    fn assessed(session: &UploadSession, pod_status: &str, now: &str) -> Assessment {
        assessed_as(session, pod_status, now, |_| ())
    }

    fn assessed_as(session: &UploadSession, pod_status: &str, now: &str, change: impl FnOnce(&mut Observed)) -> Assessment {
        let mut observed = fixtures::observed(session, Some(&fixtures::pod(&fixtures::session(""), pod_status)));
        change(&mut observed);
        let (valid, now) = (validate(session, &fixtures::settings()), now.parse().unwrap());
        let plan = plan(&valid, &observed, now);
        assess(&Case { session, valid: &valid, observed: &observed, plan: &plan, outcome: &Outcome::Nothing, now })
    }

    fn reporting(time: &str, progress: &str) -> UploadSession {
        let mut session = fixtures::session("");
        fixtures::report(&mut session, time, progress);
        session
    }

    fn at(session: &UploadSession, now: &str) -> (Verdict, String, Phase) {
        let assessment = assessed(session, &fixtures::running(STARTED), now);
        (assessment.ready, assessment.reason, assessment.phase)
    }

    #[test]
    fn uploader_that_reports_well_is_ready() {
        let session = reporting("2026-11-21T08:29:00Z", ALL_WELL);
        assert_eq!(at(&session, "2026-11-21T08:30:00Z"), (Verdict::True, "Running".into(), Phase::Running));
    }

    #[test]
    fn report_of_an_earlier_uploader_does_not_count() {
        let session = reporting("2026-11-21T08:09:59Z", ALL_WELL);
        assert_eq!(at(&session, "2026-11-21T08:10:05Z"), (Verdict::False, "Starting".into(), Phase::Running));
        assert_eq!(at(&session, "2026-11-21T08:12:01Z"), (Verdict::Unknown, "UploaderSilent".into(), Phase::Running));
    }

    #[test]
    fn node_whose_clock_is_behind_makes_no_uploader_silent_in_its_first_minutes() {
        let session = fixtures::session("");
        let started_by_the_node = fixtures::running("2026-11-21T08:17:00Z");
        let seen_now = |observed: &mut Observed| observed.run.as_mut().unwrap().since = fixtures::now();
        let assessment = assessed_as(&session, &started_by_the_node, "2026-11-21T08:30:05Z", seen_now);
        assert_eq!((assessment.ready, assessment.reason.as_str()), (Verdict::False, "Starting"));
    }

    #[test]
    fn report_from_before_a_restart_that_was_seen_does_not_count() {
        let session = reporting("2026-11-21T08:29:00Z", ALL_WELL);
        let restarted = |at: &'static str| {
            move |observed: &mut Observed| {
                let run = observed.run.as_mut().unwrap();
                (run.follows, run.since) = (true, at.parse().unwrap());
            }
        };
        let reason = |at| assessed_as(&session, &fixtures::running(STARTED), "2026-11-21T08:29:30Z", restarted(at)).reason;
        assert_ne!(reason("2026-11-21T08:29:10Z"), "Running");
        assert_eq!(reason("2026-11-21T08:28:50Z"), "Running");
    }

    #[test]
    fn session_with_an_earlier_image_is_ready_and_says_that_an_upgrade_waits() {
        let session = reporting("2026-11-21T08:29:00Z", ALL_WELL);
        for behind in [None, Some("truck-8".to_owned())] {
            let is_named = behind.is_some();
            let pending = |observed: &mut Observed| observed.upgrade = Upgrade::Pending { behind };
            let assessment = assessed_as(&session, &fixtures::running(STARTED), "2026-11-21T08:30:00Z", pending);
            assert_eq!(
                (assessment.ready, assessment.reason.as_str(), assessment.trouble),
                (Verdict::True, "UpgradePending", Trouble::None)
            );
            assert_eq!(assessment.message.contains("truck-8 holds up the others"), is_named, "{}", assessment.message);
        }
    }

    #[test]
    fn idle_uploader_is_silent_after_eleven_minutes_and_an_active_one_after_three_intervals_and_thirty_seconds() {
        let idle = reporting("2026-11-21T08:20:00Z", ALL_WELL);
        assert_eq!(at(&idle, "2026-11-21T08:31:00Z").1, "Running");
        assert_eq!(at(&idle, "2026-11-21T08:31:01Z").1, "UploaderSilent");
        let active = reporting("2026-11-21T08:20:00Z", &format!("{ALL_WELL}\nfilesActive: 1"));
        assert_eq!(at(&active, "2026-11-21T08:20:45Z").1, "Running");
        assert_eq!(at(&active, "2026-11-21T08:20:46Z").1, "UploaderSilent");
    }

    #[test]
    fn next_look_comes_when_the_uploader_would_be_silent() {
        let session = reporting("2026-11-21T08:20:00Z", ALL_WELL);
        let assessment = assessed(&session, &fixtures::running(STARTED), "2026-11-21T08:30:00Z");
        assert_eq!(assessment.next_look, Some(Duration::from_secs(61)));
    }

    #[test]
    fn uploader_that_has_files_is_looked_at_soon_because_it_may_begin_to_work_on_them() {
        let waits = ALL_WELL.replace("caughtUp: true", "caughtUp: false");
        let next_look = |progress: &str, now| {
            let session = reporting("2026-11-21T08:20:00Z", progress);
            assessed(&session, &fixtures::running(STARTED), now).next_look
        };
        let (soon, works) = (Some(Duration::from_secs(46)), format!("{waits}\nfilesActive: 1"));
        assert_eq!(next_look(&waits, "2026-11-21T08:20:00Z"), soon);
        assert_eq!(next_look(&waits, "2026-11-21T08:25:00Z"), soon, "not at once again and again");
        assert_eq!(next_look(&waits, "2026-11-21T08:30:50Z"), Some(Duration::from_secs(11)), "it will be silent before");
        assert_eq!(next_look(&works, "2026-11-21T08:20:40Z"), Some(Duration::from_secs(6)));
        assert_eq!(next_look(ALL_WELL, "2026-11-21T08:20:00Z"), Some(Duration::from_secs(661)));
    }

    #[test]
    fn failed_check_is_the_cause_although_the_pod_is_ready() {
        let bad =
            ALL_WELL.replace("type: destination, ok: true, reason: Writable", "type: destination, ok: false, reason: KeyRefused");
        let assessment = assessed(&reporting("2026-11-21T08:29:00Z", &bad), &fixtures::running(STARTED), "2026-11-21T08:30:00Z");
        assert_eq!(
            (assessment.ready, assessment.reason.as_str(), assessment.trouble),
            (Verdict::False, "KeyRefused", Trouble::Passing)
        );
    }

    #[test]
    fn stopping_for_suspension_shows_the_phase_at_once_and_readiness_when_done() {
        let session = fixtures::session("suspend: true");
        let assessment = assessed(&session, &fixtures::running(STARTED), "2026-11-21T08:30:00Z");
        assert_eq!((assessment.ready, assessment.phase), (Verdict::False, Phase::Suspended));
    }

    #[test]
    fn pod_of_a_session_that_is_gone_and_that_does_not_end_is_named_with_what_to_do() {
        let session = fixtures::session("");
        let earlier = fixtures::pod(&fixtures::earlier(&session), &fixtures::running(STARTED));
        let waits = |deadline: &str| {
            let mut pod = earlier.clone();
            pod.metadata.deletion_timestamp = Some(serde_norway::from_str(deadline).unwrap());
            let assessment =
                assessed_as(&session, "{}", "2026-11-21T08:30:00Z", |it| *it = fixtures::observed(&session, Some(&pod)));
            (assessment.reason, assessment.message.contains("node-a"))
        };
        assert_eq!(waits("2026-11-21T08:25:01Z"), ("PreviousPodEnding".into(), false));
        assert_eq!(waits("2026-11-21T08:25:00Z"), ("PodStuck".into(), true));
        let rival = |deadline: Option<&str>| {
            let gone_by = deadline.map(|deadline| deadline.parse().unwrap());
            in_use(&Rival { name: Some("truck-8".into()), gone_by }, fixtures::now()).message
        };
        assert!(rival(None).contains("delete or suspend") && rival(Some("2026-11-21T08:25:01Z")).contains("delete or suspend"));
        let stuck = rival(Some("2026-11-21T08:25:00Z"));
        assert!(stuck.contains("node") && !stuck.contains("delete or suspend"), "{stuck}");
    }

    #[test]
    fn pod_that_cannot_end_because_its_node_does_not_answer_is_named_with_the_time_when_it_is_removed() {
        let mut session = fixtures::session("");
        let mut pod = fixtures::pod(&session, &fixtures::running(STARTED));
        pod.metadata.deletion_timestamp = Some(serde_norway::from_str("2026-11-21T08:29:00Z").unwrap());
        let seen = |session: &UploadSession, node, now: &str| {
            assessed_as(session, "{}", now, |it| {
                *it = fixtures::observed(session, Some(&pod));
                it.node = node;
            })
        };
        let on = |node, now: &str| {
            let assessment = seen(&session, node, now);
            let names_the_time = assessment.message.contains("after 08:34:00Z");
            (assessment.ready, assessment.reason, names_the_time, assessment.next_look.unwrap().as_secs())
        };
        assert_eq!(on(None, "2026-11-21T08:28:50Z"), (Verdict::False, "Stopping".into(), false, 11));
        assert_eq!(on(Some(NodeHealth::Ready), "2026-11-21T08:30:00Z"), (Verdict::False, "Stopping".into(), false, 241));
        assert_eq!(on(Some(NodeHealth::Lost), "2026-11-21T08:30:00Z"), (Verdict::Unknown, "NodeNotReady".into(), true, 241));
        let starts_anew = |session: &UploadSession| {
            seen(session, Some(NodeHealth::Lost), "2026-11-21T08:30:00Z").message.contains("a new one starts")
        };
        assert!(starts_anew(&session));
        session.spec.suspend = true;
        assert!(!starts_anew(&session));
    }

    #[test]
    fn deleted_session_that_cannot_be_drained_says_until_when_it_stays_and_how_to_end_that() {
        let mut session = fixtures::session("deletionPolicy: Drain\ndrainTimeout: 2h");
        session.metadata.finalizers = Some(vec![blobferry_crds::names::FINALIZER.into()]);
        session.metadata.deletion_timestamp = Some(serde_norway::from_str("2026-11-21T08:29:00Z").unwrap());
        session.status.get_or_insert_default().start_time = Some(serde_norway::from_str("2026-11-21T08:10:00Z").unwrap());
        let mut pod = fixtures::pod(&session, "conditions: [{type: PodScheduled, status: 'False', message: 'too few nodes'}]");
        pod.metadata.owner_references = None;
        let assessment = assessed_as(&session, "{}", "2026-11-21T08:30:00Z", |it| *it = fixtures::observed(&session, Some(&pod)));
        assert_eq!((assessment.reason.as_str(), assessment.phase), ("Unschedulable", Phase::Draining));
        for words in ["too few nodes", "until 2026-11-21 10:29:00 UTC", "spec.deletionPolicy is set to Stop"] {
            assert!(assessment.message.contains(words), "{}", assessment.message);
        }
    }

    #[test]
    fn session_that_is_over_is_looked_at_when_its_object_is_to_go_also_before_its_end_is_written_down() {
        let session = fixtures::session("ttlSecondsAfterFinished: 90");
        let assessment = assessed(&session, &fixtures::succeeded(fixtures::COMPLETED), "2026-11-21T08:30:00Z");
        assert_eq!((assessment.phase, assessment.next_look), (Phase::Completed, Some(Duration::from_secs(91))));
    }

    #[test]
    fn pod_that_the_cluster_takes_away_says_why_unless_none_is_wanted_any_more() {
        let mut session = fixtures::session("");
        let told = |session: &UploadSession, disruption: &str| {
            let status = fixtures::running(STARTED).replace("conditions: [", &format!("conditions: [{disruption}, "));
            let mut pod = fixtures::pod(session, &status);
            pod.metadata.deletion_timestamp = Some(serde_norway::from_str("2026-11-21T08:31:00Z").unwrap());
            let assessment = assessed_as(session, "{}", "2026-11-21T08:30:00Z", |it| *it = fixtures::observed(session, Some(&pod)));
            (assessment.ready, assessment.reason, assessment.next_look.unwrap().as_secs())
        };
        let target = |status: &str, reason: &str| format!("{{type: DisruptionTarget, status: '{status}', reason: {reason}}}");
        let (evicted, preempted) = (target("True", "EvictionByEvictionAPI"), target("True", "PreemptionByScheduler"));
        assert_eq!(told(&session, &evicted), (Verdict::False, "Evicted".into(), 61));
        assert_eq!(told(&session, &preempted), (Verdict::False, "Preempted".into(), 61));
        for other in [target("False", "PreemptionByScheduler"), target("True", "DeletionByTaintManager")] {
            assert_eq!(told(&session, &other).1, "Stopping", "{other}");
        }
        session.spec.suspend = true;
        assert_eq!(told(&session, &evicted).1, "Stopping");
    }

    #[test]
    fn every_assessment_has_a_next_look() {
        for status in ["phase: Pending", "phase: Failed", &fixtures::running(STARTED)] {
            assert!(assessed(&fixtures::session(""), status, "2026-11-21T08:30:00Z").next_look.is_some(), "{status}");
        }
    }
}
