//! (test) Sessions that want the same folders.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use super::*;
use crate::{
    decisions::{export::Export, validate},
    reconcile::locate,
};

const CLAIMS: &str = "/api/v1/namespaces/cameras/persistentvolumeclaims";
const VOLUME: &str = "/api/v1/persistentvolumes/v";

#[tokio::test]
async fn second_session_for_the_same_folders_waits_without_a_pod_until_the_first_is_gone() {
    let first = fixtures::session("sessionName: truck");
    let mut second = fixtures::session("sessionName: truck");
    (second.metadata.name, second.metadata.uid) = (Some("truck-8".into()), Some("later".into()));
    second.metadata.creation_timestamp = Some(serde_json::from_value(json!("2026-11-21T09:00:00Z")).unwrap());
    let mut cluster = cluster(&first);
    cluster.shows(&second);
    let wait = cluster.pass(&second).await;
    let calls = cluster.calls();
    assert!(!calls.iter().any(|call| call.line.starts_with("POST")));
    let status = &calls.last().unwrap().body["status"];
    assert_eq!(ready(status), ("False", "SessionNameInUse"));
    assert!(message(status).contains("truck-7"), "{status}");
    assert_eq!(wait, Some(std::time::Duration::from_secs(10)));
    cluster.loses(&first);
    cluster.pass(&second).await;
    assert!(cluster.lines().contains(&format!("POST {PODS}")));
}

#[tokio::test]
async fn pod_of_a_deleted_session_keeps_its_folders_until_it_is_gone() {
    let first = fixtures::session("sessionName: truck");
    let mut second = fixtures::session("sessionName: truck");
    (second.metadata.name, second.metadata.uid) = (Some("truck-8".into()), Some("later".into()));
    let mut cluster = cluster(&second);
    cluster.shows_pod(&fixtures::pod(&first, &fixtures::running("2026-11-21T08:10:00Z")));
    cluster.pass(&second).await;
    assert!(!cluster.lines().iter().any(|line| line.starts_with("POST")));
    cluster.loses_pods();
    cluster.pass(&second).await;
    assert!(cluster.lines().contains(&format!("POST {PODS}")));
}

#[tokio::test]
async fn folders_are_reserved_before_the_pod_exists() {
    let first = fixtures::session("sessionName: truck");
    let mut older = fixtures::session("sessionName: truck");
    (older.metadata.name, older.metadata.uid) = (Some("truck-6".into()), Some("0-older".into()));
    let mut cluster = cluster(&first);
    cluster.pass(&first).await;
    cluster.calls();
    // Made in the same second and sorted before, but the other one was seen first.
    cluster.shows(&older);
    cluster.pass(&older).await;
    assert!(!cluster.lines().iter().any(|line| line.starts_with("POST")));
}

#[tokio::test]
async fn pod_that_could_not_be_made_holds_no_folders() {
    let first = fixtures::session("sessionName: truck");
    let mut second = fixtures::session("sessionName: truck");
    (second.metadata.name, second.metadata.uid) = (Some("truck-8".into()), Some("later".into()));
    let mut cluster = cluster(&first);
    cluster.answers(&format!("POST {PODS}"), 403, status(403, "Forbidden", "no"));
    cluster.pass(&first).await;
    cluster.loses(&first);
    cluster.shows(&second);
    cluster.calls();
    cluster.pass(&second).await;
    assert!(cluster.lines().contains(&format!("POST {PODS}")));
}

/// Two claims of one export, and who has the folders there is a session on the first one.
struct TwoClaims {
    held: UploadSession,
    pod: Pod,
    second: UploadSession,
}

