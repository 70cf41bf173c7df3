//! What producers on another client than the uploader's node do: here on the server itself, whose changes no client is told of.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use blobferry_crds::UploadSession;
use blobferry_testbed::{Delivery, Fingerprint, figures};
use serde_json::json;
use tokio::time::Instant;

use crate::export::{Export, PATIENCE, SERVER, on_nfs, progress};

/// Runs a producer's commands in the session's folder; what the file `name` has in the end is `/tmp/all`. The files are root's: to claim
/// and delete them the uploader needs the folder, not the file.
async fn produce(export: &Export<'_>, name: &str, commands: &str) -> Result<Delivery> {
    let folder = export.incoming("s");
    let line = format!(
        "umask 022; head -c 300000 /dev/urandom >/tmp/all && cd {folder} && {commands} && sha256sum </tmp/all && stat -c %s /tmp/all"
    );
    let said = export.server.run(&line).await?;
    let (sha256, size) = said.split_once(char::is_whitespace).context("no sum")?;
    let size = size.split_whitespace().last().context("no size")?.parse()?;
    Ok(Delivery { name: name.into(), fingerprint: Fingerprint { size, sha256: sha256.into() } })
}

/// Starts with an empty folder that the session watches.
async fn watch(export: &Export<'_>) -> Result<()> {
    export.server.run(&format!("install -d -o 65534 -g 65534 {}", export.incoming("s"))).await?;
    export.apply("s", json!({})).await?;
    export.await_source("s", "True", Instant::now()).await.map(drop)
}

#[tokio::test]
#[ignore = "needs virtual machines: make faults"]
async fn files_that_grow_are_renamed_replaced_or_deleted_arrive_as_they_are_in_the_end() -> Result<()> {
    on_nfs("producers", async |export| {
        watch(export).await?;
        let grow = "split -b 30000 /tmp/all /tmp/part- && for part in /tmp/part-*; do cat $part >>grows.dat; sleep 2; done; rm /tmp/part-*";
        let rename = "cp /tmp/all renamed.dat.part && sleep 8 && mv renamed.dat.part renamed.dat";
        let replace = "echo old >replaced.dat && sleep 2 && cp /tmp/all .new && mv .new replaced.dat";
        let delete = "cp /tmp/all deleted.dat && sleep 2 && rm deleted.dat";
        let mut delivered = Vec::new();
        for (name, commands) in [("grows.dat", grow), ("renamed.dat", rename), ("replaced.dat", replace)] {
            delivered.push(produce(export, name, commands).await?);
        }
        produce(export, "deleted.dat", delete).await?;
        export.compare("s", &delivered).await
    })
    .await
}

#[tokio::test]
#[ignore = "needs virtual machines: make faults"]
async fn name_that_comes_again_and_bytes_that_come_after_the_claim_replace_the_blob() -> Result<()> {
    on_nfs("again", async |export| {
        watch(export).await?;
        let first = produce(export, "again.dat", "cp /tmp/all again.dat").await?;
        export.compare("s", &[first]).await?;
        let second = produce(export, "again.dat", "cp /tmp/all again.dat").await?;
        export.stage.await_uploaded("s", 2, PATIENCE).await?;
        export.stage.compare("s", std::slice::from_ref(&second)).await?;

        // Its producer keeps it open for longer than it is quiet, and writes once more after the claim.
        let late = "exec 3>late.dat; head -c 100000 /tmp/all >&3; sleep 20; tail -c +100001 /tmp/all >&3";
        let late = produce(export, "late.dat", late).await?;
        let settled = |session: &UploadSession| {
            progress(session).is_some_and(|progress| {
                progress.bytes_uploaded >= late.fingerprint.size + second.fingerprint.size
                    && progress.files_uploaded >= 4
                    && progress.files_active + progress.files_waiting == 0
            })
        };
        export.stage.await_session("s", PATIENCE, "has uploaded the late bytes too", settled).await?;
        export.stage.compare("s", &[second, late]).await
    })
    .await
}

#[tokio::test]
#[ignore = "needs virtual machines: make faults"]
async fn plain_attributes_hide_for_seconds_what_a_forced_look_shows_at_once() -> Result<()> {
    on_nfs("attributes", async |export| {
        let path = &export.path;
        export.server.run(&format!("printf 12345 >{path}/grows && sync")).await?;
        // For longer than 5 s, so that a slow machine does not look too late.
        export
            .node
            .run(&format!("mount -t nfs -o hard,nfsvers=4.1,actimeo=60 {SERVER}:{path} /mnt && stat -c %s /mnt/grows"))
            .await?;
        export.server.run(&format!("printf 67890 >>{path}/grows")).await?;
        let grown = Instant::now();
        let seen = export.node.run("stat -c %s /mnt/grows; stat --cached=never -c %s /mnt/grows").await?;
        export.node.run("umount /mnt").await?;
        ensure!(seen == "5\n10", "plain and forced look see {seen:?}");
        figures::print(&format!(
            "{:.1} s after a file grew a plain look saw 5 bytes, a forced one 10",
            grown.elapsed().as_secs_f64()
        ));
        Ok(())
    })
    .await
}

#[tokio::test]
#[ignore = "needs virtual machines: make faults"]
async fn twenty_thousand_small_files_arrive() -> Result<()> {
    const FILES: u32 = 20_000;
    on_nfs("small", async |export| {
        watch(export).await?;
        let folder = export.incoming("s");
        let line = format!(
            "cd /tmp && mkdir small && cd small && for i in $(seq 1 {FILES}); do echo $i >$i.dat; done \
             && chown 65534:65534 * && cp -a . {folder} && sync"
        );
        export.server.run(&line).await?;
        let made = Instant::now();
        let deliveries: Vec<Delivery> = (1..=FILES).map(number_file).collect();
        export.stage.await_uploaded("s", FILES as usize, Duration::from_mins(18)).await?;
        let took = made.elapsed().as_secs_f64();
        figures::print(&format!("{FILES} small files took {took:.0} s, {:.0} a second", f64::from(FILES) / took));
        export.stage.compare("s", &deliveries).await
    })
    .await
}

fn number_file(number: u32) -> Delivery {
    Delivery { name: format!("{number}.dat"), fingerprint: Fingerprint::of(format!("{number}\n").as_bytes()) }
}
