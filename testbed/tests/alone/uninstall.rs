//! The end of the operator on a real node: the chart's hook lets go of the sessions, and nothing blocks their namespace.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use blobferry_testbed::{
    Stage,
    release::{CHART, RELEASE, helm},
    scenario, wait,
};
use kube::{ResourceExt as _, api::DeleteParams};
use serde_json::json;

const SOON: Duration = Duration::from_mins(5);

/// The chart is installed again afterwards, as it was: other tests may follow.
#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn uninstalling_with_sessions_to_drain_leaves_nothing_that_blocks_their_namespace() -> Result<()> {
    scenario("uninstall", async |stage| {
        let drains = json!({"deletionPolicy": "Drain", "drainTimeout": "8760h"});
        stage.apply_session("kept", drains.clone()).await?;
        stage.apply_session("deleted", drains).await?;
        for name in ["kept", "deleted"] {
            let runs = |session: &blobferry_crds::UploadSession| {
                session.status.as_ref().is_some_and(|status| status.start_time.is_some()) && !session.finalizers().is_empty()
            };
            stage.await_session(name, SOON, "runs and is held", runs).await?;
        }
        // Nothing can be drained any more: without the hook, this session would stay for a year.
        hold_up(stage)?;
        stage.sessions().delete("deleted", &DeleteParams::background()).await?;

        let values = stage.share.join("values.yaml");
        fs::write(&values, helm(&["get", "values", RELEASE, "--output", "yaml"])?)?;
        helm(&["uninstall", RELEASE, "--wait", "--timeout", "5m"])?;
        let left = let_go(stage).await;
        helm(&["install", RELEASE, CHART, "--values", &values.to_string_lossy(), "--wait", "--timeout", "5m"])?;
        left
    })
    .await
}

/// The folder that claims are made in cannot be used by the uploader any more.
fn hold_up(stage: &Stage) -> Result<()> {
    fs::rename(stage.share.join("incoming"), stage.share.join("elsewhere")).context("cannot take the share away")
}

/// The session that was being deleted is gone with its pod; the other one goes as soon as somebody deletes it.
async fn let_go(stage: &Stage) -> Result<()> {
    wait::until(SOON, "the deleted session is gone", async || {
        Ok(stage.sessions().get_opt("deleted").await?.is_none().then_some(()))
    })
    .await?;
    wait::until(SOON, "and its pod", async || Ok(stage.uploader_pod("deleted").await?.is_none().then_some(()))).await?;
    let kept = stage.sessions().get("kept").await?;
    ensure!(kept.finalizers().is_empty(), "it is still held: {:?}", kept.finalizers());
    ensure!(stage.uploader_pod("kept").await?.is_some(), "its uploader goes on");
    stage.sessions().delete("kept", &DeleteParams::background()).await?;
    wait::until(SOON, "it goes", async || Ok(stage.sessions().get_opt("kept").await?.is_none().then_some(()))).await
    // The end of the scenario deletes the namespace and waits until it is gone.
}
