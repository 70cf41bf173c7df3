//! Annotations, labels, finalizers and owners that somebody sets on sessions and pods.

use anyhow::{Context as _, Result, ensure};
use blobferry_crds::{UploadSession, names};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Resource, ResourceExt,
    api::{Patch, PatchParams},
    core::NamespaceResourceScope,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    first::FIRST,
    stage::{Stage, all_well},
};

/// Session names and dates that are paths, or look like something that they are not.
fn forged() -> Vec<(&'static str, String)> {
    let session_names = [
        "", ".", "..", "../other", "a/../b", "/etc", "a/b", "a\\b", ".hidden", "-a", "a.", "a b", "a\nb", "a%2fb", "täglich",
        "a\u{0}",
    ];
    let dates =
        ["", "..", "../20250101", "2025/01/01", "2025-01-01", "20250229", "20251301", "202501011", "2025010", "２０２５０１０１"];
    let session_names = session_names.into_iter().map(str::to_owned).chain([200, 100_000].map(|more| "a".repeat(1 + more)));
    let session_names = session_names.map(|value| (names::SESSION_NAME_ANNOTATION, value));
    session_names.chain(dates.map(|value| (names::DATE_PREFIX_ANNOTATION, value.to_owned()))).collect()
}

async fn mark<K>(stage: &Stage, name: &str, metadata: Value) -> Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
{
    stage.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(json!({"metadata": metadata}))).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn annotations_that_no_operator_wrote_stall_a_new_session() -> Result<()> {
    let stage = Stage::new("forged").await?;
    try_join_all(forged().into_iter().enumerate().map(async |(number, (annotation, value))| {
        let (name, start) = (format!("s{number}"), value.chars().take(20).collect::<String>());
        stage.marked_session(&name, json!({"annotations": {annotation: value}}), json!({})).await.context(start.clone())?;
        let message = stage.until_condition(&name, "Stalled", "True", "BadAnnotation").await.context(start)?;
        ensure!(message.contains(annotation), "{message}");
        let status = stage.status(&name).await?;
        ensure!((&status.session_name, &status.date_prefix, &status.destination_url) == (&None, &None, &None), "{status:?}");
        Ok(())
    }))
    .await?;
    ensure!(stage.list::<Pod>().await?.is_empty());
    mark::<UploadSession>(&stage, "s3", json!({"annotations": {names::SESSION_NAME_ANNOTATION: null}})).await?;
    stage.until_pod("s3", None).await?;
    stage.end().await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn annotations_that_somebody_changes_later_change_nothing() -> Result<()> {
    let stage = Stage::new("forged-later").await?;
    let pod = stage.running_session("truck-7", json!({})).await?;
    let before: UploadSession = stage.api().get("truck-7").await?;
    for (name, date) in [("other", "20200101"), ("../other", "../20200101")] {
        let forged = json!({names::SESSION_NAME_ANNOTATION: name, names::DATE_PREFIX_ANNOTATION: date});
        mark::<UploadSession>(&stage, "truck-7", json!({"annotations": forged})).await?;
        // They may wake nobody; whoever looks next puts them right.
        let change = json!({"transfer": {"workers": 5 + name.len()}});
        let generation = stage.change("truck-7", change).await?.metadata.generation;
        stage.until("it is looked at", async || Ok(stage.status("truck-7").await?.observed_generation == generation)).await?;
        let after: UploadSession = stage.api().get("truck-7").await?;
        ensure!(after.annotations() == before.annotations(), "{:?}", after.annotations());
        let identity =
            |session: &UploadSession| session.status.clone().map(|it| (it.session_name, it.date_prefix, it.destination_url));
        ensure!(identity(&after) == identity(&before), "{:?}", after.status);
        stage.until_condition("truck-7", "Ready", "True", "Running").await?;
    }
    ensure!(stage.until_pod("truck-7", None).await?.uid() == pod.uid());
    stage.end().await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn labels_owners_and_finalizers_that_an_author_sets_on_his_session_stay_his() -> Result<()> {
    let stage = Stage::new("marks").await?;
    let owner = stage.create::<ConfigMap>(json!({"metadata": {"name": "owner"}})).await?;
    for policy in ["Stop", "Drain"] {
        let name = policy.to_ascii_lowercase();
        let metadata = json!({
            "labels": {names::MANAGED_BY_LABEL: names::OPERATOR, names::SESSION_LABEL: "other", names::SESSION_UID_LABEL: owner.uid()},
            "ownerReferences": [owner.owner_ref(&())],
            "finalizers": ["example.com/first", names::FINALIZER, "example.com/last"],
        });
        let made = stage.marked_session(&name, metadata, json!({"sessionName": name, "deletionPolicy": policy})).await?;
        let pod = stage.until_pod(&name, None).await?;
        stage.run_pod(&pod).await?;
        stage.report(&name, &all_well()).await?;
        stage.until_condition(&name, "Ready", "True", "Running").await?;
        let found: UploadSession = stage.api().get(&name).await?;
        ensure!(found.labels() == made.labels() && found.owner_references() == made.owner_references(), "{found:#?}");
        ensure!((policy == "Drain") == found.finalizers().contains(&names::FINALIZER.to_owned()), "{:?}", found.finalizers());
        stage.delete::<UploadSession>(&name).await?;
        stage
            .until("the operator lets go of it", async || {
                if let Some(pod) = stage.api::<Pod>().get_opt(&format!("{name}-uploader")).await? {
                    // It may be gone by now.
                    let _ = stage.ends_if_last(&pod).await;
                }
                Ok(stage.api::<UploadSession>().get(&name).await?.finalizers() == ["example.com/first", "example.com/last"])
            })
            .await?;
        // They keep the object, and nothing works for it any more.
        let told = stage.until_condition(&name, "Ready", "False", "Deleted").await?;
        ensure!(told.contains("example.com/first, example.com/last"), "{told}");
        stage.until("its pod is gone", async || Ok(stage.list::<Pod>().await?.is_empty())).await?;
        mark::<UploadSession>(&stage, &name, json!({"finalizers": null})).await?;
    }
    stage.end().await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn owners_and_finalizers_that_somebody_sets_on_a_pod_of_ours_gain_him_nothing() -> Result<()> {
    let stage = Stage::new("pod-marks").await?;
    let other = stage.running_session("other", json!({"sessionName": "other"})).await?;
    let pod = stage.running_session("truck-7", json!({"sessionName": "truck"})).await?;
    // It is said to be another session's.
    let owners = |pod: &Pod| json!({"ownerReferences": pod.owner_references()});
    mark::<Pod>(&stage, "truck-7-uploader", owners(&other)).await?;
    stage.until_condition("truck-7", "Stalled", "True", "NameTaken").await?;
    stage.until_quiet(FIRST).await?;
    ensure!(
        stage.until_pod("truck-7", None).await?.uid() == pod.uid() && stage.until_pod("other", None).await?.uid() == other.uid()
    );
    ensure!(stage.status("other").await?.pod_uid == other.uid());
    mark::<Pod>(&stage, "truck-7-uploader", owners(&pod)).await?;
    stage.until_condition("truck-7", "Ready", "True", "Running").await?;
    // It is to end by nobody's word but somebody's.
    mark::<Pod>(&stage, "truck-7-uploader", json!({"finalizers": ["example.com/keep"]})).await?;
    stage.change("truck-7", json!({"suspend": true})).await?;
    stage
        .until("the pod is ending", async || Ok(stage.until_pod("truck-7", None).await?.metadata.deletion_timestamp.is_some()))
        .await?;
    let message = stage.until_condition("truck-7", "Ready", "False", "PodStuck").await?;
    ensure!(message.contains("example.com/keep"), "{message}");
    ensure!(stage.until_pod("truck-7", None).await?.finalizers() == ["example.com/keep"]);
    mark::<Pod>(&stage, "truck-7-uploader", json!({"finalizers": null})).await?;
    stage.until_condition("truck-7", "Ready", "True", "Suspended").await?;
    // It is to stay when its session goes.
    stage.change("truck-7", json!({"suspend": false})).await?;
    let pod = stage.until_pod("truck-7", None).await?;
    mark::<Pod>(&stage, "truck-7-uploader", json!({"ownerReferences": null})).await?;
    let replaced = stage.until_pod("truck-7", pod.uid().as_deref()).await?;
    ensure!(!replaced.owner_references().is_empty());
    stage.end().await
}