impl TwoClaims {
    fn new() -> (Self, Cluster) {
        let export = Export { server: "nas.example.com".into(), path: "/srv/drop".into() };
        let mut held = fixtures::session("sessionName: truck");
        let mut second = fixtures::session("{sessionName: truck, source: {persistentVolumeClaim: {claimName: share-2}}}");
        (second.metadata.name, second.metadata.uid) = (Some("truck-8".into()), Some("0-sorted-first".into()));
        let mut pod = fixtures::pod(&held, &fixtures::running("2026-11-21T08:10:00Z"));
        let area = validate::validate(&held, &fixtures::settings()).unwrap().area().on(&export);
        pod.annotations_mut().insert(names::AREA_ANNOTATION.into(), serde_json::to_string(&area).unwrap());
        held.status.get_or_insert_default().pod_uid = pod.uid();
        let mut cluster = cluster(&held);
        cluster.shows(&second);
        for claim in ["share", "share-2"] {
            let bound = json!({"metadata": {"name": claim}, "spec": {"volumeName": "v"}, "status": {"phase": "Bound"}});
            cluster.answers(&format!("GET {CLAIMS}/{claim}"), 200, bound);
        }
        let volume = json!({"metadata": {"name": "v"}, "spec": {"nfs": {"server": export.server, "path": export.path}}});
        cluster.answers(&format!("GET {VOLUME}"), 200, volume);
        (Self { held, pod, second }, cluster)
    }
}

#[tokio::test]
async fn session_whose_pod_is_lost_after_a_restart_of_the_operator_keeps_its_folders_on_an_export() {
    let (TwoClaims { held, pod, second }, mut cluster) = TwoClaims::new();
    cluster.shows_pod(&pod);
    locate::recall(&cluster.context).await;
    assert_eq!(cluster.lines(), [format!("GET {CLAIMS}/share-2"), format!("GET {VOLUME}")], "the pod knows of the other claim");
    cluster.loses_pods();
    cluster.pass(&second).await;
    assert_eq!(ready(&cluster.calls().last().unwrap().body["status"]), ("False", "SessionNameInUse"));
    cluster.loses(&held);
    cluster.pass(&second).await;
    assert!(cluster.lines().contains(&format!("POST {PODS}")));
}

#[tokio::test]
async fn session_whose_pod_was_lost_before_the_operator_came_keeps_its_folders_on_an_export() {
    let (TwoClaims { held, second, .. }, cluster) = TwoClaims::new();
    locate::recall(&cluster.context).await;
    cluster.calls();
    cluster.pass(&second).await;
    assert_eq!(ready(&cluster.calls().last().unwrap().body["status"]), ("False", "SessionNameInUse"));
    cluster.pass(&held).await;
    let lines = cluster.lines();
    assert!(lines.contains(&format!("POST {PODS}")) && !lines.contains(&format!("GET {VOLUME}")), "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn claim_that_cannot_be_asked_about_is_asked_about_again_before_anything_begins() {
    let (TwoClaims { second, .. }, cluster) = TwoClaims::new();
    let claim = format!("GET {CLAIMS}/share");
    let sleeps = status(500, "InternalError", "the database sleeps");
    cluster.answers(&claim, 500, sleeps.clone());
    let wakes = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let bound = json!({"metadata": {"name": "share"}, "spec": {"volumeName": "v"}, "status": {"phase": "Bound"}});
        cluster.answers(&claim, 200, bound);
    };
    tokio::join!(locate::recall(&cluster.context), wakes);
    assert_eq!(cluster.lines().iter().filter(|line| **line == claim).count(), 2);
    cluster.pass(&second).await;
    assert_eq!(ready(&cluster.calls().last().unwrap().body["status"]), ("False", "SessionNameInUse"));
    cluster.answers(&claim, 500, sleeps);
    cluster.context.shares.forget("cameras", "share");
    let begun = tokio::time::Instant::now();
    locate::recall(&cluster.context).await;
    assert!((30..35).contains(&begun.elapsed().as_secs()), "the others do not wait for ever");
}

#[tokio::test]
async fn pod_whose_claim_was_bound_while_no_operator_was_there_holds_its_folders_on_the_export() {
    let (TwoClaims { held, second, .. }, mut cluster) = TwoClaims::new();
    let mut pod = fixtures::pod(&held, &fixtures::running("2026-11-21T08:10:00Z"));
    cluster.shows_pod(&pod);
    locate::recall(&cluster.context).await;
    let waits = async |cluster: &Cluster| {
        cluster.calls();
        cluster.pass(&second).await;
        assert_eq!(ready(&cluster.calls().last().unwrap().body["status"]), ("False", "SessionNameInUse"));
    };
    waits(&cluster).await;
    // It does as long as it runs, whatever becomes of its session.
    cluster.loses(&held);
    pod.metadata.deletion_timestamp = pod.metadata.creation_timestamp.clone();
    cluster.shows_pod(&pod);
    waits(&cluster).await;
    cluster.loses_pods();
    cluster.pass(&second).await;
    assert!(cluster.lines().contains(&format!("POST {PODS}")));
}

