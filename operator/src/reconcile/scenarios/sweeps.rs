//! (test) What the sweep removes of sessions that are gone.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;

const NODE: &str = "/api/v1/nodes/node-a";
const VOLUMES: &str = "/api/v1/persistentvolumes";

#[tokio::test]
async fn sweep_removes_the_pod_and_the_claim_of_a_session_that_is_gone() {
    let session = fixtures::session("deletionPolicy: Drain");
    let mut cluster = Cluster::new(fixtures::settings());
    cluster.shows_pod(&fixtures::pod(&session, &fixtures::running("2026-11-21T08:10:00Z")));
    cluster.answers(&format!("GET {VOLUMES}"), 200, json!({"metadata": {}, "items": []}));
    let empty = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": {}, "items": []});
    for list in ["GET /api/v1/serviceaccounts", "GET /apis/rbac.authorization.k8s.io/v1/rolebindings"] {
        cluster.answers(list, 200, empty.clone());
    }
    cluster.context.leftovers.mark_everything();
    assert!(crate::sweep::pass(&cluster.context).await);
    let deletion = cluster.calls().into_iter().find(|call| call.line == format!("DELETE {POD}")).unwrap();
    assert_eq!(deletion.body["preconditions"], json!({"uid": "pod-1"}));
    cluster.shows(&session);
    cluster.context.leftovers.mark_everything();
    assert!(crate::sweep::pass(&cluster.context).await);
    assert!(!cluster.lines().contains(&format!("DELETE {POD}")), "the session is there");
}

#[tokio::test]
async fn pod_that_was_to_stay_when_its_session_was_deleted_goes_at_once() {
    let session = fixtures::session("");
    let mut cluster = cluster(&session);
    let mut pod = fixtures::pod(&session, &fixtures::running("2026-11-21T08:10:00Z"));
    pod.metadata.owner_references = None;
    cluster.shows_pod(&pod);
    assert!(crate::sweep::pass(&cluster.context).await);
    assert!(!cluster.lines().contains(&format!("DELETE {POD}")));
    cluster.loses(&session);
    cluster.answers(&format!("GET {VOLUMES}"), 200, json!({"metadata": {}, "items": []}));
    crate::sweep::pass(&cluster.context).await;
    assert!(cluster.lines().contains(&format!("DELETE {POD}")));
}

#[tokio::test]
async fn sweep_removes_a_pod_of_a_session_that_is_gone_from_a_lost_node_only() {
    let gone = fixtures::session("");
    let let_go = {
        let mut session = gone.clone();
        session.metadata.deletion_timestamp = session.metadata.creation_timestamp.clone();
        session
    };
    let held = fixtures::deleted("deletionPolicy: Drain", "2026-11-21T08:20:00Z");
    let removed = [format!("GET {NODE}"), format!("DELETE {POD}")];
    for (session, deadline, ready, lines) in [
        (None, "2026-11-21T08:25:00Z", "Unknown", &removed[..]),
        (None, "2026-11-21T08:25:00Z", "True", &removed[..1]),
        (None, "2026-11-21T08:25:01Z", "Unknown", &[]),
        (Some(&let_go), "2026-11-21T08:25:00Z", "Unknown", &removed[..]),
        (Some(&held), "2026-11-21T08:25:00Z", "Unknown", &[]),
    ] {
        let mut cluster = Cluster::new(fixtures::settings());
        if let Some(session) = session {
            cluster.shows(session);
        }
        let mut pod = fixtures::pod(&gone, &fixtures::running("2026-11-21T08:10:00Z"));
        pod.metadata.deletion_timestamp = Some(Time(deadline.parse().unwrap()));
        cluster.shows_pod(&pod);
        let conditions = json!([{"type": "Ready", "status": ready}]);
        cluster.answers(&format!("GET {NODE}"), 200, json!({"metadata": {"name": "node-a"}, "status": {"conditions": conditions}}));
        assert!(crate::sweep::pass(&cluster.context).await);
        let calls = cluster.calls();
        assert_eq!(calls.iter().map(|call| call.line.clone()).collect::<Vec<_>>(), lines, "{session:?} {deadline} {ready}");
        if let Some(deletion) = calls.get(1) {
            assert_eq!(deletion.body["preconditions"], json!({"uid": "pod-1"}));
            assert_eq!(deletion.body["gracePeriodSeconds"], json!(0));
        }
    }
}

#[tokio::test]
async fn what_cannot_be_swept_keeps_nothing_else_from_it_and_is_tried_again() {
    let session = fixtures::nfs_session();
    let mut cluster = cluster(&session);
    cluster.loses(&session);
    let volume = |uid: &str| {
        let labels = json!({
            names::MANAGED_BY_LABEL: names::OPERATOR,
            names::SESSION_LABEL: "truck-7",
            names::SESSION_NAMESPACE_LABEL: "cameras",
            names::SESSION_UID_LABEL: uid,
        });
        json!({"metadata": {"name": uid, "uid": uid, "labels": labels}})
    };
    cluster.answers(&format!("GET {VOLUMES}"), 200, json!({"metadata": {}, "items": [volume("a"), volume("b")]}));
    let empty = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": {}, "items": []});
    cluster.answers("GET /apis/blobferry.io/v1alpha1/namespaces/cameras/uploadsessions", 200, empty);
    let labels = json!({names::MANAGED_BY_LABEL: names::OPERATOR});
    let account = json!({"metadata": {"name": "blobferry-uploader", "uid": "account", "labels": labels}});
    cluster.answers(&format!("GET {ACCOUNT}"), 200, account);
    let mut late = fixtures::pod(&fixtures::session(""), &fixtures::running("2026-11-21T08:10:00Z"));
    late.metadata.deletion_timestamp = Some(Time("2026-11-21T08:25:00Z".parse().unwrap()));
    cluster.shows_pod(&late);
    let denied = [format!("DELETE {ACCOUNT}"), format!("DELETE {VOLUMES}/a")];
    for line in &denied {
        cluster.answers(line, 403, status(403, "Forbidden", "a policy denies it"));
    }
    let deletions = |cluster: &Cluster| cluster.lines().into_iter().filter(|line| line.starts_with("DELETE")).collect::<Vec<_>>();
    let [account, first] = &denied;
    let (pod, second) = (format!("DELETE {POD}"), format!("DELETE {VOLUMES}/b"));
    for _ in 0..2 {
        assert!(!crate::sweep::pass(&cluster.context).await);
        assert_eq!(deletions(&cluster), [pod.as_str(), account, first, &second]);
    }
    cluster.loses_pods();
    cluster.answers(first, 200, status(200, "", ""));
    cluster.answers(&format!("GET {VOLUMES}"), 200, json!({"metadata": {}, "items": []}));
    assert!(!crate::sweep::pass(&cluster.context).await);
    cluster.calls();
    assert!(!crate::sweep::pass(&cluster.context).await);
    assert!(!cluster.lines().contains(&format!("GET {VOLUMES}")), "only what failed is looked at again");
    cluster.answers(account, 200, status(200, "", ""));
    assert!(crate::sweep::pass(&cluster.context).await);
    cluster.calls();
    assert!(crate::sweep::pass(&cluster.context).await);
    assert_eq!(cluster.lines(), [""; 0]);
}
