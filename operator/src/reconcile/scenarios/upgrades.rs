//! (test) A new image comes to running sessions.

use std::{num::NonZeroUsize, time::Duration};

use blobferry_crds::{UploadSession, names};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    core::{DeserializeGuard, error_boundary::InvalidObject},
    runtime::watcher::Event,
};
use serde_json::Value;

use super::{POD, PODS, STATUS, after, message, ready, written};
use crate::{
    decisions::rollout::mark,
    fixtures::{self, ALL_WELL},
    mock_api::{Cluster, status},
    rollout,
};

const OLD: &str = "localhost/blobferry-uploader:old";
const CRASHED: &str = "{phase: Running, containerStatuses: [{name: uploader, image: '', imageID: '', ready: false, restartCount: 7, state: \
                       {waiting: {reason: CrashLoopBackOff}}}]}";

/// `session` of another name, namespace and UID.
fn another(namespace: &str, name: &str, uid: &str) -> UploadSession {
    let mut session = well();
    session.metadata.namespace = Some(namespace.into());
    session.metadata.name = Some(name.into());
    session.metadata.uid = Some(uid.into());
    session
}

/// A session that has been ready for twenty minutes.
fn well() -> UploadSession {
    let mut session = fixtures::session("");
    fixtures::report(&mut session, "2026-11-21T08:29:50Z", ALL_WELL);
    let ready = "{type: Ready, status: 'True', reason: Running, message: '', lastTransitionTime: '2026-11-21T08:10:00Z'}";
    session.status.as_mut().unwrap().conditions = vec![serde_norway::from_str(ready).unwrap()];
    session
}

fn pod(session: &UploadSession, status: &str, annotation: (&str, &str)) -> Pod {
    let mut pod = fixtures::pod(session, status);
    pod.metadata.annotations.as_mut().unwrap().insert(annotation.0.into(), annotation.1.into());
    pod
}

fn running() -> String {
    fixtures::running("2026-11-21T08:10:00Z")
}

async fn rolls_out(cluster: &Cluster, minutes: u64) {
    rollout::pass(&cluster.context, NonZeroUsize::MIN, fixtures::now() + Duration::from_mins(minutes)).await;
    cluster.calls();
}

/// Annotations of the pod that `session` gets in place of `old`, whose turn comes.
async fn annotations_after(session: &UploadSession, old: &Pod, change: impl FnOnce(&mut UploadSession)) -> Value {
    let mut cluster = Cluster::new(fixtures::settings());
    cluster.shows(session);
    cluster.shows_pod(old);
    rolls_out(&cluster, 0).await;
    let mut session = session.clone();
    change(&mut session);
    cluster.pass(&session).await;
    assert_eq!(cluster.lines()[0], format!("DELETE {POD}"));
    cluster.loses_pods();
    cluster.pass(&session).await;
    let calls = cluster.calls();
    calls.iter().find(|call| call.line == format!("POST {PODS}")).expect("the pod is made").body["metadata"]["annotations"].clone()
}

#[tokio::test]
async fn session_that_was_well_gets_the_new_image_on_trial_and_another_one_does_not() {
    let session = well();
    for (status, is_trial) in [(running().as_str(), true), (CRASHED, false)] {
        for annotation in [(names::IMAGE_ANNOTATION, OLD), (names::SPEC_HASH_ANNOTATION, "v0-2f47")] {
            let made = annotations_after(&session, &pod(&session, status, annotation), |_| ()).await;
            assert_eq!(made.get(names::TRIAL_ANNOTATION).is_some(), is_trial, "{status} {annotation:?}");
            assert_eq!(made[names::IMAGE_ANNOTATION], fixtures::settings().uploader_image);
            assert!(made[names::SPEC_HASH_ANNOTATION].as_str().unwrap().starts_with("v1-"));
        }
    }
}

