//! The API server is killed and comes back: what was changed before the watches work again is seen, and nothing else happens.

use std::{env, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use blobferry_crds::UploadSession;
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt, api::DeleteParams};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{Running, faults::settles};
use crate::{chaos::Chaos, chart::forget_refusals, stage::Stage};

/// Requests for all of this; a storm while nobody answers makes thousands.
const MOST_CALLS: usize = 300;
const AWAY_FOR: Duration = Duration::from_mins(2);

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn what_happened_while_the_api_server_was_away_is_made_good_once_it_is_back() -> Result<()> {
    let stage = Stage::bare("api-restart").await?;
    let chaos = Chaos::new(0, 0);
    chaos.calm();
    let counting = chaos.clone();
    let operator = Running::start_with(&["--pod-name", "restart"], move |client| {
        counting.in_front_of(client).expect("there is a port for the proxy")
    });
    for name in ["steady", "by-hand", "suspended", "removed"] {
        stage.running_session(name, json!({"sessionName": name})).await?;
    }
    stage.session("waiting", json!({"sessionName": "removed"})).await?;
    stage.until_condition("waiting", "Ready", "False", "SessionNameInUse").await?;
    let (steady, by_hand) = (stage.until_pod("steady", None).await?, stage.until_pod("by-hand", None).await?);
    let version = stage.api::<UploadSession>().get("steady").await?.resource_version();

    kill_api_server()?;
    change_everything(&stage).await?;

    stage.until_pod("by-hand", by_hand.uid().as_deref()).await?;
    stage.until_condition("suspended", "Ready", "True", "Suspended").await?;
    stage.until_pod("waiting", None).await?;
    stage.until_pod("late", None).await?;
    settles(&stage, std::slice::from_ref(&chaos)).await?;
    forget_refusals();
    let mut pods: Vec<_> = stage.list::<Pod>().await?.iter().map(ResourceExt::name_any).collect();
    pods.sort();
    ensure!(pods == ["by-hand-uploader", "late-uploader", "steady-uploader", "waiting-uploader"], "{pods:?}");
    ensure!(stage.until_pod("steady", None).await?.uid() == steady.uid(), "a pod was replaced that nothing had happened to");
    ensure!(stage.api::<UploadSession>().get("steady").await?.resource_version() == version, "its session was written to");
    ensure!(chaos.totals().0 < MOST_CALLS, "a storm: {} requests", chaos.totals().0);
    operator.end()?;
    stage.end().await
}

fn kill_api_server() -> Result<()> {
    let bed = concat!(env!("CARGO_MANIFEST_DIR"), "/../testbed/bed");
    let name = env::var("BLOBFERRY_BED").context("BLOBFERRY_BED is not set")?;
    let killed =
        Command::new(bed).args(["restart", "kube-apiserver"]).env("BLOBFERRY_BED", name).output().context("cannot start bed")?;
    ensure!(killed.status.success(), "{}", String::from_utf8_lossy(&killed.stderr));
    Ok(())
}

/// Each of these as soon as the API server takes it, which is before the watches are there again.
async fn change_everything(stage: &Stage) -> Result<()> {
    let gone = DeleteParams::background();
    persist(async || Ok(stage.api::<Pod>().delete("by-hand-uploader", &gone).await.map(drop)?)).await?;
    persist(async || stage.change("suspended", json!({"suspend": true})).await.map(drop)).await?;
    persist(async || Ok(stage.api::<UploadSession>().delete("removed", &gone).await.map(drop)?)).await?;
    persist(async || stage.session("late", json!({"sessionName": "late"})).await.map(drop)).await
}

/// Repeats `act` until it succeeds, or turns out to have succeeded although its answer was lost.
async fn persist(mut act: impl AsyncFnMut() -> Result<()>) -> Result<()> {
    let deadline = Instant::now() + AWAY_FOR;
    loop {
        let Err(error) = act().await else { return Ok(()) };
        let answer = error.downcast_ref::<kube::Error>();
        if matches!(answer, Some(kube::Error::Api(status)) if status.is_not_found() || status.is_already_exists()) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the API server does not come back: {error:#}");
        sleep(Duration::from_millis(50)).await;
    }
}
