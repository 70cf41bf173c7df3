//! A session that is changed in the middle of a file: the running uploader takes the change, and nothing is started again.

use std::time::Duration;

use anyhow::{Result, ensure};
use blobferry_crds::UploadSession;
use blobferry_testbed::{
    scenario,
    stage::{is_sending, limited},
};

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