#[tokio::test]
async fn trial_goes_on_though_another_leader_makes_the_pod() {
    let (mut session, next) = (well(), another("cameras", "truck-8", "next"));
    let mut cluster = Cluster::new(fixtures::settings());
    cluster.shows(&session);
    cluster.shows_pod(&pod(&session, &running(), (names::IMAGE_ANNOTATION, OLD)));
    rollout::pass(&cluster.context, NonZeroUsize::MIN, fixtures::now()).await;
    let calls = cluster.calls();
    assert_eq!(calls[0].line, format!("PATCH {}", super::SESSION));
    let told = calls[0].body["metadata"]["annotations"].as_object().unwrap().clone();
    assert_eq!((told.len(), &calls[0].body["metadata"]["uid"]), (1, &Value::from(session.metadata.uid.clone().unwrap())));
    session.metadata.annotations = Some(told.into_iter().map(|(key, mark)| (key, mark.as_str().unwrap().into())).collect());

    let mut leaving = pod(&session, &running(), (names::IMAGE_ANNOTATION, OLD));
    leaving.metadata.deletion_timestamp = Some(serde_norway::from_str("2026-11-21T08:30:30Z").unwrap());
    for (generation, sees_the_rollout, is_trial) in [(1, true, true), (1, false, true), (2, true, false)] {
        session.metadata.generation = Some(generation);
        let mut cluster = Cluster::new(fixtures::settings());
        cluster.shows(&session);
        cluster.shows(&next);
        let waiting = pod(&next, &running(), (names::IMAGE_ANNOTATION, OLD));
        for before in [Some(&leaving), None].into_iter().filter(|_| sees_the_rollout) {
            cluster.loses_pods();
            cluster.shows_pod(&waiting);
            if let Some(before) = before {
                cluster.shows_pod(before);
            }
            rolls_out(&cluster, 0).await;
            if is_trial {
                cluster.pass(&next).await;
                assert!(!cluster.lines().iter().any(|line| line.starts_with("DELETE")), "it is the turn of the first");
            }
        }
        cluster.pass(&session).await;
        let calls = cluster.calls();
        let made = calls.iter().find(|call| call.line == format!("POST {PODS}")).expect("the pod is made");
        assert_eq!(made.body["metadata"]["annotations"].get(names::TRIAL_ANNOTATION).is_some(), is_trial);
    }
}

#[tokio::test]
async fn session_is_on_trial_as_it_says_if_it_wants_a_pod_and_the_words_are_its_own_and_of_its_last_pod() {
    let (mut session, next) = (well(), another("cameras", "truck-8", "next"));
    let (uid, image) = (session.metadata.uid.clone().unwrap(), fixtures::settings().uploader_image);
    for (of, last, wants_pod, is_on_trial) in [
        (uid.as_str(), None, true, true),
        (uid.as_str(), Some("replaced"), true, true),
        (uid.as_str(), Some("replaced"), false, false),
        (uid.as_str(), Some("that of the trial"), true, false),
        ("from whom it was copied", None, true, false),
    ] {
        let mark = mark(of, "replaced", 1, &image);
        session.metadata.annotations = Some([(names::TRIAL_ANNOTATION.to_owned(), mark)].into());
        session.status.get_or_insert_default().pod_uid = last.map(str::to_owned);
        let mut cluster = Cluster::new(fixtures::settings());
        session.spec.suspend = !wants_pod;
        cluster.shows(&session);
        cluster.shows(&next);
        cluster.shows_pod(&pod(&next, &running(), (names::IMAGE_ANNOTATION, OLD)));
        rolls_out(&cluster, 0).await;
        cluster.pass(&next).await;
        let is_turn_of_next = cluster.lines().iter().any(|line| line.starts_with("DELETE"));
        assert_eq!(is_turn_of_next, !is_on_trial, "{of} {last:?} {wants_pod}");
    }
}

#[tokio::test]
async fn session_that_is_changed_in_its_turn_is_not_on_trial() {
    let session = well();
    let old = pod(&session, &running(), (names::IMAGE_ANNOTATION, OLD));
    let change = |session: &mut UploadSession| (session.spec.transfer.queue_size, session.metadata.generation) = (8, Some(2));
    let made = annotations_after(&session, &old, change).await;
    assert_eq!(made.get(names::TRIAL_ANNOTATION), None);
}

#[tokio::test]
async fn pod_with_a_hash_of_another_version_is_replaced_at_once_when_its_session_was_changed_since() {
    let mut session = well();
    let old = pod(&session, &running(), (names::SPEC_HASH_ANNOTATION, "v0-2f47"));
    for (observed, first) in [(1, format!("PATCH {}", super::SESSION)), (0, format!("DELETE {POD}"))] {
        session.status.as_mut().unwrap().observed_generation = Some(observed);
        let mut cluster = Cluster::new(fixtures::settings());
        cluster.shows(&session);
        cluster.shows_pod(&old);
        cluster.pass(&session).await;
        assert_eq!(cluster.lines()[0], first);
    }
}

