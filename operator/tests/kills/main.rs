//! The operator is stopped at every one of its writes, right before it and right after it, and another one takes over: in the end there
//! is exactly what should be, and nothing else.
//!
//! Each life of a session is played once to count the writes of an operator that lives, and then twice for every write. `make kill-operator`
//! does all of it, which takes half an hour; `testbed/api-tests` one moment of each life.

#[path = "../api_server/around.rs"]
#[allow(dead_code, reason = "the other tests use the rest of it")]
mod around;
#[path = "../api_server/calls.rs"]
#[allow(dead_code, reason = "the other tests use the rest of it")]
mod calls;
#[path = "../api_server/chart.rs"]
#[allow(dead_code, reason = "the other tests use the rest of it")]
mod chart;
mod mortal;
#[path = "../api_server/stage.rs"]
#[allow(dead_code, reason = "the other tests use the rest of it")]
mod stage;

use std::{
    env,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use blobferry_crds::{Phase, UploadSession, names};
use k8s_openapi::api::{
    core::v1::{Namespace, PersistentVolume, PersistentVolumeClaim, Pod, ServiceAccount},
    rbac::v1::RoleBinding,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use serde_json::{Value, json};

use mortal::{MORTAL, Moment, Mortal};
use stage::{Stage, all_well};

/// Moments of each life that are tried unless all are asked for: one after three quarters, when its fate has come.
const SAMPLE: usize = 1;
/// Longer than the operator lets pass between two looks at what settles.
const MOMENT: Duration = Duration::from_millis(1200);
/// What a mutant keeps from coming is waited for in vain.
const PATIENCE: Duration = Duration::from_mins(3);

/// What happens to a session after its uploader runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Nothing.
    Runs,
    /// It gets another pod.
    Replaced,
    /// It is suspended, and goes on.
    Suspended,
    /// Its deletion policy changes, and with it the owner of everything.
    Handed,
    /// It may not run for a while.
    Refused,
    /// It ends by itself, and is to run again.
    RunsAgain,
    /// It ends by itself, and its object after it.
    Completes,
    /// It is deleted.
    Deleted,
    /// It is deleted with `--cascade=foreground`.
    DeletedInForeground,
    /// It is deleted with its namespace.
    Swept,
    /// It is deleted, and its last uploader does not come to an end.
    TimesOut,
    /// It is deleted while another session waits for its folders.
    Followed,
}

impl Fate {
    /// Whether nothing is left in the end.
    fn is_gone(self) -> bool {
        matches!(self, Self::Completes | Self::Deleted | Self::DeletedInForeground | Self::Swept | Self::TimesOut)
    }

    /// The session that runs in the end, if one does.
    fn last(self) -> &'static str {
        if self == Self::Followed { FOLLOWER } else { SESSION }
    }
}

const SESSION: &str = "s";
/// Another session, with the same folders.
const FOLLOWER: &str = "t";

/// A life of a session.
struct Life {
    name: &'static str,
    spec: Value,
    fate: Fate,
}

fn lives() -> Vec<Life> {
    let nfs = json!({"nfs": {"server": "nas.example.com", "path": "/srv/drop/cameras"}});
    let life = |name, spec, fate| Life { name, spec, fate };
    vec![
        life("create", json!({}), Fate::Runs),
        life("create-drain-nfs", json!({"deletionPolicy": "Drain", "source": nfs}), Fate::Runs),
        life("replace", json!({}), Fate::Replaced),
        life("replace-drain", json!({"deletionPolicy": "Drain"}), Fate::Replaced),
        life("suspend", json!({}), Fate::Suspended),
        life("refuse", json!({}), Fate::Refused),
        life("again", json!({}), Fate::RunsAgain),
        life("stop-to-drain", json!({"source": nfs}), Fate::Handed),
        life("complete-drain", json!({"deletionPolicy": "Drain", "ttlSecondsAfterFinished": 0}), Fate::Completes),
        life("delete-stop", json!({"source": nfs}), Fate::Deleted),
        life("delete-drain", json!({"deletionPolicy": "Drain"}), Fate::Deleted),
        life("delete-drain-nfs", json!({"deletionPolicy": "Drain", "source": nfs}), Fate::Deleted),
        life("delete-foreground", json!({"deletionPolicy": "Drain", "source": nfs}), Fate::DeletedInForeground),
        life("delete-namespace", json!({"deletionPolicy": "Drain", "source": nfs}), Fate::Swept),
        life("delete-in-vain", json!({"deletionPolicy": "Drain", "drainTimeout": "3s"}), Fate::TimesOut),
        life("followed", json!({"sessionName": "shared"}), Fate::Followed),
        life("followed-drain", json!({"sessionName": "shared", "deletionPolicy": "Drain"}), Fate::Followed),
        life("delete-release", json!({"deletionPolicy": "Release"}), Fate::Deleted),
        life("delete-release-nfs", json!({"deletionPolicy": "Release", "source": nfs}), Fate::Deleted),
    ]
}

