//! A new uploader image over running sessions.

use std::time::Duration;

use anyhow::{Result, ensure};
use blobferry_crds::names;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::PostParams};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{Running, clock};
use crate::{
    calls::write_down,
    chart::operator_client,
    stage::{Stage, all_well, running},
};

const OLD: &str = "localhost/blobferry-uploader:1";
const NEW: &str = "localhost/blobferry-uploader:2";
/// The operator that brings the new image.
const UPGRADER: &str = "operator-upgrader";
const SESSIONS: [&str; 3] = ["a-busy", "b-idle", "c-idle"];
/// A session that has been ready for less time is not known to be well.
const WELL_AFTER: Duration = Duration::from_secs(11);
/// Soon enough for an uploader that would be called silent after 45 seconds.
const REPORT_APART: Duration = Duration::from_secs(5);
/// Longer than two turns take, if one may follow the other.
const TWO_TURNS: Duration = Duration::from_secs(30);

fn operator(image: &str, more: &[&str]) -> Running {
    let image = format!("--uploader-image={image}");
    Running::start_all(&[&[image.as_str()], more].concat(), |client| write_down(UPGRADER, client), clock::now)
}

/// The status of a pod whose uploader runs and is not ready, or has ended so many times and waits for its next start.
fn unwell(state: &Value, restarts: i32) -> Value {
    let mut status = running(state);
    status["conditions"][1]["status"] = "False".into();
    status["containerStatuses"][0]["ready"] = false.into();
    status["containerStatuses"][0]["restartCount"] = restarts.into();
    status
}

fn started() -> Value {
    json!({"running": {"startedAt": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()}})
}

fn crashed() -> Value {
    json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}})
}

/// Three sessions, the only ones, that run the old image and have nothing to upload. All are well, and their operator has ended.
async fn idle_sessions(stage: &Stage) -> Result<()> {
    clock::run();
    stage.remove_others().await?;
    let operator = operator(OLD, &[]);
    for name in SESSIONS {
        stage.running_session(name, json!({"sessionName": name})).await?;
    }
    sleep(WELL_AFTER).await;
    operator.end()
}

/// The same, of which the first has files to upload for as long as the test lasts.
async fn old_sessions(stage: &Stage) -> Result<()> {
    idle_sessions(stage).await?;
    let mut progress = all_well();
    (progress.files_active, progress.caught_up) = (1, false);
    stage.report("a-busy", &progress).await?;
    let stage = stage.clone();
    tokio::spawn(async move {
        loop {
            sleep(REPORT_APART).await;
            // The next one may succeed.
            let _ = stage.report("a-busy", &progress).await;
        }
    });
    Ok(())
}

fn image(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.containers.first()?.image.as_deref()).unwrap_or_default()
}

