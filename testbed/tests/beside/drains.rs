//! Sessions that drain on a real node while what they need is taken away: nothing blocks its namespace, and no file is lost.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use blobferry_crds::{UploadSession, conditions};
use blobferry_testbed::{
    Delivery, Fingerprint, Stage, figures, scenario,
    stage::{blob_folder, is_sending},
    wait,
};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use kube::api::DeleteParams;
use serde_json::{Value, json};
use tokio::time::Instant;

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_mins(5);
/// The kubelet looks at a changed Secret within about a minute and a half.
const LATER: Duration = Duration::from_mins(8);
/// Much longer than a namespace with pods takes that end at once, and shorter than the file and `drainTimeout` would take.
const NAMESPACE_ENDS: Duration = Duration::from_mins(8);

/// Claimed files are uploaded before the session goes; they are taken soon, and sent with so many bytes a second.
fn drains(bandwidth: &str) -> Value {
    json!({
        "deletionPolicy": "Drain",
        "watch": {"pollInterval": "200ms", "minFileAge": "1s"},
        "transfer": {"bandwidthLimit": bandwidth, "blockSize": "1Mi", "singlePutSize": "1Mi"},
    })
}

/// A session in the middle of a file that takes a second for each MiB, and the folder of its blobs.
async fn in_the_middle(stage: &Stage, mebibytes: u64) -> Result<(Delivery, String)> {
    stage.apply_session("s", drains("1Mi")).await?;
    let delivery = stage.deliver("s", "large.dat", mebibytes * MIB)?;
    let session = stage.await_session("s", SOON, "sends the file", is_sending).await?;
    Ok((delivery, blob_folder(&session)?))
}

/// Deletes the session, and waits until its last uploader sends the file.
async fn is_draining(stage: &Stage) -> Result<()> {
    let first = stage.run("s").await?.pod;
    stage.sessions().delete("s", &DeleteParams::background()).await?;
    let draining = wait::until(SOON, "its last uploader runs", async || {
        let run = stage.run("s").await?;
        Ok((run.pod != first).then_some(run.pod))
    })
    .await?;
    let sends = |session: &UploadSession| {
        let status = session.status.as_ref();
        is_sending(session) && status.and_then(|status| status.pod_uid.as_ref()) == Some(&draining)
    };
    stage.await_session("s", SOON, "sends the file and nothing else", sends).await.map(drop)
}

async fn is_gone(stage: &Stage, within: Duration) -> Result<()> {
    wait::until(within, "the session is gone", async || Ok(stage.sessions().get_opt("s").await?.is_none().then_some(()))).await?;
    wait::until(SOON, "its pod is gone", async || Ok(stage.uploader_pod("s").await?.is_none().then_some(()))).await
}

/// The file was uploaded once, and is what was delivered.
async fn is_uploaded(stage: &Stage, folder: &str, delivery: Delivery) -> Result<()> {
    let delivered = [delivery];
    let differences = stage.blobs.differences(folder, &delivered).await?;
    ensure!(differences.is_empty(), "{differences:#?}");
    stage.ensure_each_committed_once_below(folder, &delivered)
}

/// The claimed files of the sessions of this stage.
fn claimed(stage: &Stage) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for date in fs::read_dir(stage.share.join(".processing"))? {
        let folder = date?.path().join("s");
        if folder.is_dir() {
            found.extend(fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?);
        }
    }
    Ok(found)
}

/// Nothing but the claimed file is on the share, byte for byte.
fn is_on_the_share(stage: &Stage, delivery: &Delivery) -> Result<()> {
    let left = claimed(stage)?;
    ensure!(left.len() == 1, "{left:?}");
    ensure!(Fingerprint::of(&fs::read(&left[0])?) == delivery.fingerprint, "{} has other bytes", left[0].display());
    Ok(())
}

