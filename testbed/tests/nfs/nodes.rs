//! A node with an uploader goes away.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use blobferry_crds::{UploadSession, conditions};
use blobferry_testbed::{Delivery, Machine, figures, wait};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::export::{Export, PATIENCE, SERVER, condition, on_nfs};

const MIB: u64 = 1 << 20;

#[tokio::test]
#[ignore = "needs virtual machines: make faults"]
async fn node_that_loses_its_power_goes_on_where_it_was() -> Result<()> {
    on_nfs("node", async |export| {
        let delivered = [export.deliver("s", "a.dat", 12 * MIB).await?, export.deliver("s", "b.dat", 4096).await?];
        export.apply("s", json!({"transfer": {"bandwidthLimit": "1Mi"}})).await?;
        export.await_sending("s", 2).await?;
        let cut = Instant::now();
        export.node.cut_power().await?;
        export.node.start().await?;
        export.compare_each_once("s", &delivered).await?;
        figures::print(&format!("the node lost its power and the session was done {:.0} s later", cut.elapsed().as_secs_f64()));
        Ok(())
    })
    .await
}

/// On any node with NFS; five seconds after a node is lost its pods are to be deleted, instead of five minutes.
fn on_any_node() -> Value {
    let lost = |taint: &str| json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5});
    json!({
        "nodeSelector": {"blobferry-testbed/nfs": "true"},
        "tolerations": [lost("node.kubernetes.io/unreachable"), lost("node.kubernetes.io/not-ready")],
    })
}

#[tokio::test]
#[ignore = "needs virtual machines: make faults"]
async fn session_moves_from_a_lost_node_whose_uploader_goes_on_beside_the_new_one_when_the_node_is_back() -> Result<()> {
    on_nfs("moves", async |export| {
        start_second_node(export).await?;
        let mut delivered = Vec::new();
        for (name, size) in [("a.dat", 90 * MIB), ("b.dat", 3 * MIB), ("c.dat", 4096)] {
            delivered.push(export.deliver("s", name, size).await?);
        }
        apply(export, json!({"bandwidthLimit": "200Ki"})).await?;
        export.await_sending("s", 3).await?;
        let first = node_of(export).await?.context("the pod is on no node")?;
        let lost = Machine::new(&export.stage.bed, &first);
        // Else it would end the pod as soon as it learns that it is deleted.
        lost.run("pkill -STOP -x kubelet").await?;
        lost.unplug().await?;
        let moved = move_away(export, &first, &mut delivered).await;
        lost.plug().await?;
        let second = match moved {
            Ok(second) => await_both(export, [&lost, &second]).await,
            Err(error) => Err(error),
        };
        lost.run("pkill -CONT -x kubelet").await?;
        second?;
        apply(export, json!({})).await?;
        delivered.push(export.deliver("s", "after.dat", 4096).await?);
        export.compare_each_once("s", &delivered).await
    })
    .await
}

async fn apply(export: &Export<'_>, transfer: Value) -> Result<()> {
    let source = json!({"persistentVolumeClaim": null, "nfs": {"server": SERVER, "path": export.path}});
    export.stage.apply_session("s", json!({"source": source, "pod": on_any_node(), "transfer": transfer})).await
}

async fn start_second_node(export: &Export<'_>) -> Result<()> {
    let second = export.second_node().await?;
    let archive = std::fs::read_to_string(export.stage.bed.folder.join("vm/node1/loaded-image"))?;
    second.load(archive.trim()).await
}

async fn node_of(export: &Export<'_>) -> Result<Option<String>> {
    let pod = export.stage.uploader_pod("s").await?;
    Ok(pod.and_then(|pod| pod.spec?.node_name))
}

/// Waits until the session sends files from another node.
async fn move_away(export: &Export<'_>, from: &str, delivered: &mut Vec<Delivery>) -> Result<Machine> {
    let lost = Instant::now();
    delivered.push(export.deliver("s", "meanwhile.dat", 5000).await?);
    let is_told = |session: &UploadSession| {
        condition(session, conditions::READY).is_some_and(|it| it.status == "Unknown" && it.reason == "NodeNotReady")
    };
    export.stage.await_session("s", PATIENCE, "says that its node does not answer", is_told).await?;
    figures::print(&format!("that the node does not answer was told after {:.0} s", lost.elapsed().as_secs_f64()));
    let name = wait::until(2 * PATIENCE, "the session has a pod on another node", async || {
        let node = node_of(export).await?.filter(|node| node != from);
        ensure!(node.is_some(), "it has none");
        Ok(node)
    })
    .await?;
    figures::print(&format!("a session moved to {name} {:.0} s after its node was lost", lost.elapsed().as_secs_f64()));
    let events = export.stage.events("s").await?;
    ensure!(events.iter().any(|event| event.reason.as_deref() == Some("UploaderForceDeleted")), "nobody was told of the removal");
    // Not before it shows itself on the share, since the status still has what the first one said.
    wait::until(PATIENCE, "the new uploader is on the share", async || {
        let beats = beats(export).await?;
        ensure!(beats.len() == 2, "uploaders of the session have been {beats:?}");
        Ok(Some(()))
    })
    .await?;
    figures::print(&format!("its new uploader was on the share {:.0} s after", lost.elapsed().as_secs_f64()));
    Ok(Machine::new(&export.stage.bed, &name))
}

/// Waits until the uploaders on both nodes have shown themselves on the share since now, and both are still there.
async fn await_both(export: &Export<'_>, nodes: [&Machine; 2]) -> Result<()> {
    let back = Instant::now();
    let before = beats(export).await?;
    wait::until(PATIENCE, "two uploaders beat at once", async || {
        let now = beats(export).await?;
        let newer = now.iter().filter(|(name, time)| before.get(*name).is_some_and(|earlier| earlier < *time)).count();
        ensure!(newer == 2, "the heartbeats were {before:?} and are {now:?}");
        Ok(Some(()))
    })
    .await?;
    for node in nodes {
        node.run("pidof blobferry-uploader").await.with_context(|| format!("{} has no uploader", node.name()))?;
    }
    figures::print(&format!("two uploaders on two nodes beat {:.0} s after the first node was back", back.elapsed().as_secs_f64()));
    Ok(())
}

/// The heartbeats on the share and their times, as seconds with a fraction.
async fn beats(export: &Export<'_>) -> Result<BTreeMap<String, String>> {
    let text = export.server.run(&format!("find {}/.processing/.heartbeats -type f -printf '%f %T@\\n'", export.path)).await?;
    Ok(text.lines().filter_map(|line| line.split_once(' ')).map(|(name, time)| (name.into(), time.into())).collect())
}
