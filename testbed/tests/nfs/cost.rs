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
/// Each file is looked at a second time before its session is idle; seen at 92 to 1,000 a second.
const SECOND_LOOKS: Duration = Duration::from_mins(25);

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
        let applied = Instant::now();
        export.apply("s", json!({"watch": {"minFileAge": "24h"}})).await?;
        let all_seen = |session: &UploadSession| progress(session).is_some_and(|progress| progress.files_waiting == files);
        export.stage.await_session("s", 2 * PATIENCE, "has seen every file", all_seen).await?;
        figures::print(&format!(
            "{files} files were seen after {:.0} s, by {}",
            applied.elapsed().as_secs_f64(),
            calls(export).await?.describe()
        ));
        await_rest(export, SECOND_LOOKS).await?;
        figures::print(&format!("the session was idle after {:.0} s", applied.elapsed().as_secs_f64()));
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
async fn await_rest(export: &Export<'_>, within: Duration) -> Result<()> {
    wait::until(within, "the session is idle", async || {
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
        // Long enough that none is collected before all are uploaded.
        export.apply("s", json!({"retention": {"keepCompletedFor": "3m", "interval": "5s"}})).await?;
        export.await_source("s", "True", Instant::now()).await?;
        let idle = Idle::of(export).await?;
        // The first makes the folders.
        life_of(export, 1, ("first.dat", 1), &idle).await?;
        let small = life_of(export, 2, ("small.dat", 4096), &idle).await?;
        let large = life_of(export, 3, ("large.dat", 64 * MIB), &idle).await?;
        let end = own_calls(export, "collection of the three", &idle, async || await_collected(export).await).await?;
        ensure!(small.total() < 30, "a small file took {}", small.describe());
        // The rest are reads.
        ensure!(large.total() - large.of("READ") < 40, "a large file took {}", large.describe());
        ensure!(end.total() < 20, "the collection of three files took {}", end.describe());
        figures::print(&format!("one READ of the large file brought {} KiB", 64 * 1024 / large.of("READ").max(1)));
        compare_with_dd(export).await
    })
    .await
}

/// What the session asks in a minute in which nothing happens.
struct Idle(Calls);

impl Idle {
    async fn of(export: &Export<'_>) -> Result<Self> {
        await_rest(export, PATIENCE).await?;
        let calls = calls_in(export, MINUTE).await?;
        figures::print(&format!(
            "| an idle minute, one pass of the collector each 5 s | {} | {} |",
            calls.total(),
            calls.describe()
        ));
        Ok(Self(calls))
    }

    /// Those that would have been asked in that time anyway.
    fn within(&self, time: Duration) -> Calls {
        self.0.scaled(time.as_secs_f64() / MINUTE.as_secs_f64())
    }
}

/// What the server is asked from the drop of a file until it is completed.
async fn life_of(export: &Export<'_>, number: usize, (name, size): (&str, u64), idle: &Idle) -> Result<Calls> {
    own_calls(export, &format!("{name}, {size} bytes"), idle, async || {
        export.deliver("s", name, size).await?;
        export.stage.await_uploaded("s", number, PATIENCE).await.map(drop)
    })
    .await
}

/// What the server is asked until something has happened, beyond what is asked when nothing does.
async fn own_calls(export: &Export<'_>, what: &str, idle: &Idle, happens: impl AsyncFn() -> Result<()>) -> Result<Calls> {
    let (before, begun) = (calls(export).await?, Instant::now());
    happens().await?;
    let all = calls(export).await?.since(&before);
    let took = begun.elapsed();
    let own = all.since(&idle.within(took));
    let took = took.as_secs_f64();
    figures::print(&format!("| {what}, {took:.0} s | {} | {} |", own.total(), own.describe()));
    figures::print(&format!("{what}, with what is asked anyway: {}: {}", all.total(), all.describe()));
    Ok(own)
}

async fn await_collected(export: &Export<'_>) -> Result<()> {
    let all = format!("find {}/.processing/2* -type f | wc -l", export.path);
    wait::until(PATIENCE, "everything is collected", async || {
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
    // The server has it in memory afterwards, as it had the session's.
    export.server.run(&format!("head -c {} /dev/urandom >{source} && sync", 64 * MIB)).await?;
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
