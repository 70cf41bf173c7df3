//! Nodes that do not answer, seen by an operator whose clock is twelve minutes ahead of everybody else's: more than an idle uploader may
//! be silent.

use anyhow::{Result, ensure};
use blobferry_crds::UploadSession;
use jiff::{Timestamp, ToSpan};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::Running;
use crate::stage::{Stage, all_well};

fn ahead() -> Timestamp {
    Timestamp::now() + 12.minutes()
}

fn operator() -> Running {
    Running::start_at(ahead)
}

/// A session that runs on a node of its own, which is ready.
async fn on_a_node(stage: &Stage, spec: Value) -> Result<(Pod, String)> {
    stage.session("truck-7", spec).await?;
    let pod = stage.until_pod("truck-7", None).await?;
    let node = bind(stage, &pod).await?;
    stage.run_pod(&pod).await?;
    stage.report("truck-7", &all_well()).await?;
    stage.until_condition("truck-7", "Ready", "True", "Running").await?;
    Ok((pod, node))
}

/// Plays the scheduler: `pod` gets a node of its own, which is ready.
pub(crate) async fn bind(stage: &Stage, pod: &Pod) -> Result<String> {
    let node = stage.node();
    let nodes: Api<Node> = Api::all(stage.client.clone());
    nodes.create(&PostParams::default(), &serde_json::from_value(json!({"metadata": {"name": node}}))?).await?;
    set_ready(stage, &node, "True").await?;
    let binding = json!({"metadata": {"name": pod.name_any()}, "target": {"kind": "Node", "name": node}});
    let path = format!("/api/v1/namespaces/{}/pods/{}/binding", stage.namespace, pod.name_any());
    let _: serde_json::Value = stage.client.request(http::Request::post(path).body(serde_json::to_vec(&binding)?)?).await?;
    Ok(node)
}

/// Plays the node's kubelet, or the node controller when it does not answer any more.
pub(crate) async fn set_ready(stage: &Stage, node: &str, ready: &str) -> Result<()> {
    let nodes: Api<Node> = Api::all(stage.client.clone());
    let condition = json!({"type": "Ready", "status": ready, "reason": "Test", "message": "", "lastHeartbeatTime": Timestamp::now(),
        "lastTransitionTime": Timestamp::now()});
    let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
    nodes.patch_status(node, &PatchParams::default(), &patch).await?;
    Ok(())
}

async fn end(stage: Stage, operator: Running) -> Result<()> {
    operator.end()?;
    remove_node(&stage).await?;
    stage.end().await
}

