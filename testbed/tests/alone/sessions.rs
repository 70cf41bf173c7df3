//! The main job on a real node: files in, blobs out, whatever is killed in between.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use blobferry_crds::UploadSession;
use blobferry_testbed::{
    Delivery, Stage, figures, processes,
    release::{self, NAMESPACE, OPERATOR},
    scenario, wait,
};
use futures::future::try_join_all;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use rustix::process::Signal;
use serde_json::json;

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_mins(3);
const LATER: Duration = Duration::from_mins(10);

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn three_sessions_of_mixed_sizes_arrive_byte_for_byte_whatever_is_killed() -> Result<()> {
    scenario("kill", async |stage| {
        let plan: [(&str, &[u64]); 3] = [
            ("truck-7", &[0, 1, 4096, 5 * MIB, 300 * MIB]),
            ("truck-8", &[40 * MIB, 40 * MIB, 40 * MIB, 17 * MIB]),
            ("truck-9", &[1; 40]),
        ];
        let mut delivered = Vec::new();
        for (session, sizes) in plan {
            stage.apply_session(session, json!({})).await?;
            delivered.push((session, deliver(stage, session, sizes)?));
        }

        await_some_progress(stage, "truck-7").await?;
        stage.api::<Pod>().delete("truck-7-uploader", &DeleteParams::default()).await?;
        kill_uploader(stage, "truck-8").await?;
        let undisturbed = stage.uploader_pod("truck-9").await?.context("the session has no pod")?;
        depose_operator(stage).await?;

        let all = delivered.iter().map(|(session, deliveries)| stage.await_uploaded(session, deliveries.len(), LATER));
        for session in try_join_all(all).await? {
            assert_adds_up(&session)?;
        }
        let after = stage.uploader_pod("truck-9").await?.context("the session has no pod")?;
        let run = |pod: &Pod| (pod.uid(), figures::restarts(pod).unwrap_or_default());
        ensure!(run(&after) == run(&undisturbed), "an uploader was restarted because its operator was");
        for (session, deliveries) in &delivered {
            stage.compare(session, deliveries).await?;
            stage.ensure_each_committed_once(session, deliveries).await?;
        }
        print_figures(stage, "truck-9").await
    })
    .await
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn session_without_a_name_drains_the_folder_and_fills_the_one_that_its_status_names() -> Result<()> {
    scenario("generated", async |stage| {
        let quick = json!({"pollInterval": "200ms", "minFileAge": "1s"});
        stage.apply_session("s", json!({"sessionName": null, "watch": quick})).await?;
        let name_of = |session: &UploadSession| session.status.as_ref().and_then(|status| status.session_name.clone());
        let session = stage.await_session("s", SOON, "has a name", |session| name_of(session).is_some()).await?;
        let name = name_of(&session).context("the session has no name")?;
        ensure!(name.starts_with("00-session-"), "the name is {name}");
        let delivery = stage.deliver(&name, "a.dat", 4096)?;
        let session = stage.await_uploaded("s", 1, SOON).await?;
        ensure!(name_of(&session).as_ref() == Some(&name), "the name was {name} and is {:?}", name_of(&session));
        stage.compare("s", &[delivery]).await
    })
    .await
}

fn deliver(stage: &Stage, session: &str, sizes: &[u64]) -> Result<Vec<Delivery>> {
    sizes.iter().enumerate().map(|(number, size)| stage.deliver(session, &format!("{number}-{size}.dat"), *size)).collect()
}

/// Long enough for a claim: bytes are under way.
async fn await_some_progress(stage: &Stage, name: &str) -> Result<()> {
    let started = |session: &UploadSession| {
        let progress = session.status.as_ref().and_then(|status| status.progress.as_ref());
        progress.is_some_and(|progress| progress.files_active + progress.files_uploaded > 0)
    };
    stage.await_session(name, SOON, "has begun", started).await.map(drop)
}

/// Ends the program as the kernel does when memory is short; the kubelet starts it again in the same pod.
async fn kill_uploader(stage: &Stage, session: &str) -> Result<()> {
    let killed = stage.uploader_pod(session).await?.context("the session has no pod")?;
    let uid = killed.uid().context("the pod has no UID")?;
    wait::until(SOON, "the uploader runs", async || Ok((!processes::of_pod(&uid)?.is_empty()).then_some(()))).await?;
    processes::signal_pod(&uid, Signal::KILL)?;
    wait::until(SOON, "the container is restarted", async || {
        let pod = stage.uploader_pod(session).await?.context("the session has no pod")?;
        ensure!(pod.uid().as_deref() == Some(uid.as_str()), "the pod was replaced");
        Ok(figures::restarts(&pod).filter(|count| *count > 0))
    })
    .await
    .map(drop)
}

/// `session` has an uploader that was never disturbed and is at rest.
async fn print_figures(stage: &Stage, session: &str) -> Result<()> {
    let uploader = stage.uploader_pod(session).await?.context("the session has no pod")?;
    let started = figures::container_start(&uploader).context("the uploader does not run")?;
    let ready = figures::ready_since(&uploader).context("the uploader is not ready")?;
    figures::print(&format!("the uploader was ready {} s after its container's start", figures::seconds(started, ready)));
    figures::print(&format!("the uploader at rest holds {:.1} MiB", figures::resident_mebibytes(&uploader)?));
    let operators = ListParams::default().labels(OPERATOR);
    for operator in Api::<Pod>::all(stage.client()).list(&operators).await?.items {
        // One that is going may have no process any more, whatever its status says.
        if figures::container_start(&operator).is_some() && operator.metadata.deletion_timestamp.is_none() {
            figures::print(&match figures::resident_mebibytes(&operator) {
                Ok(held) => format!("the operator holds {held:.1} MiB"),
                Err(error) => format!("what the operator holds is not known: {error:#}"),
            });
        }
    }
    Ok(())
}

/// Two operators; the one that leads loses its pod, and another one leads. Then all of them are replaced, one after the other.
async fn depose_operator(stage: &Stage) -> Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(stage.client(), NAMESPACE);
    let found = deployments.list(&ListParams::default().labels(OPERATOR)).await?;
    let name = found.items.first().context("the chart is not installed")?.name_any();
    deployments.patch(&name, &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 2}}))).await?;
    let two = async || {
        wait::until(SOON, "two operators are ready", async || Ok(has_two(&deployments.get(&name).await?).then_some(()))).await
    };
    two().await?;
    let leader = release::leader(&stage.client(), &BTreeSet::new()).await?;
    Api::<Pod>::namespaced(stage.client(), NAMESPACE).delete(&leader, &DeleteParams::default()).await?;
    release::leader(&stage.client(), &BTreeSet::from([leader])).await?;
    two().await?;
    freeze_leader(stage).await?;
    deployments.restart(&name).await?;
    two().await
}

