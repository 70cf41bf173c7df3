//! Creations that are carried out after their session has gone: nothing stays.

use anyhow::{Result, ensure};
use blobferry_crds::{UploadSession, names::UPLOADER_ACCOUNT};
use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, ServiceAccount},
    rbac::v1::RoleBinding,
};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::Running;
use crate::{around::Freezer, stage::Stage};

/// The last request of a sweep, and the first of a pass over a session with an export.
const SWEPT: &str = "GET /api/v1/persistentvolumes";

/// An operator one of whose requests the test holds.
async fn operator(stage: &Stage) -> Result<(Running, Freezer)> {
    let freezer = Freezer::default();
    let operator = Running::start_with(&["--pod-name", "operator-a"], {
        let freezer = freezer.clone();
        move |client| freezer.around(client)
    });
    stage.until("the operator has swept for the first time", async || Ok(freezer.count(SWEPT) > 0)).await?;
    Ok((operator, freezer))
}

async fn delete(stage: &Stage) -> Result<()> {
    stage.delete::<UploadSession>("truck-7").await?;
    stage.until("the session is gone", async || Ok(stage.api::<UploadSession>().get_opt("truck-7").await?.is_none())).await
}

/// Lets the held request go, and waits until it has made something.
async fn arrives(stage: &Stage, freezer: &Freezer) -> Result<()> {
    freezer.wake();
    stage.until("the late request was answered", async || Ok(freezer.late_answer().is_some())).await?;
    ensure!(freezer.late_answer() == Some(201), "the late request was answered {:?}", freezer.late_answer());
    Ok(())
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn rights_that_are_made_after_their_session_has_gone_are_removed() -> Result<()> {
    let stage = Stage::bare("late-rights").await?;
    let (operator, freezer) = operator(&stage).await?;
    let within = format!("/api/v1/namespaces/{}", stage.namespace);
    freezer.hold(&format!("POST {within}/serviceaccounts"));
    stage.session("truck-7", json!({})).await?;
    freezer.until_frozen().await?;
    let swept = format!("GET {within}/serviceaccounts/{UPLOADER_ACCOUNT}");
    let before = freezer.count(&swept);
    delete(&stage).await?;
    stage.until("the namespace is swept", async || Ok(freezer.count(&swept) > before)).await?;
    arrives(&stage, &freezer).await?;
    stage
        .until("the rights are removed", async || {
            Ok(stage.api::<ServiceAccount>().get_opt(UPLOADER_ACCOUNT).await?.is_none()
                && stage.api::<RoleBinding>().get_opt(UPLOADER_ACCOUNT).await?.is_none())
        })
        .await?;
    operator.end()?;
    stage.end().await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn volume_whose_creation_nobody_waits_for_any_more_is_removed() -> Result<()> {
    let stage = Stage::bare("late-volume").await?;
    let (operator, freezer) = operator(&stage).await?;
    freezer.hold("POST /api/v1/persistentvolumes");
    let source = json!({"nfs": {"server": "nas.example.com", "path": "/srv/drop/cameras"}, "persistentVolumeClaim": null});
    let session = stage.session("truck-7", json!({"source": source})).await?;
    freezer.until_frozen().await?;
    let before = freezer.count(SWEPT);
    delete(&stage).await?;
    // Right after the deletion, and when the pass has given up.
    stage.until("it is swept twice", async || Ok(freezer.count(SWEPT) >= before + 2)).await?;
    arrives(&stage, &freezer).await?;
    let name = format!("blobferry-{}", session.uid().unwrap_or_default());
    let volumes: Api<PersistentVolume> = Api::all(stage.client.clone());
    stage.until("the volume is removed", async || Ok(volumes.get_opt(&name).await?.is_none())).await?;
    ensure!(stage.list::<PersistentVolumeClaim>().await?.is_empty());
    operator.end()?;
    stage.end().await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn pod_without_an_owner_that_is_made_after_its_session_has_gone_is_removed() -> Result<()> {
    let stage = Stage::bare("late-pod").await?;
    let (operator, freezer) = operator(&stage).await?;
    freezer.hold(&format!("POST /api/v1/namespaces/{}/pods", stage.namespace));
    // For its sake the account stays, without which the API server takes no pod.
    stage.session("truck-8", json!({"suspend": true})).await?;
    stage.session("truck-7", json!({"deletionPolicy": "Drain"})).await?;
    freezer.until_frozen().await?;
    let before = freezer.count(SWEPT);
    delete(&stage).await?;
    stage.until("it is swept", async || Ok(freezer.count(SWEPT) > before)).await?;
    arrives(&stage, &freezer).await?;
    stage.until("the pod is removed", async || Ok(stage.list::<Pod>().await?.is_empty())).await?;
    operator.end()?;
    stage.end().await
}