#[test]
fn every_mutant_still_applies() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../testbed/operator-mutants");
    let status = std::process::Command::new(script).arg("--check").status().unwrap();
    assert!(status.success(), "{script} --check");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn operator_stopped_at_any_write_leaves_exactly_what_should_be() -> Result<()> {
    let all = env::var_os("BLOBFERRY_ALL_KILLS").is_some();
    let only = env::var("BLOBFERRY_KILLS_OF").ok();
    let (mut total, mut died) = (0, 0);
    for life in lives().into_iter().filter(|life| only.as_deref().is_none_or(|only| only == life.name)) {
        let begun = Instant::now();
        let (writes, _) = Box::pin(play(&life, Moment::Never)).await?;
        let moments: Vec<Moment> = (1..=writes).flat_map(|number| [Moment::Before(number), Moment::After(number)]).collect();
        let step = if all { 1 } else { moments.len().div_ceil(SAMPLE).max(1) };
        let chosen: Vec<Moment> = moments.iter().copied().skip(3 * step / 4).step_by(step).collect();
        let mut reached = 0;
        for moment in &chosen {
            let played = Box::pin(play(&life, *moment)).await;
            reached += usize::from(played.with_context(|| format!("{}: stopped {moment:?}", life.name))?.1);
        }
        (total, died) = (total + chosen.len(), died + reached);
        let seconds = begun.elapsed().as_secs();
        report(&format!("{:17} {writes:3} writes, reached {reached:3} of {:3} moments, {seconds:4} s", life.name, chosen.len()));
    }
    report(&format!("stopped {died} times, every time exactly what should be was there in the end"));
    // What is written together at one time is written one by one at another, so the last moments may not come.
    ensure!(10 * died >= 9 * total, "only {died} of {total} moments were reached");
    Ok(())
}

#[allow(clippy::print_stdout, reason = "the counts are what is to be shown")]
fn report(line: &str) {
    println!("{line}");
}

/// Plays `life` with an operator that dies at `moment` and another one after it; returns the writes of the first, and whether it died.
async fn play(life: &Life, moment: Moment) -> Result<(usize, bool)> {
    let stage = Stage { patience: PATIENCE, ..Stage::bare(&format!("kill-{}", life.name)).await? };
    let first = Mortal::start(&stage.namespace, moment).await?;
    let successor = async {
        first.dies().await;
        Mortal::start(&stage.namespace, Moment::Never).await
    };
    let story = async {
        tell(life, &stage).await?;
        until_as_expected(life, &stage).await
    };
    let mut successor = std::pin::pin!(successor);
    let mut story = std::pin::pin!(story);
    let second = tokio::select! {
        told = &mut story => {
            told?;
            None
        }
        second = &mut successor => {
            let second = second?;
            story.await?;
            Some(second)
        }
    };
    let played = (first.writes(), second.is_some());
    clear(&stage).await?;
    Ok(played)
}

