//! (pure) The operator's part of the status: everything but `progress` and `activity`.

use blobferry_crds::{
    Check, Phase, UploadSession, UploadSessionStatus,
    conditions::{self, Finding, Verdict},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use url::Url;

use super::{
    assess::{Assessment, Trouble, check, hanging},
    case::{Case, Outcome},
    hearing::Hearing,
    identity::Identity,
    plan::Plan,
    pod_state::{Slot, Stage},
};
use crate::backoff::Failure;

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
        completion_time: case.observed.completed.as_ref().map(|completed| Time(completed.since.unwrap_or(case.now))),
        completed_run_token: case.session.spec.run_token.clone().filter(|_| case.observed.completed.is_some()),
        conditions: conditions::merge(&old.conditions, findings(case, assessment), generation, case.now),
        progress: None,
        activity: None,
    }
}

/// What an uploader finds; as long as nothing can be done for its session, nobody looks at what it says.
const OF_THE_UPLOADER: [&str; 3] = [conditions::SOURCE_REACHABLE, conditions::DESTINATION_REACHABLE, conditions::CAUGHT_UP];

/// The same when nothing can be done for `session`: `Ready` says why, and what was known otherwise stays. A generation for which nothing was done
/// is not observed.
pub fn failing(session: &UploadSession, failure: &Failure, now: Timestamp) -> UploadSessionStatus {
    let told = current(session);
    let is_told = |type_: &&str| told.conditions.iter().any(|it| it.type_ == *type_);
    let found = [(conditions::READY, Verdict::False), (conditions::RECONCILING, Verdict::True)].into_iter();
    let found = found.chain(OF_THE_UPLOADER.into_iter().filter(is_told).map(|type_| (type_, Verdict::Unknown)));
    let finding =
        |(type_, verdict)| Finding { type_, verdict, reason: failure.reason.to_owned(), message: failure.message.clone() };
    let findings: Vec<_> = found.map(finding).collect();
    let is_replaced = |it: &&Condition| it.type_ == conditions::STALLED || findings.iter().any(|finding| finding.type_ == it.type_);
    let others: Vec<_> = told.conditions.iter().filter(|it| !is_replaced(it)).cloned().collect();
    let generation = told.observed_generation.unwrap_or_default();
    let conditions = conditions::merge(&told.conditions, findings, generation, now);
    UploadSessionStatus {
        phase: told.phase.filter(|phase| *phase != Phase::Failed).or(Some(Phase::Pending)),
        conditions: conditions.into_iter().chain(others).collect(),
        ..told
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
    let mut all = vec![ready_as(conditions::READY, assessment.ready, assessment)];
    match assessment.trouble {
        Trouble::None => {}
        Trouble::Passing => all.push(ready_as(conditions::RECONCILING, Verdict::True, assessment)),
        Trouble::Lasting => all.push(ready_as(conditions::STALLED, Verdict::True, assessment)),
    }
    all.push(reachable(case, assessment, conditions::SOURCE_REACHABLE, "source"));
    all.push(reachable(case, assessment, conditions::DESTINATION_REACHABLE, "destination"));
    all.push(caught_up(case, assessment));
    if case.observed.completed.is_some() {
        all.push(ready_as(conditions::COMPLETE, Verdict::True, assessment));
    }
    all
}

/// A condition with the reason and message of `Ready`.
fn ready_as(type_: &'static str, verdict: Verdict, assessment: &Assessment) -> Finding {
    Finding { type_, verdict, reason: assessment.reason.clone(), message: assessment.message.clone() }
}

fn reachable(case: &Case<'_>, assessment: &Assessment, type_: &'static str, end: &str) -> Finding {
    if assessment.hearing != Hearing::Heard {
        return match hanging(case.session).filter(|_| matches!(case.plan, Plan::Keep | Plan::RestoreRights)) {
            _ if end != "source" => unheard(type_, assessment),
            _ if assessment.source => ready_as(type_, Verdict::False, assessment),
            Some(check) => still_hanging(type_, check),
            None => unheard(type_, assessment),
        };
    }
    match check(case.session, end) {
        Some(check) => Finding {
            type_,
            verdict: if check.ok { Verdict::True } else { Verdict::False },
            reason: if check.reason.is_empty() { "Checked".into() } else { check.reason.clone() },
            message: format!("{}{}", check.message, secret_of(case, check)),
        },
        None => Finding {
            type_,
            verdict: Verdict::Unknown,
            reason: "NotChecked".into(),
            message: format!("The uploader has not looked at the {end} yet."),
        },
    }
}

/// What an uploader said last that is silent since, or has not looked since it was started anew.
fn still_hanging(type_: &'static str, check: &Check) -> Finding {
    let message = format!("The last that the uploader said: {}. It has not looked since.", check.message);
    Finding { type_, verdict: Verdict::False, reason: check.reason.clone(), message }
}

/// The uploader sees files, not the Secret that they come from.
fn secret_of(case: &Case<'_>, check: &Check) -> String {
    let secret = case.session.spec.destination.azure_blob.credentials_secret_ref.as_ref();
    secret
        .filter(|_| check.type_ == "destination" && check.reason == "Denied")
        .map_or_else(String::new, |secret| format!(" (Secret {})", secret.name))
}

/// What is said where no uploader looks.
fn unheard(type_: &'static str, assessment: &Assessment) -> Finding {
    let message = "Nobody looks, because no uploader reports: see the condition Ready.".into();
    Finding { type_, verdict: Verdict::Unknown, reason: assessment.reason.clone(), message }
}

const FILES_WAIT: &str = "Files wait, are being uploaded or have failed (status.progress counts them, and heldBack says of the oldest why they are still there), or what is on the share is not known yet.";

/// Counters do not wake the operator, so the message has only the one that a person must know: what stays behind.
fn caught_up(case: &Case<'_>, assessment: &Assessment) -> Finding {
    let type_ = conditions::CAUGHT_UP;
    let progress = case.session.status.as_ref().and_then(|status| status.progress.as_ref());
    let Some(progress) = progress.filter(|_| assessment.hearing == Hearing::Heard) else {
        return unheard(type_, assessment);
    };
    let known = progress.files_waiting + progress.files_active + progress.files_retrying + progress.files_failed;
    let hides_files = |check: &Check| check.type_ == "source" || !progress.caught_up;
    if let Some(check) = progress.checks.iter().find(|check| !check.ok && known == 0 && hides_files(check)) {
        let message = format!("Nobody knows what is on the share while the {} does not work.", check.type_);
        return Finding { type_, verdict: Verdict::Unknown, reason: check.reason.clone(), message };
    }
    let ignored = match progress.files_ignored {
        0 => String::new(),
        1 => " One name (a file that spec.watch leaves out, a folder or a link) is left alone and stays on the share.".into(),
        count => format!(" {count} names (files that spec.watch leaves out, folders, links) are left alone and stay on the share."),
    };
    if progress.caught_up {
        let message = format!("Everything that the last scan saw is uploaded.{ignored}");
        return Finding { type_, verdict: Verdict::True, reason: "NothingWaits".into(), message };
    }
    Finding { type_, verdict: Verdict::False, reason: "FilesWait".into(), message: FILES_WAIT.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        decisions::{Observed, assess::assess, observed::NodeHealth, plan::plan, validate::validate},
        fixtures::{self, ALL_WELL},
    };

    fn computed(session: &UploadSession, pod_status: Option<&str>) -> UploadSessionStatus {
        computed_on(None, session, pod_status)
    }

    fn computed_on(node: Option<NodeHealth>, session: &UploadSession, pod_status: Option<&str>) -> UploadSessionStatus {
        let pod = pod_status.map(|status| fixtures::pod(session, status));
        let observed = Observed { node, ..fixtures::observed(session, pod.as_ref()) };
        let (valid, now) = (validate(session, &fixtures::settings()), fixtures::now());
        let plan = plan(&valid, &observed, now);
        let case = Case { session, valid: &valid, observed: &observed, plan: &plan, outcome: &Outcome::Nothing, now };
        compute(&case, &assess(&case))
    }

    fn reporting() -> UploadSession {
        let mut session = fixtures::session("");
        fixtures::report(&mut session, "2026-11-21T08:29:00Z", ALL_WELL);
        session
    }

    fn conditions(status: &UploadSessionStatus) -> Vec<(&str, &str, &str)> {
        status.conditions.iter().map(|it| (it.type_.as_str(), it.status.as_str(), it.reason.as_str())).collect()
    }

    #[test]
    fn running_session_has_no_abnormal_conditions() {
        let status = computed(&reporting(), Some(&fixtures::running("2026-11-21T08:10:00Z")));
        assert_eq!(
            conditions(&status),
            [
                ("Ready", "True", "Running"),
                ("SourceReachable", "True", "Mounted"),
                ("DestinationReachable", "True", "Writable"),
                ("CaughtUp", "True", "NothingWaits")
            ]
        );
        assert!(
            status.conditions[3].message.contains("2 names (files that spec.watch leaves out, folders, links) are left alone"),
            "{}",
            status.conditions[3].message
        );
    }

    #[test]
    fn before_the_share_was_seen_nobody_knows_whether_files_wait_and_a_denied_secret_is_named() {
        let mut session = reporting();
        let secret = blobferry_crds::SecretReference { name: "azurit".into() };
        session.spec.destination.azure_blob.credentials_secret_ref = Some(secret);
        let progress = session.status.as_mut().unwrap().progress.as_mut().unwrap();
        progress.caught_up = false;
        let denied = Check { type_: "destination".into(), ok: false, reason: "Denied".into(), message: "no key".into() };
        progress.checks = vec![denied];
        let status = computed(&session, Some(&fixtures::running("2026-11-21T08:10:00Z")));
        let told = |type_: &str| {
            let condition = status.conditions.iter().find(|condition| condition.type_ == type_).unwrap();
            (condition.status.clone(), condition.reason.clone(), condition.message.clone())
        };
        assert_eq!(told("DestinationReachable"), ("False".into(), "Denied".into(), "no key (Secret azurit)".into()));
        let (verdict, reason, _) = told("CaughtUp");
        assert_eq!((verdict.as_str(), reason.as_str()), ("Unknown", "Denied"));
    }

    #[test]
    fn nobody_knows_whether_files_wait_on_a_share_that_fails_although_everything_was_uploaded_before() {
        let mut session = reporting();
        let caught_up = |session: &UploadSession| {
            let status = computed(session, Some(&fixtures::running("2026-11-21T08:10:00Z")));
            let condition = status.conditions.into_iter().find(|it| it.type_ == conditions::CAUGHT_UP).unwrap();
            (condition.status, condition.reason)
        };
        for (type_, seen) in [("destination", ("True", "NothingWaits")), ("source", ("Unknown", "Broken"))] {
            let broken = Check { type_: type_.into(), ok: false, reason: "Broken".into(), message: "it fails".into() };
            session.status.as_mut().unwrap().progress.as_mut().unwrap().checks = vec![broken];
            assert_eq!(caught_up(&session), (seen.0.to_owned(), seen.1.to_owned()));
        }
    }

    #[test]
    fn share_that_hung_when_the_uploader_was_heard_last_hangs_until_somebody_has_looked_again() {
        let mut session = fixtures::session("");
        let hangs = "checks: [{type: source, ok: false, reason: Hanging, message: 'calls do not end'}, {type: destination, ok: true, \
                     reason: Writable, message: ''}]\nfilesActive: 1";
        fixtures::report(&mut session, "2026-11-21T08:20:00Z", hangs);
        let status = computed(&session, Some(&fixtures::running("2026-11-21T08:10:00Z")));
        assert_eq!(
            conditions(&status),
            [
                ("Ready", "Unknown", "UploaderSilent"),
                ("Reconciling", "True", "UploaderSilent"),
                ("SourceReachable", "False", "Hanging"),
                ("DestinationReachable", "Unknown", "UploaderSilent"),
                ("CaughtUp", "Unknown", "UploaderSilent")
            ]
        );
        let told = |condition: usize| status.conditions[condition].message.as_str();
        assert!(
            told(0).contains("cannot end before the file server answers") && told(2).contains("calls do not end"),
            "{status:?}"
        );
        let ended = "{phase: Running, containerStatuses: [{name: uploader, image: '', imageID: '', ready: false, restartCount: 1, state: \
                     {waiting: {reason: CrashLoopBackOff}}, lastState: {terminated: {exitCode: 143, reason: Error}}}]}";
        let status = computed(&session, Some(ended));
        assert!(conditions(&status).contains(&("SourceReachable", "False", "Hanging")), "{status:?}");
        session.spec.suspend = true;
        let status = computed(&session, None);
        assert!(conditions(&status).contains(&("SourceReachable", "Unknown", "Suspended")), "{status:?}");
    }

    #[test]
    fn nobody_knows_of_either_end_while_the_node_does_not_answer_although_the_last_report_is_young() {
        let status = computed_on(Some(NodeHealth::Lost), &reporting(), Some(&fixtures::running("2026-11-21T08:10:00Z")));
        assert_eq!(
            conditions(&status),
            [
                ("Ready", "Unknown", "NodeNotReady"),
                ("Reconciling", "True", "NodeNotReady"),
                ("SourceReachable", "Unknown", "NodeNotReady"),
                ("DestinationReachable", "Unknown", "NodeNotReady"),
                ("CaughtUp", "Unknown", "NodeNotReady")
            ]
        );
        assert_eq!(status.phase, Some(Phase::Running));
    }

    #[test]
    fn nobody_knows_of_either_end_without_an_uploader() {
        let mut session = reporting();
        session.spec.suspend = true;
        let status = computed(&session, None);
        assert_eq!(
            conditions(&status),
            [
                ("Ready", "True", "Suspended"),
                ("SourceReachable", "Unknown", "Suspended"),
                ("DestinationReachable", "Unknown", "Suspended"),
                ("CaughtUp", "Unknown", "Suspended")
            ]
        );
    }

    #[test]
    fn session_that_is_over_is_ready_and_complete_and_stays_so_without_its_pod() {
        let mut session = fixtures::session("runToken: again");
        let account = fixtures::COMPLETED.replace("\"mode\"", "\"runToken\":\"again\",\"mode\"");
        let status = computed(&session, Some(&fixtures::succeeded(&account)));
        let reason = "CompletedWithLeftovers";
        let found = conditions(&status);
        assert_eq!((found[0], found[4], found.len()), (("Ready", "True", reason), ("Complete", "True", reason), 5));
        assert!(status.conditions[4].message.contains("1 set aside"), "{}", status.conditions[4].message);
        assert_eq!(
            (status.phase, status.completion_time.clone()),
            (Some(blobferry_crds::Phase::Completed), Some(Time(fixtures::now())))
        );
        assert_eq!(status.completed_run_token.as_deref(), Some("again"));
        session.status = Some(UploadSessionStatus { pod_name: None, pod_uid: None, ..status });
        assert!(is_same(&current(&session), &computed(&session, None)));
        session.spec.run_token = Some("once more".into());
        let status = computed(&session, None);
        assert_eq!((status.completion_time, status.completed_run_token), (None, None));
        assert!(status.conditions.iter().all(|it| it.type_ != conditions::COMPLETE));
    }

    #[test]
    fn while_calls_fail_ready_says_so_and_nothing_is_claimed_of_what_the_uploader_finds() {
        let mut session = fixtures::session("");
        let first = computed(&session, Some(&fixtures::succeeded(fixtures::COMPLETED)));
        session.status = Some(first.clone());
        session.metadata.generation = Some(2);
        let failure = Failure { reason: "CallFailed", message: "no".into() };
        let status = failing(&session, &failure, fixtures::now());
        let mut expected = conditions(&first);
        expected[0] = ("Ready", "False", "CallFailed");
        expected.insert(1, ("Reconciling", "True", "CallFailed"));
        for of_the_uploader in &mut expected[2..5] {
            assert!(OF_THE_UPLOADER.contains(&of_the_uploader.0));
            *of_the_uploader = (of_the_uploader.0, "Unknown", "CallFailed");
        }
        assert_eq!(conditions(&status), expected);
        assert_eq!(status.conditions[5].message, first.conditions[4].message, "what is left over");
        assert_eq!((status.phase, status.observed_generation), (first.phase, Some(1)));
        assert!(status.conditions.iter().all(|condition| condition.observed_generation == Some(1)));
        session.status = Some(status);
        assert!(is_same(&UploadSessionStatus { observed_generation: Some(2), ..first }, &{
            let mut again = computed(&session, Some(&fixtures::succeeded(fixtures::COMPLETED)));
            again.conditions.iter_mut().for_each(|condition| condition.observed_generation = Some(1));
            again
        }));
    }

    #[test]
    fn missing_claim_makes_the_source_unreachable() {
        let words = r#"persistentvolumeclaim "share" not found"#;
        let status = format!("conditions: [{{type: PodScheduled, status: 'False', message: '{words}'}}]");
        let status = computed(&fixtures::session(""), Some(&status));
        let reason = "PersistentVolumeClaimNotFound";
        assert_eq!(
            conditions(&status)[..3],
            [("Ready", "False", reason), ("Reconciling", "True", reason), ("SourceReachable", "False", reason)]
        );
    }

    #[test]
    fn computing_twice_gives_the_same_and_keeps_the_start() {
        let mut session = reporting();
        let running = fixtures::running("2026-11-21T08:10:00Z");
        let first = computed(&session, Some(&running));
        assert!(!is_same(&current(&session), &first));
        session.status = Some(UploadSessionStatus { progress: session.status.unwrap().progress, ..first.clone() });
        assert!(is_same(&current(&session), &first));
        let restarted = computed(&session, Some(&fixtures::running("2026-11-21T08:20:00Z")));
        assert!(is_same(&first, &restarted));
    }

    #[test]
    fn order_of_conditions_means_nothing() {
        let status = computed(&reporting(), Some(&fixtures::running("2026-11-21T08:10:00Z")));
        let mut other = status.clone();
        other.conditions.reverse();
        assert!(is_same(&status, &other));
    }

    #[test]
    fn report_interval_keeps_the_cluster_below_its_limit_and_changes_rarely() {
        for (sessions, seconds) in [(0, 5), (1, 5), (250, 6), (256, 6), (257, 11), (512, 11), (10_000, 328)] {
            assert_eq!(report_interval(sessions), seconds, "{sessions}");
        }
    }

    #[test]
    fn sessions_that_keep_to_the_interval_are_within_the_limit_however_many_they_are() {
        let many = (17..31).flat_map(|power| (1 << power) - 1..=(1 << power) + 1);
        let mut before = 0;
        for sessions in (0..=70_000).chain(many) {
            let interval = report_interval(sessions);
            assert!(sessions <= UPDATES_PER_SECOND * usize::try_from(interval).unwrap(), "{sessions}");
            assert!(interval >= before, "{sessions}");
            before = interval;
        }
    }

    #[test]
    fn destination_names_prefix_date_and_session() {
        let session = fixtures::session(
            "sessionName: truck-7\ndestination: {azureBlob: {accountUrl: 'http://10.0.0.9:10000/devstoreaccount1/', prefix: site 3/raw}}",
        );
        let url = destination_url(&session, &Identity::of(&session).unwrap());
        assert_eq!(url.as_deref(), Some("http://10.0.0.9:10000/devstoreaccount1/archive/site%203/raw/20261121/truck-7"));
    }
}
