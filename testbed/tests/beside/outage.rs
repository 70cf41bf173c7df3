//! The storage account goes away and comes back, and nobody does anything.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use blobferry_crds::{Progress, UploadSession, conditions};
use blobferry_testbed::{Line, Stage, scenario};
use serde_json::json;

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_mins(3);
const LATER: Duration = Duration::from_mins(10);

fn progress(session: &UploadSession) -> Option<&Progress> {
    session.status.as_ref()?.progress.as_ref()
}

fn says_unreachable(session: &UploadSession) -> bool {
    let mut conditions = session.status.iter().flat_map(|status| &status.conditions);
    conditions.any(|condition| {
        condition.type_ == conditions::DESTINATION_REACHABLE && condition.status == "False" && condition.reason == "Unreachable"
    })
}

fn is_well(session: &UploadSession) -> bool {
    let conditions = session.status.iter().flat_map(|status| &status.conditions);
    let is_true = |type_| conditions.clone().any(|condition| condition.type_ == type_ && condition.status == "True");
    is_true(conditions::READY) && is_true(conditions::DESTINATION_REACHABLE)
}

/// A session behind `line` that sends so many bytes a second.
async fn apply(stage: &Stage, line: &Line, bandwidth: &str) -> Result<()> {
    let change = json!({
        "destination": {"azureBlob": {"accountUrl": line.url()}},
        "transfer": {"bandwidthLimit": bandwidth},
    });
    stage.apply_session("s", change).await
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn an_account_that_goes_away_in_the_middle_of_files_is_named_and_every_file_arrives_once_it_is_back() -> Result<()> {
    scenario("outage", async |stage| {
        let mut line = Line::closed(stage.bed.host, stage.bed.account.url()).await?;
        apply(stage, &line, "1Mi").await?;
        stage.await_session("s", SOON, "says that the account is unreachable", says_unreachable).await?;

        line.open().await?;
        stage.await_session("s", SOON, "is well", is_well).await?;
        let sizes = [64 * MIB, 16 * MIB, 4096, 1];
        let delivered = sizes.iter().map(|size| stage.deliver("s", &format!("{size}.dat"), *size)).collect::<Result<Vec<_>>>()?;
        stage.await_session("s", SOON, "sends a file", |session| progress(session).is_some_and(|it| it.files_active > 0)).await?;

        line.close();
        let session = stage.await_session("s", SOON, "says that the account is unreachable", says_unreachable).await?;
        let meanwhile = progress(&session).context("no progress")?;
        ensure!(meanwhile.files_uploaded < sizes.len() as u64, "the account went too late to be missed: {meanwhile:#?}");
        ensure!(meanwhile.files_failed == 0, "the network is no fault of a file: {meanwhile:#?}");

        line.open().await?;
        apply(stage, &line, "64Mi").await?;
        stage.await_uploaded("s", sizes.len(), LATER).await?;
        stage.compare("s", &delivered).await?;
        stage.ensure_each_committed_once("s", &delivered).await?;
        stage.await_session("s", SOON, "is well", is_well).await.map(drop)
    })
    .await
}
