//! What a server or a node may do besides going away.

use anyhow::{Result, ensure};
use blobferry_crds::UploadSession;
use blobferry_testbed::wait;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    export::{Export, PATIENCE, SERVER, on_nfs, progress},
    outages::begin,
    volumes,
};

const MIB: u64 = 1 << 20;

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
            export.compare_each_once(session, &delivered).await?;
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
        let mut delivered = begin(export, "s").await?;
        export.server.run("exportfs -o ro,sync,root_squash,no_subtree_check,fsid=1 '*:/export'").await?;
        let began = Instant::now();
        delivered.push(export.deliver("s", "meanwhile.dat", 4096).await?);
        export.await_failure("s", began, &["Read-only file system"]).await?;
        export.server.run("exportfs -ra && exportfs -f").await?;
        let back = Instant::now();
        export.await_source("s", "True", back).await?;
        export.compare_each_once("s", &delivered).await
    })
    .await
}

#[tokio::test]
#[ignore = "needs virtual machines: make faults"]
async fn path_that_is_no_export_is_named_by_the_words_of_the_mount_and_mounted_once_it_is_there() -> Result<()> {
    on_nfs("path", async |export| {
        let made = Instant::now();
        let path = format!("{}/later", export.path);
        let source = json!({"persistentVolumeClaim": null, "nfs": {"server": SERVER, "path": path}});
        export.apply_from("s", source, json!({})).await?;
        export.await_refusal("s", made, "FailedMount", "No such file or directory").await?;
        export.server.run(&format!("install -d -o 65534 -g 65534 {path} {path}/incoming && sync")).await?;
        export.await_source("s", "True", Instant::now()).await.map(drop)
    })
    .await
}

#[tokio::test]
#[ignore = "needs virtual machines: make faults"]
async fn node_that_the_server_refuses_is_named_by_the_words_of_the_mount_and_served_once_it_is_allowed() -> Result<()> {
    on_nfs("refused", async |export| {
        export
            .server
            .run("exportfs -ua; exportfs -o rw,sync,root_squash,no_subtree_check,fsid=1 192.0.2.1:/export && exportfs -f")
            .await?;
        let delivery = export.deliver("s", "a.dat", 4096).await?;
        let made = Instant::now();
        export.apply("s", json!({})).await?;
        let outcome = export.await_refusal("s", made, "FailedMount", "mount.nfs").await;
        export.server.run("exportfs -ua; exportfs -ra && exportfs -f").await?;
        outcome?;
        export.await_source("s", "True", Instant::now()).await?;
        export.compare_each_once("s", &[delivery]).await
    })
    .await
}

#[tokio::test]
#[ignore = "needs virtual machines: make faults"]
async fn folder_that_is_not_the_uploaders_is_named_with_what_to_do_and_drained_once_it_is() -> Result<()> {
    on_nfs("folder", async |export| {
        let delivery = export.deliver("s", "a.dat", 4096).await?;
        export.server.run(&format!("chown root:root {0} && chmod 755 {0}", export.incoming("s"))).await?;
        let made = Instant::now();
        export.apply("s", json!({})).await?;
        export.await_refusal("s", made, "PermissionDenied", "must belong to the uploader's user").await?;
        export.server.run(&format!("chown 65534:65534 {}", export.incoming("s"))).await?;
        export.await_source("s", "True", Instant::now()).await?;
        export.compare_each_once("s", &[delivery]).await
    })
    .await
}

#[tokio::test]
#[ignore = "needs virtual machines: make faults"]
async fn session_as_the_producers_user_takes_files_that_nobody_else_may_read() -> Result<()> {
    on_nfs("user", async |export| {
        let delivery = export.deliver("s", "a.dat", 4096).await?;
        export.server.run(&format!("chown -R 1000:1000 {} && chmod 600 {}/a.dat", export.path, export.incoming("s"))).await?;
        let user = json!({"pod": {"securityContext": {"runAsUser": 1000, "runAsGroup": 1000}}});
        export.apply("s", user).await?;
        export.compare_each_once("s", &[delivery]).await
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
        export.compare_each_once("s", &[delivery]).await
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
        export.await_refusal("s", made, "FailedMount", "mount.nfs").await?;
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
        export.compare_each_once("s", &delivered).await?;
        let is_full = |session: &UploadSession| progress(session).and_then(|progress| progress.share_free_bytes) == Some(0);
        export.stage.await_session("s", PATIENCE, "says that the share is full", is_full).await?;
        export.server.run(&format!("rm -r {ballast} && sync")).await?;
        delivered.push(export.deliver("s", "after.dat", 4096).await?);
        export.compare_each_once("s", &delivered).await
    })
    .await
}
