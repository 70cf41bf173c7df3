//! A session that is changed: the running uploader takes the change, and nothing is started again.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use blobferry_crds::{UploadSession, conditions};
use blobferry_testbed::{
    scenario,
    stage::{is_sending, limited},
    wait,
};
use serde_json::json;

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

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn shorter_intervals_count_at_once() -> Result<()> {
    scenario("intervals", async |stage| {
        let spec = |poll: &str, keep: &str| json!({"watch": {"pollInterval": poll}, "retention": {"keepCompletedFor": keep}});
        stage.apply_session("s", spec("1h", "24h")).await?;
        stage.await_condition("s", SOON, (conditions::CAUGHT_UP, "True"), &[]).await?;
        let before = stage.run("s").await?;
        let delivery = stage.deliver("s", "seen-in-an-hour.dat", 4096)?;
        // Far sooner than the next look would be.
        stage.apply_session("s", spec("200ms", "24h")).await?;
        let session = stage.await_uploaded("s", 1, SOON).await?;
        stage.compare("s", &[delivery]).await?;
        let status = session.status.context("it has a status")?;
        let date = status.date_prefix.context("its folder has a date")?;
        let folder = stage.share.join(".processing").join(date).join("s");
        ensure!(fs::read_dir(&folder)?.count() == 1, "the file is kept");
        stage.apply_session("s", spec("200ms", "0s")).await?;
        wait::until(SOON, "the file is deleted", async || {
            // So may the folder be, when it is empty.
            Ok(fs::read_dir(&folder).map_or(0, Iterator::count).eq(&0).then_some(()))
        })
        .await?;
        ensure!(stage.run("s").await? == before, "the uploader was started again");
        Ok(())
    })
    .await
}
