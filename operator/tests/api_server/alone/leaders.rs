//! Two operators of which one leads: hand-over, and a leader that wakes up late.

use std::{
    future::pending,
    io::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use blobferry_crds::UploadSession;
use blobferry_operator::leader::LEASE;
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Pod, ServiceAccount},
    rbac::v1::RoleBinding,
};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::Running;
use crate::{
    around::Freezer,
    calls::write_down,
    chart::NAMESPACE,
    situations::{ACCOUNT, BINDING, HELD, POD, SESSION, UNOWNED_POD, objects::objects},
    stage::{Stage, all_well},
};

const SECOND: &str = "operator-b";

/// How often a story may be played.
const ATTEMPTS: usize = 3;
/// A leader that ends has this time for giving the lease back.
const RELEASE_WITHIN: Duration = Duration::from_secs(3);

/// The machine stood still for so long that an operator lost the lease which it has in the story, or could not give it back.
#[derive(Debug, thiserror::Error)]
#[error("an operator was too slow for the story")]
struct TooSlow;

/// Plays a story on a stage of this name, again on another one if an operator was too slow for it.
async fn play(name: &str, story: impl AsyncFn(&Stage, &Freezer, Running, &Running) -> Result<()>) -> Result<()> {
    let mut attempt = 1;
    loop {
        let stage = Stage::bare(name).await?;
        match Box::pin(play_once(&stage, &story)).await {
            Err(error) if error.is::<TooSlow>() && attempt < ATTEMPTS => {
                writeln!(std::io::stdout(), "{name} is played again: {error:#}")?;
                stage.end().await?;
            }
            outcome => {
                outcome?;
                return stage.end().await;
            }
        }
        attempt += 1;
    }
}

/// Two operators on one stage; the first leads, and its freezer is the story's.
async fn play_once(stage: &Stage, story: impl AsyncFn(&Stage, &Freezer, Running, &Running) -> Result<()>) -> Result<()> {
    stage.remove_others().await?;
    let freezer = Freezer::default();
    let first = Running::start("operator-a", {
        let freezer = freezer.clone();
        move |client| freezer.around(client)
    });
    stage
        .until("the first operator leads", async || {
            ensure!(!first.deposed.is_cancelled(), TooSlow);
            Ok(first.leads())
        })
        .await?;
    let second = Running::start(SECOND, |client| write_down(SECOND, client));
    let (first_deposed, second_deposed) = (first.deposed.clone(), second.deposed.clone());
    // Frozen, it may lose the lease.
    let first_is_late = || first_deposed.is_cancelled() && !freezer.has_frozen();
    let played = tokio::select! {
        played = story(stage, &freezer, first, &second) => played,
        () = second_deposed.cancelled() => Err(TooSlow.into()),
        () = async {
            first_deposed.cancelled().await;
            if !first_is_late() {
                pending::<()>().await;
            }
        } => Err(TooSlow.into()),
    };
    let is_late = second_deposed.is_cancelled() || first_is_late();
    second.finish()?;
    played.map_err(|error| if is_late && !error.is::<TooSlow>() { error.context(TooSlow) } else { error })
}

fn leases(stage: &Stage) -> Api<Lease> {
    Api::namespaced(stage.client.clone(), NAMESPACE)
}

/// The lease of an operator that is paused for longer than its term, without the wait.
async fn expire_lease(stage: &Stage) -> Result<()> {
    let expired = Patch::Merge(json!({"spec": {"holderIdentity": ""}}));
    leases(stage).patch(LEASE, &PatchParams::default(), &expired).await?;
    Ok(())
}

async fn holder(stage: &Stage) -> Result<Option<String>> {
    Ok(leases(stage).get(LEASE).await?.spec.and_then(|spec| spec.holder_identity))
}

/// Lets the second operator take over from the first, which is frozen.
async fn take_over(stage: &Stage, freezer: &Freezer, second: &Running) -> Result<()> {
    freezer.until_frozen().await?;
    expire_lease(stage).await?;
    stage.until("the second operator leads", async || Ok(second.leads())).await
}

