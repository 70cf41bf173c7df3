//! (pure) What is true of a session after a pass, and when to look again.

mod waits;

use std::time::Duration;

use blobferry_crds::{
    Check, Phase, UploadSession,
    conditions::{HANGING, Verdict},
};
use jiff::Timestamp;

use super::{
    Observed,
    case::{Case, Outcome},
    completion::Completed,
    deletion::{Deletion, TIME},
    diagnose::{Cause, LOOK_AFTER, diagnose},
    hearing::{Hearing, active_patience},
    mode::{Fate, Mode},
    observed::NodeHealth,
    plan::{Plan, StopReason},
    pod_state::{Slot, Stage, UploaderPod},
    reasons,
    rollout::Upgrade,
};

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

const STUCK_LOOK: Duration = Duration::from_mins(1);
/// The longest time without a look, whatever may happen unseen.
const FALLBACK_LOOK: Duration = Duration::from_mins(30);

/// What is true of the session of `case`.
pub fn assess(case: &Case<'_>) -> Assessment {
    let suspended = case.session.spec.suspend;
    let mut assessment = match (case.outcome, case.valid) {
        (Outcome::Failed(failure, wait), _) => {
            troubled(lasting_if(failure.reason == reasons::NAME_TAKEN), failure.reason, &failure.message).after(*wait)
        }
        (_, Err(refusal)) if case.observed.completed.is_none() => {
            troubled(lasting_if(refusal.reason != reasons::DELETED), refusal.reason, &refusal.message)
        }
        _ => by_plan(case),
    };
    if suspended && assessment.trouble != Trouble::Lasting && case.observed.completed.is_none() {
        assessment.phase = Phase::Suspended;
    }
    assessment.next_look = Some(assessment.next_look.map_or(FALLBACK_LOOK, |look| look.min(FALLBACK_LOOK)));
    match &case.observed.deletion {
        Some(deletion) => assessment.of_deletion(deletion, Mode::of(case.session), case.now),
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
            ..troubled(
                Trouble::Passing,
                reasons::SUSPENDED,
                "No uploader runs because spec.suspend is true; files stay where they are.",
            )
        },
        (Plan::Keep | Plan::RestoreRights, Slot::Ours(pod)) => kept(case, pod),
        (Plan::Stop(StopReason::Suspended), _) => {
            passing(reasons::SUSPENDING, "The uploader is being stopped because spec.suspend is true.")
        }
        (Plan::Stop(StopReason::Changed), _) => {
            passing(reasons::REPLACING, "The session was changed: its pod is being replaced by one with the new settings.")
        }
        (Plan::Stop(StopReason::NewMode), _) => {
            let fate = Mode::of(case.session).fate();
            let message = format!("The session is deleted: its pod is replaced by one by which claimed files are {}.", fate.done);
            passing(fate.reason, &message)
        }
        (Plan::Stop(StopReason::Again), _) => {
            passing(reasons::RESTARTING, "The session was completed and is started again because of its new runToken.")
        }
        (Plan::Stop(StopReason::Located), _) => passing(
            reasons::REPLACING,
            "The session's claim was bound just now: its pod is made anew if nobody else works in those folders.",
        ),
        (Plan::Stop(StopReason::Outdated), _) => passing(
            reasons::UPGRADING,
            "The installation was upgraded: the uploader's pod is being replaced by one with its new image.",
        ),
        (Plan::Stop(_), Slot::Ours(pod)) => caused(&diagnose(pod, observed)),
        (Plan::ForceDelete, _) => {
            let next = if suspended { "." } else { ", a new one follows." };
            passing(reasons::NODE_LOST, &format!("The pod's node is gone or does not answer: the pod is removed{next}"))
        }
        (Plan::Wait(wait), slot) => waits::waiting(case, wait, slot),
        // What was decided for a pod is not done without one.
        (Plan::Create | Plan::Keep | Plan::RestoreRights | Plan::Stop(_), _) => {
            passing(reasons::STARTING, "The uploader's pod was created.")
        }
        (Plan::Finished | Plan::Expire | Plan::LetGo(_), _) => passing(reasons::STOPPING, "The session ends."),
    }
}

fn finished(completed: &Completed, case: &Case<'_>) -> Assessment {
    Assessment {
        phase: Phase::Completed,
        ready: Verdict::True,
        trouble: Trouble::None,
        ..passing(&completed.reason, &completed.message)
    }
    .maybe_after(completed.expires(case.now).map(|expires| until(expires, case.now)))
}

fn kept(case: &Case<'_>, pod: &UploaderPod) -> Assessment {
    let observed = case.observed;
    let unheard = || caused(&diagnose(pod, observed));
    let is_lost = observed.node == Some(NodeHealth::Lost);
    let hearing = match observed.reports.hearing(pod, case.now) {
        // What the uploader said last is true no more, however young it is.
        Hearing::Heard if is_lost => Hearing::Silent,
        hearing => hearing,
    };
    let mut assessment = match hearing {
        Hearing::Absent => unheard().maybe_after(next_events(pod, observed, case.now)),
        Hearing::NotYet => unheard().after(Duration::from_secs(5)),
        Hearing::Silent if is_lost => {
            Assessment { ready: Verdict::Unknown, ..passing(reasons::NODE_NOT_READY, &node_not_ready(pod)).after(STUCK_LOOK) }
        }
        Hearing::Silent => {
            Assessment { ready: Verdict::Unknown, ..passing(reasons::UPLOADER_SILENT, silent(case.session)).after(STUCK_LOOK) }
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

fn heard(case: &Case<'_>, pod: &UploaderPod) -> Assessment {
    match (failed_check(case.session), &case.observed.upgrade) {
        (Some(check), _) => passing(&check.reason, &check.message),
        _ if !pod.ready => passing(reasons::UPLOADER_NOT_READY, "The uploader runs and is not ready yet."),
        (_, Upgrade::Pending { behind }) => well(reasons::UPGRADE_PENDING, &upgrade_pending(behind.as_deref())),
        _ => well(reasons::RUNNING, "The uploader ferries files."),
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
    let silent = case.observed.reports.last.map_or(case.now, |report| report.seen) + case.observed.reports.patience;
    let progress = case.session.status.as_ref().and_then(|status| status.progress.as_ref());
    let has_files = progress.is_some_and(|progress| !progress.caught_up);
    until(if has_files { silent.min(case.now + active_patience(case.session)) } else { silent }, case.now)
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

impl Assessment {
    /// A session that is deleted is never ready: what its uploader does well is to end it.
    fn of_deletion(self, deletion: &Deletion, mode: Mode, now: Timestamp) -> Self {
        let due = until(deletion.next_change(), now);
        let next_look = self.next_look.map(|look| look.min(due));
        let phase = if self.trouble == Trouble::Lasting { Phase::Failed } else { Phase::Draining };
        if self.ready != Verdict::True {
            let message = match deletion.how_it_ends(mode.fate()) {
                Some(ends) => format!("{} {ends}", self.message),
                None => self.message,
            };
            return Self { phase, message, next_look, ..self };
        }
        let (Fate { reason, done, .. }, deadline) = (mode.fate(), deletion.deadline.strftime(TIME));
        let message = format!("The session is deleted: claimed files are {done} first, until {deadline} at the latest.");
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
mod tests;
