//! (test) Sessions that are deleted while files may be claimed for them.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;

const CLAIM: &str = "/api/v1/namespaces/cameras/persistentvolumeclaims/blobferry-6f7e0b0c-0000-4000-8000-000000000001";

/// A session that has run and was deleted two minutes ago.
fn deleted(spec: &str) -> UploadSession {
    let mut session = fixtures::deleted(spec, "2026-11-21T08:28:00Z");
    session.status = Some(UploadSessionStatus { start_time: session.metadata.creation_timestamp.clone(), ..Default::default() });
    session
}

fn done(session: &UploadSession, mode: &str, result: &str) -> k8s_openapi::api::core::v1::Pod {
    let account =
        fixtures::COMPLETED.replace("\"watch\"", &format!("\"{mode}\"")).replace("\"Completed\"", &format!("\"{result}\""));
    fixtures::pod(session, &fixtures::succeeded(&account))
}

/// What was written when the object was let go.
fn finalizers(calls: &[Call]) -> Option<Value> {
    let call =
        calls.iter().find(|call| call.line == format!("PATCH {SESSION}") && call.body["metadata"].get("finalizers").is_some());
    call.map(|call| call.body["metadata"]["finalizers"].clone())
}

#[tokio::test]
async fn finalizer_is_set_before_the_first_object_and_its_version_is_used_from_then_on() {
    let session = fixtures::session("deletionPolicy: Drain");
    let cluster = cluster(&session);
    cluster.pass(&session).await;
    let calls = cluster.calls();
    assert_eq!(calls[0].line, format!("PATCH {SESSION}"));
    assert_eq!(calls[0].body["metadata"], json!({"resourceVersion": "7", "finalizers": [names::FINALIZER]}));
    let pod = calls.iter().find(|call| call.line == format!("POST {PODS}")).unwrap();
    assert!(pod.body["metadata"].get("ownerReferences").is_none());
    let annotated = calls.iter().filter(|call| call.line == format!("PATCH {SESSION}")).nth(1).unwrap();
    assert_eq!(annotated.body["metadata"]["resourceVersion"], "8");
}

#[tokio::test]
async fn deleted_session_gets_its_pod_anew_in_another_mode_and_goes_when_that_is_done() {
    for (policy, mode, result) in [("Drain", "drain", "Drained"), ("Release", "release", "Released")] {
        let watching = fixtures::session(&format!("deletionPolicy: {policy}"));
        let session = deleted(&format!("deletionPolicy: {policy}"));
        let mut cluster = cluster(&session);
        cluster.shows_pod(&fixtures::pod(&watching, &fixtures::running("2026-11-21T08:10:00Z")));
        cluster.pass(&session).await;
        let calls = cluster.calls();
        assert_eq!(calls[0].line, format!("DELETE {POD}"));
        assert_eq!(written(&calls)["phase"], "Draining");
        let session = after(&session, &calls);
        cluster.loses_pods();
        cluster.pass(&session).await;
        let calls = cluster.calls();
        let pod = calls.iter().find(|call| call.line == format!("POST {PODS}")).unwrap();
        assert_eq!(pod.body["metadata"]["annotations"][names::MODE_ANNOTATION], mode);
        assert!(finalizers(&calls).is_none());
        let session = after(&session, &calls);
        let mut pod = done(&session, mode, result);
        pod.metadata.uid = Some("created-uid".into());
        cluster.shows_pod(&pod);
        cluster.pass(&session).await;
        let calls = cluster.calls_and_events();
        assert_eq!(calls[0].line, format!("DELETE {POD}"));
        assert_eq!(finalizers(&calls), Some(json!([])));
        let told: Vec<_> = calls.iter().filter_map(|call| call.body["reason"].as_str()).collect();
        assert_eq!(told, [result]);
        assert!(!calls.iter().any(|call| call.line == format!("PATCH {STATUS}")), "there is no status any more: {calls:?}");
    }
}

#[tokio::test]
async fn uploader_that_drains_is_shown_as_such_until_when() {
    let mut session = deleted("deletionPolicy: Drain");
    let mut cluster = cluster(&session);
    cluster.shows_pod(&fixtures::pod(&session, &fixtures::running("2026-11-21T08:28:10Z")));
    fixtures::report(&mut session, "2026-11-21T08:29:00Z", ALL_WELL);
    let wait = cluster.pass(&session).await;
    let calls = cluster.calls();
    let status = written(&calls);
    assert_eq!((ready(&status), status["phase"].as_str()), (("False", "Draining"), Some("Draining")));
    assert!(message(&status).contains("2026-11-21 09:28:00 UTC"), "{status}");
    assert_eq!(wait, Some(Duration::from_secs(601)));
    cluster.pass(&after(&session, &calls)).await;
    assert_eq!(cluster.lines(), [""; 0]);
}

