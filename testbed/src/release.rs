//! The chart's release on the bed, and the operator that leads.

use std::{collections::BTreeSet, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Pod};
use kube::{Api, Client, ResourceExt, api::ListParams};

use crate::wait;

/// Name of the release.
pub const RELEASE: &str = "blobferry";
/// Namespace of the release.
pub const NAMESPACE: &str = "blobferry-system";
/// The chart as it is in this repository.
pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/blobferry");
/// Selects the operator's pods and its Deployment.
pub const OPERATOR: &str = "app.kubernetes.io/name=blobferry-operator";

const SOON: Duration = Duration::from_mins(3);

/// Runs Helm for the namespace of the release and returns what it says.
///
/// # Errors
///
/// When it fails; the error has its words.
pub fn helm(arguments: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new("helm").args(arguments).args(["--namespace", NAMESPACE]).output().context("cannot start helm")?;
    ensure!(output.status.success(), "helm {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

/// Names of the operator's pods that are there now.
///
/// # Errors
///
/// When the API server cannot be asked.
pub async fn operators(client: &Client) -> Result<BTreeSet<String>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    Ok(pods.list(&ListParams::default().labels(OPERATOR)).await?.items.iter().map(ResourceExt::name_any).collect())
}

/// The operator's pod that holds the Lease and is there, once it is none of `but`.
///
/// # Errors
///
/// When none is within minutes.
pub async fn leader(client: &Client, but: &BTreeSet<String>) -> Result<String> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    wait::until(SOON, "an operator leads", async || {
        let holder = leases.get("blobferry-operator").await?.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
        Ok((operators(client).await?.contains(&holder) && !but.contains(&holder)).then_some(holder))
    })
    .await
}
