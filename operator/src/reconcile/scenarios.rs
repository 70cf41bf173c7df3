//! (test) Whole passes against an API server that answers as told.

mod deletions;
mod endings;
mod looks;
mod rivals;
mod settling;
mod starts;
mod sweeps;
mod upgrades;

use blobferry_crds::{UploadSession, UploadSessionStatus, names};
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::{
    decisions::{build, identity::Identity, validate::validate},
    fixtures::{self, ALL_WELL},
    mock_api::{Call, Cluster, status},
};

const PODS: &str = "/api/v1/namespaces/cameras/pods";
const POD: &str = "/api/v1/namespaces/cameras/pods/truck-7-uploader";
const SESSION: &str = "/apis/blobferry.io/v1alpha1/namespaces/cameras/uploadsessions/truck-7";
const STATUS: &str = "/apis/blobferry.io/v1alpha1/namespaces/cameras/uploadsessions/truck-7/status";
const ACCOUNT: &str = "/api/v1/namespaces/cameras/serviceaccounts/blobferry-uploader";
const BINDING: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/cameras/rolebindings/blobferry-uploader";

fn cluster(session: &UploadSession) -> Cluster {
    let mut cluster = Cluster::new(fixtures::settings());
    cluster.shows(session);
    cluster
}

/// The body that was sent to the status, as the watch would show it.
fn written(calls: &[Call]) -> Value {
    calls.iter().find(|call| call.line == format!("PATCH {STATUS}")).expect("the status is written").body["status"].clone()
}

/// `session` as it is after its pass made `calls`.
fn after(session: &UploadSession, calls: &[Call]) -> UploadSession {
    let mut session = session.clone();
    let reported = session.status.take().unwrap_or_default();
    let root: UploadSessionStatus = serde_json::from_value(written(calls)).unwrap();
    session.status = Some(UploadSessionStatus { progress: reported.progress, activity: reported.activity, ..root });
    let identity = Identity::of(&session).unwrap();
    session.annotations_mut().insert(names::SESSION_NAME_ANNOTATION.into(), identity.session_name);
    session.annotations_mut().insert(names::DATE_PREFIX_ANNOTATION.into(), identity.date_prefix);
    session
}

fn ready(status: &Value) -> (&str, &str) {
    let condition = &status["conditions"].as_array().unwrap().iter().find(|it| it["type"] == "Ready").unwrap();
    (condition["status"].as_str().unwrap(), condition["reason"].as_str().unwrap())
}

fn message(status: &Value) -> &str {
    status["conditions"][0]["message"].as_str().unwrap()
}

#[tokio::test]
async fn new_session_gets_rights_a_pod_annotations_and_a_status_in_this_order() {
    let session = fixtures::session("");
    let cluster = cluster(&session);
    cluster.pass(&session).await;
    let calls = cluster.calls();
    let lines: Vec<_> = calls.iter().map(|call| call.line.as_str()).collect();
    assert_eq!(
        lines,
        [
            "GET /api/v1/namespaces/cameras/persistentvolumeclaims/share",
            &format!("GET {ACCOUNT}"),
            "POST /api/v1/namespaces/cameras/serviceaccounts",
            &format!("GET {BINDING}"),
            "POST /apis/rbac.authorization.k8s.io/v1/namespaces/cameras/rolebindings",
            &format!("POST {PODS}"),
            &format!("PATCH {SESSION}"),
            &format!("PATCH {STATUS}"),
        ]
    );
    let status = written(&calls);
    assert_eq!((status["podName"].as_str(), status["podUID"].as_str()), (Some("truck-7-uploader"), Some("created-uid")));
    assert_eq!((status["phase"].as_str(), status["reportInterval"].as_u64()), (Some("Pending"), Some(5)));
    assert_eq!(
        status["destinationURL"],
        format!("https://acct.blob.core.windows.net/archive/20261121/{}", status["sessionName"].as_str().unwrap())
    );
    assert_eq!(calls[6].body["metadata"]["annotations"][names::SESSION_NAME_ANNOTATION], status["sessionName"]);
}

#[tokio::test]
async fn status_is_applied_with_the_version_of_the_reply_and_without_the_uploaders_fields() {
    let mut session = fixtures::session("");
    fixtures::report(&mut session, "2026-11-21T08:10:00Z", ALL_WELL);
    let cluster = cluster(&session);
    cluster.pass(&session).await;
    let calls = cluster.calls();
    let call = calls.iter().find(|call| call.line == format!("PATCH {STATUS}")).unwrap();
    assert!(call.query.contains("force=true") && call.query.contains("fieldManager=blobferry-operator"), "{}", call.query);
    assert_eq!(call.body["metadata"]["resourceVersion"], "8");
    assert!(call.body["status"].get("progress").is_none() && call.body["status"].get("activity").is_none());
}

