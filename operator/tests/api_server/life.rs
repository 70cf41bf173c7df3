//! The life of a session: start, run, change, suspend, lose the pod, end.

use anyhow::Result;
use blobferry_crds::UploadSession;
use k8s_openapi::api::{
    core::v1::{Pod, ServiceAccount},
    rbac::v1::RoleBinding,
};
use kube::ResourceExt;
use serde_json::json;

use crate::{
    first::FIRST,
    matrix::follows_kstatus,
    stage::{Stage, running},
};

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn running_session_is_ready_and_costs_no_more_calls_however_often_counters_change() -> Result<()> {
    let stage = Stage::new("quiet").await?;
    stage.running_session("truck-7", json!({})).await?;
    let calls = stage.until_quiet(FIRST).await?;
    for uploaded in 1..=5 {
        let mut progress = crate::stage::all_well();
        (progress.files_seen, progress.files_uploaded) = (uploaded, uploaded);
        stage.report("truck-7", &progress).await?;
    }
    assert_eq!(stage.until_quiet(FIRST).await?, calls, "{:#?}", stage.calls(FIRST));
    let status = stage.status("truck-7").await?;
    assert_eq!(status.progress.map(|progress| progress.files_uploaded), Some(5));
    assert!(status.start_time.is_some());
    stage.end().await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn pod_that_is_deleted_by_hand_is_made_again() -> Result<()> {
    let stage = Stage::new("by-hand").await?;
    let pod = stage.running_session("truck-7", json!({})).await?;
    stage.delete::<Pod>("truck-7-uploader").await?;
    let second = stage.until_pod("truck-7", pod.uid().as_deref()).await?;
    stage.until("the status names the new pod", async || Ok(stage.status("truck-7").await?.pod_uid == second.uid())).await?;
    assert!(stage.status("truck-7").await?.progress.is_some(), "counters survive");
    stage.end().await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn suspending_deletes_the_pod_and_its_activity_and_resuming_makes_a_new_one() -> Result<()> {
    let stage = Stage::new("suspend").await?;
    let pod = stage.running_session("truck-7", json!({})).await?;
    stage.change("truck-7", json!({"suspend": true})).await?;
    stage.until_condition("truck-7", "Ready", "True", "Suspended").await?;
    stage.until("the activity is removed", async || Ok(stage.status("truck-7").await?.activity.is_none())).await?;
    let session: UploadSession = stage.api().get("truck-7").await?;
    follows_kstatus(&session)?;
    let status = session.status.unwrap_or_default();
    assert!(status.progress.is_some() && status.pod_uid.is_none());
    assert!(stage.list::<Pod>().await?.is_empty());
    stage.change("truck-7", json!({"suspend": false})).await?;
    stage.until_pod("truck-7", pod.uid().as_deref()).await?;
    stage.until("people are told", async || Ok(stage.event_reasons("truck-7").await?.contains(&"Resumed".into()))).await?;
    stage.end().await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn changed_session_gets_another_pod_and_what_changes_live_or_is_a_default_does_not() -> Result<()> {
    let stage = Stage::new("change").await?;
    let pod = stage.running_session("truck-7", json!({})).await?;
    stage.change("truck-7", json!({"transfer": {"workers": 9, "memoryLimit": 268_435_456}})).await?;
    stage.until("the change is seen", async || Ok(stage.status("truck-7").await?.observed_generation == Some(2))).await?;
    stage.until_quiet(FIRST).await?;
    assert_eq!(stage.until_pod("truck-7", None).await?.uid(), pod.uid());
    stage.change("truck-7", json!({"transfer": {"queueSize": 8}})).await?;
    stage.until_pod("truck-7", pod.uid().as_deref()).await?;
    stage.end().await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn crash_loop_shows_the_uploaders_own_words_and_recovers() -> Result<()> {
    let stage = Stage::new("crash").await?;
    let session = stage.session("truck-7", json!({})).await?;
    let pod = stage.until_pod("truck-7", None).await?;
    let account = json!({"result": "Failed", "sessionUID": session.uid(), "mode": "watch", "reason": "WrongFlags", "message": "No such flag."});
    let ended = json!({"terminated": {"exitCode": 2, "reason": "Error", "message": account.to_string()}});
    let mut status = running(&json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}));
    status["containerStatuses"][0]["lastState"] = ended;
    stage.set_pod_status(&pod, status).await?;
    let message = stage.until_condition("truck-7", "Stalled", "True", "WrongFlags").await?;
    assert_eq!(message, "No such flag.");
    stage.run_pod(&pod).await?;
    stage.report("truck-7", &crate::stage::all_well()).await?;
    stage.until_condition("truck-7", "Ready", "True", "Running").await?;
    let types: Vec<_> = stage.status("truck-7").await?.conditions.into_iter().map(|condition| condition.type_).collect();
    assert!(!types.contains(&"Stalled".to_owned()) && !types.contains(&"Reconciling".to_owned()), "{types:?}");
    stage.end().await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn deleted_session_takes_its_pod_and_the_last_one_the_rights_with_it() -> Result<()> {
    let stage = Stage::new("delete").await?;
    stage.session("truck-7", json!({})).await?;
    stage.session("truck-8", json!({"pod": {"serviceAccountName": "own"}})).await?;
    stage.until_pod("truck-7", None).await?;
    // Its account does not exist, so the API server refuses the pod; the binding names the account all the same.
    stage.until_condition("truck-8", "Ready", "False", "PodRefused").await?;
    assert_eq!(subjects(&stage).await?, ["blobferry-uploader", "own"]);
    stage.delete::<UploadSession>("truck-8").await?;
    stage.until("its account is not named any more", async || Ok(subjects(&stage).await?.len() == 1)).await?;
    stage.delete::<UploadSession>("truck-7").await?;
    stage.until("the pod is gone", async || Ok(stage.list::<Pod>().await?.is_empty())).await?;
    stage
        .until("the rights are gone", async || {
            Ok(stage.list::<RoleBinding>().await?.is_empty() && stage.list::<ServiceAccount>().await?.len() == 1)
        })
        .await?;
    stage.end().await
}

/// Accounts that the bindings of the namespace name.
async fn subjects(stage: &Stage) -> Result<Vec<String>> {
    let bindings = stage.list::<RoleBinding>().await?;
    Ok(bindings.into_iter().flat_map(|binding| binding.subjects.unwrap_or_default()).map(|subject| subject.name).collect())
}