#[tokio::test]
async fn deletion_ends_after_its_time_whatever_the_pod_does() {
    let session = deleted("{deletionPolicy: Drain, drainTimeout: 2m}");
    let mut cluster = cluster(&session);
    cluster.shows_pod(&fixtures::pod(&session, &fixtures::running("2026-11-21T08:28:10Z")));
    cluster.pass(&session).await;
    let calls = cluster.calls_and_events();
    assert_eq!((calls[0].line.clone(), finalizers(&calls)), (format!("DELETE {POD}"), Some(json!([]))));
    assert!(calls.iter().any(|call| call.body["reason"] == "DrainGivenUp"));
    cluster.loses_pods();
    cluster.pass_over_what_is_known_of(&session).await;
    assert_eq!(cluster.lines(), [""; 0], "it is let go, although the watch has not shown that yet");
}

#[tokio::test]
async fn namespace_that_is_being_deleted_ends_it_at_once() {
    let session = deleted("deletionPolicy: Drain");
    let cluster = cluster(&session);
    let mut refusal = status(403, "Forbidden", "unable to create new content in namespace cameras because it is being terminated");
    refusal["details"] = json!({"causes": [{"reason": "NamespaceTerminating", "message": "", "field": "metadata.namespace"}]});
    cluster.answers(&format!("POST {PODS}"), 403, refusal);
    cluster.pass(&session).await;
    let calls = cluster.calls();
    assert!(finalizers(&calls).is_none());
    cluster.pass(&after(&session, &calls)).await;
    assert_eq!(finalizers(&cluster.calls()), Some(json!([])));
}

#[tokio::test]
async fn pod_that_cannot_be_made_for_a_minute_ends_it() {
    let session = deleted("deletionPolicy: Drain");
    let cluster = cluster(&session);
    cluster.answers(&format!("POST {PODS}"), 403, status(403, "Forbidden", "exceeded quota"));
    let mut session = session;
    for (seconds, ended) in [(0, false), (30, false), (59, false), (60, true)] {
        cluster.pass_at(&session, fixtures::now() + Duration::from_secs(seconds)).await.unwrap();
        let calls = cluster.calls();
        assert_eq!(finalizers(&calls).is_some(), ended, "after {seconds} s");
        if calls.iter().any(|call| call.line == format!("PATCH {STATUS}")) {
            session = after(&session, &calls);
        }
    }
}

#[tokio::test]
async fn webhook_that_cannot_be_called_for_a_minute_ends_it_too() {
    let mut session = deleted("deletionPolicy: Drain");
    let cluster = cluster(&session);
    let words = "Internal error occurred: failed calling webhook \"pods.example.com\": service \"gate\" not found";
    cluster.answers(&format!("POST {PODS}"), 500, status(500, "InternalError", words));
    for (seconds, ended) in [(0, false), (59, false), (60, true)] {
        cluster.pass_at(&session, fixtures::now() + Duration::from_secs(seconds)).await.unwrap();
        let calls = cluster.calls_and_events();
        assert_eq!(finalizers(&calls).is_some(), ended, "after {seconds} s");
        if seconds == 0 {
            let told = written(&calls);
            assert!(ready(&told).1 == "PodRefused" && message(&told).contains("gate") && message(&told).contains("Stop"), "{told}");
            session = after(&session, &calls);
        }
        if ended {
            let given_up = calls.iter().find(|call| call.body["reason"] == "DrainGivenUp").unwrap();
            assert!(given_up.body["note"].as_str().unwrap().contains("service \"gate\" not found"), "{given_up:?}");
        }
    }
}

#[tokio::test]
async fn call_that_fails_says_how_a_deleted_session_ends_nevertheless() {
    let session = deleted("deletionPolicy: Release");
    let cluster = cluster(&session);
    cluster.answers(&format!("POST {PODS}"), 500, status(500, "InternalError", "the database sleeps"));
    for second in [0, 14, 15] {
        assert_eq!(cluster.calls().iter().filter(|call| call.line == format!("PATCH {STATUS}")).count(), 0, "{second}");
        assert!(cluster.pass_at(&session, fixtures::now() + Duration::from_secs(second)).await.is_err());
    }
    let told = written(&cluster.calls());
    assert_eq!(ready(&told).1, "CallFailed");
    let words = message(&told);
    assert!(
        words.contains("the database sleeps") && words.contains("cannot be given back until 2026-11-21 09:28:00 UTC"),
        "{words}"
    );
}

