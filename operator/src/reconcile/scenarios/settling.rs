//! (test) What is on its way is looked at again soon, and not later and later.

use std::time::Duration;

use super::*;

#[tokio::test]
async fn volume_that_is_being_removed_is_looked_at_again_soon_every_time() {
    let session = fixtures::nfs_session();
    let cluster = cluster(&session);
    let valid = super::super::validate::validate(&session, &fixtures::settings()).unwrap();
    let mut volume = serde_json::to_value(super::super::build::volume(&valid)).unwrap();
    volume["metadata"]["deletionTimestamp"] = json!("2026-11-21T08:29:00Z");
    let line = format!("GET /api/v1/persistentvolumes/{}", super::super::build::volume_name(&valid.uid));
    cluster.answers(&line, 200, volume);
    for _ in 0..8 {
        assert_eq!(cluster.pass(&session).await, Some(Duration::from_secs(1)));
    }
    cluster.answers(&line, 404, status(404, "NotFound", "it is gone"));
    cluster.calls();
    cluster.pass(&session).await;
    assert!(cluster.lines().contains(&format!("POST {PODS}")), "no attempt had failed");
}

#[tokio::test]
async fn pod_of_the_name_that_is_still_ending_is_looked_at_again_soon_every_time() {
    let session = fixtures::session("");
    let cluster = cluster(&session);
    cluster.answers(&format!("POST {PODS}"), 409, status(409, "AlreadyExists", "object is being deleted"));
    cluster.answers(&format!("GET {POD}"), 200, serde_json::to_value(fixtures::pod(&session, "{}")).unwrap());
    for _ in 0..8 {
        assert_eq!(cluster.pass(&session).await, Some(Duration::from_secs(1)));
    }
}
