//! A node with an uploader goes away.

use anyhow::{Context as _, Result, ensure};
use blobferry_testbed::{Delivery, Machine, figures, wait};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::export::{Export, PATIENCE, SERVER, on_nfs};

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
        export.compare("s", &delivered).await?;
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
async fn session_moves_from_a_node_without_network_whose_uploader_goes_on_when_the_network_is_back() -> Result<()> {
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
        lost.unplug().await?;
        let outcome = move_away(export, &first, &mut delivered).await;
        lost.plug().await?;
        outcome?;
        apply(export, json!({})).await?;
        delivered.push(export.deliver("s", "after.dat", 4096).await?);
        export.compare("s", &delivered).await
    })
    .await
}

async fn apply(export: &Export<'_>, transfer: Value) -> Result<()> {
    let source = json!({"persistentVolumeClaim": null, "nfs": {"server": SERVER, "path": export.path}});
    export.stage.apply_session("s", json!({"source": source, "pod": on_any_node(), "transfer": transfer})).await
}

async fn start_second_node(export: &Export<'_>) -> Result<()> {
    let second = Machine::new(&export.stage.bed, "node2");
    second.start().await?;
    let archive = std::fs::read_to_string(export.stage.bed.folder.join("vm/node1/loaded-image"))?;
    second.load(archive.trim()).await
}

async fn node_of(export: &Export<'_>) -> Result<Option<String>> {
    let pod = export.stage.uploader_pod("s").await?;
    Ok(pod.and_then(|pod| pod.spec?.node_name))
}

/// Waits until the session works on another node.
async fn move_away(export: &Export<'_>, from: &str, delivered: &mut Vec<Delivery>) -> Result<()> {
    let lost = Instant::now();
    delivered.push(export.deliver("s", "meanwhile.dat", 5000).await?);
    let name = wait::until(2 * PATIENCE, "the session has a pod on another node", async || {
        let node = node_of(export).await?.filter(|node| node != from);
        ensure!(node.is_some(), "it has none");
        Ok(node)
    })
    .await?;
    figures::print(&format!("a session moved to {name} {:.0} s after its node was lost", lost.elapsed().as_secs_f64()));
    export.await_sending("s", 4).await
}
