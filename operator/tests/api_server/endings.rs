//! How sessions end: by themselves, and by deletion.

use anyhow::Result;
use blobferry_crds::{Phase, UploadSession, names};
use k8s_openapi::api::core::v1::{Namespace, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    first::FIRST,
    matrix::follows_kstatus,
    stage::{Stage, running},
};

/// Plays the kubelet and the uploader: it ended by itself with this account.
async fn end(stage: &Stage, pod: &Pod, result: &str, mode: &str, token: Option<&str>) -> Result<()> {
    let session: UploadSession = stage.api().get(&pod.name_any().replace("-uploader", "")).await?;
    let mut account = json!({
        "result": result, "sessionUID": session.uid(), "mode": mode, "reason": "CompletedWithLeftovers",
        "message": "everything is uploaded and nothing new came: 3 files so far; on the share are left: 1 set aside",
    });
    if let Some(token) = token {
        account["runToken"] = token.into();
    }
    stage.set_pod_status(pod, ended(0, &account)).await
}

/// The status of a pod whose uploader ended with this code and this account.
pub(crate) fn ended(code: i32, account: &Value) -> Value {
    let state = json!({"terminated": {"exitCode": code, "reason": "Completed", "message": account.to_string()}});
    let mut status = running(&state);
    status["phase"] = "Succeeded".into();
    status
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn session_that_ended_by_itself_is_complete_keeps_its_pod_and_runs_again_with_another_token() -> Result<()> {
    let stage = Stage::new("complete").await?;
    let pod = stage.running_session("truck-7", json!({"completion": {"idleTimeout": "10m"}})).await?;
    end(&stage, &pod, "Completed", "watch", None).await?;
    let message = stage.until_condition("truck-7", "Complete", "True", "CompletedWithLeftovers").await?;
    assert!(message.contains("1 set aside"), "{message}");
    stage.until("nothing is active", async || Ok(stage.status("truck-7").await?.activity.is_none())).await?;
    let session: UploadSession = stage.api().get("truck-7").await?;
    follows_kstatus(&session)?;
    let status = session.status.unwrap_or_default();
    assert_eq!((status.phase, status.pod_uid), (Some(Phase::Completed), pod.uid()));
    assert!(status.completion_time.is_some() && status.progress.is_some());
    stage
        .until("people are told", async || Ok(stage.event_reasons("truck-7").await?.contains(&"CompletedWithLeftovers".into())))
        .await?;
    // A change alone starts nothing.
    let calls = stage.until_quiet(FIRST).await?;
    stage.change("truck-7", json!({"transfer": {"queueSize": 8}})).await?;
    stage.until("the change is seen", async || Ok(stage.status("truck-7").await?.observed_generation == Some(2))).await?;
    assert_eq!(stage.until_quiet(FIRST).await?, calls + 1, "{:#?}", stage.calls(FIRST));
    assert_eq!(stage.until_pod("truck-7", None).await?.uid(), pod.uid());
    stage.change("truck-7", json!({"runToken": "again"})).await?;
    let second = stage.until_pod("truck-7", pod.uid().as_deref()).await?;
    stage.until("it is not complete any more", async || Ok(stage.status("truck-7").await?.completion_time.is_none())).await?;
    end(&stage, &second, "Completed", "watch", Some("again")).await?;
    stage.until_condition("truck-7", "Complete", "True", "CompletedWithLeftovers").await?;
    assert_eq!(stage.status("truck-7").await?.completed_run_token.as_deref(), Some("again"));
    // The log may go; what was written down stays.
    stage.delete::<Pod>("truck-7-uploader").await?;
    stage.until("the status names no pod", async || Ok(stage.status("truck-7").await?.pod_uid.is_none())).await?;
    stage.until_condition("truck-7", "Ready", "True", "CompletedWithLeftovers").await?;
    assert!(stage.list::<Pod>().await?.is_empty());
    stage.end().await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn completed_session_leaves_its_folders_to_the_next() -> Result<()> {
    let stage = Stage::new("leaves").await?;
    let pod = stage.running_session("first", json!({"sessionName": "truck"})).await?;
    stage.session("second", json!({"sessionName": "truck"})).await?;
    stage.until_condition("second", "Reconciling", "True", "SessionNameInUse").await?;
    end(&stage, &pod, "Completed", "watch", None).await?;
    stage.until_pod("second", None).await?;
    stage.change("first", json!({"runToken": "again"})).await?;
    stage.until_condition("first", "Reconciling", "True", "SessionNameInUse").await?;
    stage.end().await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn times_that_cannot_be_meant_are_refused_in_words() -> Result<()> {
    let stage = Stage::new("bad-times").await?;
    for (spec, words) in [
        (json!({"completion": {"idleTimeout": "5s"}}), "idleTimeout is a duration from 10s to 8760h"),
        (json!({"completion": {"idleTimeout": "soon"}}), "idleTimeout is a duration from 10s to 8760h"),
        (json!({"ttlSecondsAfterFinished": 315_360_001}), "ttlSecondsAfterFinished"),
    ] {
        let refused = stage.session("truck-7", spec).await.err().map(|error| format!("{error:#}")).unwrap_or_default();
        assert!(refused.contains(words), "{refused}");
    }
    stage.end().await
}

/// Deletes a session as `kubectl delete --wait=false` does.
async fn delete(stage: &Stage, name: &str) -> Result<()> {
    stage.delete::<UploadSession>(name).await
}

async fn until_gone(stage: &Stage, name: &str) -> Result<()> {
    stage.until(&format!("{name} is gone"), async || Ok(stage.api::<UploadSession>().get_opt(name).await?.is_none())).await?;
    stage
        .until("its pod is gone", async || Ok(stage.list::<Pod>().await?.iter().all(|pod| !pod.name_any().starts_with(name))))
        .await
}

fn mode(pod: &Pod) -> Option<&str> {
    pod.annotations().get(names::MODE_ANNOTATION).map(String::as_str)
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn suspended_session_is_drained_and_a_completed_one_goes_at_once() -> Result<()> {
    let stage = Stage::new("drain-rest").await?;
    stage.running_session("suspended", json!({"deletionPolicy": "Drain"})).await?;
    stage.change("suspended", json!({"suspend": true})).await?;
    stage.until_condition("suspended", "Ready", "True", "Suspended").await?;
    delete(&stage, "suspended").await?;
    let last = stage.until_pod("suspended", None).await?;
    assert_eq!(mode(&last), Some("drain"));
    // No uploader ends before its operator has heard of it.
    stage.until_condition("suspended", "Ready", "False", "Scheduling").await?;
    end(&stage, &last, "Drained", "drain", None).await?;
    until_gone(&stage, "suspended").await?;

    let pod = stage.running_session("completed", json!({"deletionPolicy": "Drain", "ttlSecondsAfterFinished": 1})).await?;
    end(&stage, &pod, "Completed", "watch", None).await?;
    until_gone(&stage, "completed").await?;
    assert!(!stage.event_reasons("completed").await?.contains(&"Draining".into()));
    stage.end().await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn deletion_always_ends() -> Result<()> {
    let stage = Stage::new("drain-ends").await?;
    // The last uploader never comes to its end: its claim is gone.
    assert!(stage.list::<PersistentVolumeClaim>().await?.is_empty());
    stage.running_session("slow", json!({"deletionPolicy": "Drain", "drainTimeout": "2s"})).await?;
    delete(&stage, "slow").await?;
    until_gone(&stage, "slow").await?;
    stage.until("people are told", async || Ok(stage.event_reasons("slow").await?.contains(&"DrainGivenUp".into()))).await?;
    // Somebody has no patience any more.
    let pod = stage.running_session("changed", json!({"deletionPolicy": "Drain"})).await?;
    delete(&stage, "changed").await?;
    stage.until_pod("changed", pod.uid().as_deref()).await?;
    stage.change("changed", json!({"deletionPolicy": "Stop"})).await?;
    until_gone(&stage, "changed").await?;
    // The spec is refused.
    stage.running_session("refused", json!({"deletionPolicy": "Drain"})).await?;
    stage.change("refused", json!({"pod": {"image": "other"}})).await?;
    stage.until_condition("refused", "Stalled", "True", "ImageNotAllowed").await?;
    delete(&stage, "refused").await?;
    until_gone(&stage, "refused").await?;
    // No uploader ever ran.
    stage.session("never", json!({"deletionPolicy": "Drain"})).await?;
    stage.until_pod("never", None).await?;
    delete(&stage, "never").await?;
    until_gone(&stage, "never").await?;
    stage.end().await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn namespace_with_sessions_to_drain_can_be_deleted() -> Result<()> {
    let stage = Stage::new("drain-namespace").await?;
    let nfs = json!({"nfs": {"server": "nas.example.com", "path": "/srv/drop/cameras"}});
    stage.running_session("claim", json!({"deletionPolicy": "Drain"})).await?;
    stage.running_session("inline", json!({"deletionPolicy": "Release", "source": nfs})).await?;
    let namespaces: Api<Namespace> = Api::all(stage.client.clone());
    namespaces.delete(&stage.namespace, &DeleteParams::background()).await?;
    stage.until("the namespace is gone", async || Ok(namespaces.get_opt(&stage.namespace).await?.is_none())).await?;
    let volumes: Api<PersistentVolume> = Api::all(stage.client.clone());
    let of_namespace = ListParams::default().labels(&format!("{}={}", names::SESSION_NAMESPACE_LABEL, stage.namespace));
    stage.until("its volumes are gone", async || Ok(volumes.list(&of_namespace).await?.items.is_empty())).await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn volume_and_claim_live_until_the_last_uploader_is_done() -> Result<()> {
    let stage = Stage::new("drain-nfs").await?;
    let nfs = json!({"nfs": {"server": "nas.example.com", "path": "/srv/drop/cameras"}});
    let pod = stage.running_session("truck-7", json!({"deletionPolicy": "Drain", "source": nfs})).await?;
    let uid = stage.api::<UploadSession>().get("truck-7").await?.uid().unwrap_or_default();
    let volumes: Api<PersistentVolume> = Api::all(stage.client.clone());
    let name = format!("blobferry-{uid}");
    delete(&stage, "truck-7").await?;
    let last = stage.until_pod("truck-7", pod.uid().as_deref()).await?;
    stage.until_quiet(FIRST).await?;
    let claim = stage.api::<PersistentVolumeClaim>().get(&name).await?;
    let volume = volumes.get(&name).await?;
    assert!(claim.metadata.deletion_timestamp.is_none() && volume.metadata.deletion_timestamp.is_none());
    end(&stage, &last, "Drained", "drain", None).await?;
    until_gone(&stage, "truck-7").await?;
    stage.until("the claim is gone", async || Ok(stage.list::<PersistentVolumeClaim>().await?.is_empty())).await?;
    stage.until("the volume is gone", async || Ok(volumes.get_opt(&name).await?.is_none())).await?;
    stage.end().await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn policy_can_be_changed_both_ways_and_the_finalizer_follows() -> Result<()> {
    let stage = Stage::new("policy").await?;
    let nfs = json!({"nfs": {"server": "nas.example.com", "path": "/srv/drop/cameras"}});
    let first = stage.running_session("truck-7", json!({"source": nfs})).await?;
    let held = async || anyhow::Ok(!stage.api::<UploadSession>().get("truck-7").await?.finalizers().is_empty());
    assert!(!held().await? && !first.owner_references().is_empty());
    stage.change("truck-7", json!({"deletionPolicy": "Drain"})).await?;
    let second = stage.until_pod("truck-7", first.uid().as_deref()).await?;
    assert!(held().await? && second.owner_references().is_empty());
    stage.change("truck-7", json!({"deletionPolicy": "Stop"})).await?;
    let third = stage.until_pod("truck-7", second.uid().as_deref()).await?;
    assert!(!third.owner_references().is_empty());
    stage.until("it is not held any more", async || Ok(!held().await?)).await?;
    let claims = stage.list::<PersistentVolumeClaim>().await?;
    assert!(claims.iter().all(|claim| !claim.owner_references().is_empty()));
    delete(&stage, "truck-7").await?;
    until_gone(&stage, "truck-7").await?;
    stage.end().await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn pod_whose_session_somebody_let_go_by_force_is_swept() -> Result<()> {
    let stage = Stage::new("by-force").await?;
    stage.running_session("truck-7", json!({"deletionPolicy": "Drain"})).await?;
    delete(&stage, "truck-7").await?;
    let nothing = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    let sessions = stage.api::<UploadSession>();
    if let Err(error) = sessions.patch("truck-7", &PatchParams::default(), &nothing).await {
        assert!(error.to_string().contains("not found"), "{error}");
    }
    until_gone(&stage, "truck-7").await?;
    stage.end().await
}
