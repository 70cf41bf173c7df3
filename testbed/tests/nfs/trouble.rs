//! What a server or a node may do besides going away.

use anyhow::{Context as _, Result, ensure};
use blobferry_crds::{UploadSession, conditions};
use blobferry_testbed::{figures, wait};
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    export::{Export, PATIENCE, SERVER, on_nfs, progress},
    volumes,
};

const MIB: u64 = 1 << 20;

fn message(session: &UploadSession, type_: &str) -> Option<String> {
    let mut conditions = session.status.iter().flat_map(|status| &status.conditions);
    let found = conditions.find(|condition| condition.type_ == type_ && condition.status != "True")?;
    Some(format!("{}: {}", found.reason, found.message))
}

#[tokio::test]
#[ignore = "needs virtual machines: make faults"]
async fn versions_3_and_4_2_work_by_mount_options() -> Result<()> {
    on_nfs("versions", async |export| {
        for (session, version, options) in [
            ("v3", "3", json!(["hard", "nfsvers=3", "nolock", "actimeo=5"])),
            ("v42", "4.2", json!(["hard", "nfsvers=4.2", "actimeo=5"])),
        ] {
            let source = json!({"persistentVolumeClaim": null,
                "nfs": {"server": SERVER, "path": export.path, "mountOptions": options}});
            let delivered = [export.deliver(session, "a.dat", 4096).await?, export.deliver(session, "b.dat", 9 * MIB).await?];
            export.apply_from(session, source, json!({})).await?;
            export.compare(session, &delivered).await?;
            let mounts = export.node.run("grep ' nfs' /proc/mounts | grep -o 'vers=[0-9.]*' | sort -u").await?;
            ensure!(mounts.contains(&format!("vers={version}")), "the node has mounted {mounts}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
#[ignore = "needs virtual machines: make faults"]
async fn export_that_becomes_read_only_is_named_and_heals() -> Result<()> {
    on_nfs("readonly", async |export| {
        export.apply("s", json!({})).await?;
        export.await_source("s", "True", Instant::now()).await?;
        export.server.run("exportfs -o ro,sync,root_squash,no_subtree_check,fsid=1 '*:/export'").await?;
        let began = Instant::now();
        let delivery = export.deliver("s", "a.dat", 4096).await?;
        export.await_failure("s", began, &["Read-only file system"]).await?;
        export.server.run("exportfs -ra && exportfs -f").await?;
        let back = Instant::now();
        export.await_source("s", "True", back).await?;
        export.compare("s", &[delivery]).await
    })
    .await
}

#[tokio::test]
#[ignore = "needs virtual machines: make faults"]
async fn path_that_is_no_export_is_named_by_the_words_of_the_mount() -> Result<()> {
    on_nfs("refused", async |export| {
        let made = Instant::now();
        let source = json!({"persistentVolumeClaim": null, "nfs": {"server": SERVER, "path": "/export/not-there"}});
        export.apply_from("s", source, json!({})).await?;
        let names_it =
            |session: &UploadSession| message(session, conditions::READY).is_some_and(|text| text.starts_with("FailedMount"));
        let session = export.stage.await_session("s", PATIENCE, "says that the mount failed", names_it).await?;
        let text = message(&session, conditions::READY).context("it heals by itself")?;
        figures::print(&format!("a mount that fails shows after {:.0} s: {text}", made.elapsed().as_secs_f64()));
        Ok(())
    })
    .await
}

#[tokio::test]
#[ignore = "needs virtual machines: make faults"]
async fn files_of_another_user_stay_and_are_named() -> Result<()> {
    on_nfs("owner", async |export| {
        let file = format!("{}/a.dat", export.incoming("s"));
        let delivery = export.deliver("s", "a.dat", 4096).await?;
        export.server.run(&format!("chown 1000:1000 {file} && chmod 600 {file}")).await?;
        export.apply("s", json!({})).await?;
        let held = |session: &UploadSession| {
            progress(session).is_some_and(|progress| progress.held_back.iter().any(|file| file.reason == "Unreadable"))
        };
        export.stage.await_session("s", PATIENCE, "holds the file back", held).await?;
        export.server.run(&format!("chown 65534:65534 {file}")).await?;
        export.compare("s", &[delivery]).await
    })
    .await
}

#[tokio::test]
#[ignore = "needs virtual machines: make faults"]
async fn server_without_a_name_is_named_by_the_words_of_the_mount() -> Result<()> {
    on_nfs("name", async |export| {
        let made = Instant::now();
        let claim = volumes::claim_from(export, "nas.example.invalid").await?;
        export.apply_from("s", claim, json!({})).await?;
        let names_it =
            |session: &UploadSession| message(session, conditions::READY).is_some_and(|text| text.starts_with("FailedMount"));
        let session = export.stage.await_session("s", PATIENCE, "says that the mount failed", names_it).await?;
        let text = message(&session, conditions::READY).context("it heals by itself")?;
        figures::print(&format!("a wrong server name shows after {:.0} s: {text}", made.elapsed().as_secs_f64()));
        volumes::delete_volume(export.stage).await
    })
    .await
}

async fn suspend(export: &Export<'_>, suspend: bool) -> Result<()> {
    let patch = Patch::Merge(json!({"spec": {"suspend": suspend}}));
    export.stage.sessions().patch("s", &PatchParams::default(), &patch).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs virtual machines: make faults"]
async fn full_export_stops_no_upload_and_shows_in_the_free_space() -> Result<()> {
    on_nfs("full", async |export| {
        let mut delivered = vec![export.deliver("s", "before.dat", 4096).await?];
        // What is collected would make room.
        export.apply("s", json!({"retention": {"keepCompletedFor": "1h"}})).await?;
        export.stage.await_uploaded("s", 1, PATIENCE).await?;
        // The next uploader finds the share full, and what it has to upload.
        suspend(export, true).await?;
        wait::until(PATIENCE, "its pod is gone", async || Ok(export.stage.uploader_pod("s").await?.is_none().then_some(()))).await?;
        delivered.push(export.deliver("s", "small.dat", 5000).await?);
        delivered.push(export.deliver("s", "large.dat", 12 * MIB).await?);
        // Until nothing more fits, not even a folder.
        let ballast = format!("{}/ballast", export.path);
        let fill = format!(
            "mkdir {ballast}; for size in 1G 64M 1M 64K 4K; do while fallocate -l $size {ballast}/$size-$((n++)) 2>/dev/null; do :; done; \
             done; df --output=avail {ballast} | tail -n 1"
        );
        let free = export.server.run(&fill).await?;
        ensure!(free.trim() == "0", "{free} KiB are still free");
        suspend(export, false).await?;
        export.compare("s", &delivered).await?;
        let is_full = |session: &UploadSession| progress(session).and_then(|progress| progress.share_free_bytes) == Some(0);
        export.stage.await_session("s", PATIENCE, "says that the share is full", is_full).await?;
        export.server.run(&format!("rm -r {ballast} && sync")).await?;
        delivered.push(export.deliver("s", "after.dat", 4096).await?);
        export.compare("s", &delivered).await
    })
    .await
}