/// What people, the kubelet and the uploader do. Nothing here waits for the operator but by looking at what it made.
async fn tell(life: &Life, stage: &Stage) -> Result<()> {
    stage.session(SESSION, life.spec.clone()).await?;
    let pod = runs(stage, SESSION, None).await?;
    match life.fate {
        Fate::Runs => Ok(()),
        Fate::Replaced => {
            stage.change(SESSION, json!({"transfer": {"queueSize": 8}})).await?;
            runs(stage, SESSION, pod.uid().as_deref()).await.map(drop)
        }
        Fate::Suspended => {
            stage.change(SESSION, json!({"suspend": true})).await?;
            stage.until("no pod is there", async || Ok(stage.list::<Pod>().await?.is_empty())).await?;
            stage.change(SESSION, json!({"suspend": false})).await?;
            runs(stage, SESSION, None).await.map(drop)
        }
        Fate::Handed => {
            stage.change(SESSION, json!({"deletionPolicy": "Drain"})).await?;
            runs(stage, SESSION, pod.uid().as_deref()).await.map(drop)
        }
        Fate::Refused => {
            stage.change(SESSION, json!({"pod": {"image": "somebody/elses:1"}})).await?;
            stage.until_condition(SESSION, "Stalled", "True", "ImageNotAllowed").await?;
            stage.until("no pod is there", async || Ok(stage.list::<Pod>().await?.is_empty())).await?;
            stage.change(SESSION, json!({"pod": {"image": null}})).await?;
            runs(stage, SESSION, None).await.map(drop)
        }
        Fate::RunsAgain => {
            stage.ends(&pod, "Completed", "watch").await?;
            stage.until_condition(SESSION, "Complete", "True", "Completed").await?;
            stage.change(SESSION, json!({"runToken": "again"})).await?;
            runs(stage, SESSION, pod.uid().as_deref()).await.map(drop)
        }
        Fate::Completes => stage.ends(&pod, "Completed", "watch").await,
        Fate::Deleted => {
            stage.delete::<UploadSession>(SESSION).await?;
            last_uploaders_do_their_work(stage).await
        }
        Fate::DeletedInForeground => {
            stage.api::<UploadSession>().delete(SESSION, &DeleteParams::foreground()).await?;
            last_uploaders_do_their_work(stage).await
        }
        Fate::Swept => {
            Api::<Namespace>::all(stage.client.clone()).delete(&stage.namespace, &DeleteParams::background()).await?;
            is_gone(stage).await
        }
        Fate::TimesOut => {
            stage.delete::<UploadSession>(SESSION).await?;
            is_gone(stage).await
        }
        Fate::Followed => {
            stage.session(FOLLOWER, life.spec.clone()).await?;
            stage.until_condition(FOLLOWER, "Ready", "False", "SessionNameInUse").await?;
            ensure!(stage.list::<Pod>().await?.len() == 1, "two work in the same folders");
            stage.delete::<UploadSession>(SESSION).await?;
            last_uploaders_do_their_work(stage).await?;
            runs(stage, FOLLOWER, None).await.map(drop)
        }
    }
}

/// The kubelet starts the session's next pod, and the uploader in it reports.
async fn runs(stage: &Stage, session: &str, but: Option<&str>) -> Result<Pod> {
    let pod = stage.until_pod(session, but).await?;
    stage.run_pod(&pod).await?;
    stage.until("the operator names the pod", async || Ok(stage.status(session).await?.pod_uid == pod.uid())).await?;
    stage.report(session, &all_well()).await?;
    stage.until_condition(session, "Ready", "True", "Running").await?;
    Ok(pod)
}

/// Waits until the session is gone, for which nobody has to do anything.
async fn is_gone(stage: &Stage) -> Result<()> {
    stage.until("the session is gone", async || Ok(stage.api::<UploadSession>().get_opt(SESSION).await?.is_none())).await
}

/// Whatever pod of the session drains or releases does so, until the session is gone: an operator that took over may ask once more.
async fn last_uploaders_do_their_work(stage: &Stage) -> Result<()> {
    stage
        .until("the session is gone", async || {
            let pod = stage.api::<Pod>().get_opt("s-uploader").await?;
            if let Some(pod) = pod {
                // It may be gone by now.
                let _ = stage.ends_if_last(&pod).await;
            }
            Ok(stage.api::<UploadSession>().get_opt(SESSION).await?.is_none())
        })
        .await
}

