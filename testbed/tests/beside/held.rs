//! Why a file is still on the share: each reason is told on a real node, and is gone once somebody has seen to it.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions, Permissions},
    io::Write as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use blobferry_crds::{UploadSession, conditions};
use blobferry_testbed::{Delivery, Fingerprint, Stage, files::OWNER, scenario, stage::blob_folder};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::json;

const SOON: Duration = Duration::from_mins(3);
const GROWTH: Duration = Duration::from_millis(100);
const SOMEBODY: u32 = 1000;

/// Reasons by the name of the file.
fn held(session: &UploadSession) -> BTreeMap<&str, &str> {
    let progress = session.status.as_ref().and_then(|status| status.progress.as_ref());
    progress.iter().flat_map(|progress| &progress.held_back).map(|file| (file.name.as_str(), file.reason.as_str())).collect()
}

fn caught_up(session: &UploadSession) -> Option<&Condition> {
    session.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == conditions::CAUGHT_UP)
}

/// Waits until exactly these files are held back, and whether the session calls itself caught up.
async fn holds(stage: &Stage, status: &str, files: &[(&str, &str)]) -> Result<UploadSession> {
    let files: BTreeMap<_, _> = files.iter().copied().collect();
    let as_told = |session: &UploadSession| held(session) == files && caught_up(session).is_some_and(|it| it.status == status);
    stage.await_session("s", SOON, &format!("has CaughtUp={status} and holds back {files:?}"), as_told).await
}

fn changed(path: &Path) -> Result<Timestamp> {
    let metadata = fs::metadata(path)?;
    Ok(Timestamp::new(metadata.ctime(), i32::try_from(metadata.ctime_nsec())?)?)
}

fn safe_through(session: &UploadSession) -> Option<Timestamp> {
    Some(session.status.as_ref()?.progress.as_ref()?.safe_through.as_ref()?.0)
}

/// A producer that does not come to an end.
async fn grow(path: PathBuf) -> Result<()> {
    loop {
        OpenOptions::new().append(true).open(&path)?.write_all(b"more")?;
        tokio::time::sleep(GROWTH).await;
    }
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn every_reason_why_a_file_is_held_back_is_told_and_is_gone_when_somebody_has_seen_to_it() -> Result<()> {
    scenario("held", async |stage| {
        // A session that may end looks more often at a file that is held back.
        let watch = json!({"pollInterval": "200ms", "minFileAge": "5s"});
        stage
            .apply_session("s", json!({"watch": watch, "completion": {"idleTimeout": "1m"}, "retention": {"interval": "1s"}}))
            .await?;
        let session = holds(stage, "True", &[]).await?;
        let (incoming, folder) = (stage.incoming("s")?, blob_folder(&session)?);

        let occupied = stage.deliver("s", "occupied.dat", 4096)?;
        let first = changed(&incoming.join("occupied.dat"))?;
        stage.blobs.write(&format!("{folder}occupied.dat"), "somebody else's").await?;
        let locked = stage.deliver("s", "locked.dat", 4096)?;
        chown(incoming.join("locked.dat"), Some(SOMEBODY), Some(SOMEBODY))?;
        fs::set_permissions(incoming.join("locked.dat"), Permissions::from_mode(0o000))?;
        let second = changed(&incoming.join("locked.dat"))?;
        let long = "n".repeat(255);
        let named = stage.deliver("s", &long, 4096)?;
        stage.deliver("s", "ignored.part", 4096)?;
        stage.deliver("s", "growing.dat", 4096)?;
        let growing = tokio::spawn(grow(incoming.join("growing.dat")));

        let (locked_out, ignored) = (("locked.dat", "Unreadable"), ("ignored.part", "Ignored"));
        let others = [("occupied.dat", "DestinationOccupied"), (&long, "BadName"), ("growing.dat", "StillGrowing")];
        let session = holds(stage, "False", &[&others[..], &[locked_out, ignored]].concat()).await?;
        ensure!(safe_through(&session) <= Some(first), "{:?} is after {first}", safe_through(&session));

        growing.abort();
        ensure!(growing.await.is_err_and(|end| end.is_cancelled()), "the producer of growing.dat failed");
        let grown = Delivery { name: "growing.dat".into(), fingerprint: Fingerprint::of(&fs::read(incoming.join("growing.dat"))?) };
        fs::rename(incoming.join(&long), incoming.join("renamed.dat"))?;
        let renamed = Delivery { name: "renamed.dat".into(), ..named };
        stage.blobs.delete(&format!("{folder}occupied.dat")).await?;
        let session = holds(stage, "False", &[locked_out, ignored]).await?;
        stage.compare("s", &[occupied.clone(), renamed.clone(), grown.clone()]).await?;
        ensure!(safe_through(&session) <= Some(second), "{:?} is after {second}", safe_through(&session));

        fs::set_permissions(incoming.join("locked.dat"), Permissions::from_mode(0o600))?;
        chown(incoming.join("locked.dat"), Some(OWNER), Some(OWNER))?;
        stage.await_uploaded("s", 4, SOON).await?;
        let session = holds(stage, "True", &[ignored]).await?;
        ensure!(safe_through(&session) > Some(second), "{:?} is not after {second}", safe_through(&session));
        let words = &caught_up(&session).context("no condition")?.message;
        ensure!(words.contains("One name") && incoming.join("ignored.part").exists(), "ignored.part is gone, or not told: {words}");
        let delivered = [occupied, renamed, grown, locked];
        stage.compare("s", &delivered).await?;
        // Somebody else committed the first one, too.
        stage.ensure_each_committed_once("s", &delivered[1..]).await
    })
    .await
}