/// Wakes the first operator: its late request must be answered with `code`, and it must see that it leads no more.
async fn wake(stage: &Stage, freezer: &Freezer, mut first: Running, code: u16) -> Result<()> {
    freezer.wake();
    stage.until("the late request was answered", async || Ok(freezer.late_answer().is_some())).await?;
    ensure!(freezer.late_answer() == Some(code), "the late request was answered {:?}", freezer.late_answer());
    ensure!(first.ended()?.is_err(), "it was deposed");
    ensure!(holder(stage).await?.as_deref() == Some(SECOND), "the second still leads");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn leader_that_was_paused_before_it_made_a_pod_makes_none_when_it_wakes() -> Result<()> {
    play("paused-create", async |stage, freezer, first, second| {
        freezer.arm(&format!("POST /api/v1/namespaces/{}/pods", stage.namespace));
        stage.session("truck-7", json!({})).await?;
        take_over(stage, freezer, second).await?;
        let pod = stage.until_pod("truck-7", None).await?;
        stage.until("the status names the pod", async || Ok(stage.status("truck-7").await?.pod_uid == pod.uid())).await?;
        wake(stage, freezer, first, 409).await?;
        let pods = stage.list::<Pod>().await?;
        ensure!(pods.len() == 1 && pods[0].uid() == pod.uid(), "{pods:#?}");
        ensure!(stage.status("truck-7").await?.pod_uid == pod.uid());
        Ok(())
    })
    .await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn leader_that_was_paused_before_it_deleted_a_pod_leaves_its_successor_alone() -> Result<()> {
    play("paused-delete", async |stage, freezer, first, second| {
        let old = stage.running_session("truck-7", json!({})).await?;
        freezer.arm(&format!("DELETE /api/v1/namespaces/{}/pods/", stage.namespace));
        stage.change("truck-7", json!({"transfer": {"queueSize": 8}})).await?;
        take_over(stage, freezer, second).await?;
        let new = stage.until_pod("truck-7", old.uid().as_deref()).await?;
        stage.run_pod(&new).await?;
        wake(stage, freezer, first, 409).await?;
        let pods = stage.list::<Pod>().await?;
        ensure!(pods.len() == 1 && pods[0].uid() == new.uid() && pods[0].metadata.deletion_timestamp.is_none(), "{pods:#?}");
        Ok(())
    })
    .await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn leader_that_was_paused_before_it_wrote_a_status_writes_none_when_it_wakes() -> Result<()> {
    play("paused-status", async |stage, freezer, first, second| {
        stage.running_session("truck-7", json!({})).await?;
        freezer.arm(&format!("PATCH /apis/blobferry.io/v1alpha1/namespaces/{}/uploadsessions/truck-7/status", stage.namespace));
        let mut progress = all_well();
        progress.caught_up = false;
        stage.report("truck-7", &progress).await?;
        take_over(stage, freezer, second).await?;
        stage.until_condition("truck-7", "CaughtUp", "False", "FilesWait").await?;
        stage.change("truck-7", json!({"suspend": true})).await?;
        stage.until_condition("truck-7", "Ready", "True", "Suspended").await?;
        stage.until("the activity is removed", async || Ok(stage.status("truck-7").await?.activity.is_none())).await?;
        let before = stage.status("truck-7").await?;
        wake(stage, freezer, first, 409).await?;
        ensure!(stage.status("truck-7").await? == before, "the status changed");
        Ok(())
    })
    .await
}

/// What leads to a write.
#[derive(Clone, Copy, Debug)]
enum Cause {
    /// The session is made.
    Made,
    /// Its uploader uses another account.
    Account,
    /// It is deleted before its uploader ran.
    Deleted,
    /// It has completed, and its time is over.
    Expired,
}

/// A write that arrives when another operator has led for a while.
struct Late {
    name: &'static str,
    spec: Value,
    cause: Cause,
    /// Start of the request's line; `NAMESPACE` is the test's.
    at: &'static str,
    /// How it is refused.
    code: u16,
    /// What exists before it and after it.
    objects: Vec<&'static str>,
}

const CLAIM: &str = "claim of truck-7, owned, Bound";
const UNOWNED_CLAIM: &str = "claim of truck-7, Bound";
const VOLUME: &str = "volume of truck-7";

/// All of an operator's writes but those on pods and on the status, which have tests of their own. What was deleted is there again by
/// the same name where a name can come again.
fn late_writes() -> Vec<Late> {
    use Cause::{Account, Deleted, Expired, Made};
    let nfs = || json!({"nfs": {"server": "nas.example.com", "path": "/srv/drop/cameras"}});
    let late = |name, spec, cause, at, code, objects| Late { name, spec, cause, at, code, objects };
    let usual = || vec![SESSION, POD, ACCOUNT, BINDING];
    let drains = || vec![HELD, UNOWNED_POD, ACCOUNT, BINDING];
    let with_volume = || vec![SESSION, POD, ACCOUNT, BINDING, CLAIM, VOLUME];
    let session = "PATCH /apis/blobferry.io/v1alpha1/namespaces/NAMESPACE/uploadsessions/truck-7";
    vec![
        late("finalizer", json!({"deletionPolicy": "Drain"}), Made, session, 409, drains()),
        late("annotations", json!({}), Made, session, 409, usual()),
        late("account", json!({}), Made, "POST /api/v1/namespaces/NAMESPACE/serviceaccounts", 409, usual()),
        late("binding", json!({}), Made, "POST /apis/rbac.authorization.k8s.io/v1/namespaces/NAMESPACE/rolebindings", 409, usual()),
        late("volume", json!({"source": nfs()}), Made, "POST /api/v1/persistentvolumes", 409, with_volume()),
        late(
            "claim",
            json!({"source": nfs()}),
            Made,
            "POST /api/v1/namespaces/NAMESPACE/persistentvolumeclaims",
            409,
            with_volume(),
        ),
        late(
            "subjects",
            json!({}),
            Account,
            "PATCH /apis/rbac.authorization.k8s.io/v1/namespaces/NAMESPACE/rolebindings/",
            409,
            vec![SESSION, POD, ACCOUNT, "binding blobferry-uploader for blobferry-uploader and default"],
        ),
        late("release", json!({"deletionPolicy": "Drain"}), Deleted, session, 409, drains()),
        late(
            "expiry",
            json!({"ttlSecondsAfterFinished": 0}),
            Expired,
            "DELETE /apis/blobferry.io/v1alpha1/namespaces/NAMESPACE/uploadsessions/truck-7",
            409,
            usual(),
        ),
        late(
            "no-binding",
            json!({}),
            Deleted,
            "DELETE /apis/rbac.authorization.k8s.io/v1/namespaces/NAMESPACE/rolebindings/",
            409,
            usual(),
        ),
        late("no-account", json!({}), Deleted, "DELETE /api/v1/namespaces/NAMESPACE/serviceaccounts/", 409, usual()),
        // Their names hold the UID of the session.
        late("no-volume", json!({"source": nfs()}), Deleted, "DELETE /api/v1/persistentvolumes/", 404, with_volume()),
        late(
            "no-claim",
            json!({"source": nfs(), "deletionPolicy": "Drain"}),
            Deleted,
            "DELETE /api/v1/namespaces/NAMESPACE/persistentvolumeclaims/",
            404,
            vec![HELD, UNOWNED_POD, ACCOUNT, BINDING, UNOWNED_CLAIM, VOLUME],
        ),
    ]
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn leader_that_was_paused_before_any_other_write_changes_nothing_when_it_wakes() -> Result<()> {
    for late in late_writes() {
        Box::pin(arrive_late(&late)).await.with_context(|| late.name)?;
    }
    Ok(())
}

async fn arrive_late(late: &Late) -> Result<()> {
    play(&format!("paused-{}", late.name), async |stage, freezer, first, second| {
        let at = late.at.replace("NAMESPACE", &stage.namespace);
        cause(late, stage, freezer, &at).await?;
        take_over(stage, freezer, second).await?;
        if matches!(late.cause, Cause::Deleted | Cause::Expired) {
            stage.until("nothing is left", async || Ok(objects(stage).await?.is_empty())).await?;
            stage.session("truck-7", late.spec.clone()).await?;
        }
        until_scheduling(stage).await?;
        stage.until("all is as it should be", async || Ok(objects(stage).await? == late.objects)).await?;
        stage.until_quiet(SECOND).await?;
        let before = versions(stage).await?;
        wake(stage, freezer, first, late.code).await?;
        ensure!(versions(stage).await? == before, "{before:#?} became {:#?}", versions(stage).await?);
        ensure!(objects(stage).await? == late.objects, "{:#?}", objects(stage).await?);
        Ok(())
    })
    .await
}

/// Brings the first operator to the request that is to be late.
async fn cause(late: &Late, stage: &Stage, freezer: &Freezer, at: &str) -> Result<()> {
    if matches!(late.cause, Cause::Made) {
        freezer.arm(at);
        return stage.session("truck-7", late.spec.clone()).await.map(drop);
    }
    if matches!(late.cause, Cause::Expired) {
        let pod = stage.running_session("truck-7", late.spec.clone()).await?;
        freezer.arm(at);
        return stage.ends(&pod, "Completed", "watch").await;
    }
    stage.session("truck-7", late.spec.clone()).await?;
    until_scheduling(stage).await?;
    freezer.arm(at);
    if matches!(late.cause, Cause::Deleted) {
        return stage.delete::<UploadSession>("truck-7").await;
    }
    stage.change("truck-7", json!({"pod": {"serviceAccountName": "default"}})).await.map(drop)
}

/// Waits until the session's pod waits for a node.
async fn until_scheduling(stage: &Stage) -> Result<()> {
    stage.until_condition("truck-7", "Ready", "False", "Scheduling").await.map(drop)
}

/// Versions of everything that a session has and the cluster's controllers leave alone.
async fn versions(stage: &Stage) -> Result<Vec<(Option<String>, Option<String>)>> {
    fn version(object: &impl ResourceExt) -> (Option<String>, Option<String>) {
        (object.uid(), object.resource_version())
    }
    let mut all: Vec<_> = stage.list::<UploadSession>().await?.iter().map(version).collect();
    all.extend(stage.list::<Pod>().await?.iter().map(version));
    all.extend(stage.list::<ServiceAccount>().await?.iter().map(version));
    all.extend(stage.list::<RoleBinding>().await?.iter().map(version));
    Ok(all)
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn leader_that_ends_hands_over_at_once_and_running_sessions_do_not_notice() -> Result<()> {
    play("hand-over", async |stage, _, first, second| {
        let pod = stage.running_session("truck-7", json!({})).await?;
        stage
            .until("the second operator stands by", async || {
                Ok(second.leadership.role() == blobferry_operator::leader::Role::Standby)
            })
            .await?;
        let version = stage.api::<UploadSession>().get("truck-7").await?.resource_version();
        let told = Instant::now();
        first.end()?;
        if holder(stage).await?.as_deref() == Some("operator-a") {
            ensure!(told.elapsed() >= RELEASE_WITHIN, "the lease was not given back");
            bail!(TooSlow);
        }
        stage.until("the second operator leads", async || Ok(second.leads())).await?;
        // The new leader works, and has nothing to do for the session that runs.
        stage.session("truck-8", json!({"sessionName": "other"})).await?;
        stage.until_pod("truck-8", None).await?;
        ensure!(stage.until_pod("truck-7", None).await?.uid() == pod.uid());
        ensure!(stage.api::<UploadSession>().get("truck-7").await?.resource_version() == version);
        Ok(())
    })
    .await
}
