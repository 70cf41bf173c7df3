//! The server goes away and comes back, and nobody does anything.

use std::time::Duration;

use anyhow::{Result, ensure};
use blobferry_testbed::{Delivery, scenario, wait};
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt as _, api::DeleteParams};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use crate::export::{Export, PATIENCE};

const MIB: u64 = 1 << 20;

/// Slow enough that what happens next happens in the middle of files.
const SLOW: &str = "1Mi";

/// Three files of which the session has begun to send one.
async fn begin(export: &Export<'_>, session: &str) -> Result<Vec<Delivery>> {
    let mut delivered = Vec::new();
    for (name, size) in [("small.dat", 5000), ("middle.dat", 5 * MIB), ("large.dat", 20 * MIB)] {
        delivered.push(export.deliver(session, name, size).await?);
    }
    export.apply(session, json!({"transfer": {"bandwidthLimit": SLOW}})).await?;
    let begun = |session: &blobferry_crds::UploadSession| {
        let progress = session.status.as_ref().and_then(|status| status.progress.as_ref());
        progress.is_some_and(|progress| progress.files_active > 0 && progress.files_uploaded < 3)
    };
    export.stage.await_session(session, PATIENCE, "sends files", begun).await?;
    Ok(delivered)
}

#[tokio::test]
#[ignore = "needs virtual machines: make faults"]
async fn server_that_stops_for_a_minute_is_named_a_pod_deleted_meanwhile_comes_back_and_every_file_arrives() -> Result<()> {
    scenario("stop", async |stage| {
        let export = Export::make(stage).await?;
        let mut delivered = begin(&export, "s").await?;

        export.server.run("/bed/nfs stop").await?;
        let stopped = Instant::now();
        export.await_source("s", "False", stopped).await?;
        other_sessions_go_on(&export).await?;
        let before = stage.uploader_pod("s").await?.and_then(|pod| pod.uid());
        stage.api::<Pod>().delete("s-uploader", &DeleteParams::default()).await?;

        sleep_until(stopped + Duration::from_mins(1)).await;
        export.server.run("/bed/nfs start").await?;
        let back = Instant::now();
        wait::until(PATIENCE, "another pod is there", async || {
            let pod = stage.uploader_pod("s").await?.and_then(|pod| pod.uid());
            ensure!(pod.is_some() && pod != before, "the pod is {pod:?}");
            Ok(Some(()))
        })
        .await?;
        export.await_source("s", "True", back).await?;
        delivered.push(export.deliver("s", "after.dat", 4096).await?);
        export.compare("s", &delivered).await?;
        export.remove().await
    })
    .await
}

/// A session on another share does its work meanwhile.
async fn other_sessions_go_on(export: &Export<'_>) -> Result<()> {
    let stage = export.stage;
    let delivery = stage.deliver("local", "meanwhile.dat", 4096)?;
    stage.apply_session("local", json!({})).await?;
    stage.await_uploaded("local", 1, PATIENCE).await?;
    stage.compare("local", &[delivery]).await
}

#[tokio::test]
#[ignore = "needs virtual machines: make faults"]
async fn server_that_loses_its_power_in_the_middle_of_files_costs_none_of_them() -> Result<()> {
    scenario("power", async |stage| {
        let export = Export::make(stage).await?;
        let mut delivered = begin(&export, "s").await?;
        let cut = Instant::now();
        export.server.cut_power().await?;
        export.server.start().await?;
        export.await_source("s", "True", cut).await?;
        delivered.push(export.deliver("s", "after.dat", 4096).await?);
        export.compare("s", &delivered).await?;
        export.remove().await
    })
    .await
}

#[tokio::test]
#[ignore = "needs virtual machines: make faults"]
async fn export_that_is_removed_is_named_and_every_file_arrives_once_it_is_back() -> Result<()> {
    scenario("stale", async |stage| {
        let export = Export::make(stage).await?;
        let mut delivered = begin(&export, "s").await?;
        let removed = Instant::now();
        export.server.run("exportfs -ua && exportfs -f").await?;
        export.await_source("s", "False", removed).await?;
        let back = Instant::now();
        export.server.run("exportfs -ra").await?;
        export.await_source("s", "True", back).await?;
        delivered.push(export.deliver("s", "after.dat", 4096).await?);
        export.compare("s", &delivered).await?;
        export.remove().await
    })
    .await
}
