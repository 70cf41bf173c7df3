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

        // Its producer keeps it open for longer than it is quiet, and writes once more after the upload.
        let late = "exec 3>late.dat; head -c 100000 /tmp/all >&3; rm -f /tmp/go; \
            (until [ -e /tmp/go ]; do sleep 0.2; done; tail -c +100001 /tmp/all >&3) >/dev/null 2>&1 </dev/null &";
        let late = produce(export, "late.dat", &format!("{{ {late} }}")).await?;
        export.stage.await_uploaded("s", 3, PATIENCE).await?;
        let written = Instant::now();
        export.server.run("touch /tmp/go").await?;
        await_again(export, written, &[second, late]).await
    })
    .await
}

/// Waits until the last file has been uploaded once more, with what was written then.
async fn await_again(export: &Export<'_>, written: Instant, deliveries: &[Delivery]) -> Result<()> {
    let before = export.stage.sessions().get("s").await?;
    let before = progress(&before).context("no progress")?.files_uploaded;
    let again = |session: &UploadSession| progress(session).is_some_and(|progress| progress.files_uploaded > before);
    export.stage.await_session("s", PATIENCE, "has uploaded the late bytes too", again).await?;
    figures::print(&format!("bytes written after the upload were a blob {:.0} s later", written.elapsed().as_secs_f64()));
    export.stage.compare("s", deliveries).await
}

/// Opens a file, writes some of it to the server, and the rest into the memory of this machine, from where the kernel brings it to the
/// server when it is 30 s old; nothing is closed meanwhile, since that would bring it at once.
const WRITE_BACK: &str = r#"
use IO::Handle;
open(my $all, "<", "/tmp/all"); local $/; my $bytes = <$all>;
open(my $out, ">", "/mnt/back.dat");
syswrite($out, substr($bytes, 0, 100000)); $out->sync;
print "written\n"; STDOUT->flush;
syswrite($out, substr($bytes, 100000)); sleep 90;
"#;

#[tokio::test]
#[ignore = "needs virtual machines: make faults"]
async fn bytes_that_a_client_writes_back_after_the_claim_replace_the_blob() -> Result<()> {
    on_nfs("back", async |export| {
        watch(export).await?;
        let client = export.second_node().await?;
        let folder = export.incoming("s");
        let line = format!(
            "mountpoint -q /mnt || mount -t nfs -o hard,nfsvers=4.1 {SERVER}:{folder} /mnt; head -c 300000 /dev/urandom >/tmp/all && cat >/tmp/write \
             <<'PERL' && (perl /tmp/write >/tmp/said 2>&1 </dev/null &) && until grep -q written /tmp/said; do sleep 0.1; done && \
             sha256sum </tmp/all | cut -d' ' -f1\n{WRITE_BACK}PERL\n"
        );
        let sha256 = client.run(&line).await?.trim().to_owned();
        let late = Delivery { name: "back.dat".into(), fingerprint: Fingerprint { size: 300_000, sha256 } };
        let written = Instant::now();
        let outcome = async {
            export.stage.await_uploaded("s", 1, PATIENCE).await?;
            figures::print(&format!("the first bytes were a blob {:.0} s after the last were written", written.elapsed().as_secs_f64()));
            await_again(export, written, &[late]).await
        };
        let outcome = outcome.await;
        client.run("pkill perl; umount /mnt").await?;
        outcome
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
        make_numbered(export, "s", FILES).await?;
        let made = Instant::now();
        let deliveries: Vec<Delivery> = (1..=FILES).map(numbered).collect();
        export.stage.await_uploaded("s", FILES as usize, Duration::from_mins(35)).await?;
        let took = made.elapsed().as_secs_f64();
        figures::print(&format!("{FILES} small files took {took:.0} s, {:.0} a second", f64::from(FILES) / took));
        export.stage.compare("s", &deliveries).await
    })
    .await
}

/// Drops so many small files on the server, each of which has its number in it.
pub(crate) async fn make_numbered(export: &Export<'_>, session: &str, files: u32) -> Result<()> {
    let folder = export.incoming(session);
    let line = format!(
        "install -d -o 65534 -g 65534 {folder} && rm -rf /tmp/small && mkdir /tmp/small && cd /tmp/small \
         && for i in $(seq 1 {files}); do echo $i >$i.dat; done && chown -R 65534:65534 . && cp -a . {folder} && sync"
    );
    export.server.run(&line).await.map(drop)
}

/// One of them.
pub(crate) fn numbered(number: u32) -> Delivery {
    Delivery { name: format!("{number}.dat"), fingerprint: Fingerprint::of(format!("{number}\n").as_bytes()) }
}