#[tokio::test]
async fn pod_that_has_not_started_is_made_anew_when_its_claim_was_bound_while_no_operator_was_there() {
    let (TwoClaims { held, .. }, mut cluster) = TwoClaims::new();
    cluster.shows_pod(&fixtures::pod(&held, "{}"));
    locate::recall(&cluster.context).await;
    cluster.pass(&held).await;
    assert!(cluster.lines().contains(&format!("DELETE {POD}")));
}

#[tokio::test]
async fn claim_that_may_have_been_made_again_is_asked_again_although_it_was_asked_a_moment_ago() {
    let area = async |session: &UploadSession, cluster: &Cluster| {
        cluster.pass(session).await;
        let calls = cluster.calls();
        let made = calls.iter().find(|call| call.line == format!("POST {PODS}")).expect("the pod is made");
        made.body["metadata"]["annotations"][names::AREA_ANNOTATION].as_str().unwrap().to_owned()
    };
    for (is_suspended, is_shared) in [(true, false), (true, true), (false, true)] {
        let (TwoClaims { held, .. }, mut cluster) = TwoClaims::new();
        let mut other = fixtures::session("sessionName: other");
        (other.metadata.name, other.metadata.uid) = (Some("truck-9".into()), Some("other".into()));
        if is_shared {
            cluster.shows(&other);
        }
        assert!(area(&held, &cluster).await.contains("nas.example.com"));
        let mut pod = fixtures::pod(&held, &fixtures::running("2026-11-21T08:30:10Z"));
        pod.metadata.uid = Some("created-uid".into());
        cluster.shows_pod(&pod);
        let mut suspended = held.clone();
        suspended.spec.suspend = true;
        if is_suspended {
            cluster.shows(&suspended);
        } else {
            cluster.loses(&held);
        }
        cluster.loses_pods();
        let bound = json!({"metadata": {"name": "share"}, "spec": {"volumeName": "w"}, "status": {"phase": "Bound"}});
        cluster.answers(&format!("GET {CLAIMS}/share"), 200, bound);
        let volume = json!({"metadata": {"name": "w"}, "spec": {"nfs": {"server": "other.example.com", "path": "/"}}});
        cluster.answers("GET /api/v1/persistentvolumes/w", 200, volume);
        let next = if is_shared { &other } else { &held };
        cluster.context.memory.forget(&held.uid().unwrap());
        cluster.shows(next);
        assert!(area(next, &cluster).await.contains("other.example.com"), "{is_suspended} {is_shared}");
    }
}

#[tokio::test]
async fn pod_that_starts_before_anybody_could_tell_where_its_claim_leads_is_asked_about_once_it_runs() {
    let claim = format!("GET {CLAIMS}/share");
    let unbound = (200, json!({"metadata": {"name": "share"}, "status": {"phase": "Pending"}}));
    let sleeps = (500, status(500, "InternalError", "the database sleeps"));
    for (code, answer) in [unbound, sleeps] {
        let (TwoClaims { held, second, .. }, mut cluster) = TwoClaims::new();
        cluster.answers(&claim, code, answer);
        cluster.pass(&held).await;
        let held = after(&held, &cluster.calls());
        cluster.shows(&held);
        let mut pod = fixtures::pod(&held, &fixtures::running("2026-11-21T08:30:00Z"));
        pod.metadata.uid = Some("created-uid".into());
        cluster.shows_pod(&pod);
        let bound = json!({"metadata": {"name": "share"}, "spec": {"volumeName": "v"}, "status": {"phase": "Bound"}});
        cluster.answers(&claim, 200, bound);
        cluster.pass(&held).await;
        assert_eq!(cluster.lines()[..2], [claim.clone(), format!("GET {VOLUME}")]);
        cluster.pass(&held).await;
        assert!(!cluster.lines().contains(&claim), "it is known now");
        cluster.pass(&second).await;
        assert_eq!(ready(&cluster.calls().last().unwrap().body["status"]), ("False", "SessionNameInUse"));
    }
}
