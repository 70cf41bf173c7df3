//! (test) Starts: few writes, and one event if all goes well.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use super::*;

const CREATING: &str =
    "{phase: Pending, conditions: [{type: PodScheduled, status: 'True', lastTransitionTime: '2026-11-21T08:30:00Z'}]}";
const NO_IMAGE: &str = "{phase: Pending, containerStatuses: [{name: uploader, image: x, imageID: '', ready: false, restartCount: 0, \
                        state: {waiting: {reason: ErrImagePull, message: no such image}}}]}";

/// The pod that was created in a pass, with another status.
fn created(session: &UploadSession, pod_status: &str) -> Pod {
    let mut pod = fixtures::pod(session, pod_status);
    pod.metadata.uid = Some("created-uid".into());
    pod
}

/// Reasons of the events that a pass sends, and the session after it.
async fn told(cluster: &Cluster, session: &UploadSession) -> (Vec<String>, UploadSession) {
    cluster.pass(session).await;
    let (events, calls): (Vec<_>, Vec<_>) =
        cluster.calls_and_events().into_iter().partition(|call| call.line.contains("events.k8s.io"));
    let reasons = events.iter().map(|call| call.body["reason"].as_str().unwrap().to_owned()).collect();
    (reasons, after(session, &calls))
}

#[tokio::test]
async fn steps_that_follow_each_other_quickly_are_not_written_one_by_one() {
    let session = fixtures::session("");
    let mut cluster = cluster(&session);
    cluster.pass(&session).await;
    let session = after(&session, &cluster.calls());
    cluster.shows_pod(&created(&session, CREATING));
    let after_seconds = |seconds| fixtures::now() + Duration::from_secs(seconds);
    assert_eq!(cluster.pass_at(&session, after_seconds(1)).await.unwrap(), Some(Duration::from_secs(2)));
    assert!(cluster.lines().iter().all(|line| line.starts_with("GET")), "nothing is written");
    cluster.pass_at(&session, after_seconds(3)).await.unwrap();
    let calls = cluster.calls();
    assert_eq!(ready(&written(&calls)), ("False", "ContainerCreating"));
    // What is wrong is told at once.
    let session = after(&session, &calls);
    cluster.shows_pod(&created(&session, NO_IMAGE));
    cluster.pass_at(&session, after_seconds(4)).await.unwrap();
    assert_eq!(ready(&written(&cluster.calls())), ("False", "ImagePullFailed"));
}

#[tokio::test]
async fn pass_that_is_ahead_of_the_watch_builds_on_what_was_written() {
    let session = fixtures::session("deletionPolicy: Drain");
    let cluster = cluster(&session);
    // The watch shows nothing of what the first writes: our finalizer, the annotations and the status.
    cluster.pass_over_what_is_known_of(&session).await;
    assert_eq!(cluster.lines().iter().filter(|line| line.starts_with("PATCH")).count(), 3);
    cluster.pass_over_what_is_known_of(&session).await;
    assert!(cluster.lines().iter().all(|line| line.starts_with("GET")), "everything is as it should be");
}

#[tokio::test]
async fn start_that_goes_well_is_one_event() {
    let session = fixtures::session("");
    let mut cluster = cluster(&session);
    let (reasons, mut session) = told(&cluster, &session).await;
    assert_eq!(reasons, ["UploaderCreated"]);
    fixtures::report(&mut session, "2026-11-21T08:29:50Z", ALL_WELL);
    cluster.shows_pod(&created(&session, &fixtures::running("2026-11-21T08:10:00Z")));
    let (reasons, session) = told(&cluster, &session).await;
    assert_eq!((reasons, session.status.unwrap().phase), (vec![], Some(blobferry_crds::Phase::Running)));
}

#[tokio::test]
async fn who_was_warned_is_told_when_all_is_well() {
    let session = fixtures::session("");
    let mut cluster = cluster(&session);
    let (_, session) = told(&cluster, &session).await;
    cluster.shows_pod(&created(&session, NO_IMAGE));
    let (reasons, session) = told(&cluster, &session).await;
    assert_eq!(reasons, ["ImagePullFailed"]);
    cluster.shows_pod(&created(&session, CREATING));
    let (reasons, mut session) = told(&cluster, &session).await;
    assert_eq!(reasons, [""; 0]);
    fixtures::report(&mut session, "2026-11-21T08:29:50Z", ALL_WELL);
    cluster.shows_pod(&created(&session, &fixtures::running("2026-11-21T08:10:00Z")));
    let (reasons, _) = told(&cluster, &session).await;
    assert_eq!(reasons, ["Running"]);
}