/// Sessions whose pods have the new image.
async fn upgraded(stage: &Stage) -> Result<Vec<String>> {
    let pods = stage.list::<Pod>().await?;
    let new = pods.iter().filter(|pod| image(pod) == NEW && pod.metadata.deletion_timestamp.is_none());
    let mut sessions: Vec<_> = new.map(|pod| pod.name_any().trim_end_matches("-uploader").to_owned()).collect();
    sessions.sort();
    Ok(sessions)
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn new_image_comes_to_one_session_at_a_time_and_to_idle_ones_first() -> Result<()> {
    let stage = Stage::bare("rollout").await?;
    old_sessions(&stage).await?;
    let operator = operator(NEW, &[]);
    let mut done: Vec<String> = Vec::new();
    for next in ["b-idle", "c-idle", "a-busy"] {
        done.push(next.to_owned());
        done.sort();
        stage.until(&format!("{next} has the new image"), async || Ok(upgraded(&stage).await? == done)).await?;
        for waiting in SESSIONS.iter().filter(|name| !done.contains(&(**name).to_owned())) {
            stage.until_condition(waiting, "Ready", "True", "UpgradePending").await?;
        }
        let pods = stage.list::<Pod>().await?;
        ensure!(pods.len() == 3, "more than one session is without an uploader: {pods:#?}");
        stage.run_pod(&stage.until_pod(next, None).await?).await?;
        stage.report(next, &all_well()).await?;
        stage.until_condition(next, "Ready", "True", "Running").await?;
    }
    operator.end()?;
    stage.end().await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn new_image_comes_to_as_many_sessions_at_a_time_as_may_be_unavailable() -> Result<()> {
    let stage = Stage::bare("rollout-of-two").await?;
    old_sessions(&stage).await?;
    let operator = operator(NEW, &["--uploader-max-unavailable=2"]);
    stage.until("two have the new image", async || Ok(upgraded(&stage).await?.len() == 2)).await?;
    stage.until_quiet(UPGRADER).await?;
    ensure!(upgraded(&stage).await? == ["b-idle", "c-idle"], "{:?}", upgraded(&stage).await?);
    stage.until_condition("a-busy", "Ready", "True", "UpgradePending").await?;
    // One of the two works, and the next may follow.
    stage.run_pod(&stage.until_pod("c-idle", None).await?).await?;
    stage.report("c-idle", &all_well()).await?;
    stage.until("the third has the new image", async || Ok(upgraded(&stage).await? == SESSIONS)).await?;
    operator.end()?;
    stage.end().await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn image_that_starts_and_does_not_stay_ready_stops_the_rollout_and_its_session_is_named() -> Result<()> {
    let stage = Stage::bare("bad-image").await?;
    old_sessions(&stage).await?;
    let first = operator(NEW, &[]);
    stage.until("the first has the new image", async || Ok(upgraded(&stage).await? == ["b-idle"])).await?;
    let pod = stage.until_pod("b-idle", None).await?;
    stage.set_pod_status(&pod, unwell(&started(), 0)).await?;
    stage.report("b-idle", &all_well()).await?;
    stage.until_condition("b-idle", "Ready", "False", "UploaderNotReady").await?;
    // It is ready for a moment, however long that takes here, and ends.
    clock::stop();
    stage.run_pod(&pod).await?;
    stage.until_condition("b-idle", "Ready", "True", "Running").await?;
    stage.set_pod_status(&pod, unwell(&crashed(), 1)).await?;
    stage
        .until("its end is seen", async || {
            let conditions = stage.status("b-idle").await?.conditions;
            Ok(conditions.iter().any(|it| it.type_ == "Ready" && it.status != "True"))
        })
        .await?;
    clock::run();
    sleep(TWO_TURNS).await;
    ensure!(upgraded(&stage).await? == ["b-idle"], "{:?}", upgraded(&stage).await?);
    // Once more, ready for longer, before another leader, whose clock is moved over the time that a start takes.
    first.end()?;
    let second = operator(NEW, &[]);
    let mut again = running(&started());
    again["containerStatuses"][0]["restartCount"] = 1.into();
    stage.set_pod_status(&pod, again).await?;
    stage.report("b-idle", &all_well()).await?;
    stage.until_condition("b-idle", "Ready", "True", "Running").await?;
    sleep(TWO_TURNS).await;
    ensure!(upgraded(&stage).await? == ["b-idle"], "{:?}", upgraded(&stage).await?);
    stage.set_pod_status(&pod, unwell(&crashed(), 2)).await?;
    clock::advance(Duration::from_mins(6));
    stage
        .until("the waiting ones name it", async || {
            let conditions = stage.status("c-idle").await?.conditions;
            Ok(conditions.iter().any(|it| it.reason == "UpgradePending" && it.message.contains("The session b-idle holds up")))
        })
        .await?;
    ensure!(upgraded(&stage).await? == ["b-idle"], "{:?}", upgraded(&stage).await?);
    // A person takes it out of the way.
    stage.change("b-idle", json!({"suspend": true})).await?;
    stage.until_condition("b-idle", "Ready", "True", "Suspended").await?;
    stage.report("c-idle", &all_well()).await?;
    stage.until("the next one has the new image", async || Ok(upgraded(&stage).await? == ["c-idle"])).await?;
    second.end()?;
    stage.end().await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn session_that_was_broken_before_gets_the_new_image_and_holds_up_nobody() -> Result<()> {
    let stage = Stage::bare("broken-before").await?;
    old_sessions(&stage).await?;
    let old = stage.until_pod("b-idle", None).await?;
    stage.set_pod_status(&old, unwell(&crashed(), 7)).await?;
    let operator = operator(NEW, &[]);
    let new = stage.until_pod("b-idle", old.uid().as_deref()).await?;
    ensure!(image(&new) == NEW && !new.annotations().contains_key(names::TRIAL_ANNOTATION), "{new:#?}");
    stage.set_pod_status(&new, unwell(&crashed(), 7)).await?;
    for next in ["c-idle", "a-busy"] {
        stage.until(&format!("{next} has the new image"), async || Ok(upgraded(&stage).await?.contains(&next.to_owned()))).await?;
        let pod = stage.until_pod(next, None).await?;
        ensure!(pod.annotations().contains_key(names::TRIAL_ANNOTATION), "{pod:#?}");
        stage.run_pod(&pod).await?;
        stage.report(next, &all_well()).await?;
    }
    operator.end()?;
    stage.end().await
}

/// Replaces the pod of `session` as if an operator with another version of the hash had made it.
async fn remake_with_another_hash(stage: &Stage, session: &str) -> Result<()> {
    let mut pod = stage.until_pod(session, None).await?;
    pod.annotations_mut().insert(names::SPEC_HASH_ANNOTATION.into(), "v0-0123456789abcdef".into());
    (pod.metadata.uid, pod.metadata.resource_version, pod.status) = (None, None, None);
    let name = pod.name_any();
    stage.delete::<Pod>(&name).await?;
    stage.until("its pod is gone", async || Ok(stage.api::<Pod>().get_opt(&name).await?.is_none())).await?;
    let pods: Api<Pod> = Api::namespaced(operator_client().await?, &stage.namespace);
    let pod = pods.create(&PostParams::default(), &pod).await?;
    stage.run_pod(&pod).await?;
    stage.report(session, &all_well()).await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn pods_of_an_operator_with_another_hash_are_replaced_one_at_a_time_and_a_changed_session_at_once() -> Result<()> {
    let stage = Stage::bare("another-hash").await?;
    idle_sessions(&stage).await?;
    for session in SESSIONS {
        remake_with_another_hash(&stage, session).await?;
    }
    let hashed = async || -> Result<Vec<String>> {
        let pods = stage.list::<Pod>().await?;
        let ours = |pod: &&Pod| pod.annotations().get(names::SPEC_HASH_ANNOTATION).is_some_and(|hash| hash.starts_with("v1-"));
        let mut sessions: Vec<_> =
            pods.iter().filter(ours).map(|pod| pod.name_any().trim_end_matches("-uploader").to_owned()).collect();
        sessions.sort();
        Ok(sessions)
    };
    let operator = operator(OLD, &[]);
    stage.until("the first has our hash", async || Ok(hashed().await? == ["a-busy"])).await?;
    for waiting in ["b-idle", "c-idle"] {
        stage.until_condition(waiting, "Ready", "True", "UpgradePending").await?;
    }
    sleep(TWO_TURNS).await;
    ensure!(hashed().await? == ["a-busy"], "{:?}", hashed().await?);
    stage.change("c-idle", json!({"transfer": {"queueSize": 8}})).await?;
    stage.until("the changed one has our hash", async || Ok(hashed().await? == ["a-busy", "c-idle"])).await?;
    stage.run_pod(&stage.until_pod("a-busy", None).await?).await?;
    stage.report("a-busy", &all_well()).await?;
    stage.until("the last has our hash", async || Ok(hashed().await? == SESSIONS)).await?;
    operator.end()?;
    stage.end().await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn new_image_on_restart_comes_with_the_next_pod() -> Result<()> {
    let stage = Stage::bare("on-restart").await?;
    old_sessions(&stage).await?;
    let operator = operator(NEW, &["--uploader-update=OnRestart"]);
    for name in SESSIONS {
        stage.until_condition(name, "Ready", "True", "UpgradePending").await?;
    }
    ensure!(upgraded(&stage).await?.is_empty());
    let old = stage.until_pod("b-idle", None).await?;
    stage.delete::<Pod>("b-idle-uploader").await?;
    stage.until_pod("b-idle", old.uid().as_deref()).await?;
    ensure!(upgraded(&stage).await? == ["b-idle"]);
    operator.end()?;
    stage.end().await
}
