//! An API server that answers nobody for a while.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use blobferry_testbed::{
    figures, processes, scenario,
    stage::{blob_folder, is_sending, limited},
    wait,
};
use tokio::time::sleep;

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_mins(5);
/// Longer than the operator's Lease lasts, and than anybody waits for the node's.
const SILENCE: Duration = Duration::from_secs(70);

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn api_server_that_answers_nobody_holds_up_no_file_and_all_goes_on_when_it_does() -> Result<()> {
    scenario("silence", async |stage| {
        stage.apply_session("s", limited("2Mi")).await?;
        let mut delivered = vec![stage.deliver("s", "large.dat", 60 * MIB)?];
        let session = stage.await_session("s", SOON, "sends a file", is_sending).await?;
        let (folder, before) = (blob_folder(&session)?, stage.run("s").await?);

        let began = Instant::now();
        let paused = processes::pause("kube-apiserver", &stage.bed.folder)?;
        delivered.push(stage.deliver("s", "meanwhile.dat", 4096)?);
        wait::until(SOON, "both files are in the container", async || {
            let differences = stage.blobs.differences(&folder, &delivered).await?;
            ensure!(differences.is_empty(), "{differences:?}");
            Ok(Some(()))
        })
        .await?;
        let arrived = began.elapsed();
        sleep(SILENCE.saturating_sub(arrived)).await;
        drop(paused);
        figures::print(&format!("with an API server that answered nobody, both files arrived after {} s", arrived.as_secs()));

        let again = Instant::now();
        stage.await_uploaded("s", 2, SOON).await?;
        figures::print(&format!("the status says so {} s after it answered again", again.elapsed().as_secs()));
        ensure!(stage.run("s").await? == before, "the uploader was started again");
        stage.ensure_each_committed_once("s", &delivered).await?;
        // The operator is at work again, too.
        stage.apply_session("t", limited("2Mi")).await?;
        let later = stage.deliver("t", "later.dat", 4096)?;
        stage.await_uploaded("t", 1, SOON).await?;
        stage.compare("t", &[later]).await
    })
    .await
}
