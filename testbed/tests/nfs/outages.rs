//! The server goes away and comes back, and nobody does anything.

use std::time::Duration;

use anyhow::{Result, ensure};
use blobferry_testbed::{Delivery, wait};
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt as _, api::DeleteParams};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use crate::export::{Export, PATIENCE, on_nfs, on_node};

const MIB: u64 = 1 << 20;

/// Slow enough that what happens next happens in the middle of files.
const SLOW: &str = "1Mi";

/// A call counts as hanging after 10 s, and may begin to hang when attributes expire, 5 s, at the next scan, 2 s. The rest is for the
/// report and a slow machine.
const NAMED_WITHIN: Duration = Duration::from_secs(25);

/// Three files of which the session has begun to send one.
pub(crate) async fn begin(export: &Export<'_>, session: &str) -> Result<Vec<Delivery>> {
    let mut delivered = Vec::new();
    for (name, size) in [("small.dat", 5000), ("middle.dat", 5 * MIB), ("large.dat", 20 * MIB)] {
        delivered.push(export.deliver(session, name, size).await?);
    }
    export.apply(session, json!({"transfer": {"bandwidthLimit": SLOW}})).await?;
    export.await_sending(session, 3).await?;
    Ok(delivered)
}

#[tokio::test]
#[ignore = "needs virtual machines: make faults"]
async fn server_that_stops_for_a_minute_is_named_a_pod_deleted_meanwhile_comes_back_and_every_file_arrives() -> Result<()> {
    on_nfs("stop", async |export| {
        let mut delivered = begin(export, "s").await?;
        stop_for_a_minute(export).await?;
        delivered.push(export.deliver("s", "after.dat", 4096).await?);
        export.compare("s", &delivered).await
    })
    .await
}

pub(crate) async fn stop_for_a_minute(export: &Export<'_>) -> Result<()> {
    export.server.run("/bed/nfs stop").await?;
    let stopped = Instant::now();
    let named = export.await_source("s", "False", stopped).await?;
    ensure!(named <= NAMED_WITHIN, "it was named after {named:?}");
    other_sessions_go_on(export).await?;
    let before = export.stage.uploader_pod("s").await?.and_then(|pod| pod.uid());
    export.stage.api::<Pod>().delete("s-uploader", &DeleteParams::default()).await?;

    sleep_until(stopped + Duration::from_mins(1)).await;
    export.server.run("/bed/nfs start").await?;
    let back = Instant::now();
    wait::until(PATIENCE, "another pod is there", async || {
        let pod = export.stage.uploader_pod("s").await?.and_then(|pod| pod.uid());
        ensure!(pod.is_some() && pod != before, "the pod is {pod:?}");
        Ok(Some(()))
    })
    .await?;
    export.await_source("s", "True", back).await.map(drop)
}

/// A session on another share does its work meanwhile.
async fn other_sessions_go_on(export: &Export<'_>) -> Result<()> {
    let stage = export.stage;
    let delivery = stage.deliver("local", "meanwhile.dat", 4096)?;
    // Its share is a folder of that node.
    stage.apply_session("local", json!({"pod": on_node(&format!("bed-{}", stage.bed.name))})).await?;
    stage.await_uploaded("local", 1, PATIENCE).await?;
    stage.compare("local", &[delivery]).await
}

#[tokio::test]
#[ignore = "needs virtual machines: make faults"]
async fn server_that_loses_its_power_in_the_middle_of_files_costs_none_of_them() -> Result<()> {
    on_nfs("power", async |export| {
        let mut delivered = begin(export, "s").await?;
        cut_the_servers_power(export).await?;
        delivered.push(export.deliver("s", "after.dat", 4096).await?);
        export.compare("s", &delivered).await
    })
    .await
}

pub(crate) async fn cut_the_servers_power(export: &Export<'_>) -> Result<()> {
    let cut = Instant::now();
    export.server.cut_power().await?;
    export.await_source("s", "False", cut).await?;
    let back = Instant::now();
    export.server.start().await?;
    export.await_source("s", "True", back).await.map(drop)
}

#[tokio::test]
#[ignore = "needs virtual machines: make faults"]
async fn export_that_is_removed_is_named_and_every_file_arrives_once_it_is_back() -> Result<()> {
    on_nfs("stale", async |export| {
        let mut delivered = begin(export, "s").await?;
        remove_and_return(export).await?;
        delivered.push(export.deliver("s", "after.dat", 4096).await?);
        export.compare("s", &delivered).await
    })
    .await
}

pub(crate) async fn remove_and_return(export: &Export<'_>) -> Result<()> {
    let removed = Instant::now();
    export.server.run("exportfs -ua && exportfs -f").await?;
    export.await_source("s", "False", removed).await?;
    let back = Instant::now();
    export.server.run("exportfs -ra").await?;
    export.await_source("s", "True", back).await.map(drop)
}
