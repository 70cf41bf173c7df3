//! Two operators of which one leads: hand-over, and a leader that wakes up late.

use anyhow::{Result, ensure};
use blobferry_operator::leader::LEASE;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Pod};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::Running;
use crate::{
    around::Freezer,
    chart::NAMESPACE,
    stage::{Stage, all_well},
};

/// Two operators on one stage; the first leads, and its freezer is the test's.
async fn two(stage: &Stage) -> Result<(Running, Freezer, Running)> {
    let freezer = Freezer::default();
    let first = Running::start("operator-a", {
        let freezer = freezer.clone();
        move |client| freezer.around(client)
    });
    stage.until("the first operator leads", async || Ok(first.leads())).await?;
    let second = Running::start("operator-b", |client| client);
    Ok((first, freezer, second))
}

fn leases(stage: &Stage) -> Api<Lease> {
    Api::namespaced(stage.client.clone(), NAMESPACE)
}

/// The lease of an operator that is paused for longer than its term, without the wait.
async fn expire_lease(stage: &Stage) -> Result<()> {
    let expired = Patch::Merge(json!({"spec": {"holderIdentity": ""}}));
    leases(stage).patch(LEASE, &PatchParams::default(), &expired).await?;
    Ok(())
}

async fn holder(stage: &Stage) -> Result<Option<String>> {
    Ok(leases(stage).get(LEASE).await?.spec.and_then(|spec| spec.holder_identity))
}

/// Lets the second operator take over from the first, which is frozen.
async fn take_over(stage: &Stage, freezer: &Freezer, second: &Running) -> Result<()> {
    freezer.until_frozen().await;
    expire_lease(stage).await?;
    stage.until("the second operator leads", async || Ok(second.leads())).await
}

/// Wakes the first operator: its late request must be answered with `code`, and it must see that it leads no more.
async fn wake(stage: &Stage, freezer: &Freezer, mut first: Running, code: u16) -> Result<()> {
    freezer.wake();
    stage.until("the late request was answered", async || Ok(freezer.late_answer().is_some())).await?;
    ensure!(freezer.late_answer() == Some(code), "the late request was answered {:?}", freezer.late_answer());
    ensure!(first.ended()?.is_err(), "it was deposed");
    ensure!(holder(stage).await?.as_deref() == Some("operator-b"), "the second still leads");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn leader_that_was_paused_before_it_made_a_pod_makes_none_when_it_wakes() -> Result<()> {
    let stage = Stage::bare("paused-create").await?;
    let (first, freezer, second) = two(&stage).await?;
    freezer.arm(&format!("POST /api/v1/namespaces/{}/pods", stage.namespace));
    stage.session("truck-7", json!({})).await?;
    take_over(&stage, &freezer, &second).await?;
    let pod = stage.until_pod("truck-7", None).await?;
    stage.until("the status names the pod", async || Ok(stage.status("truck-7").await?.pod_uid == pod.uid())).await?;
    wake(&stage, &freezer, first, 409).await?;
    let pods = stage.list::<Pod>().await?;
    ensure!(pods.len() == 1 && pods[0].uid() == pod.uid(), "{pods:#?}");
    ensure!(stage.status("truck-7").await?.pod_uid == pod.uid());
    second.end()?;
    stage.end().await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn leader_that_was_paused_before_it_deleted_a_pod_leaves_its_successor_alone() -> Result<()> {
    let stage = Stage::bare("paused-delete").await?;
    let (first, freezer, second) = two(&stage).await?;
    let old = stage.running_session("truck-7", json!({})).await?;
    freezer.arm(&format!("DELETE /api/v1/namespaces/{}/pods/", stage.namespace));
    stage.change("truck-7", json!({"transfer": {"queueSize": 8}})).await?;
    take_over(&stage, &freezer, &second).await?;
    let new = stage.until_pod("truck-7", old.uid().as_deref()).await?;
    stage.run_pod(&new).await?;
    wake(&stage, &freezer, first, 409).await?;
    let pods = stage.list::<Pod>().await?;
    ensure!(pods.len() == 1 && pods[0].uid() == new.uid() && pods[0].metadata.deletion_timestamp.is_none(), "{pods:#?}");
    second.end()?;
    stage.end().await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn leader_that_was_paused_before_it_wrote_a_status_writes_none_when_it_wakes() -> Result<()> {
    let stage = Stage::bare("paused-status").await?;
    let (first, freezer, second) = two(&stage).await?;
    stage.running_session("truck-7", json!({})).await?;
    freezer.arm(&format!("PATCH /apis/blobferry.io/v1alpha1/namespaces/{}/uploadsessions/truck-7/status", stage.namespace));
    let mut progress = all_well();
    progress.caught_up = false;
    stage.report("truck-7", &progress).await?;
    take_over(&stage, &freezer, &second).await?;
    stage.until_condition("truck-7", "CaughtUp", "False", "FilesWait").await?;
    stage.change("truck-7", json!({"suspend": true})).await?;
    stage.until_condition("truck-7", "Ready", "True", "Suspended").await?;
    stage.until("the activity is removed", async || Ok(stage.status("truck-7").await?.activity.is_none())).await?;
    let before = stage.status("truck-7").await?;
    wake(&stage, &freezer, first, 409).await?;
    ensure!(stage.status("truck-7").await? == before, "the status changed");
    second.end()?;
    stage.end().await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn leader_that_ends_hands_over_at_once_and_running_sessions_do_not_notice() -> Result<()> {
    let stage = Stage::bare("hand-over").await?;
    let (first, _, second) = two(&stage).await?;
    let pod = stage.running_session("truck-7", json!({})).await?;
    stage
        .until("the second operator stands by", async || Ok(second.leadership.role() == blobferry_operator::leader::Role::Standby))
        .await?;
    let version = stage.api::<blobferry_crds::UploadSession>().get("truck-7").await?.resource_version();
    first.end()?;
    ensure!(holder(&stage).await?.as_deref() != Some("operator-a"), "the lease was not given back");
    stage.until("the second operator leads", async || Ok(second.leads())).await?;
    // The new leader works, and has nothing to do for the session that runs.
    stage.session("truck-8", json!({"sessionName": "other"})).await?;
    stage.until_pod("truck-8", None).await?;
    ensure!(stage.until_pod("truck-7", None).await?.uid() == pod.uid());
    ensure!(stage.api::<blobferry_crds::UploadSession>().get("truck-7").await?.resource_version() == version);
    second.end()?;
    stage.end().await
}
