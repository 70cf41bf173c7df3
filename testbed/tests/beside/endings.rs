//! How sessions end on a real node: by deletion in the middle of an upload, and by themselves.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use blobferry_testbed::{
    Delivery, Stage,
    files::Fingerprint,
    scenario,
    stage::{blob_folder, is_sending},
    wait,
};
use k8s_openapi::api::core::v1::Secret;
use kube::api::DeleteParams;
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_mins(5);

/// A session in the middle of a file that takes a second for each MiB.
async fn in_the_middle(stage: &Stage, spec: Value, mebibytes: u64) -> Result<Delivery> {
    stage.apply_session("s", spec).await?;
    let delivery = stage.deliver("s", "large.dat", mebibytes * MIB)?;
    stage.await_session("s", SOON, "sends a file", is_sending).await?;
    Ok(delivery)
}

/// Files are taken soon, and sent so slowly that they are seen on their way.
fn slow(policy: &str) -> Value {
    json!({
        "deletionPolicy": policy,
        "watch": {"pollInterval": "200ms", "minFileAge": "1s"},
        "transfer": {"bandwidthLimit": "1Mi", "blockSize": "1Mi", "singlePutSize": "1Mi"},
    })
}

async fn delete(stage: &Stage) -> Result<()> {
    stage.sessions().delete("s", &DeleteParams::foreground()).await?;
    wait::until(SOON, "the session is gone", async || Ok(stage.sessions().get_opt("s").await?.is_none().then_some(()))).await?;
    wait::until(SOON, "its pod is gone", async || Ok(stage.uploader_pod("s").await?.is_none().then_some(()))).await
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn session_deleted_in_the_middle_of_an_upload_finishes_its_claimed_files_and_disappears() -> Result<()> {
    scenario("drain", async |stage| {
        let claimed = in_the_middle(stage, slow("Drain"), 24).await?;
        let folder = blob_folder(&stage.sessions().get("s").await?)?;
        stage.deliver("s", "later.part", 4096)?;
        delete(stage).await?;
        let differences = stage.blobs.differences(&folder, &[claimed]).await?;
        ensure!(differences.is_empty(), "{differences:#?}");
        ensure!(stage.incoming("s")?.join("later.part").exists(), "what was not claimed stays");
        Ok(())
    })
    .await
}

/// A session whose Secret is gone when it is deleted in the middle of a file: its last uploader cannot start.
async fn is_let_go_after_its_time(stage: &Stage, policy: &str) -> Result<()> {
    let mut spec = slow(policy);
    spec["drainTimeout"] = "20s".into();
    let claimed = in_the_middle(stage, spec, 600).await?;
    let session = stage.sessions().get("s").await?;
    let secret = session.spec.destination.azure_blob.credentials_secret_ref.clone().context("it names a Secret")?;
    stage.api::<Secret>().delete(&secret.name, &DeleteParams::default()).await?;
    delete(stage).await?;
    let events = stage.events("s").await?;
    let told = events.iter().find(|event| event.reason.as_deref() == Some("DrainGivenUp")).context("nobody is told")?;
    ensure!(told.message.as_deref().is_some_and(|words| words.contains("drainTimeout is over")), "{told:?}");
    ensure!(stage.blobs.list(&blob_folder(&session)?).await?.is_empty(), "it was not uploaded");
    let folder =
        stage.share.join(".processing").join(session.status.and_then(|status| status.date_prefix).context("no date")?).join("s");
    let left = std::fs::read_dir(folder)?.collect::<std::io::Result<Vec<_>>>()?;
    ensure!(left.len() == 1, "{left:?}");
    ensure!(Fingerprint::of(&std::fs::read(left[0].path())?) == claimed.fingerprint, "it is on the share, byte for byte");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn session_that_cannot_drain_without_its_secret_is_let_go_after_its_time_and_loses_nothing() -> Result<()> {
    scenario("undrained", async |stage| is_let_go_after_its_time(stage, "Drain").await).await
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn session_that_cannot_release_without_its_secret_is_let_go_after_its_time_and_loses_nothing() -> Result<()> {
    scenario("unreleased", async |stage| is_let_go_after_its_time(stage, "Release").await).await
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn session_that_releases_gives_a_claimed_file_back_to_its_folder() -> Result<()> {
    scenario("release", async |stage| {
        let claimed = in_the_middle(stage, slow("Release"), 600).await?;
        let folder = blob_folder(&stage.sessions().get("s").await?)?;
        let file = stage.incoming("s")?.join(&claimed.name);
        ensure!(!file.exists(), "it was claimed");
        delete(stage).await?;
        ensure!(Fingerprint::of(&std::fs::read(&file)?) == claimed.fingerprint, "the file is back, byte for byte");
        ensure!(stage.blobs.list(&folder).await?.is_empty(), "and it is not in the container");
        Ok(())
    })
    .await
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn idle_session_becomes_complete_for_kubectl_wait_and_is_deleted_after_its_time() -> Result<()> {
    scenario("idle", async |stage| {
        let quick = json!({"watch": {"pollInterval": "200ms", "minFileAge": "1s"}, "completion": {"idleTimeout": "10s"}});
        stage.apply_session("s", quick).await?;
        let delivery = stage.deliver("s", "a.dat", 5 * MIB)?;
        stage.kubectl(&["wait", "uploadsession/s", "--for=condition=Complete", "--timeout=5m"])?;
        stage.compare("s", &[delivery]).await?;
        let story = stage.kubectl(&["describe", "uploadsession/s"])?;
        ensure!(["UploaderCreated", "Completed"].iter().all(|word| story.contains(word)), "{story}");
        let log = stage.kubectl(&["logs", "--selector", "blobferry.io/session=s"])?;
        ensure!(log.contains("a.dat"), "the log by the session's name is {log}");
        let session = stage.sessions().get("s").await?;
        let progress = session.status.and_then(|status| status.progress).context("no progress")?;
        ensure!((progress.files_uploaded, progress.files_waiting) == (1, 0), "{progress:#?}");
        ensure!(stage.uploader_pod("s").await?.is_some(), "its pod stays for its log");
        stage.apply_session("s", json!({"ttlSecondsAfterFinished": 1})).await?;
        wait::until(SOON, "the session is gone", async || Ok(stage.sessions().get_opt("s").await?.is_none().then_some(()))).await
    })
    .await
}