/// Everything that the operator may have made, in words, sorted.
async fn objects(stage: &Stage) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for session in stage.list::<UploadSession>().await? {
        all.push(format!(
            "session {} {:?} {:?}",
            session.name_any(),
            session.finalizers(),
            session.metadata.deletion_timestamp.is_some()
        ));
    }
    for pod in stage.list::<Pod>().await? {
        all.push(format!("pod {} owned {}", pod.name_any(), !pod.owner_references().is_empty()));
    }
    for claim in stage.list::<PersistentVolumeClaim>().await? {
        all.push(format!("claim owned {}", !claim.owner_references().is_empty()));
    }
    let ours = ListParams::default().labels(&format!("{}={}", names::SESSION_NAMESPACE_LABEL, stage.namespace));
    let volumes: Api<PersistentVolume> = Api::all(stage.client.clone());
    all.extend(volumes.list(&ours).await?.items.iter().map(|_| "volume".to_owned()));
    let accounts = stage.list::<ServiceAccount>().await?;
    all.extend(accounts.iter().filter(|it| it.name_any() != "default").map(|it| format!("account {}", it.name_any())));
    all.extend(stage.list::<RoleBinding>().await?.iter().map(|it| format!("binding {}", it.name_any())));
    all.sort();
    Ok(all)
}

fn expected(life: &Life) -> Vec<String> {
    if life.fate.is_gone() {
        return Vec::new();
    }
    let drains = life.spec.get("deletionPolicy").is_some() || life.fate == Fate::Handed;
    let finalizers = if drains { format!("[\"{}\"]", names::FINALIZER) } else { "[]".to_owned() };
    let mut all = vec![
        format!("account {}", names::UPLOADER_ACCOUNT),
        format!("binding {}", names::UPLOADER_ACCOUNT),
        format!("pod {}-uploader owned {}", life.fate.last(), !drains),
        format!("session {} {finalizers} false", life.fate.last()),
    ];
    if life.spec["source"].get("nfs").is_some() {
        all.extend([format!("claim owned {}", !drains), "volume".to_owned()]);
    }
    all.sort();
    all
}

/// Waits for what should be, and sees that it stays so.
async fn until_as_expected(life: &Life, stage: &Stage) -> Result<()> {
    let expected = expected(life);
    let mut found = Vec::new();
    let waited = stage
        .until("everything is as it should be", async || {
            found = objects(stage).await?;
            Ok(found == expected)
        })
        .await;
    ensure!(waited.is_ok(), "expected {expected:#?}, found {found:#?}");
    stage.until_quiet_for(MORTAL, MOMENT).await?;
    let found = objects(stage).await?;
    ensure!(found == expected, "it did not stay so: expected {expected:#?}, found {found:#?}");
    if life.fate.is_gone() {
        return Ok(());
    }
    let session: UploadSession = stage.api().get(life.fate.last()).await?;
    is_told_to_be_well(&session)?;
    let pod: Pod = stage.api().get(&format!("{}-uploader", life.fate.last())).await?;
    ensure!(session.status.as_ref().and_then(|status| status.pod_uid.clone()) == pod.uid(), "the status names another pod");
    ensure!(session.annotations().contains_key(names::SESSION_NAME_ANNOTATION), "the session has no annotation");
    Ok(())
}

/// The status says what is true of an uploader at work, and nothing of what was before.
fn is_told_to_be_well(session: &UploadSession) -> Result<()> {
    let status = session.status.as_ref().context("there is no status")?;
    let mut told: Vec<_> = status.conditions.iter().map(|it| format!("{}={}/{}", it.type_, it.status, it.reason)).collect();
    told.sort();
    let well =
        ["CaughtUp=True/NothingWaits", "DestinationReachable=True/Works", "Ready=True/Running", "SourceReachable=True/Works"];
    let is_current = status.conditions.iter().all(|it| it.observed_generation == session.metadata.generation);
    ensure!(told == well && status.phase == Some(Phase::Running), "the status tells {:?} {told:?}", status.phase);
    ensure!(is_current && status.observed_generation == session.metadata.generation, "the status is not current: {status:?}");
    Ok(())
}

/// Removes what a life left, so that the next one begins with nothing. An operator whose moment has not come may die in the middle of
/// this, so another one helps.
async fn clear(stage: &Stage) -> Result<()> {
    let _janitor = Mortal::start(&stage.namespace, Moment::Never).await?;
    for session in stage.list::<UploadSession>().await? {
        stage.change(&session.name_any(), json!({"deletionPolicy": "Stop"})).await?;
        stage.api::<UploadSession>().delete(&session.name_any(), &DeleteParams::background()).await?;
    }
    stage.until("nothing is left", async || Ok(objects(stage).await?.is_empty())).await?;
    stage.clone().end().await
}
