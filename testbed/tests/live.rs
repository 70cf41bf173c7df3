//! A session that is changed in the middle of a file: the running uploader takes the change, and nothing is started again.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use blobferry_crds::UploadSession;
use blobferry_testbed::{Stage, scenario};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 300 * MIB;
const SOON: Duration = Duration::from_mins(3);
/// The whole file takes half a minute at the new speed, and five at the old one.
const AT_THE_NEW_SPEED: Duration = Duration::from_mins(3);

fn limited(bandwidth: &str) -> Value {
    json!({"watch": {"pollInterval": "200ms", "minFileAge": "1s"}, "transfer": {"bandwidthLimit": bandwidth}})
}

fn is_sending(session: &UploadSession) -> bool {
    let activity = session.status.as_ref().and_then(|status| status.activity.as_ref());
    activity.is_some_and(|activity| activity.active_files.iter().any(|file| file.bytes_sent > 0))
}

fn applied(session: &UploadSession) -> Option<i64> {
    session.status.as_ref()?.activity.as_ref()?.applied_generation
}

/// UID of the session's pod, and how often its uploader was started again.
async fn run(stage: &Stage) -> Result<(Option<String>, Option<i32>)> {
    let pod = stage.uploader_pod("s").await?.context("the session has no pod")?;
    let restarts = |pod: &Pod| Some(pod.status.as_ref()?.container_statuses.as_ref()?.first()?.restart_count);
    Ok((pod.uid(), restarts(&pod)))
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn higher_limit_speeds_up_the_file_that_is_being_sent() -> Result<()> {
    scenario("live", async |stage| {
        stage.apply_session("s", limited("1Mi")).await?;
        let delivery = stage.deliver("s", "large.dat", SIZE)?;
        stage.await_session("s", SOON, "sends the file", is_sending).await?;
        let before = run(stage).await?;
        stage.apply_session("s", limited("10Mi")).await?;
        let generation = stage.sessions().get("s").await?.metadata.generation;
        let changed = |session: &UploadSession| is_sending(session) && applied(session) == generation;
        stage.await_session("s", SOON, "has taken the change and still sends the file", changed).await?;
        stage.await_uploaded("s", 1, AT_THE_NEW_SPEED).await?;
        stage.compare("s", &[delivery]).await?;
        ensure!(run(stage).await? == before, "the uploader was started again");
        Ok(())
    })
    .await
}
