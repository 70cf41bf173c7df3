//! (test) Sessions that are over.

use super::*;

/// `session` once its uploader has ended by itself and that was written down.
async fn completed(cluster: &mut Cluster, session: &UploadSession) -> UploadSession {
    cluster.shows_pod(&fixtures::pod(session, &fixtures::succeeded(fixtures::COMPLETED)));
    cluster.pass(session).await;
    let calls = cluster.calls();
    assert!(!calls.iter().any(|call| call.line.starts_with("DELETE")), "its pod stays for its log: {calls:?}");
    after(session, &calls)
}

#[tokio::test]
async fn session_whose_uploader_ended_by_itself_is_completed_and_costs_no_more_calls() {
    let mut cluster = cluster(&fixtures::session(""));
    let session = completed(&mut cluster, &fixtures::session("")).await;
    let status = serde_json::to_value(&session.status).unwrap();
    assert_eq!((status["phase"].as_str(), ready(&status)), (Some("Completed"), ("True", "CompletedWithLeftovers")));
    cluster.pass(&session).await;
    assert_eq!(cluster.lines(), [""; 0]);
}

#[tokio::test]
async fn people_are_told_of_the_completion_once() {
    let session = fixtures::session("");
    let mut cluster = cluster(&session);
    cluster.shows_pod(&fixtures::pod(&session, &fixtures::succeeded(fixtures::COMPLETED)));
    cluster.pass(&session).await;
    let calls = cluster.calls_and_events();
    let told: Vec<_> = calls.iter().filter_map(|call| call.body["reason"].as_str()).collect();
    assert_eq!(told, ["CompletedWithLeftovers"]);
    cluster.pass(&after(&session, &calls)).await;
    assert_eq!(cluster.events(), [""; 0]);
}

#[tokio::test]
async fn people_are_told_before_what_the_uploader_was_busy_with_is_removed_which_may_meet_a_conflict() {
    let mut session = fixtures::session("");
    session.status.get_or_insert_default().activity = Some(blobferry_crds::Activity::default());
    let mut cluster = cluster(&session);
    cluster.shows_pod(&fixtures::pod(&session, &fixtures::succeeded(fixtures::COMPLETED)));
    cluster.pass(&session).await;
    let calls = cluster.calls_and_events();
    let [.., told, removal] = &calls[..] else { panic!("{calls:?}") };
    assert_eq!(told.body["reason"], "CompletedWithLeftovers");
    assert_eq!(removal.body["status"], json!({"activity": null}));
}

#[tokio::test]
async fn another_run_token_removes_the_pod_and_then_makes_one() {
    let mut cluster = cluster(&fixtures::session(""));
    let mut session = completed(&mut cluster, &fixtures::session("")).await;
    session.spec.run_token = Some("again".into());
    cluster.pass(&session).await;
    let calls = cluster.calls();
    assert_eq!(calls[0].line, format!("DELETE {POD}"));
    assert_eq!(ready(&written(&calls)), ("False", "Restarting"));
    assert!(written(&calls).get("completionTime").is_none(), "{}", written(&calls));
    let session = after(&session, &calls);
    cluster.loses_pods();
    cluster.pass(&session).await;
    assert!(cluster.lines().contains(&format!("POST {PODS}")));
}

#[tokio::test]
async fn completed_session_holds_no_folders_before_and_after_it_is_written_down() {
    let first = fixtures::session("sessionName: truck");
    let mut second = fixtures::session("sessionName: truck");
    (second.metadata.name, second.metadata.uid) = (Some("truck-8".into()), Some("later".into()));
    second.metadata.creation_timestamp = Some(serde_json::from_value(json!("2026-11-21T09:00:00Z")).unwrap());
    let mut cluster = cluster(&second);
    let first = completed(&mut cluster, &first).await;
    cluster.shows(&first);
    cluster.pass(&second).await;
    assert!(cluster.lines().contains(&format!("POST {PODS}")));
}

#[tokio::test]
async fn completed_session_is_deleted_after_its_time_as_it_was_read() {
    let mut cluster = cluster(&fixtures::session("ttlSecondsAfterFinished: 60"));
    let mut session = completed(&mut cluster, &fixtures::session("ttlSecondsAfterFinished: 60")).await;
    let due = fixtures::now() + std::time::Duration::from_mins(1);
    let wait = cluster.pass(&session).await;
    assert_eq!(wait, Some(std::time::Duration::from_secs(61)));
    session.metadata.resource_version = Some("8".into());
    cluster.pass_at(&session, due).await.unwrap();
    let calls = cluster.calls();
    assert_eq!(calls.len(), 1, "{calls:?}");
    assert_eq!(calls[0].line, format!("DELETE {SESSION}"));
    assert_eq!(calls[0].body["preconditions"], json!({"uid": session.metadata.uid, "resourceVersion": "8"}));
}

#[tokio::test]
async fn completed_session_that_was_changed_meanwhile_is_not_deleted() {
    let mut cluster = cluster(&fixtures::session("ttlSecondsAfterFinished: 0"));
    let session = completed(&mut cluster, &fixtures::session("ttlSecondsAfterFinished: 0")).await;
    cluster.answers(&format!("DELETE {SESSION}"), 409, status(409, "Conflict", "the object has been modified"));
    assert!(cluster.pass_at(&session, fixtures::now()).await.unwrap_err().is_conflict());
}
