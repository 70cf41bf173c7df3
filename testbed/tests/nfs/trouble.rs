//! What a server or a node may do besides going away.

use anyhow::{Context as _, Result};
use blobferry_crds::{UploadSession, conditions};
use blobferry_testbed::{Machine, figures, scenario};
use serde_json::json;
use tokio::time::Instant;

use crate::export::{Export, PATIENCE};

const MIB: u64 = 1 << 20;

fn message(session: &UploadSession, type_: &str) -> Option<String> {
    let mut conditions = session.status.iter().flat_map(|status| &status.conditions);
    let found = conditions.find(|condition| condition.type_ == type_ && condition.status != "True")?;
    Some(format!("{}: {}", found.reason, found.message))
}

#[tokio::test]
#[ignore = "needs virtual machines: make faults"]
async fn versions_3_and_4_2_work_by_mount_options() -> Result<()> {
    scenario("versions", async |stage| {
        let export = Export::make(stage).await?;
        for (session, version, options) in [
            ("v3", "3", json!(["hard", "nfsvers=3", "nolock", "actimeo=5"])),
            ("v42", "4.2", json!(["hard", "nfsvers=4.2", "actimeo=5"])),
        ] {
            let source = json!({"persistentVolumeClaim": null,
                "nfs": {"server": crate::export::SERVER, "path": export.path, "mountOptions": options}});
            let delivered = [export.deliver(session, "a.dat", 4096).await?, export.deliver(session, "b.dat", 9 * MIB).await?];
            export.apply_from(session, source, json!({})).await?;
            export.compare(session, &delivered).await?;
            let mounts =
                Machine::new(&stage.bed, "node1").run("grep ' nfs' /proc/mounts | grep -o 'vers=[0-9.]*' | sort -u").await?;
            anyhow::ensure!(mounts.contains(&format!("vers={version}")), "the node has mounted {mounts}");
        }
        export.remove().await
    })
    .await
}

#[tokio::test]
#[ignore = "needs virtual machines: make faults"]
async fn export_that_becomes_read_only_is_named_and_heals() -> Result<()> {
    scenario("readonly", async |stage| {
        let export = Export::make(stage).await?;
        export.apply("s", json!({})).await?;
        export.await_source("s", "True", Instant::now()).await?;
        export.server.run("exportfs -o ro,sync,root_squash,no_subtree_check,fsid=1 '*:/export'").await?;
        let began = Instant::now();
        let delivery = export.deliver("s", "a.dat", 4096).await?;
        let outcome = export.await_source("s", "False", began).await;
        export.server.run("exportfs -ra && exportfs -f").await?;
        outcome?;
        let back = Instant::now();
        export.await_source("s", "True", back).await?;
        export.compare("s", &[delivery]).await?;
        export.remove().await
    })
    .await
}

#[tokio::test]
#[ignore = "needs virtual machines: make faults"]
async fn path_that_is_no_export_is_named_by_the_words_of_the_mount() -> Result<()> {
    scenario("refused", async |stage| {
        let export = Export::make(stage).await?;
        let made = Instant::now();
        let source = json!({"persistentVolumeClaim": null, "nfs": {"server": crate::export::SERVER, "path": "/export/not-there"}});
        export.apply_from("s", source, json!({})).await?;
        let names_it = |session: &UploadSession| message(session, conditions::READY).is_some_and(|text| text.contains("mount"));
        let session = stage.await_session("s", PATIENCE, "says that the mount failed", names_it).await?;
        let text = message(&session, conditions::READY).context("it heals by itself")?;
        figures::print(&format!("a mount that fails shows after {:.0} s: {text}", made.elapsed().as_secs_f64()));
        export.remove().await
    })
    .await
}

#[tokio::test]
#[ignore = "needs virtual machines: make faults"]
async fn files_of_another_user_stay_and_are_named() -> Result<()> {
    scenario("owner", async |stage| {
        let export = Export::make(stage).await?;
        let folder = format!("{}/incoming/s", export.path);
        let delivery = export.deliver("s", "a.dat", 4096).await?;
        export.server.run(&format!("chown 1000:1000 {folder}/a.dat && chmod 600 {folder}/a.dat")).await?;
        export.apply("s", json!({})).await?;
        let held = |session: &UploadSession| {
            let progress = session.status.as_ref().and_then(|status| status.progress.as_ref());
            progress.is_some_and(|progress| progress.held_back.iter().any(|file| file.reason == "Unreadable"))
        };
        stage.await_session("s", PATIENCE, "holds the file back", held).await?;
        export.server.run(&format!("chown 65534:65534 {folder}/a.dat")).await?;
        export.compare("s", &[delivery]).await?;
        export.remove().await
    })
    .await
}

#[tokio::test]
#[ignore = "needs virtual machines: make faults"]
async fn node_that_loses_its_power_goes_on_where_it_was() -> Result<()> {
    scenario("node", async |stage| {
        let export = Export::make(stage).await?;
        let delivered = [export.deliver("s", "a.dat", 12 * MIB).await?, export.deliver("s", "b.dat", 4096).await?];
        export.apply("s", json!({"transfer": {"bandwidthLimit": "1Mi"}})).await?;
        let begun = |session: &UploadSession| {
            let progress = session.status.as_ref().and_then(|status| status.progress.as_ref());
            progress.is_some_and(|progress| progress.files_active > 0)
        };
        stage.await_session("s", PATIENCE, "sends files", begun).await?;
        let node = Machine::new(&stage.bed, "node1");
        let cut = Instant::now();
        node.cut_power().await?;
        node.start().await?;
        export.compare("s", &delivered).await?;
        figures::print(&format!(
            "{} lost its power and the session was done {:.0} s later",
            node.name(),
            cut.elapsed().as_secs_f64()
        ));
        export.remove().await
    })
    .await
}
