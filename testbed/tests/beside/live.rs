//! A session that is changed: the running uploader takes the change, and nothing is started again.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use blobferry_crds::UploadSession;
use blobferry_testbed::{
    scenario,
    stage::{is_sending, limited},
    wait,
};
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 300 * MIB;
const SOON: Duration = Duration::from_mins(3);
/// The whole file takes little more than a minute at the new speed, and twenty at the old one.
const AT_THE_NEW_SPEED: Duration = Duration::from_mins(10);

fn applied(session: &UploadSession) -> Option<i64> {
    session.status.as_ref()?.activity.as_ref()?.applied_generation
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn higher_limit_speeds_up_the_file_that_is_being_sent() -> Result<()> {
    scenario("live", async |stage| {
        stage.apply_session("s", limited("256Ki")).await?;
        let delivery = stage.deliver("s", "large.dat", SIZE)?;
        stage.await_session("s", SOON, "sends the file", is_sending).await?;
        let before = stage.run("s").await?;
        stage.apply_session("s", limited("4Mi")).await?;
        let generation = stage.sessions().get("s").await?.metadata.generation;
        let changed = |session: &UploadSession| is_sending(session) && applied(session) == generation;
        stage.await_session("s", SOON, "has taken the change and still sends the file", changed).await?;
        stage.await_uploaded("s", 1, AT_THE_NEW_SPEED).await?;
        stage.compare("s", &[delivery]).await?;
        ensure!(stage.run("s").await? == before, "the uploader was started again");
        Ok(())
    })
    .await
}

/// A session that looks for files once in a while and keeps them, and is at work on a large one, so that it reports, and hears of changes,
/// every few seconds.
fn at_work(poll: &str, keep: &str) -> Value {
    json!({
        "watch": {"pollInterval": poll, "minFileAge": "1s"},
        "transfer": {"bandwidthLimit": "256Ki"},
        "retention": {"keepCompletedFor": keep},
    })
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn shorter_intervals_count_long_before_the_longer_ones_are_over() -> Result<()> {
    scenario("intervals", async |stage| {
        stage.apply_session("s", at_work("1s", "24h")).await?;
        stage.deliver("s", "large.dat", SIZE)?;
        stage.await_session("s", SOON, "sends the file", is_sending).await?;
        let before = stage.run("s").await?;
        stage.apply_session("s", at_work("1h", "24h")).await?;
        let generation = stage.sessions().get("s").await?.metadata.generation;
        stage.await_session("s", SOON, "has taken the change", |session| applied(session) == generation).await?;
        let delivery = stage.deliver("s", "seen-in-an-hour.dat", 4096)?;
        stage.apply_session("s", at_work("200ms", "24h")).await?;
        let is_uploaded = |session: &UploadSession| {
            let progress = session.status.as_ref().and_then(|status| status.progress.as_ref());
            progress.is_some_and(|progress| progress.files_uploaded == 1)
        };
        let session = stage.await_session("s", SOON, "has uploaded the small file", is_uploaded).await?;
        stage.compare("s", &[delivery]).await?;
        let date = session.status.and_then(|status| status.date_prefix).context("its folder has a date")?;
        let folder = stage.share.join(".processing").join(date).join("s");
        let kept = || -> Result<usize> {
            let names = fs::read_dir(&folder)?.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<Vec<_>>>()?;
            Ok(names.iter().filter(|name| name.as_encoded_bytes().ends_with(b".completed")).count())
        };
        ensure!(kept()? == 1, "the file is kept for a day");
        stage.apply_session("s", at_work("200ms", "0s")).await?;
        wait::until(SOON, "the file is deleted", async || Ok((kept()? == 0).then_some(()))).await?;
        ensure!(stage.run("s").await? == before, "the uploader was started again");
        Ok(())
    })
    .await
}
