//! (pure) The operator's part of the status: everything but `progress` and `activity`.

use blobferry_crds::{
    UploadSession, UploadSessionStatus,
    conditions::{self, Finding, Verdict},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use url::Url;

use super::{
    apply::Outcome,
    assess::{Assessment, Case, Hearing, Trouble, check},
    identity::Identity,
    pod_state::{Slot, Stage},
};

/// All sessions together write at most so many updates a second.
const UPDATES_PER_SECOND: usize = 50;
const LEAST_INTERVAL: usize = 5;

/// What the operator's part of the status should be.
pub fn compute(case: &Case<'_>, assessment: &Assessment) -> UploadSessionStatus {
    let identity = Identity::of(case.session).ok();
    let old = case.session.status.clone().unwrap_or_default();
    let generation = case.session.metadata.generation.unwrap_or(0);
    let (pod_name, pod_uid) = pod(case).unzip();
    UploadSessionStatus {
        observed_generation: Some(generation),
        phase: Some(assessment.phase),
        destination_url: identity.as_ref().and_then(|identity| destination_url(case.session, identity)),
        session_name: identity.as_ref().map(|identity| identity.session_name.clone()),
        date_prefix: identity.map(|identity| identity.date_prefix),
        pod_name,
        pod_uid,
        report_interval: Some(report_interval(case.observed.sessions)),
        start_time: old.start_time.or_else(|| started(case).map(Time)),
        conditions: conditions::merge(&old.conditions, findings(case, assessment), generation, case.now),
        progress: None,
        activity: None,
    }
}

/// The operator's part of what the status is now.
pub fn current(session: &UploadSession) -> UploadSessionStatus {
    UploadSessionStatus { progress: None, activity: None, ..session.status.clone().unwrap_or_default() }
}

/// Whether two statuses say the same; the API server keeps the order in which conditions came.
pub fn is_same(one: &UploadSessionStatus, two: &UploadSessionStatus) -> bool {
    let sorted = |status: &UploadSessionStatus| {
        let mut status = status.clone();
        status.conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
        status
    };
    sorted(one) == sorted(two)
}

fn pod(case: &Case<'_>) -> Option<(String, String)> {
    match (case.outcome, &case.observed.slot) {
        (Outcome::Created(name, uid), _) => Some((name.clone(), uid.clone())),
        (_, Slot::Ours(pod)) => Some((pod.name.clone(), pod.uid.clone())),
        _ => None,
    }
}

fn started(case: &Case<'_>) -> Option<Timestamp> {
    match &case.observed.slot {
        Slot::Ours(pod) => match pod.stage {
            Stage::Running { since } => since,
            _ => None,
        },
        _ => None,
    }
}

/// Seconds between two reports of an active uploader, so that all sessions together stay below the limit. The number of sessions is
/// rounded up to a power of two, because each change of the result is one write per session.
pub fn report_interval(sessions: usize) -> u32 {
    let seconds = sessions.next_power_of_two().div_ceil(UPDATES_PER_SECOND).max(LEAST_INTERVAL);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

/// Where the blobs are: account, container, prefix, date and session.
fn destination_url(session: &UploadSession, identity: &Identity) -> Option<String> {
    let blob = &session.spec.destination.azure_blob;
    let mut url = Url::parse(&blob.account_url).ok()?;
    url.path_segments_mut()
        .ok()?
        .pop_if_empty()
        .push(&blob.container)
        .extend(blob.prefix.split('/').filter(|part| !part.is_empty()))
        .push(&identity.date_prefix)
        .push(&identity.session_name);
    Some(url.into())
}

fn findings(case: &Case<'_>, assessment: &Assessment) -> Vec<Finding> {
    let finding =
        |type_, verdict| Finding { type_, verdict, reason: assessment.reason.clone(), message: assessment.message.clone() };
    let mut all = vec![finding(conditions::READY, assessment.ready)];
    match assessment.trouble {
        Trouble::None => {}
        Trouble::Passing => all.push(finding(conditions::RECONCILING, Verdict::True)),
        Trouble::Lasting => all.push(finding(conditions::STALLED, Verdict::True)),
    }
    all.push(reachable(case, assessment, conditions::SOURCE_REACHABLE, "source"));
    all.push(reachable(case, assessment, conditions::DESTINATION_REACHABLE, "destination"));
    all.push(caught_up(case, assessment));
    all
}

fn reachable(case: &Case<'_>, assessment: &Assessment, type_: &'static str, end: &str) -> Finding {
    if assessment.hearing != Hearing::Heard {
        let verdict = if end == "source" && assessment.source { Verdict::False } else { Verdict::Unknown };
        return Finding { type_, verdict, ..unheard(assessment) };
    }
    match check(case.session, end) {
        Some(check) => Finding {
            type_,
            verdict: if check.ok { Verdict::True } else { Verdict::False },
            reason: if check.reason.is_empty() { "Checked".into() } else { check.reason.clone() },
            message: check.message.clone(),
        },
        None => Finding {
            type_,
            verdict: Verdict::Unknown,
            reason: "NotChecked".into(),
            message: format!("The uploader has not looked at the {end} yet."),
        },
    }
}

/// Why nobody says anything of the share and the container.
fn unheard(assessment: &Assessment) -> Finding {
    Finding {
        type_: conditions::READY,
        verdict: Verdict::Unknown,
        reason: assessment.reason.clone(),
        message: assessment.message.clone(),
    }
}

/// Counters do not wake the operator, so the message has only the one that a person must know: what stays behind.
fn caught_up(case: &Case<'_>, assessment: &Assessment) -> Finding {
    let type_ = conditions::CAUGHT_UP;
    let progress = case.session.status.as_ref().and_then(|status| status.progress.as_ref());
    let Some(progress) = progress.filter(|_| assessment.hearing == Hearing::Heard) else {
        return Finding { type_, ..unheard(assessment) };
    };
    let ignored = match progress.files_ignored {
        0 => String::new(),
        1 => " One file is ignored by spec.watch and stays on the share.".into(),
        count => format!(" {count} files are ignored by spec.watch and stay on the share."),
    };
    if progress.caught_up {
        let message = format!("Everything that the last scan saw is uploaded.{ignored}");
        return Finding { type_, verdict: Verdict::True, reason: "NothingWaits".into(), message };
    }
    Finding { type_, verdict: Verdict::False, reason: "FilesWait".into(), message: "Files wait or are being uploaded.".into() }
}