#[tokio::test]
async fn second_pass_over_an_unchanged_session_makes_no_call() {
    let mut session = fixtures::session("");
    fixtures::report(&mut session, "2026-11-21T08:29:50Z", ALL_WELL);
    let mut cluster = cluster(&session);
    cluster.shows_pod(&fixtures::pod(&session, &fixtures::running("2026-11-21T08:10:00Z")));
    cluster.pass(&session).await;
    let calls = cluster.calls();
    assert_eq!(ready(&written(&calls)), ("True", "Running"));
    let session = after(&session, &calls);
    cluster.pass(&session).await;
    assert_eq!(cluster.lines(), [""; 0]);
}

#[tokio::test]
async fn pass_right_after_the_creation_makes_no_second_pod_although_the_watch_lags() {
    let session = fixtures::session("");
    let cluster = cluster(&session);
    cluster.pass(&session).await;
    let session = after(&session, &cluster.calls());
    cluster.pass(&session).await;
    assert_eq!(cluster.lines(), ["GET /api/v1/namespaces/cameras/persistentvolumeclaims/share"], "its claim may be bound by now");
}

#[tokio::test]
async fn deleted_session_is_left_to_the_garbage_collector() {
    let mut session = fixtures::session("");
    session.metadata.deletion_timestamp = session.metadata.creation_timestamp.clone();
    let cluster = cluster(&session);
    cluster.pass(&session).await;
    assert_eq!(cluster.lines(), [""; 0]);
}

#[tokio::test]
async fn suspended_session_loses_its_pod_at_once_and_by_uid() {
    let running = fixtures::session("");
    let session = fixtures::session("suspend: true");
    let mut cluster = cluster(&session);
    cluster.shows_pod(&fixtures::pod(&running, &fixtures::running("2026-11-21T08:10:00Z")));
    cluster.pass(&session).await;
    let calls = cluster.calls();
    assert_eq!(calls[0].line, format!("DELETE {POD}"));
    assert_eq!(calls[0].body["preconditions"], json!({"uid": "pod-1"}));
    assert_eq!(written(&calls)["phase"], "Suspended");
    assert_eq!(ready(&written(&calls)), ("False", "Suspending"));
}

#[tokio::test]
async fn suspended_session_without_pod_is_ready_and_its_activity_is_removed() {
    let mut session = fixtures::session("suspend: true");
    session.status.get_or_insert_default().activity = Some(blobferry_crds::Activity::default());
    let cluster = cluster(&session);
    cluster.pass(&session).await;
    let calls = cluster.calls();
    assert_eq!(ready(&written(&calls)), ("True", "Suspended"));
    let removal = calls.last().unwrap();
    assert_eq!(removal.body, json!({"metadata": {"resourceVersion": "9"}, "status": {"activity": null}}));
}

#[tokio::test]
async fn changed_session_replaces_its_pod_by_deletion_first() {
    let old = fixtures::session("");
    let session = fixtures::session("transfer: {queueSize: 8}");
    let mut cluster = cluster(&session);
    cluster.shows_pod(&fixtures::pod(&old, &fixtures::running("2026-11-21T08:10:00Z")));
    cluster.pass(&session).await;
    let calls = cluster.calls();
    assert_eq!(calls[0].line, format!("DELETE {POD}"));
    assert!(!calls.iter().any(|call| call.line.starts_with("POST")));
    assert_eq!(ready(&written(&calls)), ("False", "Replacing"));
}

#[tokio::test]
async fn pod_that_somebody_else_made_is_never_adopted() {
    let session = fixtures::session("");
    let cluster = cluster(&session);
    cluster.answers(&format!("POST {PODS}"), 409, status(409, "AlreadyExists", "exists"));
    let mut foreign = serde_json::to_value(fixtures::pod(&session, "{}")).unwrap();
    foreign["metadata"]["ownerReferences"] = json!([]);
    foreign["metadata"]["labels"] = json!({});
    cluster.answers(&format!("GET {POD}"), 200, foreign);
    cluster.pass(&session).await;
    let status = written(&cluster.calls());
    assert_eq!(ready(&status), ("False", "NameTaken"));
    assert_eq!((status["phase"].as_str(), status["podUID"].as_str()), (Some("Failed"), None));
    assert!(message(&status).contains("truck-7-uploader"));
}

#[tokio::test]
async fn pod_that_is_still_ours_after_409_is_looked_at_again() {
    let session = fixtures::session("");
    let cluster = cluster(&session);
    cluster.answers(&format!("POST {PODS}"), 409, status(409, "AlreadyExists", "object is being deleted"));
    cluster.answers(&format!("GET {POD}"), 200, serde_json::to_value(fixtures::pod(&session, "{}")).unwrap());
    cluster.pass(&session).await;
    assert_eq!(ready(&written(&cluster.calls())), ("False", "Starting"));
}

