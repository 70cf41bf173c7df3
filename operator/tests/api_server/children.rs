//! Volumes of inline NFS sources.

use anyhow::Result;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::stage::Stage;

fn nfs() -> serde_json::Value {
    json!({"source": {"nfs": {"server": "nas.example.com", "path": "/srv/drop/cameras"}}})
}

async fn volume(stage: &Stage, uid: &str) -> Result<Option<PersistentVolume>> {
    Ok(Api::all(stage.client.clone()).get_opt(&format!("blobferry-{uid}")).await?)
}

async fn claim_is_bound(stage: &Stage) -> Result<bool> {
    let claims = stage.list::<PersistentVolumeClaim>().await?;
    Ok(claims.iter().any(|claim| claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")))
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn changed_mount_options_replace_pod_claim_and_volume() -> Result<()> {
    let stage = Stage::new("options").await?;
    let uid = stage.session("truck-7", nfs()).await?.uid().unwrap_or_default();
    let pod = stage.until_pod("truck-7", None).await?;
    stage.until("the claim is bound", async || claim_is_bound(&stage).await).await?;
    stage.change("truck-7", json!({"source": {"nfs": {"mountOptions": ["hard", "nfsvers=4.2"]}}})).await?;
    stage.until_pod("truck-7", pod.uid().as_deref()).await?;
    let options = volume(&stage, &uid).await?.and_then(|volume| volume.spec?.mount_options);
    assert_eq!(options, Some(vec!["hard".to_owned(), "nfsvers=4.2".to_owned()]));
    stage.until("the claim is bound", async || claim_is_bound(&stage).await).await?;
    stage.end().await
}
