//! A new uploader image over running sessions.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;

use super::Running;
use crate::{
    calls::write_down,
    chart::NAMESPACE,
    stage::{Stage, all_well},
};

const OLD: &str = "localhost/blobferry-uploader:1";
const NEW: &str = "localhost/blobferry-uploader:2";
/// The operator that brings the new image.
const UPGRADER: &str = "operator-upgrader";
const SESSIONS: [&str; 3] = ["a-busy", "b-idle", "c-idle"];

fn operator(image: &str, more: &[&str]) -> Running {
    let image = format!("--uploader-image={image}");
    let mut arguments = vec!["--namespace", NAMESPACE, &image];
    arguments.extend(more);
    Running::start_with(&arguments, |client| write_down(UPGRADER, client))
}

/// Three sessions, the only ones, that run the old image, the first of which has files to upload; their operator has ended.
async fn old_sessions(stage: &Stage) -> Result<()> {
    stage.remove_others().await?;
    let operator = operator(OLD, &[]);
    for name in SESSIONS {
        stage.running_session(name, json!({"sessionName": name})).await?;
    }
    let mut progress = all_well();
    (progress.files_active, progress.caught_up) = (1, false);
    stage.report("a-busy", &progress).await?;
    operator.end()
}

fn image(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.containers.first()?.image.as_deref()).unwrap_or_default()
}

/// Sessions whose pods have the new image.
async fn upgraded(stage: &Stage) -> Result<Vec<String>> {
    let pods = stage.list::<Pod>().await?;
    let new = pods.iter().filter(|pod| image(pod) == NEW && pod.metadata.deletion_timestamp.is_none());
    let mut sessions: Vec<_> = new.map(|pod| pod.name_any().trim_end_matches("-uploader").to_owned()).collect();
    sessions.sort();
    Ok(sessions)
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn new_image_comes_to_one_session_at_a_time_and_to_idle_ones_first() -> Result<()> {
    let stage = Stage::bare("rollout").await?;
    old_sessions(&stage).await?;
    let operator = operator(NEW, &[]);
    let mut done: Vec<String> = Vec::new();
    for next in ["b-idle", "c-idle", "a-busy"] {
        done.push(next.to_owned());
        done.sort();
        stage.until(&format!("{next} has the new image"), async || Ok(upgraded(&stage).await? == done)).await?;
        for waiting in SESSIONS.iter().filter(|name| !done.contains(&(**name).to_owned())) {
            stage.until_condition(waiting, "Ready", "True", "UpgradePending").await?;
        }
        let pods = stage.list::<Pod>().await?;
        ensure!(pods.len() == 3, "more than one session is without an uploader: {pods:#?}");
        stage.run_pod(&stage.until_pod(next, None).await?).await?;
        stage.report(next, &all_well()).await?;
        stage.until_condition(next, "Ready", "True", "Running").await?;
    }
    operator.end()?;
    stage.end().await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn new_image_comes_to_as_many_sessions_at_a_time_as_may_be_unavailable() -> Result<()> {
    let stage = Stage::bare("rollout-of-two").await?;
    old_sessions(&stage).await?;
    let operator = operator(NEW, &["--uploader-max-unavailable=2"]);
    stage.until("two have the new image", async || Ok(upgraded(&stage).await?.len() == 2)).await?;
    stage.until_quiet(UPGRADER).await?;
    ensure!(upgraded(&stage).await? == ["b-idle", "c-idle"], "{:?}", upgraded(&stage).await?);
    stage.until_condition("a-busy", "Ready", "True", "UpgradePending").await?;
    // One of the two works, and the next may follow.
    stage.run_pod(&stage.until_pod("c-idle", None).await?).await?;
    stage.report("c-idle", &all_well()).await?;
    stage.until("the third has the new image", async || Ok(upgraded(&stage).await? == SESSIONS)).await?;
    operator.end()?;
    stage.end().await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn new_image_on_restart_comes_with_the_next_pod() -> Result<()> {
    let stage = Stage::bare("on-restart").await?;
    old_sessions(&stage).await?;
    let operator = operator(NEW, &["--uploader-update=OnRestart"]);
    for name in SESSIONS {
        stage.until_condition(name, "Ready", "True", "UpgradePending").await?;
    }
    ensure!(upgraded(&stage).await?.is_empty());
    let old = stage.until_pod("b-idle", None).await?;
    stage.delete::<Pod>("b-idle-uploader").await?;
    stage.until_pod("b-idle", old.uid().as_deref()).await?;
    ensure!(upgraded(&stage).await? == ["b-idle"]);
    operator.end()?;
    stage.end().await
}
