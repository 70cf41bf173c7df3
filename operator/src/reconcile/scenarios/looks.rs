//! (test) What is looked up on demand: nodes, events and rights.

use super::*;

#[tokio::test]
async fn pod_on_a_lost_node_is_removed_by_force_and_uid() {
    let session = fixtures::session("");
    let mut cluster = cluster(&session);
    let mut pod = fixtures::pod(&session, &fixtures::running("2026-11-21T08:10:00Z"));
    pod.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-11-21T08:20:00Z")).unwrap());
    cluster.shows_pod(&pod);
    cluster.pass(&session).await;
    let calls = cluster.calls();
    assert_eq!((calls[0].line.as_str(), calls[1].line.clone()), ("GET /api/v1/nodes/node-a", format!("DELETE {POD}")));
    assert_eq!((&calls[1].body["gracePeriodSeconds"], &calls[1].body["preconditions"]), (&json!(0), &json!({"uid": "pod-1"})));
    assert_eq!(ready(&written(&calls)), ("False", "NodeLost"));
}

#[tokio::test]
async fn pod_that_does_not_end_on_a_ready_node_is_told_and_left_alone() {
    let session = fixtures::session("");
    let mut cluster = cluster(&session);
    let mut pod = fixtures::pod(&session, &fixtures::running("2026-11-21T08:10:00Z"));
    pod.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-11-21T08:20:00Z")).unwrap());
    cluster.shows_pod(&pod);
    let node = json!({"metadata": {"name": "node-a"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    cluster.answers("GET /api/v1/nodes/node-a", 200, node);
    cluster.pass(&session).await;
    let calls = cluster.calls();
    assert!(!calls.iter().any(|call| call.line.starts_with("DELETE")));
    assert_eq!(ready(&written(&calls)), ("False", "PodStuck"));
}

#[tokio::test]
async fn failing_mount_is_looked_for_after_twenty_seconds_and_once_per_step() {
    let session = fixtures::session("");
    let mut cluster = cluster(&session);
    let scheduled = "{conditions: [{type: PodScheduled, status: 'True', lastTransitionTime: '2026-11-21T08:29:45Z'}]}";
    cluster.shows_pod(&fixtures::pod(&session, scheduled));
    let words = "mount.nfs: access denied";
    let event = json!({"metadata": {}, "involvedObject": {}, "type": "Warning", "reason": "FailedMount", "message": words});
    let events = "GET /api/v1/namespaces/cameras/events";
    cluster.answers(events, 200, json!({"apiVersion": "v1", "kind": "EventList", "metadata": {}, "items": [event]}));
    cluster.pass(&session).await;
    let calls = cluster.calls();
    assert_eq!(ready(&written(&calls)), ("False", "ContainerCreating"));
    let session = after(&session, &calls);
    for (second, looks) in [(4, 0), (5, 1), (24, 0), (25, 1)] {
        let now = fixtures::now() + std::time::Duration::from_secs(second);
        cluster.pass_at(&session, now).await.unwrap();
        let calls = cluster.calls();
        let asked: Vec<_> = calls.iter().filter(|call| call.line == events).collect();
        assert_eq!(asked.len(), looks, "after {second} s");
        // The pod has a node, so that the scheduler's words are no cause.
        assert!(asked.iter().all(|call| call.query.contains("reason%21%3DFailedScheduling")), "{asked:?}");
        if second >= 5 {
            assert_eq!(ready(&written(&calls)), ("False", "FailedMount"));
            assert!(message(&written(&calls)).contains("access denied"));
        }
    }
}

#[tokio::test]
async fn mount_that_failed_is_not_told_any_more_once_it_has_worked() {
    let session = fixtures::session("");
    let mut cluster = cluster(&session);
    let scheduled = "{conditions: [{type: PodScheduled, status: 'True', lastTransitionTime: '2026-11-21T08:29:00Z'}]}";
    cluster.shows_pod(&fixtures::pod(&session, scheduled));
    let event = |type_: &str, reason: &str, second: u32| {
        let time = format!("2026-11-21T08:29:{second:02}Z");
        json!({"metadata": {}, "involvedObject": {}, "type": type_, "reason": reason, "message": "m", "lastTimestamp": time})
    };
    let mut told = vec![event("Normal", "Scheduled", 0), event("Warning", "FailedMount", 5)];
    let mut now = fixtures::now();
    let mut session = session;
    for (next, reason) in [
        (None, "FailedMount"),
        (Some(event("Normal", "Pulling", 40)), "ContainerCreating"),
        (Some(event("Warning", "FailedMount", 50)), "FailedMount"),
        (Some(event("Normal", "Pulling", 50)), "FailedMount"),
    ] {
        told.splice(0..0, next);
        let list = json!({"apiVersion": "v1", "kind": "EventList", "metadata": {}, "items": told});
        cluster.answers("GET /api/v1/namespaces/cameras/events", 200, list);
        let wait = cluster.pass_at(&session, now).await.unwrap();
        let calls = cluster.calls();
        if calls.iter().any(|call| call.line == format!("PATCH {STATUS}")) {
            session = after(&session, &calls);
        }
        assert_eq!(session.status.as_ref().unwrap().conditions[0].reason, reason, "{told:?}");
        now += wait.unwrap();
    }
}

#[tokio::test]
async fn kill_is_explained_by_the_kubelets_event_of_that_time() {
    let session = fixtures::session("");
    let container = "{name: uploader, image: '', imageID: '', ready: false, restartCount: 1, state: {running: {startedAt: \
                     '2026-11-21T08:29:58Z'}}, lastState: {terminated: {exitCode: 137, reason: Error, finishedAt: '2026-11-21T08:29:57Z'}}}";
    let status =
        format!("{{phase: Running, conditions: [{{type: PodScheduled, status: 'True'}}], containerStatuses: [{container}]}}");
    for (told, reason) in [("2026-11-21T08:29:55Z", "UploaderUnhealthy"), ("2026-11-21T08:15:00Z", "UploaderExited")] {
        let mut cluster = cluster(&session);
        cluster.shows_pod(&fixtures::pod(&session, &status));
        let words = "Container uploader failed liveness probe, will be restarted";
        let event =
            json!({"metadata": {}, "involvedObject": {}, "reason": "Killing", "message": words, "lastTimestamp": told, "count": 2});
        let events = "GET /api/v1/namespaces/cameras/events";
        cluster.answers(events, 200, json!({"apiVersion": "v1", "kind": "EventList", "metadata": {}, "items": [event]}));
        cluster.pass(&session).await;
        let calls = cluster.calls();
        assert_eq!(ready(&written(&calls)), ("False", reason), "told at {told}");
        let asked: Vec<_> = calls.iter().filter(|call| call.line == events).collect();
        assert!(asked.len() == 1 && asked[0].query.contains("reason%3DKilling"), "{asked:?}");
        cluster.pass(&after(&session, &calls)).await;
        assert!(!cluster.lines().iter().any(|line| line == events), "one look is enough");
    }
}

#[tokio::test]
async fn rights_of_a_silent_uploader_are_looked_at_once_in_a_while() {
    let session = fixtures::session("");
    let mut cluster = cluster(&session);
    cluster.shows_pod(&fixtures::pod(&session, &fixtures::running("2026-11-21T08:10:00Z")));
    cluster.pass(&session).await;
    let calls = cluster.calls();
    assert_eq!(ready(&written(&calls)), ("Unknown", "UploaderSilent"));
    assert!(calls.iter().any(|call| call.line == "POST /api/v1/namespaces/cameras/serviceaccounts"));
    cluster.pass(&after(&session, &calls)).await;
    assert_eq!(cluster.lines(), [""; 0]);
}

#[tokio::test]
async fn silent_uploader_whose_account_was_made_anew_gets_another_pod() {
    let session = fixtures::session("");
    let mut pod = fixtures::pod(&session, &fixtures::running("2026-11-21T08:10:00Z"));
    pod.metadata.creation_timestamp = Some(serde_json::from_value(json!("2026-11-21T08:09:00Z")).unwrap());
    for (account_made, replaced) in [("2026-11-21T08:08:00Z", false), ("2026-11-21T08:20:00Z", true)] {
        let mut cluster = cluster(&session);
        cluster.shows_pod(&pod);
        let labels = json!({names::MANAGED_BY_LABEL: names::OPERATOR});
        let account = json!({"metadata": {"name": "blobferry-uploader", "creationTimestamp": account_made, "labels": labels}});
        cluster.answers(&format!("GET {ACCOUNT}"), 200, account);
        cluster.pass(&session).await;
        let deletions: Vec<_> = cluster.calls().into_iter().filter(|call| call.line == format!("DELETE {POD}")).collect();
        assert_eq!(deletions.len(), usize::from(replaced), "{account_made}");
        assert!(deletions.iter().all(|call| call.body["preconditions"] == json!({"uid": "pod-1"})));
    }
}