#[tokio::test]
async fn session_that_holds_up_the_rollout_is_named_to_those_of_its_namespace_only() {
    let waiting = [well(), another("secret", "truck-7", "elsewhere")];
    let blocker = another("cameras", "truck-8", "blocker");
    let mut cluster = Cluster::new(fixtures::settings());
    for session in waiting.iter().chain([&blocker]) {
        cluster.shows(session);
    }
    for session in &waiting {
        cluster.shows_pod(&pod(session, &running(), (names::IMAGE_ANNOTATION, OLD)));
    }
    cluster.shows_pod(&pod(&blocker, CRASHED, (names::TRIAL_ANNOTATION, "1")));
    let told = async |cluster: &Cluster, session: &UploadSession| {
        cluster.pass(session).await;
        let calls = cluster.calls();
        let call = calls.iter().find(|call| call.line.ends_with("/status")).expect("the status is written");
        assert_eq!(ready(&call.body["status"]), ("True", "UpgradePending"));
        message(&call.body["status"]).to_owned()
    };
    for (minutes, named) in [(0, false), (5, true)] {
        rolls_out(&cluster, minutes).await;
        assert_eq!(told(&cluster, &waiting[0]).await.contains("truck-8"), named, "after {minutes} minutes");
        let elsewhere = told(&cluster, &waiting[1]).await;
        assert!(!elsewhere.contains("truck-8") && !elsewhere.contains("cameras"), "{elsewhere}");
    }
    cluster.shows_pod(&fixtures::pod(&blocker, &running()));
    rolls_out(&cluster, 6).await;
    cluster.pass(&waiting[0]).await;
    assert!(!message(&written(&cluster.calls())).contains("truck-8"));
}

#[tokio::test]
async fn session_whose_next_pod_cannot_be_made_holds_up_the_rollout_and_is_named_until_it_is_suspended() {
    let (mut first, next) = (well(), another("cameras", "truck-8", "next"));
    let mut cluster = Cluster::new(fixtures::settings());
    cluster.shows(&first);
    let old = |session| pod(session, &running(), (names::IMAGE_ANNOTATION, OLD));
    cluster.shows_pod(&old(&first));
    rolls_out(&cluster, 0).await;
    cluster.pass(&first).await;
    cluster.loses_pods();
    cluster.shows(&next);
    cluster.shows_pod(&old(&next));
    let is_turn = async |cluster: &Cluster| {
        cluster.calls();
        cluster.pass_at(&next, fixtures::now() + Duration::from_mins(30)).await.unwrap();
        cluster.lines().contains(&"DELETE /api/v1/namespaces/cameras/pods/truck-8-uploader".to_owned())
    };
    cluster.answers(&format!("POST {PODS}"), 403, status(403, "Forbidden", "the quota is used up"));
    cluster.pass(&first).await;
    for minutes in (0..=30).step_by(3) {
        rolls_out(&cluster, minutes).await;
    }
    cluster.calls();
    cluster.pass(&next).await;
    let calls = cluster.calls();
    let told = calls.iter().find(|call| call.line.ends_with("/status")).expect("the status is written");
    assert!(message(&told.body["status"]).contains("truck-7"));
    assert!(!is_turn(&cluster).await);
    (first.spec.suspend, first.metadata.generation) = (true, Some(2));
    cluster.shows(&first);
    rolls_out(&cluster, 30).await;
    assert!(is_turn(&cluster).await);
}

#[tokio::test]
async fn session_that_cannot_be_read_holds_up_nobody_and_waits_for_nothing() {
    let (unreadable, waiting) = (well(), another("cameras", "truck-8", "waiting"));
    let mut cluster = Cluster::new(fixtures::settings());
    cluster.shows(&waiting);
    cluster.shows_pod(&pod(&waiting, &running(), (names::IMAGE_ANNOTATION, OLD)));
    cluster.shows_pod(&pod(&unreadable, CRASHED, (names::TRIAL_ANNOTATION, "1")));
    let error = InvalidObject { error: "no spec".into(), metadata: unreadable.metadata };
    cluster.brings(Event::Apply(DeserializeGuard(Err(error))));
    rolls_out(&cluster, 0).await;
    cluster.pass(&waiting).await;
    assert!(cluster.lines().contains(&"DELETE /api/v1/namespaces/cameras/pods/truck-8-uploader".to_owned()));
}

#[tokio::test]
async fn upgrade_that_waits_is_no_event_and_its_turn_is_one() {
    let session = well();
    let mut cluster = Cluster::new(fixtures::settings());
    cluster.shows(&session);
    cluster.shows_pod(&pod(&session, &running(), (names::IMAGE_ANNOTATION, OLD)));
    cluster.pass(&session).await;
    let calls = cluster.calls_and_events();
    assert!(!calls.iter().any(|call| call.line.contains("events.k8s.io")), "{calls:?}");
    assert_eq!(calls.last().unwrap().line, format!("PATCH {STATUS}"));
    let session = after(&session, &calls);
    rolls_out(&cluster, 0).await;
    cluster.pass(&session).await;
    assert_eq!(cluster.events(), ["UploaderUpgraded"]);
}
