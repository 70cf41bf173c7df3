//! What a person reads when something is wrong, and that it disappears with its cause.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use blobferry_crds::{Check, UploadSession, names};
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams},
};
use serde_json::json;

use crate::{
    first::FIRST,
    matrix::{follows_kstatus, waiting},
    stage::{Stage, all_well, somebodys_pod},
};

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn what_the_uploader_finds_is_in_the_conditions() -> Result<()> {
    let stage = Stage::new("checks").await?;
    stage.running_session("truck-7", json!({})).await?;
    stage.until_condition("truck-7", "SourceReachable", "True", "Works").await?;
    stage.until_condition("truck-7", "CaughtUp", "True", "NothingWaits").await?;
    let mut progress = all_well();
    progress.checks[1] =
        Check { type_: "destination".into(), ok: false, reason: "KeyRefused".into(), message: "The key is refused.".into() };
    progress.caught_up = false;
    progress.files_waiting = 1;
    stage.report("truck-7", &progress).await?;
    let message = stage.until_condition("truck-7", "Ready", "False", "KeyRefused").await?;
    assert_eq!(message, "The key is refused.");
    stage.until_condition("truck-7", "DestinationReachable", "False", "KeyRefused").await?;
    stage.until_condition("truck-7", "CaughtUp", "False", "FilesWait").await?;
    stage.report("truck-7", &all_well()).await?;
    stage.until_condition("truck-7", "Ready", "True", "Running").await?;
    stage.end().await
}

/// A reason may change meanwhile, and so may the generation.
#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn time_of_a_condition_is_when_its_status_changed() -> Result<()> {
    let stage = Stage::new("times").await?;
    stage.session("truck-7", json!({})).await?;
    let pod = stage.until_pod("truck-7", None).await?;
    let seen = async |status: &str, reason: &str| {
        // Times have whole seconds.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        stage.until_condition("truck-7", "Ready", status, reason).await?;
        let session: UploadSession = stage.api().get("truck-7").await?;
        follows_kstatus(&session)?;
        let ready = session.status.iter().flat_map(|status| &status.conditions).find(|condition| condition.type_ == "Ready");
        ready.map(|ready| (ready.last_transition_time.0, ready.observed_generation)).context("Ready is there")
    };
    stage.set_pod_status(&pod, waiting("ErrImagePull", "not found")).await?;
    let first = seen("False", "ImagePullFailed").await?;
    stage.set_pod_status(&pod, waiting("CreateContainerConfigError", "no user")).await?;
    ensure!(seen("False", "CreateContainerConfigError").await? == first, "only the reason has changed");
    stage.run_pod(&pod).await?;
    stage.report("truck-7", &all_well()).await?;
    let well = seen("True", "Running").await?;
    ensure!(well.0 > first.0 && well.1 == first.1, "{first:?} {well:?}");
    stage.change("truck-7", json!({"transfer": {"bandwidthLimit": "1Mi"}})).await?;
    stage
        .until("the change is seen", async || {
            let session: UploadSession = stage.api().get("truck-7").await?;
            Ok(session.status.and_then(|status| status.observed_generation) == session.metadata.generation)
        })
        .await?;
    let changed = seen("True", "Running").await?;
    ensure!(changed.0 == well.0 && changed.1 > well.1, "only the generation has changed: {well:?} {changed:?}");
    stage.end().await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn quota_is_named_and_its_removal_heals() -> Result<()> {
    let stage = Stage::new("quota").await?;
    stage.forbid_pods().await?;
    stage.session("truck-7", json!({})).await?;
    let message = stage.until_condition("truck-7", "Ready", "False", "PodRefused").await?;
    assert!(message.contains("quota"), "{message}");
    stage.delete::<ResourceQuota>("none").await?;
    stage.until_pod("truck-7", None).await?;
    stage.end().await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn pod_that_somebody_else_made_stalls_the_session_until_it_is_removed() -> Result<()> {
    let stage = Stage::new("taken").await?;
    stage.create::<Pod>(somebodys_pod("truck-7-uploader")).await?;
    stage.session("truck-7", json!({})).await?;
    let message = stage.until_condition("truck-7", "Stalled", "True", "NameTaken").await?;
    assert!(message.contains("truck-7-uploader"), "{message}");
    stage.delete::<Pod>("truck-7-uploader").await?;
    stage.until_condition("truck-7", "Ready", "False", "Scheduling").await?;
    stage.end().await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn session_that_cannot_be_read_is_reported_stops_no_other_and_can_be_deleted() -> Result<()> {
    let stage = Stage::new("unreadable").await?;
    stage.session("odd", json!({"suspend": true, "deletionPolicy": "Drain"})).await?;
    stage.until_condition("odd", "Ready", "True", "Suspended").await?;
    stage.until_quiet(FIRST).await?;
    // The schema's largest number is more than the type's.
    let odd = Patch::Merge(json!({"status": {"reportInterval": 4_294_967_296_u64}}));
    let sessions: Api<DynamicObject> =
        Api::namespaced_with(stage.client.clone(), &stage.namespace, &ApiResource::erase::<UploadSession>(&()));
    sessions.patch_status("odd", &PatchParams::default(), &odd).await?;
    stage.session("well", json!({})).await?;
    stage.until_pod("well", None).await?;
    stage.until("people are told", async || Ok(stage.event_reasons("odd").await?.contains(&"Unreadable".into()))).await?;
    let told = |verdict, reason| ready_as(&sessions, verdict, reason);
    stage.until("its status says so", async || told("Unknown", "Unreadable").await).await?;
    let corrected = Patch::Merge(json!({"status": {"reportInterval": 5}}));
    sessions.patch_status("odd", &PatchParams::default(), &corrected).await?;
    stage.until("it is read again", async || told("True", "Suspended").await).await?;
    sessions.patch_status("odd", &PatchParams::default(), &odd).await?;
    stage.until("its status says so again", async || told("Unknown", "Unreadable").await).await?;
    let held = sessions.get("odd").await?;
    assert_eq!(held.finalizers(), [names::FINALIZER]);
    sessions.delete("odd", &DeleteParams::default()).await?;
    stage.until("it is gone", async || Ok(sessions.get_opt("odd").await?.is_none())).await?;
    stage.end().await
}

/// Whether the condition `Ready` of the session `odd`, which cannot be read, is this.
async fn ready_as(sessions: &Api<DynamicObject>, verdict: &str, reason: &str) -> Result<bool> {
    let odd = sessions.get("odd").await?;
    let conditions = odd.data["status"]["conditions"].as_array().context("it has conditions")?;
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready").context("one of them is Ready")?;
    Ok(ready["status"] == verdict && ready["reason"] == reason)
}