/// The operator that leads is paused until its Lease is over and another one leads. When it goes on it ends, and starts again.
async fn freeze_leader(stage: &Stage) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(stage.client(), NAMESPACE);
    let frozen = release::leader(&stage.client(), &BTreeSet::new()).await?;
    let pod = pods.get(&frozen).await?;
    let uid = pod.uid().context("the pod has no UID")?;
    processes::signal_pod(&uid, Signal::STOP)?;
    let began = Instant::now();
    release::leader(&stage.client(), &BTreeSet::from([frozen.clone()])).await?;
    figures::print(&format!("another operator led {:.0} s after the leader was paused", began.elapsed().as_secs_f64()));
    // If the kubelet has not ended it by now because it did not answer.
    let _ = processes::signal_pod(&uid, Signal::CONT);
    let before = figures::restarts(&pod).unwrap_or_default();
    wait::until(SOON, "who led before starts again", async || {
        Ok((figures::restarts(&pods.get(&frozen).await?).unwrap_or_default() > before).then_some(()))
    })
    .await
}

/// Whether exactly two pods are there, as the spec wants them now, and both are ready.
fn has_two(deployment: &Deployment) -> bool {
    let Some(status) = &deployment.status else { return false };
    status.observed_generation == deployment.metadata.generation
        && [status.replicas, status.updated_replicas, status.ready_replicas] == [Some(2); 3]
}

/// The bytes of DESIGN 2.2; that the files add up is seen at every look at a session.
fn assert_adds_up(session: &UploadSession) -> Result<()> {
    let progress = session.status.as_ref().and_then(|status| status.progress.as_ref()).context("no progress")?;
    ensure!(progress.bytes_uploaded == progress.bytes_total, "bytes are missing: {progress:#?}");
    ensure!(progress.percent == "100%", "percent is {}", progress.percent);
    Ok(())
}
