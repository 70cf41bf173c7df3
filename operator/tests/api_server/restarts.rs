//! Another operator: after a restart, beside the first, and after a restore from backup.

use anyhow::Result;
use blobferry_crds::names;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;

use crate::stage::{FIRST, Stage, start_operator};

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn another_operator_changes_nothing_and_calls_nobody_for_a_running_session() -> Result<()> {
    let stage = Stage::new("restart").await?;
    let pod = stage.running_session("truck-7", json!({})).await?;
    stage.until_quiet(FIRST).await?;
    start_operator("operator-1")?;
    stage.until("it has looked at the rights of the namespace", async || Ok(!stage.calls("operator-1").is_empty())).await?;
    stage.until_quiet("operator-1").await?;
    // That is done once at the start; nothing is written.
    let new = stage.calls("operator-1");
    assert!(new.iter().all(|line| line.starts_with("GET ") && line.ends_with("/blobferry-uploader")), "{new:#?}");
    assert_eq!(stage.until_pod("truck-7", None).await?.uid(), pod.uid());
    // Two operators at a time make one pod.
    stage.session("truck-8", json!({})).await?;
    stage.until_pod("truck-8", None).await?;
    stage.until_condition("truck-8", "Ready", "False", "Scheduling").await?;
    assert_eq!(stage.list::<Pod>().await?.len(), 2);
    stage.end().await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn session_restored_from_backup_keeps_its_name_and_date() -> Result<()> {
    let stage = Stage::new("restore").await?;
    let annotations = json!({names::SESSION_NAME_ANNOTATION: "00-session-kept", names::DATE_PREFIX_ANNOTATION: "20250102"});
    stage.marked_session("truck-7", json!({"annotations": annotations}), json!({})).await?;
    stage.until_pod("truck-7", None).await?;
    stage.until_condition("truck-7", "Ready", "False", "Scheduling").await?;
    let status = stage.status("truck-7").await?;
    assert_eq!((status.session_name.as_deref(), status.date_prefix.as_deref()), (Some("00-session-kept"), Some("20250102")));
    stage.end().await
}