/// Removes the stage's node, if it has one, and its pods, which have no kubelet that would end them.
pub(crate) async fn remove_node(stage: &Stage) -> Result<()> {
    let nodes: Api<Node> = Api::all(stage.client.clone());
    if nodes.get_opt(&stage.node()).await?.is_some() {
        let now = DeleteParams::default().grace_period(0);
        stage.api::<Pod>().delete_collection(&now, &ListParams::default()).await?;
        nodes.delete(&stage.node(), &DeleteParams::default()).await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn uploader_that_reports_is_heard_however_the_clocks_differ() -> Result<()> {
    let stage = Stage::bare("clocks").await?;
    let operator = operator();
    stage.running_session("truck-7", json!({})).await?;
    let mut progress = all_well();
    // In the end it is idle: nobody reports again.
    for active in [1, 0, 1, 0] {
        (progress.files_active, progress.caught_up) = (active, active == 0);
        stage.report("truck-7", &progress).await?;
        let caught_up = if active == 0 { ("True", "NothingWaits") } else { ("False", "FilesWait") };
        stage.until_condition("truck-7", "CaughtUp", caught_up.0, caught_up.1).await?;
        stage.until_condition("truck-7", "Ready", "True", "Running").await?;
    }
    // A new operator knows only the old report.
    operator.end()?;
    let operator = self::operator();
    stage.until("it leads", async || Ok(operator.leads())).await?;
    stage.session("truck-8", json!({"sessionName": "other"})).await?;
    stage.until_pod("truck-8", None).await?;
    stage.until_condition("truck-7", "Ready", "True", "Running").await?;
    operator.end()?;
    let reasons = stage.event_reasons("truck-7").await?;
    ensure!(!reasons.contains(&"UploaderSilent".to_owned()), "{reasons:?}");
    stage.end().await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn uploader_that_falls_silent_at_work_is_called_so_soon_although_its_last_reports_woke_nobody() -> Result<()> {
    let stage = Stage::bare("silent").await?;
    let operator = operator();
    stage.running_session("truck-7", json!({})).await?;
    let mut progress = all_well();
    progress.caught_up = false;
    stage.report("truck-7", &progress).await?;
    stage.until_condition("truck-7", "CaughtUp", "False", "FilesWait").await?;
    progress.files_active = 1;
    stage.report("truck-7", &progress).await?;
    // After 45 seconds, and not after the eleven minutes of an idle one, for which no test waits.
    stage.until_condition("truck-7", "Ready", "Unknown", "UploaderSilent").await?;
    stage.report("truck-7", &all_well()).await?;
    stage.until_condition("truck-7", "Ready", "True", "Running").await?;
    operator.end()?;
    stage.end().await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn node_that_does_not_answer_is_named_and_forgotten_when_it_does() -> Result<()> {
    let stage = Stage::bare("node").await?;
    let operator = operator();
    let (pod, node) = on_a_node(&stage, json!({})).await?;
    set_ready(&stage, &node, "Unknown").await?;
    // As the node controller does it: the container's own state stays as the kubelet left it.
    let ready = |status: &str| Patch::Strategic(json!({"status": {"conditions": [{"type": "Ready", "status": status}]}}));
    let pods = stage.api::<Pod>();
    pods.patch_status(&pod.name_any(), &PatchParams::default(), &ready("False")).await?;
    let message = stage.until_condition("truck-7", "Ready", "Unknown", "NodeNotReady").await?;
    ensure!(message.contains(&node), "{message}");
    for told in ["SourceReachable", "CaughtUp"] {
        stage.until_condition("truck-7", told, "Unknown", "NodeNotReady").await?;
    }
    set_ready(&stage, &node, "True").await?;
    pods.patch_status(&pod.name_any(), &PatchParams::default(), &ready("True")).await?;
    stage.until_condition("truck-7", "Ready", "True", "Running").await?;
    end(stage, operator).await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn pod_that_does_not_end_is_left_alone_on_a_ready_node_and_removed_from_a_lost_one() -> Result<()> {
    let stage = Stage::bare("stuck").await?;
    let operator = operator();
    let (pod, node) = on_a_node(&stage, json!({})).await?;
    stage.delete::<Pod>(&pod.name_any()).await?;
    let message = stage.until_condition("truck-7", "Ready", "False", "PodStuck").await?;
    ensure!(message.contains(&node), "{message}");
    ensure!(stage.until_pod("truck-7", None).await?.uid() == pod.uid());
    set_ready(&stage, &node, "Unknown").await?;
    // Any change has it looked at before its time.
    stage.change("truck-7", json!({"transfer": {"workers": 5}})).await?;
    stage.until_pod("truck-7", pod.uid().as_deref()).await?;
    stage
        .until("people are told", async || Ok(stage.event_reasons("truck-7").await?.contains(&"UploaderForceDeleted".into())))
        .await?;
    end(stage, operator).await
}

/// Deletes truck-7, whose pod then ends for ever, because nobody plays its kubelet.
async fn delete_with(stage: &Stage, how: &DeleteParams) -> Result<()> {
    stage.api::<UploadSession>().delete("truck-7", how).await?;
    stage
        .until("its pod is ending", async || Ok(stage.until_pod("truck-7", None).await?.metadata.deletion_timestamp.is_some()))
        .await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn pod_of_a_session_that_is_gone_leaves_its_name_and_its_folders_when_its_node_is_lost() -> Result<()> {
    let stage = Stage::bare("left-on-a-node").await?;
    let operator = operator();
    let spec = json!({"sessionName": "truck"});
    let (pod, node) = on_a_node(&stage, spec.clone()).await?;
    delete_with(&stage, &DeleteParams::background()).await?;
    stage.session("truck-7", spec.clone()).await?;
    let message = stage.until_condition("truck-7", "Ready", "False", "PodStuck").await?;
    ensure!(message.contains(&node), "{message}");
    stage.session("truck-8", spec).await?;
    let message = stage.until_condition("truck-8", "Ready", "False", "SessionNameInUse").await?;
    ensure!(message.contains("whose pod does not end"), "{message}");
    set_ready(&stage, &node, "Unknown").await?;
    // They were made within a second or two, so that either may be the older one.
    stage
        .until("one of the two has a pod", async || {
            let pods = stage.list::<Pod>().await?;
            Ok(pods.len() == 1 && pods[0].uid() != pod.uid())
        })
        .await?;
    end(stage, operator).await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn session_that_goes_after_its_pod_goes_although_the_node_of_the_pod_is_lost() -> Result<()> {
    let stage = Stage::bare("foreground").await?;
    let operator = operator();
    let (_, node) = on_a_node(&stage, json!({})).await?;
    delete_with(&stage, &DeleteParams::foreground()).await?;
    ensure!(stage.api::<UploadSession>().get_opt("truck-7").await?.is_some(), "its pod is there");
    set_ready(&stage, &node, "Unknown").await?;
    stage.until("it is gone", async || Ok(stage.api::<UploadSession>().get_opt("truck-7").await?.is_none())).await?;
    end(stage, operator).await
}