#[tokio::test]
async fn what_was_refused_often_is_tried_at_once_when_its_session_is_changed_or_deleted() {
    let refused = status(403, "Forbidden", "exceeded quota");
    for deletion in [false, true] {
        let mut session = fixtures::session("deletionPolicy: Drain");
        session.status =
            Some(UploadSessionStatus { start_time: session.metadata.creation_timestamp.clone(), ..UploadSessionStatus::default() });
        let cluster = cluster(&session);
        cluster.answers(&format!("POST {PODS}"), 403, refused.clone());
        let mut now = fixtures::now();
        for _ in 0..10 {
            let wait = cluster.pass_at(&session, now).await.unwrap();
            let calls = cluster.calls();
            if calls.iter().any(|call| call.line == format!("PATCH {STATUS}")) {
                session = after(&session, &calls);
            }
            session.metadata.finalizers = Some(vec![names::FINALIZER.into()]);
            now += wait.unwrap();
        }
        now -= Duration::from_secs(1);
        cluster.pass_at(&session, now).await.unwrap();
        assert!(!cluster.lines().contains(&format!("POST {PODS}")), "it is not due");
        session.metadata.generation = session.metadata.generation.map(|generation| generation + 1);
        if deletion {
            session.metadata.deletion_timestamp = Some(Time(now));
        }
        cluster.pass_at(&session, now).await.unwrap();
        let calls = cluster.calls();
        assert!(calls.iter().any(|call| call.line == format!("POST {PODS}")), "{calls:?}");
        assert_eq!(finalizers(&calls), None);
    }
}

#[tokio::test]
async fn what_may_not_be_removed_holds_no_deleted_session() {
    for forbidden in [POD, CLAIM] {
        let mut session = UploadSession { spec: fixtures::nfs_session().spec, ..deleted("") };
        session.spec.deletion_policy = blobferry_crds::DeletionPolicy::Drain;
        session.spec.drain_timeout = "2m".into();
        let mut cluster = cluster(&session);
        cluster.shows_pod(&fixtures::pod(&session, &fixtures::running("2026-11-21T08:28:10Z")));
        let claim = build::volume_claim(&validate(&session, &fixtures::settings()).unwrap());
        cluster.answers(&format!("GET {CLAIM}"), 200, serde_json::to_value(claim).unwrap());
        cluster.answers(&format!("DELETE {forbidden}"), 403, status(403, "Forbidden", "nothing is deleted at night"));
        cluster.pass(&session).await;
        let calls = cluster.calls_and_events();
        assert!(calls.iter().any(|call| call.line == format!("DELETE {forbidden}")), "{calls:?}");
        assert_eq!(finalizers(&calls), Some(json!([])), "{forbidden}");
        let told = calls.iter().find(|call| call.body["reason"] == "CleanupRefused").unwrap();
        assert!(told.body["note"].as_str().unwrap().contains("nothing is deleted at night"), "{told:?}");
    }
}

#[tokio::test]
async fn deleted_session_that_somebody_else_holds_has_no_uploader_any_more_and_says_so() {
    let mut session = fixtures::deleted("", "2026-11-21T08:29:00Z");
    session.metadata.finalizers = Some(vec!["foregroundDeletion".into()]);
    let mut cluster = cluster(&session);
    cluster.shows_pod(&fixtures::pod(&fixtures::session(""), &fixtures::running("2026-11-21T08:10:00Z")));
    cluster.pass(&session).await;
    assert_eq!(cluster.lines(), [""; 0], "the garbage collector sees to it");
    session.metadata.finalizers = Some(vec!["foregroundDeletion".into(), "example.com/audit".into()]);
    cluster.pass(&session).await;
    let calls = cluster.calls_and_events();
    assert_eq!(calls[0].line, format!("DELETE {POD}"));
    let told = written(&calls);
    assert!(ready(&told) == ("False", "Deleted") && message(&told).contains("example.com/audit"), "{told}");
    cluster.loses_pods();
    cluster.pass(&after(&session, &calls)).await;
    assert!(!cluster.lines().iter().any(|line| line.starts_with("POST") || line.starts_with("DELETE")));
    // The same of one that had completed, and whose object would have been deleted by now.
    let mut completed = after(&session, &calls);
    completed.spec.ttl_seconds_after_finished = Some(0);
    let status = completed.status.as_mut().unwrap();
    status.completion_time = Some(Time(fixtures::now()));
    let complete = "{type: Complete, status: 'True', reason: Completed, message: m, lastTransitionTime: '2026-11-21T08:15:00Z'}";
    status.conditions = vec![serde_norway::from_str(complete).unwrap()];
    cluster.pass(&completed).await;
    let calls = cluster.calls();
    assert_eq!(ready(&written(&calls)), ("False", "Deleted"));
    assert!(!calls.iter().any(|call| call.line.starts_with("DELETE")), "{calls:?}");
}

