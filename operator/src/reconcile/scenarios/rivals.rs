//! (test) Sessions that want the same folders.

use super::*;

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
