//! Sessions that stand still and go on, on a real node: suspended, started again, and waiting for a folder that somebody else has.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use blobferry_crds::{Phase, UploadSession, conditions};
use blobferry_testbed::{
    Delivery, Fingerprint, Stage, figures, scenario,
    stage::{blob_folder, is_sending},
    wait,
};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::time::Instant;

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_mins(5);

/// Files are taken soon; with a limit of 1 MiB a second they are seen on their way.
fn quick(change: Value) -> Value {
    let mut spec =
        json!({"watch": {"pollInterval": "200ms", "minFileAge": "1s"}, "transfer": {"singlePutSize": "1Mi", "blockSize": "1Mi"}});
    if let (Some(spec), Value::Object(change)) = (spec.as_object_mut(), change) {
        spec.extend(change);
    }
    spec
}

/// Waits until the session's condition has this status and reason.
async fn says(stage: &Stage, session: &str, type_: &str, status: &str, reason: &str) -> Result<UploadSession> {
    let what = format!("has {type_}={status} {reason}");
    stage
        .await_session(session, SOON, &what, |session| {
            let mut conditions = session.status.iter().flat_map(|status| &status.conditions);
            conditions.any(|it| it.type_ == type_ && it.status == status && it.reason == reason)
        })
        .await
}

fn phase(session: &UploadSession) -> Option<Phase> {
    session.status.as_ref()?.phase
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn suspended_session_touches_nothing_and_goes_on_in_the_middle_of_its_file() -> Result<()> {
    scenario("suspend", async |stage| {
        let slowly = json!({"transfer": {"singlePutSize": "1Mi", "blockSize": "1Mi", "bandwidthLimit": "1Mi"}});
        stage.apply_session("s", quick(slowly.clone())).await?;
        let mut delivered = vec![stage.deliver("s", "large.dat", 200 * MIB)?];
        let begun = |session: &UploadSession| {
            let activity = session.status.as_ref().and_then(|status| status.activity.as_ref());
            activity.is_some_and(|activity| activity.active_files.iter().any(|file| file.bytes_sent > 2 * MIB))
        };
        stage.await_session("s", SOON, "sends a file", begun).await?;

        let mut suspended = quick(slowly);
        suspended["suspend"] = true.into();
        stage.apply_session("s", suspended).await?;
        wait::until(SOON, "its pod is gone", async || Ok(stage.uploader_pod("s").await?.is_none().then_some(()))).await?;
        let session = stage.await_session("s", SOON, "is suspended", |it| phase(it) == Some(Phase::Suspended)).await?;
        delivered.push(stage.deliver("s", "meanwhile.dat", 4096)?);
        tokio::time::sleep(Duration::from_secs(5)).await;
        ensure!(stage.incoming("s")?.join("meanwhile.dat").exists(), "a suspended session took a file");
        ensure!(stage.blobs.list(&blob_folder(&session)?).await?.is_empty(), "nothing was committed");

        stage.apply_session("s", quick(json!({"suspend": false}))).await?;
        let done = stage.await_uploaded("s", 2, SOON).await?;
        stage.compare("s", &delivered).await?;
        stage.ensure_each_committed_once("s", &delivered).await?;
        let progress = done.status.and_then(|status| status.progress).context("no progress")?;
        ensure!(progress.bytes_resumed >= MIB, "what was sent before was sent again: {progress:#?}");
        Ok(())
    })
    .await
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn completed_session_with_another_run_token_starts_again_and_tries_what_was_set_aside() -> Result<()> {
    scenario("again", async |stage| {
        let spec = |token: &str| {
            let transfer = json!({"singlePutSize": "1Mi", "blockSize": "1Mi", "memoryLimit": "64Mi", "maxAttempts": 1});
            quick(json!({"completion": {"idleTimeout": "10s"}, "runToken": token, "transfer": transfer}))
        };
        stage.apply_session("s", spec("one")).await?;
        // A blob has 50,000 blocks, and one of these must fit into the memory.
        let hole = stage.incoming("s")?.join("hole.dat");
        fs::File::create(&hole)?.set_len(8 << 40)?;
        let mut delivered = vec![stage.deliver("s", "first.dat", 4096)?];
        let session = says(stage, "s", conditions::COMPLETE, "True", "CompletedWithLeftovers").await?;
        ensure!(failed(&session)? == 1, "{} files are set aside", failed(&session)?);
        ensure!(stage.uploader_pod("s").await?.is_some(), "its pod stays for its log");
        stage.compare("s", &delivered).await?;

        fs::write(set_aside(stage, &session)?, "mended")?;
        delivered.push(Delivery { name: "hole.dat".into(), fingerprint: Fingerprint::of(b"mended") });
        delivered.push(stage.deliver("s", "more.dat", 4096)?);
        stage.apply_session("s", spec("two")).await?;
        stage.await_session("s", SOON, "runs again", |session| phase(session) == Some(Phase::Running)).await?;
        let session = says(stage, "s", conditions::COMPLETE, "True", "Completed").await?;
        ensure!(failed(&session)? == 0, "{} files are set aside", failed(&session)?);
        stage.compare("s", &delivered).await
    })
    .await
}

fn failed(session: &UploadSession) -> Result<u64> {
    let progress = session.status.as_ref().and_then(|status| status.progress.as_ref());
    Ok(progress.context("no progress")?.files_failed)
}

/// The only file that the session has set aside.
fn set_aside(stage: &Stage, session: &UploadSession) -> Result<PathBuf> {
    let date = session.status.as_ref().and_then(|status| status.date_prefix.as_ref()).context("no date")?;
    let mut found = Vec::new();
    for entry in fs::read_dir(stage.share.join(".processing").join(date).join("s"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "failed") {
            found.push(path);
        }
    }
    ensure!(found.len() == 1, "set aside are {found:?}");
    found.pop().context("none is set aside")
}

/// Another volume of the stage's share, and a claim of it: the API does not tell that both lead to the same folders.
async fn make_second_claim(stage: &Stage) -> Result<String> {
    let name = format!("{}-2", stage.namespace);
    let params = PatchParams::apply("test").force();
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": {
        "accessModes": ["ReadWriteMany"],
        "capacity": {"storage": "1Gi"},
        "claimRef": {"namespace": stage.namespace, "name": "second"},
        "hostPath": {"path": stage.share, "type": "Directory"},
        "persistentVolumeReclaimPolicy": "Retain",
        "storageClassName": "",
    }});
    Api::<PersistentVolume>::all(stage.client()).patch(&name, &params, &Patch::Apply(&volume)).await?;
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "second"}, "spec": {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": "1Gi"}},
        "storageClassName": "",
        "volumeName": name,
    }});
    stage.api::<PersistentVolumeClaim>().patch("second", &params, &Patch::Apply(&claim)).await?;
    Ok(name)
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn session_on_folders_that_another_drains_through_another_volume_waits_and_starts_by_itself() -> Result<()> {
    scenario("taken", async |stage| {
        let volume = make_second_claim(stage).await?;
        let outcome = takes_turns(stage).await;
        Api::<PersistentVolume>::all(stage.client()).delete(&volume, &DeleteParams::background()).await?;
        outcome
    })
    .await
}