#[tokio::test]
async fn session_that_may_not_run_and_one_that_never_ran_go_at_once() {
    let never = fixtures::deleted("deletionPolicy: Drain", "2026-11-21T08:28:00Z");
    for session in [deleted("{deletionPolicy: Drain, pod: {image: other}}"), never] {
        let cluster = cluster(&session);
        cluster.pass(&session).await;
        let calls = cluster.calls();
        assert_eq!((calls.len(), finalizers(&calls)), (1, Some(json!([]))), "{calls:?}");
    }
}

#[tokio::test]
async fn other_finalizers_stay_and_an_object_that_is_gone_is_success() {
    let mut session = fixtures::deleted("deletionPolicy: Drain", "2026-11-21T08:28:00Z");
    session.metadata.finalizers.as_mut().unwrap().push("example.com/other".into());
    let cluster = cluster(&session);
    cluster.answers(&format!("PATCH {SESSION}"), 404, status(404, "NotFound", "gone"));
    cluster.pass(&session).await;
    assert_eq!(finalizers(&cluster.calls()), Some(json!(["example.com/other"])));
}

#[tokio::test]
async fn claim_of_an_inline_export_lives_until_the_last_uploader_is_done() {
    let mut session = deleted("deletionPolicy: Drain");
    session.spec.source = fixtures::nfs_session().spec.source;
    let mut cluster = cluster(&session);
    cluster.shows_pod(&fixtures::pod(&session, &fixtures::running("2026-11-21T08:28:10Z")));
    let mut claim = build::volume_claim(&validate(&session, &fixtures::settings()).unwrap()).unwrap();
    assert_eq!(claim.metadata.owner_references, None);
    claim.metadata.uid = Some("claim-1".into());
    cluster.answers(&format!("GET {CLAIM}"), 200, serde_json::to_value(&claim).unwrap());
    cluster.pass(&session).await;
    let calls = cluster.calls();
    assert!(!calls.iter().any(|call| call.line.starts_with("DELETE")), "{calls:?}");
    cluster.shows_pod(&done(&session, "drain", "Drained"));
    cluster.pass(&after(&session, &calls)).await;
    let calls = cluster.calls();
    let lines: Vec<_> = calls.iter().map(|call| call.line.as_str()).collect();
    assert_eq!(lines, [&format!("DELETE {POD}"), &format!("GET {CLAIM}"), &format!("DELETE {CLAIM}"), &format!("PATCH {SESSION}")]);
    assert_eq!(calls[2].body["preconditions"], json!({"uid": "claim-1"}));
}

#[tokio::test]
async fn pod_without_an_owner_goes_before_the_finalizer_when_the_policy_becomes_stop() {
    let mut session = fixtures::session("");
    session.metadata.finalizers = Some(vec![names::FINALIZER.into()]);
    let mut cluster = cluster(&session);
    cluster.shows_pod(&fixtures::pod(&fixtures::session("deletionPolicy: Drain"), &fixtures::running("2026-11-21T08:10:00Z")));
    cluster.pass(&session).await;
    let calls = cluster.calls();
    assert_eq!((calls[0].line.clone(), finalizers(&calls)), (format!("DELETE {POD}"), None));
    cluster.loses_pods();
    cluster.pass(&after(&session, &calls)).await;
    let calls = cluster.calls();
    assert_eq!(finalizers(&calls), Some(json!([])));
    let pod = calls.iter().find(|call| call.line == format!("POST {PODS}")).unwrap();
    assert_eq!(pod.body["metadata"]["ownerReferences"][0]["uid"], json!(session.metadata.uid));
}

#[tokio::test]
async fn session_goes_a_minute_after_its_time_although_no_answer_comes_to_the_removal_of_its_pod() {
    let session = deleted("{deletionPolicy: Drain, drainTimeout: 2m}");
    let mut cluster = cluster(&session);
    cluster.shows_pod(&fixtures::pod(&session, &fixtures::running("2026-11-21T08:10:00Z")));
    cluster.answers(&format!("DELETE {POD}"), 504, status(500, "Timeout", "no answer"));
    assert!(cluster.pass_at(&session, fixtures::now()).await.is_err(), "its time is over now");
    assert!(cluster.pass_at(&session, fixtures::now() + Duration::from_secs(59)).await.is_err());
    cluster.calls();
    cluster.pass_at(&session, fixtures::now() + Duration::from_mins(1)).await.unwrap();
    let finalizers = cluster.calls().into_iter().find(|call| call.line == format!("PATCH {SESSION}")).unwrap();
    assert_eq!(finalizers.body["metadata"]["finalizers"], json!([]));
}
