//! The server goes away and comes back, and nobody does anything.

use std::time::Duration;

use anyhow::{Result, ensure};
use blobferry_crds::UploadSession;
use blobferry_testbed::{Contents, Delivery, figures, wait};
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt as _, api::DeleteParams};
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    export::{Export, PATIENCE, on_nfs, on_node, source},
    hang::first_hung_call,
    producers::{make_numbered, numbered},
    volumes,
};

const MIB: u64 = 1 << 20;

/// Slow enough that what happens next happens in the middle of files.
const SLOW: &str = "1Mi";

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
        export.compare_each_once("s", &delivered).await
    })
    .await
}

pub(crate) async fn stop_for_a_minute(export: &Export<'_>) -> Result<()> {
    let stopped = hang(export, "/bed/nfs stop").await?;
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

/// Makes the server silent by `command`; returns when it was, once the status says it.
async fn hang(export: &Export<'_>, command: &str) -> Result<Instant> {
    let silence = async {
        export.server.run(command).await?;
        Ok(Instant::now())
    };
    let began = Instant::now();
    let (silent, hung) = tokio::try_join!(silence, first_hung_call(&export.node))?;
    // A slow machine has calls that take long before any hangs.
    let hung = hung.max(began);
    let named = export.await_source("s", "False", hung).await?;
    ensure!(named.reason == blobferry_crds::conditions::HANGING, "it is named {}: {}", named.reason, named.message);
    // A call counts as hanging after 8 s, and a busy session may have reported up to 5 s ago.
    figures::print(&format!("a share that hangs was named {:.0} s after the first call that hung", named.after.as_secs_f64()));
    Ok(silent)
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

/// Where a session on the same node has its share.
const BESIDE: &str = "/var/tmp/beside";

/// A session whose share is a folder of the node on which another will hang.
async fn start_beside(export: &Export<'_>) -> Result<()> {
    let source = volumes::claim_of_folder(export, BESIDE).await?;
    export.apply_from("beside", source, json!({})).await?;
    export.await_source("beside", "True", Instant::now()).await.map(drop)
}

/// It does its work meanwhile.
async fn beside_goes_on(export: &Export<'_>) -> Result<()> {
    let contents = Contents { seed: 7, size: 4096 };
    let delivery = export.node.deliver(&format!("{BESIDE}/incoming/beside"), "meanwhile.dat", contents).await?;
    export.stage.await_uploaded("beside", 1, PATIENCE).await?;
    export.stage.compare("beside", &[delivery]).await
}

#[tokio::test]
#[ignore = "needs virtual machines: make faults"]
async fn server_that_stops_for_five_minutes_is_named_all_the_time_though_its_uploader_is_stopped_meanwhile() -> Result<()> {
    on_nfs("long", async |export| {
        let mut delivered = begin(export, "s").await?;
        start_beside(export).await?;
        let stopped = hang(export, "/bed/nfs stop").await?;
        beside_goes_on(export).await?;
        let said = changes(export, stopped, Duration::from_mins(5)).await?;
        export.server.run("/bed/nfs start").await?;
        export.await_source("s", "True", Instant::now()).await?;
        delivered.push(export.deliver("s", "after.dat", 4096).await?);
        export.compare_each_once("s", &delivered).await?;
        volumes::delete_volume(export.stage).await?;
        ensure!(said == ["False Hanging"], "meanwhile the source was {said:?}");
        Ok(())
    })
    .await
}

/// What the condition of the source said one after the other for so long. The kubelet stops the container meanwhile, which cannot end while
/// its process has files open.
async fn changes(export: &Export<'_>, since: Instant, time: Duration) -> Result<Vec<String>> {
    let (mut said, mut restarts, mut was_silent) = (Vec::new(), 0, false);
    while since.elapsed() < time {
        let session = export.stage.sessions().get("s").await?;
        let (status, reason, message) = source(&session).unwrap_or(("none", "", ""));
        let now = format!("{status} {reason}");
        if said.last() != Some(&now) {
            let after = since.elapsed().as_secs_f64();
            figures::print(&format!("{after:.0} s after the stop: SourceReachable={now}: {message}; {}", ready(&session)));
            said.push(now);
        }
        was_silent |= ready(&session).contains("UploaderSilent");
        let counted = restarts_of(export).await?;
        if counted != restarts {
            restarts = counted;
            let after = since.elapsed().as_secs_f64();
            figures::print(&format!(
                "{after:.0} s after the stop the container had started anew {restarts} times; {}",
                ready(&session)
            ));
        }
        sleep(Duration::from_secs(1)).await;
    }
    ensure!(was_silent || restarts > 0, "the kubelet has not stopped the uploader in {time:?}");
    Ok(said)
}

async fn restarts_of(export: &Export<'_>) -> Result<i32> {
    let pod = export.stage.uploader_pod("s").await?;
    let containers = pod.and_then(|pod| pod.status?.container_statuses).unwrap_or_default();
    Ok(containers.iter().map(|container| container.restart_count).sum())
}

fn ready(session: &UploadSession) -> String {
    let mut conditions = session.status.iter().flat_map(|status| &status.conditions);
    let ready = conditions.find(|condition| condition.type_ == blobferry_crds::conditions::READY);
    ready.map_or_else(|| "no Ready".into(), |ready| format!("Ready={} {}: {}", ready.status, ready.reason, ready.message))
}

#[tokio::test]
#[ignore = "needs virtual machines: make faults"]
async fn server_whose_packets_are_dropped_for_a_minute_is_named_and_every_file_arrives() -> Result<()> {
    on_nfs("drop", async |export| {
        let mut delivered = begin(export, "s").await?;
        start_beside(export).await?;
        let dropped = hang(export, "/bed/nfs drop").await?;
        beside_goes_on(export).await?;
        sleep_until(dropped + Duration::from_mins(1)).await;
        export.server.run("iptables --flush INPUT").await?;
        export.await_source("s", "True", Instant::now()).await?;
        delivered.push(export.deliver("s", "after.dat", 4096).await?);
        export.compare_each_once("s", &delivered).await?;
        volumes::delete_volume(export.stage).await
    })
    .await
}

#[tokio::test]
#[ignore = "needs virtual machines: make faults"]
async fn server_that_loses_its_power_in_the_middle_of_files_costs_none_of_them() -> Result<()> {
    on_nfs("power", async |export| {
        let mut delivered = begin(export, "s").await?;
        cut_the_servers_power(export).await?;
        delivered.push(export.deliver("s", "after.dat", 4096).await?);
        export.compare_each_once("s", &delivered).await
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
async fn server_that_loses_its_power_among_claims_and_again_among_collections_costs_no_file() -> Result<()> {
    const FILES: u32 = 600;
    on_nfs("cuts", async |export| {
        make_numbered(export, "s", FILES).await?;
        export.apply("s", json!({"retention": {"keepCompletedFor": "60s", "interval": "1s"}})).await?;
        await_count(export, "some files are claimed, others are not", async |export| {
            let (claimed, waiting) = (count(export, ".processing/2*/s").await?, count(export, "incoming/s").await?);
            Ok((claimed > 20 && waiting > 20).then(|| format!("{claimed} were claimed and {waiting} were not")))
        })
        .await?;
        cut_the_servers_power(export).await?;
        await_count(export, "some files are collected, others are not", async |export| {
            let left = count(export, "incoming/s .processing/2*/s").await?;
            Ok((left < FILES && left > 20).then(|| format!("{left} of {FILES} were left")))
        })
        .await?;
        cut_the_servers_power(export).await?;
        let deliveries: Vec<_> = (1..=FILES).map(numbered).collect();
        export.compare_each_once("s", &deliveries).await?;
        await_count(export, "all are collected", async |export| {
            let left = count(export, "incoming/s .processing/2*").await?;
            Ok((left == 0).then(|| "none is left".into()))
        })
        .await
    })
    .await
}

/// Prints what `look` saw once it saw what was waited for.
async fn await_count(export: &Export<'_>, what: &str, look: impl AsyncFn(&Export<'_>) -> Result<Option<String>>) -> Result<()> {
    let seen = wait::until(PATIENCE, what, async || look(export).await).await?;
    figures::print(&format!("{what}: {seen}"));
    Ok(())
}

/// The files in folders of the export.
async fn count(export: &Export<'_>, folders: &str) -> Result<u32> {
    let line = format!("cd {} && find {folders} -type f 2>/dev/null | wc -l", export.path);
    Ok(export.server.run(&line).await?.trim().parse()?)
}

#[tokio::test]
#[ignore = "needs virtual machines: make faults"]
async fn export_that_is_removed_is_named_and_every_file_arrives_once_it_is_back() -> Result<()> {
    on_nfs("removed", async |export| {
        let mut delivered = begin(export, "s").await?;
        let removed = Instant::now();
        export.server.run("exportfs -ua && exportfs -f").await?;
        export.await_failure("s", removed, &["Permission denied", "Stale file handle"]).await?;
        let back = Instant::now();
        export.server.run("exportfs -ra").await?;
        export.await_source("s", "True", back).await?;
        delivered.push(export.deliver("s", "after.dat", 4096).await?);
        export.compare_each_once("s", &delivered).await
    })
    .await
}

#[tokio::test]
#[ignore = "needs virtual machines: make faults"]
async fn handles_that_become_stale_are_named_and_every_file_arrives_once_they_are_good_again() -> Result<()> {
    on_nfs("stale", async |export| {
        let mut delivered = begin(export, "s").await?;
        make_handles_stale_and_good_again(export).await?;
        delivered.push(export.deliver("s", "after.dat", 4096).await?);
        export.compare_each_once("s", &delivered).await
    })
    .await
}

/// A file handle names the file system by the number that the export gives it.
pub(crate) async fn make_handles_stale_and_good_again(export: &Export<'_>) -> Result<()> {
    let began = Instant::now();
    export.server.run("exportfs -ua; exportfs -o rw,sync,root_squash,no_subtree_check,fsid=2 '*:/export' && exportfs -f").await?;
    // Between both commands the export is not there, which a look may meet.
    export.await_failure("s", began, &["Stale file handle"]).await?;
    let back = Instant::now();
    export.server.run("exportfs -ua; exportfs -ra && exportfs -f").await?;
    export.await_source("s", "True", back).await.map(drop)
}
