//! What a session costs the server, in remote procedure calls. The rows are those of the table in `docs/nfs.md`.

use std::time::Duration;

use anyhow::{Result, ensure};
use blobferry_crds::UploadSession;
use blobferry_testbed::{figures, wait};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    export::{Export, PATIENCE, on_nfs, progress},
    wire::{Calls, calls},
};

const MINUTE: Duration = Duration::from_mins(1);
const MIB: u64 = 1 << 20;

#[tokio::test]
#[ignore = "needs virtual machines: make faults"]
async fn idle_files_cost_no_call_for_attributes_however_many_they_are() -> Result<()> {
    let few = idle_minute("few", 1000).await?;
    let many = idle_minute("many", 100_000).await?;
    // A heartbeat more or less.
    ensure!(many.for_attributes() <= few.for_attributes() + 20, "1,000: {}; 100,000: {}", few.describe(), many.describe());
    Ok(())
}

/// What a session asks in a minute in which nothing happens, with so many files that will not be quiet for a day.
async fn idle_minute(name: &str, files: u64) -> Result<Calls> {
    let mut minute = Calls::default();
    on_nfs(name, async |export| {
        let folder = export.incoming("s");
        let make = format!("install -d {folder} && cd {folder} && seq 1 {files} | xargs touch && chown -R 65534:65534 . && sync");
        export.server.run(&make).await?;
        export.apply("s", json!({"watch": {"minFileAge": "24h"}})).await?;
        let all_seen = |session: &UploadSession| progress(session).is_some_and(|progress| progress.files_waiting == files);
        export.stage.await_session("s", 2 * PATIENCE, "has seen every file", all_seen).await?;
        let begun = Instant::now();
        await_rest(export).await?;
        figures::print(&format!("{files} files were looked at again within {:.0} s", begun.elapsed().as_secs_f64()));
        minute = calls_in(export, MINUTE).await?;
        figures::print(&format!(
            "| {files} idle files, one minute of polls each 2 s | {} | {} |",
            minute.total(),
            minute.describe()
        ));
        Ok(())
    })
    .await?;
    Ok(minute)
}

/// Waits until the session has looked at everything.
async fn await_rest(export: &Export<'_>) -> Result<()> {
    wait::until(PATIENCE, "the session is idle", async || {
        let asked = calls_in(export, Duration::from_secs(15)).await?;
        ensure!(asked.total() < 100, "it asked {}", asked.describe());
        Ok(Some(()))
    })
    .await
}

async fn calls_in(export: &Export<'_>, time: Duration) -> Result<Calls> {
    let before = calls(export).await?;
    sleep(time).await;
    Ok(calls(export).await?.since(&before))
}

#[tokio::test]
#[ignore = "needs virtual machines: make faults"]
async fn a_small_and_a_large_file_cost_few_calls_from_discovery_to_collection() -> Result<()> {
    on_nfs("files", async |export| {
        export.apply("s", json!({"retention": {"keepCompletedFor": "60s", "interval": "5s"}})).await?;
        export.await_source("s", "True", Instant::now()).await?;
        // The first makes the folders.
        life_of(export, "first.dat", 1).await?;
        let small = life_of(export, "small.dat", 4096).await?;
        let large = life_of(export, "large.dat", 64 * MIB).await?;
        ensure!(small.total() < 200, "a small file took {}", small.describe());
        let bytes_per_read = 64 * MIB / large.of("READ").max(1);
        figures::print(&format!("one READ of the large file brought {} KiB", bytes_per_read / 1024));
        compare_with_dd(export).await
    })
    .await
}

/// What the server is asked from the drop of a file to its collection, and what the same time costs when nothing happens.
async fn life_of(export: &Export<'_>, name: &str, size: u64) -> Result<Calls> {
    let before = (calls(export).await?, Instant::now());
    export.deliver("s", name, size).await?;
    await_collected(export, name).await?;
    let took = before.1.elapsed();
    let all = calls(export).await?.since(&before.0);
    let idle = calls_in(export, MINUTE).await?;
    figures::print(&format!(
        "| {name}, {size} bytes, {:.0} s until it was collected | {} | {} |",
        took.as_secs_f64(),
        all.total(),
        all.describe()
    ));
    figures::print(&format!("| one idle minute after {name} | {} | {} |", idle.total(), idle.describe()));
    Ok(all)
}

async fn await_collected(export: &Export<'_>, name: &str) -> Result<()> {
    let all = format!("find {} -name '{name}*' | wc -l", export.path);
    wait::until(PATIENCE, &format!("{name} is collected"), async || {
        sleep(Duration::from_secs(2)).await;
        ensure!(export.server.run(&all).await? == "0", "it is still there");
        Ok(Some(()))
    })
    .await
}

/// How long the session took for the large file, and how long `dd` takes for one of the same size on the same node.
async fn compare_with_dd(export: &Export<'_>) -> Result<()> {
    let session = upload_seconds(export).await?;
    let source = format!("{}/dd.dat", export.path);
    export.server.run(&format!("head -c {} /dev/urandom >{source} && sync && echo 3 >/proc/sys/vm/drop_caches", 64 * MIB)).await?;
    let mount = format!("mount -t nfs -o hard,nfsvers=4.1,actimeo=5 {}:{} /mnt", crate::export::SERVER, export.path);
    let line = "start=$(date +%s%N); dd if=/mnt/dd.dat of=/dev/null bs=1M 2>/dev/null; echo $((($(date +%s%N) - start) / 1000000))";
    let milliseconds = export.node.run(&format!("{mount} && {line}; umount /mnt")).await?;
    let dd = milliseconds.trim().parse::<f64>()? / 1000.0;
    figures::print(&format!("64 MiB: session {session:.1} s from claim to completion, dd {dd:.1} s, ratio {:.2}", session / dd));
    Ok(())
}

/// From claim to completion of the only file in blocks, as the uploader measured it.
async fn upload_seconds(export: &Export<'_>) -> Result<f64> {
    let path = format!("/api/v1/namespaces/{}/pods/s-uploader:8080/proxy/metrics", export.stage.namespace);
    let text = export.stage.client().request_text(http::Request::get(path).body(Vec::new())?).await?;
    let sums = text.lines().filter(|line| line.starts_with("upload_duration_seconds_sum") && line.contains("blocks"));
    Ok(sums.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}
