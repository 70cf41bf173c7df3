//! Each thing that a person can get wrong is named in a condition, and the session recovers by itself once it is
//! right.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use blobferry_crds::{UploadSession, conditions};
use blobferry_testbed::{Contents, Delivery, Stage, figures, files, processes, scenario, stage::is_sending};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use kube::{
    ResourceExt as _,
    api::{Patch, PatchParams},
};
use rustix::process::Signal;
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;
/// How often a cause comes and goes.
const FLAPS: usize = 10;
/// How long a test waits for a cause; how soon it is named, half a minute on a machine that has time, is printed and not asserted.
const NAMED: Duration = Duration::from_mins(3);
/// The kubelet looks at a changed Secret within about a minute and a half.
const RECOVERED: Duration = Duration::from_mins(10);

/// Waits until a condition is False and its message has all of `words`, and prints how soon that was.
async fn named(stage: &Stage, session: &str, type_: &str, words: &[&str]) -> Result<()> {
    let seen = is_named(stage, session, type_, words).await?;
    figures::print(&format!("{type_}=False naming {words:?} {}", how_soon(stage, &seen, type_).await?));
    Ok(())
}

/// Waits until the condition is false with all of `words` in its reason and message.
pub(super) async fn is_named(stage: &Stage, session: &str, type_: &str, words: &[&str]) -> Result<UploadSession> {
    stage.await_condition(session, NAMED, (type_, "False"), words).await
}

/// Times of the API server and the kubelet, which keep whole seconds.
async fn how_soon(stage: &Stage, session: &UploadSession, type_: &str) -> Result<String> {
    let mut conditions = session.status.iter().flat_map(|status| &status.conditions);
    let named = conditions.find(|condition| condition.type_ == type_).context("the condition is gone")?.last_transition_time.0;
    let created = session.creation_timestamp().context("the session was never made")?.0;
    let pod = stage.uploader_pod(&session.name_any()).await?;
    let started = pod.as_ref().and_then(figures::container_start);
    let since_start = started.map(|started| format!(", {} s after its uploader's start", figures::seconds(started, named)));
    Ok(format!("{} s after the session was made{}", figures::seconds(created, named), since_start.unwrap_or_default()))
}

/// A file that is dropped now arrives, and the conditions are right again.
async fn recovers(stage: &Stage, session: &str) -> Result<()> {
    let delivery = stage.deliver(session, "after.dat", 4096)?;
    stage.await_uploaded(session, 1, RECOVERED).await?;
    stage.compare(session, &[delivery]).await?;
    is_ready(stage, session).await
}

/// The status counts it for good, whatever happens to the uploader that sent it.
async fn uploads_a_small_file(stage: &Stage) -> Result<Delivery> {
    let delivery = stage.deliver("s", "small.dat", 4096)?;
    stage.await_uploaded("s", 1, NAMED).await?;
    Ok(delivery)
}

async fn is_ready(stage: &Stage, session: &str) -> Result<()> {
    stage.await_condition(session, RECOVERED, (conditions::READY, "True"), &[]).await.map(drop)
}

fn quick() -> Value {
    json!({"pollInterval": "200ms", "minFileAge": "1s"})
}

/// Files are taken soon and sent so slowly that something can happen meanwhile.
fn slow(bandwidth: &str, pod: &Value) -> Value {
    json!({"watch": quick(), "transfer": {"bandwidthLimit": bandwidth, "singlePutSize": "1Mi", "blockSize": "1Mi"}, "pod": pod})
}

fn credential(name: &str) -> Value {
    json!({"destination": {"azureBlob": {"credentialsSecretRef": {"name": name}}}})
}

async fn make_secret(stage: &Stage, name: &str, data: &BTreeMap<String, String>) -> Result<()> {
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data});
    stage.api::<Secret>().patch(name, &PatchParams::apply("test"), &Patch::Apply(&secret)).await?;
    Ok(())
}