#[tokio::test]
async fn refused_pod_is_told_in_the_words_of_the_api_server() {
    let session = fixtures::session("");
    let cluster = cluster(&session);
    let words = "pods \"truck-7-uploader\" is forbidden: exceeded quota: pods=0";
    cluster.answers(&format!("POST {PODS}"), 403, status(403, "Forbidden", words));
    cluster.pass(&session).await;
    let calls = cluster.calls();
    let status = written(&calls);
    assert_eq!(ready(&status), ("False", "PodRefused"));
    assert!(message(&status).contains(words));
    // Waiting for the next attempt says the same and costs nothing.
    cluster.pass(&after(&session, &calls)).await;
    assert_eq!(cluster.lines(), [""; 0]);
}

#[tokio::test]
async fn foreign_account_or_binding_is_never_adopted() {
    for (line, object) in [(ACCOUNT, "ServiceAccount"), (BINDING, "RoleBinding")] {
        let session = fixtures::session("");
        let cluster = cluster(&session);
        let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"});
        cluster.answers(&format!("GET {line}"), 200, json!({"metadata": {"name": "blobferry-uploader"}, "roleRef": role}));
        cluster.pass(&session).await;
        let calls = cluster.calls();
        assert_eq!(ready(&written(&calls)), ("False", "NameTaken"));
        assert!(message(&written(&calls)).contains(object));
        assert!(!calls.iter().any(|call| call.line == format!("POST {PODS}")));
    }
}

#[tokio::test]
async fn account_that_a_session_names_is_added_to_our_binding_with_its_version() {
    let session = fixtures::session("pod: {serviceAccountName: own}");
    let cluster = cluster(&session);
    let mut binding = build::uploader_binding("cameras", "blobferry-uploader", &std::collections::BTreeSet::new());
    binding.metadata.resource_version = Some("33".into());
    let binding = serde_json::to_value(binding).unwrap();
    cluster.answers(&format!("GET {BINDING}"), 200, binding.clone());
    cluster.answers(&format!("PATCH {BINDING}"), 200, binding);
    cluster.pass(&session).await;
    let patch = cluster.calls().into_iter().find(|call| call.line == format!("PATCH {BINDING}")).unwrap().body;
    assert_eq!(patch["metadata"]["resourceVersion"], "33");
    assert_eq!(
        (patch["subjects"][0]["name"].as_str(), patch["subjects"][1]["name"].as_str()),
        (Some("blobferry-uploader"), Some("own"))
    );
}

#[tokio::test]
async fn inline_export_gets_a_volume_and_a_claim_before_the_pod() {
    let session = fixtures::nfs_session();
    let cluster = cluster(&session);
    cluster.pass(&session).await;
    let posts: Vec<_> = cluster.lines().into_iter().filter(|line| line.starts_with("POST")).collect();
    assert_eq!(
        posts[2..],
        ["POST /api/v1/persistentvolumes", "POST /api/v1/namespaces/cameras/persistentvolumeclaims", &format!("POST {PODS}")]
    );
}

#[tokio::test]
async fn export_that_is_not_allowed_stalls_the_session_without_any_object() {
    let session = fixtures::nfs_session();
    let mut cluster = Cluster::new(crate::settings::Settings { nfs_allowed: Vec::new(), ..fixtures::settings() });
    cluster.shows(&session);
    cluster.pass(&session).await;
    let calls = cluster.calls();
    assert_eq!(calls.len(), 2, "annotations and status only: {calls:?}");
    assert_eq!(ready(&written(&calls)), ("False", "NfsNotAllowed"));
}

#[tokio::test]
async fn conflict_is_an_error_that_says_so() {
    let session = fixtures::session("suspend: true");
    let cluster = cluster(&session);
    cluster.answers(&format!("PATCH {STATUS}"), 409, status(409, "Conflict", "the object has been modified"));
    assert!(cluster.pass_at(&session, fixtures::now()).await.unwrap_err().is_conflict());
}

#[tokio::test]
async fn events_tell_what_was_done() {
    let session = fixtures::session("");
    let mut cluster = cluster(&session);
    cluster.pass(&session).await;
    assert_eq!(cluster.events(), ["UploaderCreated"]);
    let refused = fixtures::session("destination: {azureBlob: {accountUrl: 'https://elsewhere.example.com'}}");
    cluster.shows(&refused);
    cluster.pass(&refused).await;
    let calls = cluster.calls_and_events();
    let told: Vec<_> = calls.iter().filter_map(|call| call.body["reason"].as_str()).collect();
    assert_eq!(told, ["UploaderStopped", "AccountHostNotAllowed"]);
    cluster.pass(&after(&refused, &calls)).await;
    assert_eq!(
        cluster.events(),
        ["UploaderStopped"],
        "the pod that the watch still shows is deleted again; what was found is told once"
    );
}
