//! Deleted sessions whose last uploader comes to no end, seen by operators whose clocks are later and later.

use anyhow::{Context as _, Result, ensure};
use blobferry_crds::{UploadSession, names};
use jiff::{Timestamp, ToSpan};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;

use super::Running;
use crate::stage::{Stage, all_well};

const SESSIONS: [(&str, &str); 2] = [("Drain", "Draining"), ("Release", "Releasing")];

fn in_time() -> Timestamp {
    Timestamp::now() + 50.minutes()
}

fn too_late() -> Timestamp {
    Timestamp::now() + 61.minutes()
}

/// A deleted session whose last uploader is at work, and the pod of that.
async fn ending(stage: &Stage, policy: &str, reason: &str) -> Result<Pod> {
    let name = policy.to_ascii_lowercase();
    let pod = stage.running_session(&name, json!({"sessionName": name, "deletionPolicy": policy})).await?;
    stage.delete::<UploadSession>(&name).await?;
    let last = stage.until_pod(&name, pod.uid().as_deref()).await?;
    stage.run_pod(&last).await?;
    stage.report(&name, &all_well()).await?;
    stage.until_condition(&name, "Ready", "False", reason).await?;
    Ok(last)
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn last_uploader_has_an_hour_unless_the_session_says_otherwise() -> Result<()> {
    let stage = Stage::bare("an-hour").await?;
    let operator = Running::start_at(Timestamp::now);
    let mut pods = Vec::new();
    for (policy, reason) in SESSIONS {
        pods.push(ending(&stage, policy, reason).await?);
    }
    operator.end()?;

    let operator = Running::start_at(in_time);
    for (pod, (policy, _)) in pods.iter().zip(SESSIONS) {
        let name = policy.to_ascii_lowercase();
        let generation = stage.change(&name, json!({"transfer": {"workers": 5}})).await?.metadata.generation;
        stage.until("it is looked at", async || Ok(stage.status(&name).await?.observed_generation == generation)).await?;
        let session = stage.api::<UploadSession>().get_opt(&name).await?.context("its time is not over")?;
        ensure!(session.finalizers() == [names::FINALIZER], "{session:#?}");
        ensure!(stage.until_pod(&name, None).await?.uid() == pod.uid());
    }
    operator.end()?;

    let operator = Running::start_at(too_late);
    for (policy, _) in SESSIONS {
        let name = policy.to_ascii_lowercase();
        stage.until("it is gone", async || Ok(stage.api::<UploadSession>().get_opt(&name).await?.is_none())).await?;
        stage.until("people are told", async || Ok(stage.event_reasons(&name).await?.contains(&"DrainGivenUp".into()))).await?;
    }
    stage.until("their pods are gone", async || Ok(stage.list::<Pod>().await?.is_empty())).await?;
    operator.end()?;
    stage.end().await
}
