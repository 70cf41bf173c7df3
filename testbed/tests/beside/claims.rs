//! Claims that lead to no volume, on a real node: what is missing is named, and the session starts once somebody has seen to it.

use std::{os::unix::fs::symlink, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use blobferry_crds::{UploadSession, conditions};
use blobferry_testbed::{Stage, figures, scenario, wait};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

/// How long a test waits for a cause; how soon it is named is printed and not asserted.
const NAMED: Duration = Duration::from_mins(3);
const RECOVERED: Duration = Duration::from_mins(5);

/// A session that uses the claim `claim`.
async fn session_on(stage: &Stage, claim: &str) -> Result<()> {
    let spec = json!({
        "source": {"persistentVolumeClaim": {"claimName": claim}},
        "watch": {"pollInterval": "200ms", "minFileAge": "1s"},
    });
    stage.apply_session("s", spec).await
}

/// Waits until the session says that the claim is at fault, in both conditions and in an event, and prints how soon that was.
async fn blamed(stage: &Stage, reason: &str, words: &[&str]) -> Result<()> {
    let all = [&[reason], words].concat();
    stage.await_condition("s", NAMED, (conditions::READY, "False"), &all).await?;
    let session = stage.await_condition("s", NAMED, (conditions::SOURCE_REACHABLE, "False"), &all).await?;
    let told = stage.await_told("s", NAMED, reason, words).await?;
    let created = session.creation_timestamp().context("the session was never made")?.0;
    figures::print(&format!("{reason} is told {:.0} s after the session was made", figures::seconds(created, told)));
    Ok(())
}

/// A file that is dropped now arrives, and the conditions are right again.
async fn recovers(stage: &Stage) -> Result<()> {
    let delivery = stage.deliver("s", "after.dat", 4096)?;
    stage.await_uploaded("s", 1, RECOVERED).await?;
    stage.compare("s", &[delivery]).await?;
    let session = stage.await_condition("s", RECOVERED, (conditions::READY, "True"), &["Running"]).await?;
    let blamed = |session: &UploadSession| {
        let mut conditions = session.status.iter().flat_map(|status| &status.conditions);
        conditions.any(|condition| condition.type_ == conditions::SOURCE_REACHABLE && condition.status != "True")
    };
    ensure!(!blamed(&session), "the share is still blamed: {:?}", session.status);
    Ok(())
}

/// A claim that asks for a volume of twice the size of any, which must bear the label of this stage.
async fn make_large_claim(stage: &Stage) -> Result<()> {
    make_claim(
        stage,
        json!({
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "2Gi"}},
            "selector": {"matchLabels": {"stage": stage.namespace}},
            "storageClassName": "",
        }),
    )
    .await
}

async fn make_claim(stage: &Stage, spec: Value) -> Result<()> {
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "large"}, "spec": spec});
    stage.api::<PersistentVolumeClaim>().patch("large", &PatchParams::apply("test").force(), &Patch::Apply(&claim)).await?;
    Ok(())
}

/// A volume of that size at `path` of the node.
async fn make_volume(stage: &Stage, name: &str, size: &str, path: &Path) -> Result<()> {
    let metadata = json!({"name": name, "labels": {"stage": stage.namespace}});
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": metadata, "spec": {
        "accessModes": ["ReadWriteMany"],
        "capacity": {"storage": size},
        "hostPath": {"path": path, "type": "Directory"},
        "persistentVolumeReclaimPolicy": "Retain",
        "storageClassName": "",
    }});
    let volumes: Api<PersistentVolume> = Api::all(stage.client());
    volumes.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(&volume)).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn claim_that_no_volume_fits_is_named_with_what_to_do_and_the_session_starts_once_there_is_one() -> Result<()> {
    scenario("unbound", async |stage| {
        let [small, large] = ["small", "large"].map(|size| format!("{}-{size}", stage.namespace));
        make_large_claim(stage).await?;
        make_volume(stage, &small, "1Gi", &stage.share).await?;
        let outcome = until_one_fits(stage, &large).await;
        for name in [small, large] {
            // The second is there only if the test came so far.
            let _ = Api::<PersistentVolume>::all(stage.client()).delete(&name, &DeleteParams::background()).await;
        }
        outcome
    })
    .await
}

async fn until_one_fits(stage: &Stage, volume: &str) -> Result<()> {
    session_on(stage, "large").await?;
    let remedy = format!("kubectl describe pvc --namespace {}", stage.namespace);
    blamed(stage, "PersistentVolumeClaimPending", &[&remedy, "capacity, access mode and storage class"]).await?;
    make_volume(stage, volume, "2Gi", &stage.share).await?;
    recovers(stage).await
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn share_that_cannot_be_mounted_is_named_with_the_words_of_the_node_and_the_session_starts_once_it_can() -> Result<()> {
    scenario("unmounted", async |stage| {
        let (volume, later) = (format!("{}-later", stage.namespace), stage.share.join("later"));
        make_large_claim(stage).await?;
        make_volume(stage, &volume, "2Gi", &later).await?;
        let outcome = until_it_is_there(stage, &later).await;
        Api::<PersistentVolume>::all(stage.client()).delete(&volume, &DeleteParams::background()).await?;
        outcome
    })
    .await
}

async fn until_it_is_there(stage: &Stage, path: &Path) -> Result<()> {
    session_on(stage, "large").await?;
    let words = "is not a directory";
    blamed(stage, "FailedMount", &["look for a wrong server or path", "The node says", words]).await?;
    symlink(".", path)?;
    recovers(stage).await
}

/// The stage's share is in use by a pod of somebody else, so that a claim which is deleted stays.
async fn occupy(stage: &Stage) -> Result<()> {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "reader"},
        "spec": {
            "containers": [{
                "name": "reader",
                "image": "localhost/blobferry-pause:1",
                "imagePullPolicy": "Never",
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": "share", "mountPath": "/share"}],
            }],
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65534, "seccompProfile": {"type": "RuntimeDefault"}},
            "terminationGracePeriodSeconds": 1,
            "volumes": [{"name": "share", "persistentVolumeClaim": {"claimName": "share"}}],
        },
    }))?;
    stage.api::<Pod>().create(&PostParams::default(), &pod).await?;
    wait::until(NAMED, "somebody else uses the share", async || {
        let pod = stage.api::<Pod>().get("reader").await?;
        Ok((pod.status.and_then(|status| status.phase).as_deref() == Some("Running")).then_some(()))
    })
    .await
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn claim_that_is_being_deleted_while_somebody_uses_it_is_named_and_heals_when_it_is_made_again() -> Result<()> {
    scenario("ending", async |stage| {
        occupy(stage).await?;
        let claims = stage.api::<PersistentVolumeClaim>();
        let claim = claims.get("share").await?;
        claims.delete("share", &DeleteParams::background()).await?;
        session_on(stage, "share").await?;
        let words = ["PersistentVolumeClaim share is being deleted in namespace", "create it again"];
        blamed(stage, "PersistentVolumeClaimTerminating", &words).await?;
        stage.api::<Pod>().delete("reader", &DeleteParams::background()).await?;
        stage.make_claim_again(&claim).await?;
        recovers(stage).await
    })
    .await
}
