//! Sessions that want the same folders: through one claim, through several claims of one export, and across namespaces.

use std::{io::Write as _, time::Instant};

use anyhow::{Result, ensure};
use blobferry_crds::UploadSession;
use futures::future::{try_join, try_join_all};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;

use crate::stage::Stage;

fn print(since: Instant, what: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "a session that waited had a pod {:.1} s after {what}", since.elapsed().as_secs_f64())?)
}

async fn two_stages(name: &str) -> Result<(Stage, Stage)> {
    try_join(Stage::new(&format!("{name}-a")), Stage::new(&format!("{name}-b"))).await
}

/// The session waits without a pod, and is told nothing about whom for.
async fn waits(stage: &Stage, session: &str, foreign: &Stage) -> Result<()> {
    let message = stage.until_condition(session, "Reconciling", "True", "SessionNameInUse").await?;
    ensure!(!message.contains(&foreign.namespace) && !message.contains("holder"), "{message}");
    ensure!(stage.list::<Pod>().await?.is_empty());
    Ok(())
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn sessions_of_two_namespaces_on_one_export_take_turns_and_nothing_foreign_is_named() -> Result<()> {
    let (first, second) = two_stages("export").await?;
    try_join(first.share(&first.export()), second.share(&first.export())).await?;
    first.session("holder", json!({"sessionName": "truck"})).await?;
    first.until_pod("holder", None).await?;
    second.session("truck-8", json!({"sessionName": "truck"})).await?;
    waits(&second, "truck-8", &first).await?;
    // Another name is another folder.
    second.session("truck-9", json!({"sessionName": "car"})).await?;
    second.until_pod("truck-9", None).await?;
    first.delete::<UploadSession>("holder").await?;
    first.until("the holder's pod is gone", async || Ok(first.list::<Pod>().await?.is_empty())).await?;
    let gone = Instant::now();
    second.until_pod("truck-8", None).await?;
    print(gone, "the folders were free in another namespace")?;
    first.end().await?;
    second.end().await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn export_inside_another_meets_it_and_so_does_an_inline_source() -> Result<()> {
    let (outer, inner) = two_stages("nested").await?;
    // Both allowed for inline sources and the same server, in other letters.
    let path = format!("/srv/drop/{}", outer.namespace);
    try_join(outer.share(&path), inner.share(&format!("{path}/site"))).await?;
    outer
        .session(
            "holder",
            json!({"sessionName": "truck", "source": {
        "persistentVolumeClaim": {"claimName": "share"}, "incomingDir": "site/incoming"}}),
        )
        .await?;
    outer.until_pod("holder", None).await?;
    inner.session("truck-8", json!({"sessionName": "truck"})).await?;
    waits(&inner, "truck-8", &outer).await?;
    inner
        .session(
            "truck-9",
            json!({"sessionName": "truck", "source": {
        "nfs": {"server": "nas.example.com", "path": format!("{path}/site")}}}),
        )
        .await?;
    waits(&inner, "truck-9", &outer).await?;
    outer.change("holder", json!({"suspend": true})).await?;
    // The older of the two, or either if they were made in the same second.
    inner.until("one of them starts", async || Ok(!inner.list::<Pod>().await?.is_empty())).await?;
    outer.end().await?;
    inner.end().await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn session_whose_claim_is_not_bound_holds_nothing_and_waits_once_it_is() -> Result<()> {
    let (early, late) = two_stages("unbound").await?;
    early.session("holder", json!({"sessionName": "truck"})).await?;
    let pending = early.until_pod("holder", None).await?;
    late.share(&early.export()).await?;
    late.session("truck-8", json!({"sessionName": "truck"})).await?;
    late.until_pod("truck-8", None).await?;
    early.share(&early.export()).await?;
    // The scheduler would say so by now.
    early.set_pod_status(&pending, json!({"conditions": [{"type": "PodScheduled", "status": "True"}]})).await?;
    early.until_condition("holder", "Reconciling", "True", "SessionNameInUse").await?;
    ensure!(early.list::<Pod>().await?.is_empty());
    late.delete::<UploadSession>("truck-8").await?;
    early.until_pod("holder", None).await?;
    early.end().await?;
    late.end().await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn of_sessions_made_in_the_same_second_one_wins_and_stays() -> Result<()> {
    let stage = Stage::new("same-second").await?;
    let names = ["a", "b", "c", "d"];
    futures::future::try_join_all(names.iter().map(|name| stage.session(name, json!({"sessionName": "truck"})))).await?;
    let mut winner = None;
    stage
        .until("one has a pod and the others wait", async || {
            let mut waiting = 0;
            for name in names {
                let conditions = stage.status(name).await?.conditions;
                waiting += usize::from(conditions.iter().any(|it| it.type_ == "Ready" && it.reason == "SessionNameInUse"));
            }
            let pods = stage.list::<Pod>().await?;
            ensure!(pods.len() <= 1, "{pods:#?}");
            winner = pods.first().and_then(ResourceExt::uid);
            Ok(waiting == 3 && winner.is_some())
        })
        .await?;
    // A look at each of them changes nothing.
    for name in names {
        stage.change(name, json!({"transfer": {"workers": 5}})).await?;
    }
    stage.until_quiet(crate::first::FIRST).await?;
    let pods = stage.list::<Pod>().await?;
    ensure!(pods.len() == 1 && pods[0].uid() == winner, "{pods:#?}");
    // Nor does the loss of its pod.
    let pod = pods[0].name_any();
    let session = pod.trim_end_matches("-uploader");
    stage.delete::<Pod>(&pod).await?;
    stage.until_pod(session, winner.as_deref()).await?;
    ensure!(stage.list::<Pod>().await?.len() == 1);
    stage.end().await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn session_that_is_not_allowed_cannot_squat_a_name() -> Result<()> {
    let stage = Stage::new("squat").await?;
    stage.session("squatter", json!({"sessionName": "truck", "pod": {"image": "mine"}})).await?;
    stage.until_condition("squatter", "Stalled", "True", "ImageNotAllowed").await?;
    stage.session("truck-7", json!({"sessionName": "truck"})).await?;
    let pod = stage.until_pod("truck-7", None).await?;
    // Once it is allowed it comes after the one that works.
    stage.change("squatter", json!({"pod": {"image": null}})).await?;
    let message = stage.until_condition("squatter", "Reconciling", "True", "SessionNameInUse").await?;
    ensure!(message.contains("truck-7"), "{message}");
    ensure!(stage.until_pod("truck-7", None).await?.uid() == pod.uid());
    stage.end().await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn waiting_session_starts_after_the_other_has_ended_in_whichever_way() -> Result<()> {
    try_join_all(["deleted", "suspended", "completed"].map(async |how| {
        let stage = Stage::new(&format!("after-{how}")).await?;
        let pod = stage.running_session("holder", json!({"sessionName": "truck"})).await?;
        stage.session("truck-8", json!({"sessionName": "truck"})).await?;
        stage.until_condition("truck-8", "Reconciling", "True", "SessionNameInUse").await?;
        let ended = Instant::now();
        match how {
            "deleted" => stage.delete::<UploadSession>("holder").await?,
            "suspended" => stage.change("holder", json!({"suspend": true})).await.map(drop)?,
            _ => stage.ends(&pod, "Completed", "watch").await?,
        }
        stage.until_pod("truck-8", None).await?;
        print(ended, &format!("the other was {how}"))?;
        stage.end().await
    }))
    .await?;
    Ok(())
}
