//! (test) What is true of sessions in every state of their pods.

use super::*;
use crate::{
    decisions::{area::Rival, plan::plan, validate::validate},
    fixtures::{self, ALL_WELL},
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
    let seen_now = |observed: &mut Observed| observed.reports.run.as_mut().unwrap().since = fixtures::now();
    let assessment = assessed_as(&session, &started_by_the_node, "2026-11-21T08:30:05Z", seen_now);
    assert_eq!((assessment.ready, assessment.reason.as_str()), (Verdict::False, "Starting"));
}

#[test]
fn report_from_before_a_restart_that_was_seen_does_not_count() {
    let session = reporting("2026-11-21T08:29:00Z", ALL_WELL);
    let restarted = |at: &'static str| {
        move |observed: &mut Observed| {
            let run = observed.reports.run.as_mut().unwrap();
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
    let bad = ALL_WELL.replace("type: destination, ok: true, reason: Writable", "type: destination, ok: false, reason: KeyRefused");
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
        let assessment = assessed_as(&session, "{}", "2026-11-21T08:30:00Z", |it| *it = fixtures::observed(&session, Some(&pod)));
        (assessment.reason, assessment.message.contains("node-a"))
    };
    assert_eq!(waits("2026-11-21T08:25:01Z"), ("PreviousPodEnding".into(), false));
    assert_eq!(waits("2026-11-21T08:25:00Z"), ("PodStuck".into(), true));
    let rival = |deadline: Option<&str>| {
        let gone_by = deadline.map(|deadline| deadline.parse().unwrap());
        waits::in_use(&Rival { name: Some("truck-8".into()), gone_by }, fixtures::now()).message
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
