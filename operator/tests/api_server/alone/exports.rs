//! Exports that the installation allows in some namespaces only.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::{Api, api::ListParams};
use serde_json::json;

use super::Running;
use crate::stage::Stage;

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn export_that_is_allowed_in_one_namespace_is_refused_in_another() -> Result<()> {
    let (allowed, other) = (Stage::bare("exports").await?, Stage::bare("no-exports").await?);
    let namespaces = [&allowed.namespace];
    let rules = json!([{"server": "nas.example.com", "pathPrefix": "/srv/drop", "namespaces": namespaces}]);
    let operator = Running::start_with(&[&format!("--nfs-allowed={rules}")], |client| client);
    let nfs = json!({"source": {"nfs": {"server": "nas.example.com", "path": "/srv/drop/cameras"}}});
    other.session("truck-7", nfs.clone()).await?;
    let message = other.until_condition("truck-7", "Stalled", "True", "NfsNotAllowed").await?;
    ensure!(message.contains(&other.namespace) && !message.contains(&allowed.namespace), "{message}");
    allowed.session("truck-7", nfs).await?;
    allowed.until_pod("truck-7", None).await?;
    ensure!(other.list::<Pod>().await?.is_empty() && other.list::<PersistentVolumeClaim>().await?.is_empty());
    let of_other = ListParams::default().labels(&format!("blobferry.io/session-namespace={}", other.namespace));
    ensure!(Api::<PersistentVolume>::all(other.client.clone()).list(&of_other).await?.items.is_empty());
    operator.end()?;
    allowed.end().await?;
    other.end().await
}