async fn takes_turns(stage: &Stage) -> Result<()> {
    stage.apply_session("s", quick(json!({}))).await?;
    let first = stage.deliver("s", "first.dat", 4096)?;
    stage.await_uploaded("s", 1, SOON).await?;
    let second = json!({"sessionName": "s", "source": {"persistentVolumeClaim": {"claimName": "second"}}});
    stage.apply_session("other", quick(second)).await?;
    says(stage, "other", conditions::SOURCE_REACHABLE, "False", "SessionNameInUse").await?;

    let freed = Instant::now();
    stage.sessions().delete("s", &DeleteParams::foreground()).await?;
    let last = stage.deliver("s", "last.dat", 4096)?;
    stage.await_uploaded("other", 1, SOON).await?;
    figures::print(&format!(
        "the waiting session had uploaded a file {:.0} s after the other was deleted",
        freed.elapsed().as_secs_f64()
    ));
    stage.compare("other", &[first, last]).await
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn session_that_waits_for_one_deleted_in_the_middle_of_a_file_starts_at_once_and_goes_on_with_the_file() -> Result<()> {
    scenario("heir", async |stage| {
        let limited = |bandwidth: &str| {
            let transfer = json!({"singlePutSize": "1Mi", "blockSize": "1Mi", "bandwidthLimit": bandwidth});
            quick(json!({"sessionName": "s", "deletionPolicy": "Stop", "transfer": transfer}))
        };
        stage.apply_session("s", limited("1Mi")).await?;
        let delivered = [stage.deliver("s", "small.dat", 4096)?, stage.deliver("s", "large.dat", 200 * MIB)?];
        let begun = |session: &UploadSession| {
            let progress = session.status.as_ref().and_then(|status| status.progress.as_ref());
            is_sending(session) && progress.is_some_and(|progress| progress.files_uploaded == 1)
        };
        stage.await_session("s", SOON, "has uploaded the small file and sends the large one", begun).await?;
        stage.apply_session("other", limited("64Mi")).await?;
        says(stage, "other", conditions::READY, "False", "SessionNameInUse").await?;
        ensure!(stage.uploader_pod("other").await?.is_none(), "a pod was made to find that out");

        let deleted = Instant::now();
        stage.sessions().delete("s", &DeleteParams::default()).await?;
        wait::until(SOON, "the other uploader runs", async || stage.run("other").await.map(Some)).await?;
        let took = deleted.elapsed();
        figures::print(&format!("the waiting session's uploader ran {:.0} s after the other was deleted", took.as_secs_f64()));
        let session = stage.await_uploaded("other", 1, SOON).await?;
        stage.compare("other", &delivered).await?;
        stage.ensure_each_committed_once("other", &delivered).await?;
        let progress = session.status.and_then(|status| status.progress).context("no progress")?;
        ensure!(progress.bytes_resumed >= MIB, "what was sent before was sent again: {progress:#?}");
        Ok(())
    })
    .await
}
