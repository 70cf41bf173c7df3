//! Each thing that a person can get wrong is named in a condition, and the session recovers by itself once it is
//! right.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context as _, Result};
use blobferry_crds::{UploadSession, conditions};
use blobferry_testbed::{Stage, figures, files, scenario};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use kube::{
    ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

/// How long a test waits for a cause; how soon it is named, half a minute on a machine that has time, is printed and not asserted.
const NAMED: Duration = Duration::from_mins(3);
/// The kubelet looks at a changed Secret within about a minute and a half.
const RECOVERED: Duration = Duration::from_mins(10);

/// Waits until a condition is False and its message has all of `words`.
async fn named(stage: &Stage, session: &str, type_: &str, words: &[&str]) -> Result<()> {
    let says = |session: &UploadSession| {
        let conditions = session.status.iter().flat_map(|status| &status.conditions);
        conditions.filter(|condition| condition.type_ == type_ && condition.status == "False").any(|condition| {
            let text = format!("{} {}", condition.reason, condition.message);
            words.iter().all(|word| text.contains(word))
        })
    };
    let seen = stage.await_session(session, NAMED, &format!("has {type_}=False naming {words:?}"), says).await?;
    figures::print(&format!("{type_}=False naming {words:?} {}", how_soon(stage, &seen, type_).await?));
    Ok(())
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
    let is_ready = |session: &UploadSession| {
        let mut conditions = session.status.iter().flat_map(|status| &status.conditions);
        conditions.any(|condition| condition.type_ == conditions::READY && condition.status == "True")
    };
    stage.await_session(session, RECOVERED, "is ready", is_ready).await.map(drop)
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
        let mut claim = claims.get("share").await?;
        // The stage's claim is made again under the same name; its volume is bound to that name.
        claims.delete("share", &kube::api::DeleteParams::background()).await?;
        stage.apply_session("s", json!({})).await?;
        named(stage, "s", conditions::READY, &["share"]).await?;
        claim.metadata = kube::api::ObjectMeta { name: Some("share".into()), ..Default::default() };
        claim.status = None;
        blobferry_testbed::wait::until(NAMED, "the claim can be made again", async || {
            Ok(Some(claims.create(&kube::api::PostParams::default(), &claim).await?))
        })
        .await?;
        release_volume(stage).await?;
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
        let quick = json!({"pollInterval": "200ms", "minFileAge": "1s"});
        stage.apply_session("s", json!({"watch": quick, "pod": {"resources": {"requests": little, "limits": little}}})).await?;
        let delivery = stage.deliver("s", "large.dat", 256 << 20)?;
        named(stage, "s", conditions::READY, &["OOMKilled", "memoryLimit"]).await?;
        stage.apply_session("s", json!({"watch": quick})).await?;
        stage.await_uploaded("s", 1, RECOVERED).await?;
        stage.compare("s", &[delivery]).await
    })
    .await
}

/// A volume remembers the UID of the claim that it was bound to; a person who wants it bound again takes that away.
async fn release_volume(stage: &Stage) -> Result<()> {
    let volumes: kube::Api<k8s_openapi::api::core::v1::PersistentVolume> = kube::Api::all(stage.client());
    let release = json!({"spec": {"claimRef": {"uid": null, "resourceVersion": null}}});
    volumes.patch(&stage.namespace, &PatchParams::default(), &Patch::Merge(&release)).await?;
    Ok(())
}