/// A Secret that allows to read and write blobs, but not to make a container.
async fn make_blobs_only_secret(stage: &Stage) -> Result<()> {
    make_secret(stage, "sas", &BTreeMap::from([("sasToken".to_owned(), stage.bed.account.blobs_only_token())])).await
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn missing_secret_is_named_and_heals_when_it_is_made() -> Result<()> {
    scenario("secret", async |stage| {
        stage.apply_session("s", credential("later")).await?;
        named(stage, "s", conditions::DESTINATION_REACHABLE, &["Denied", "connectionString"]).await?;
        let made =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "later"}, "stringData": stage.bed.account.secret()});
        stage.api::<Secret>().patch("later", &PatchParams::apply("test"), &Patch::Apply(&made)).await?;
        recovers(stage, "s").await
    })
    .await
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn wrong_key_is_named_and_heals_when_it_is_corrected() -> Result<()> {
    scenario("key", async |stage| {
        let right = stage.bed.account.secret();
        let mut wrong = right.clone();
        wrong.insert("accountKey".into(), "d3Jvbmc=".into());
        stage.put_secret(&wrong).await?;
        stage.apply_session("s", json!({})).await?;
        named(stage, "s", conditions::DESTINATION_REACHABLE, &["Denied", "check the key"]).await?;
        stage.put_secret(&right).await?;
        recovers(stage, "s").await
    })
    .await
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn container_that_may_not_be_made_is_named_and_heals_when_somebody_makes_it() -> Result<()> {
    scenario("container", async |stage| {
        make_blobs_only_secret(stage).await?;
        stage.apply_session("s", credential("sas")).await?;
        named(stage, "s", conditions::DESTINATION_REACHABLE, &["ContainerMissing", "does not exist"]).await?;
        stage.blobs.create_container().await?;
        recovers(stage, "s").await
    })
    .await
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn unreachable_account_is_named_by_its_host() -> Result<()> {
    scenario("unreachable", async |stage| {
        make_blobs_only_secret(stage).await?;
        let mut change = credential("sas");
        change["destination"]["azureBlob"]["accountUrl"] = "https://nobody.blob.core.windows.net".into();
        stage.apply_session("s", change).await?;
        named(stage, "s", conditions::DESTINATION_REACHABLE, &["Unreachable", "nobody.blob.core.windows.net"]).await
    })
    .await
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn missing_folder_is_named_and_heals_when_it_is_made() -> Result<()> {
    scenario("folder", async |stage| {
        fs::remove_dir(stage.share.join("incoming"))?;
        stage.apply_session("s", json!({})).await?;
        named(stage, "s", conditions::SOURCE_REACHABLE, &["SourceMissing", "incoming does not exist"]).await?;
        files::make_folder(&stage.share.join("incoming"))?;
        recovers(stage, "s").await
    })
    .await
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn missing_claim_is_named_and_heals_when_it_is_made() -> Result<()> {
    scenario("claim", async |stage| {
        let claims = stage.api::<PersistentVolumeClaim>();
        let claim = claims.get("share").await?;
        claims.delete("share", &kube::api::DeleteParams::background()).await?;
        stage.apply_session("s", json!({})).await?;
        named(stage, "s", conditions::READY, &["share"]).await?;
        stage.make_claim_again(&claim).await?;
        recovers(stage, "s").await
    })
    .await
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn pod_that_no_node_takes_is_named_and_starts_once_one_may() -> Result<()> {
    scenario("nowhere", async |stage| {
        stage.apply_session("s", json!({"pod": {"nodeSelector": {"no": "where"}}})).await?;
        named(stage, "s", conditions::READY, &["Unschedulable", "affinity/selector"]).await?;
        stage.apply_session("s", json!({})).await?;
        recovers(stage, "s").await
    })
    .await
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn uploader_without_enough_memory_is_named_and_goes_on_with_more() -> Result<()> {
    scenario("memory", async |stage| {
        let little = json!({"memory": "20Mi"});
        stage.apply_session("s", json!({"watch": quick(), "pod": {"resources": {"requests": little, "limits": little}}})).await?;
        let small = uploads_a_small_file(stage).await?;
        let delivery = stage.deliver("s", "large.dat", 256 * MIB)?;
        named(stage, "s", conditions::READY, &["OOMKilled", "memoryLimit"]).await?;
        stage.apply_session("s", json!({"watch": quick()})).await?;
        stage.await_uploaded("s", 2, RECOVERED).await?;
        stage.compare("s", &[small, delivery]).await
    })
    .await
}

/// A disk that is nearly full stages nothing, so something else takes the room beside the stage.
#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn uploader_that_is_evicted_for_its_disk_is_named_and_goes_on_with_more() -> Result<()> {
    scenario("evicted", async |stage| {
        let little = json!({"ephemeral-storage": "16Mi"});
        stage.apply_session("s", slow("2Mi", &json!({"resources": {"requests": little, "limits": little}}))).await?;
        let delivered = [uploads_a_small_file(stage).await?, stage.deliver("s", "large.dat", 192 * MIB)?];
        stage.await_session("s", NAMED, "sends a file", is_sending).await?;
        let volumes = format!("kubelet/pods/{}/volumes/kubernetes.io~empty-dir", stage.run("s").await?.pod);
        files::deliver(&stage.bed.folder.join(volumes).join("staging"), "ballast", Contents { seed: 0, size: 32 * MIB })?;
        let full = Timestamp::now();
        let words = ["Evicted", "ephemeral local storage", "limits.ephemeral-storage"];
        let evicted = stage.await_told("s", NAMED, "UploaderLost", &words).await?;
        stage.apply_session("s", slow("1Gi", &json!({}))).await?;
        figures::print(&format!("the eviction is told {:.0} s after the disk was full", figures::seconds(full, evicted)));
        let session = stage.await_uploaded("s", delivered.len(), RECOVERED).await?;
        stage.compare("s", &delivered).await?;
        stage.ensure_each_committed_once("s", &delivered).await?;
        let progress = session.status.and_then(|status| status.progress).context("no progress")?;
        ensure!(progress.bytes_resumed >= MIB, "what was sent before was sent again: {progress:#?}");
        is_ready(stage, "s").await
    })
    .await
}

/// A process that is stopped answers no probe, nor the kubelet's SIGTERM.
#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn uploader_that_hangs_is_named_when_its_health_check_has_it_killed_and_goes_on() -> Result<()> {
    scenario("frozen", async |stage| {
        stage.apply_session("s", slow("4Mi", &json!({}))).await?;
        let delivered = [uploads_a_small_file(stage).await?, stage.deliver("s", "large.dat", 64 * MIB)?];
        stage.await_session("s", NAMED, "sends a file", is_sending).await?;
        let run = stage.run("s").await?;
        let frozen = Timestamp::now();
        processes::signal_pod(&run.pod, Signal::STOP)?;
        let told = stage.await_told("s", NAMED, "UploaderUnhealthy", &["health check failed"]).await?;
        figures::print(&format!("the failed health check is told {:.0} s after the uploader hung", figures::seconds(frozen, told)));
        stage.await_uploaded("s", delivered.len(), RECOVERED).await?;
        stage.compare("s", &delivered).await?;
        stage.ensure_each_committed_once("s", &delivered).await?;
        is_ready(stage, "s").await?;
        let after = stage.run("s").await?;
        ensure!((after.pod, after.restarts) == (run.pod, run.restarts + 1), "it was not started again just once in its pod");
        Ok(())
    })
    .await
}

/// The second image is on the node, and its program wants arguments that no uploader gets.
#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn image_that_is_not_there_and_one_that_is_no_uploader_are_named_and_corrected_in_the_session() -> Result<()> {
    scenario("image", async |stage| {
        stage.apply_session("s", json!({"pod": {"image": "localhost/nobody:1"}})).await?;
        named(stage, "s", conditions::READY, &["ImagePullFailed", "spec.pod.image", "localhost/nobody:1"]).await?;
        stage.apply_session("s", json!({"pod": {"image": "localhost/blobferry-operator:dev"}})).await?;
        is_named(stage, "s", conditions::READY, &["UploaderExited", "exit code 2", "--uploader-image"]).await?;
        stage.apply_session("s", json!({})).await?;
        recovers(stage, "s").await
    })
    .await
}

/// What a person reads who comes later.
#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn description_of_a_session_tells_its_story_and_stays_short_when_its_folder_comes_and_goes() -> Result<()> {
    scenario("story", async |stage| {
        let (incoming, elsewhere) = (stage.share.join("incoming"), stage.share.join("elsewhere"));
        fs::rename(&incoming, &elsewhere)?;
        stage.apply_session("s", json!({"watch": quick()})).await?;
        named(stage, "s", conditions::SOURCE_REACHABLE, &["SourceMissing"]).await?;
        fs::rename(&elsewhere, &incoming)?;
        is_ready(stage, "s").await?;
        let whole = ["UploaderCreated", "SourceMissing", "Running"];
        // An event is sent right after the status that it is about.
        blobferry_testbed::wait::until(NAMED, "the description tells the story", async || {
            // A slow machine may have more to tell in between.
            let mut told = told_reasons(stage)?;
            told.retain(|reason| whole.contains(&reason.as_str()));
            ensure!(told == whole, "people read {told:?}");
            Ok(Some(()))
        })
        .await?;
        let began = Instant::now();
        for _ in 0..FLAPS {
            fs::rename(&incoming, &elsewhere)?;
            is_named(stage, "s", conditions::READY, &["ShareFailed", "incoming/s"]).await?;
            fs::rename(&elsewhere, &incoming)?;
            is_ready(stage, "s").await?;
        }
        figures::print(&format!("a folder came and went {FLAPS} times within {:.0} s", began.elapsed().as_secs_f64()));
        let told = told_reasons(stage)?;
        // What the operator has told already it counts.
        let few = ["UploaderCreated", "SourceMissing", "Running", "ShareFailed", "Running", "ShareFailed"];
        ensure!(told.len() >= 4 && few.starts_with(&told.iter().map(String::as_str).collect::<Vec<_>>()), "people read {told:?}");
        recovers(stage, "s").await
    })
    .await
}

/// Reasons in the table of events with which `kubectl describe` ends, in its order.
fn told_reasons(stage: &Stage) -> Result<Vec<String>> {
    let story = stage.kubectl(&["describe", "uploadsession/s"])?;
    let (_, events) = story.split_once("\nEvents:").with_context(|| format!("no events in {story}"))?;
    let rows = events.lines().map(str::trim).filter(|line| line.starts_with("Normal") || line.starts_with("Warning"));
    Ok(rows.filter_map(|row| row.split_whitespace().nth(1)).map(ToOwned::to_owned).collect())
}
