//! What a test puts on its stage.

use anyhow::Result;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, ResourceQuota};
use kube::{Api, api::PostParams};
use serde_json::json;

use crate::stage::Stage;

impl Stage {
    /// An export that no other stage has.
    pub(crate) fn export(&self) -> String {
        format!("/srv/{}", self.namespace)
    }

    /// A claim "share" that is bound to `path` of the one file server.
    pub(crate) async fn share(&self, path: &str) -> Result<()> {
        let name = self.share_volume();
        let capacity = json!({"storage": "1Gi"});
        let volume: PersistentVolume = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {
                "capacity": capacity, "accessModes": ["ReadWriteMany"], "storageClassName": "",
                "persistentVolumeReclaimPolicy": "Retain", "nfs": {"server": "NAS.example.com", "path": path},
                "claimRef": {"namespace": self.namespace, "name": "share"},
            },
        }))?;
        Api::all(self.client.clone()).create(&PostParams::default(), &volume).await?;
        let spec = json!({"accessModes": ["ReadWriteMany"], "storageClassName": "", "resources": {"requests": capacity}, "volumeName": name});
        self.create::<PersistentVolumeClaim>(json!({"metadata": {"name": "share"}, "spec": spec})).await?;
        self.until("the claim is bound", async || {
            let claim = self.api::<PersistentVolumeClaim>().get("share").await?;
            Ok(claim.status.and_then(|status| status.phase).as_deref() == Some("Bound"))
        })
        .await
    }

    /// Name of its node, where a test makes one.
    pub(crate) fn node(&self) -> String {
        format!("node-of-{}", self.namespace)
    }

    /// Lets a quota allow no pods.
    pub(crate) async fn forbid_pods(&self) -> Result<()> {
        self.create::<ResourceQuota>(json!({"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}})).await?;
        self.until("the quota counts", async || {
            let quotas = self.list::<ResourceQuota>().await?;
            Ok(quotas.iter().all(|quota| quota.status.as_ref().is_some_and(|status| status.hard.is_some())))
        })
        .await
    }
}