/// Ends the namespace in the middle of the file; a session of the same name in a namespace that is made later goes on with it.
async fn survives_its_namespace(stage: &Stage, delivery: Delivery, folder: &str) -> Result<()> {
    let deleted = Instant::now();
    stage.delete_namespace().await?;
    let took = deleted.elapsed();
    figures::print(&format!("the namespace with a session in the middle of a file was gone after {:.0} s", took.as_secs_f64()));
    ensure!(took < NAMESPACE_ENDS, "it was gone only after {took:?}");
    is_on_the_share(stage, &delivery)?;
    ensure!(stage.blobs.list(folder).await?.is_empty(), "it was uploaded");

    stage.set_up_again().await?;
    stage.apply_session("s", drains("64Mi")).await?;
    let session = stage.await_uploaded("s", 1, SOON).await?;
    let progress = session.status.and_then(|status| status.progress).context("no progress")?;
    ensure!(progress.bytes_resumed >= MIB, "what was sent before was sent again: {progress:#?}");
    is_uploaded(stage, folder, delivery).await
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn namespace_of_a_session_that_drains_is_gone_soon_and_a_later_session_goes_on_with_its_file() -> Result<()> {
    scenario("draining", async |stage| {
        let (delivery, folder) = in_the_middle(stage, 600).await?;
        is_draining(stage).await?;
        survives_its_namespace(stage, delivery, &folder).await
    })
    .await
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn namespace_of_a_session_that_would_drain_is_gone_soon_and_a_later_session_goes_on_with_its_file() -> Result<()> {
    scenario("would-drain", async |stage| {
        let (delivery, folder) = in_the_middle(stage, 600).await?;
        survives_its_namespace(stage, delivery, &folder).await
    })
    .await
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn claim_that_is_deleted_while_its_session_drains_stays_until_the_file_is_uploaded() -> Result<()> {
    scenario("claim-goes", async |stage| {
        let (delivery, folder) = in_the_middle(stage, 600).await?;
        is_draining(stage).await?;
        let claims = stage.api::<PersistentVolumeClaim>();
        claims.delete("share", &DeleteParams::background()).await?;
        let claim = claims.get("share").await.context("the claim went while an uploader used it")?;
        ensure!(claim.metadata.deletion_timestamp.is_some(), "it was not deleted");
        stage.await_session("s", SOON, "still sends the file", is_sending).await?;
        stage.apply_session("s", drains("64Mi")).await?;
        is_gone(stage, LATER).await?;
        is_uploaded(stage, &folder, delivery).await?;
        wait::until(SOON, "the claim goes", async || Ok(claims.get_opt("share").await?.is_none().then_some(()))).await
    })
    .await
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn session_whose_claim_is_gone_when_it_is_to_drain_says_so_and_drains_when_it_is_made_again() -> Result<()> {
    scenario("claim-gone", async |stage| {
        let (delivery, folder) = in_the_middle(stage, 600).await?;
        let claims = stage.api::<PersistentVolumeClaim>();
        let claim = claims.get("share").await?;
        // It stays for as long as the uploader runs, which is replaced now by one that may not use it.
        claims.delete("share", &DeleteParams::background()).await?;
        stage.sessions().delete("s", &DeleteParams::background()).await?;
        // It depends on whether the claim or the uploader's pod is there first after that.
        let words = ["PersistentVolumeClaim share", "create it"];
        for type_ in [conditions::READY, conditions::SOURCE_REACHABLE] {
            stage.await_condition("s", SOON, (type_, "False"), &words).await?;
        }
        is_on_the_share(stage, &delivery)?;
        stage.make_claim_again(&claim).await?;
        stage.apply_session("s", drains("64Mi")).await?;
        is_gone(stage, LATER).await?;
        is_uploaded(stage, &folder, delivery).await
    })
    .await
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn secret_that_is_deleted_while_its_session_drains_is_named_and_the_file_goes_on_when_it_is_made_again() -> Result<()> {
    scenario("secret-gone", async |stage| {
        let (delivery, folder) = in_the_middle(stage, 600).await?;
        is_draining(stage).await?;
        let session = stage.sessions().get("s").await?;
        let secret = session.spec.destination.azure_blob.credentials_secret_ref.context("it names a Secret")?.name;
        stage.api::<Secret>().delete(&secret, &DeleteParams::default()).await?;
        let deleted = Instant::now();
        let words = ["Denied", "credential is absent"];
        stage.await_condition("s", LATER, (conditions::DESTINATION_REACHABLE, "False"), &words).await?;
        stage.await_condition("s", SOON, (conditions::READY, "False"), &words).await?;
        figures::print(&format!("a draining session named its Secret {:.0} s after its deletion", deleted.elapsed().as_secs_f64()));
        is_on_the_share(stage, &delivery)?;
        stage.put_secret(&stage.bed.account.secret()).await?;
        // What is changed while it drains counts as well.
        stage.apply_session("s", drains("64Mi")).await?;
        is_gone(stage, LATER).await?;
        is_uploaded(stage, &folder, delivery).await
    })
    .await
}
