//! Everything that can be wrong with a session, as one table: what is played, what a person reads, and that it is gone with its cause.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use blobferry_crds::{Check, Phase, UploadSession};
use futures::future::try_join_all;
use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    core::v1::{ConfigMap, Event, LimitRange, Pod},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    first::FIRST,
    stage::{Stage, all_well, running},
};

/// What is wrong.
enum Play {
    /// The pod's status is this, and an event of the pod says that.
    Pod(Value, Option<(&'static str, &'static str)>),
    /// The uploader runs and finds this of one end.
    Check(&'static str, &'static str),
    /// The pod has ended like this; another one follows.
    Ended(&'static str, &'static str),
}

/// One row: a name, what is played, and what is read.
struct Row {
    name: &'static str,
    play: Play,
    reason: &'static str,
    /// Part of the message.
    words: &'static str,
    /// What a person is told to do, in words that nobody but the operator says.
    remedy: &'static str,
    /// The reason of `SourceReachable=False`, if the share is to blame.
    source: bool,
    /// Whether a person has to change something.
    stalled: bool,
}

fn row(name: &'static str, play: Play, reason: &'static str, words: &'static str) -> Row {
    Row { name, play, reason, words, remedy: "", source: false, stalled: false }
}

impl Row {
    fn remedied_by(self, remedy: &'static str) -> Self {
        Self { remedy, ..self }
    }
}

fn unscheduled(message: &str) -> Play {
    let scheduled = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message});
    Play::Pod(json!({"phase": "Pending", "conditions": [scheduled]}), None)
}

/// The node has been making the container for a while, and says why it is not done.
fn creating(reason: &'static str, words: &'static str) -> Play {
    Play::Pod(scheduled(), Some((reason, words)))
}

/// The status of a pod whose container has been made for a while.
pub(crate) fn scheduled() -> Value {
    let since = "2026-01-01T00:00:00Z";
    json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": since}]})
}

/// The status of a pod with whose container the kubelet waits.
pub(crate) fn waiting(reason: &str, message: &str) -> Value {
    let mut status = running(&json!({"waiting": {"reason": reason, "message": message}}));
    status["containerStatuses"][0]["ready"] = json!(false);
    status["conditions"][1]["status"] = json!("False");
    status
}

fn crashed(exit: &Value) -> Play {
    Play::Pod(crashing(exit), None)
}

/// The status of a pod whose container ended like this again and again.
pub(crate) fn crashing(exit: &Value) -> Value {
    let mut status = waiting("CrashLoopBackOff", "back-off 10s restarting failed container");
    status["containerStatuses"][0]["lastState"] = json!({"terminated": exit});
    status
}

fn table() -> Vec<Row> {
    let blamed = |row: Row| Row { source: true, ..row };
    let own_words = r#"{"result":"Failed","sessionUID":"UID","mode":"watch","reason":"WrongFlags","message":"No such flag."}"#;
    vec![
        row("image", Play::Pod(waiting("ErrImagePull", "not found"), None), "ImagePullFailed", "image.uploader")
            .remedied_by("build and import it on the node"),
        row("image-again", Play::Pod(waiting("ImagePullBackOff", "Back-off pulling"), None), "ImagePullFailed", "Back-off pulling")
            .remedied_by("import it on the node"),
        row("image-name", Play::Pod(waiting("InvalidImageName", "bad reference"), None), "ImagePullFailed", "bad reference")
            .remedied_by("correct image.uploader of the chart"),
        row("config", Play::Pod(waiting("CreateContainerConfigError", "no user"), None), "CreateContainerConfigError", "no user")
            .remedied_by("make or correct what it names"),
        row("full", unscheduled("0/1 nodes are available: 1 Insufficient memory."), "Unschedulable", "Insufficient memory")
            .remedied_by("lower spec.pod.resources"),
        blamed(
            row(
                "no-claim",
                unscheduled("0/1 nodes are available: persistentvolumeclaim \"share\" not found."),
                "PersistentVolumeClaimNotFound",
                "PersistentVolumeClaim share does not exist in namespace matrix-",
            )
            .remedied_by("create it; the session starts by itself"),
        ),
        blamed(
            row(
                "unbound",
                unscheduled("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."),
                "PersistentVolumeClaimPending",
                "not bound",
            )
            .remedied_by("Make a volume of the capacity"),
        ),
        blamed(
            row(
                "claim-ending",
                unscheduled("0/1 nodes are available: persistentvolumeclaim \"share\" is being deleted."),
                "PersistentVolumeClaimTerminating",
                "PersistentVolumeClaim share is being deleted",
            )
            .remedied_by("create it again"),
        ),
        blamed(
            row("mount", creating("FailedMount", "mount.nfs: access denied by server"), "FailedMount", "access denied")
                .remedied_by("look for a wrong server or path"),
        ),
        row("sandbox", creating("FailedCreatePodSandBox", "no network"), "FailedCreatePodSandBox", "no network")
            .remedied_by("look at the node's container runtime"),
        row("memory", crashed(&json!({"exitCode": 137, "reason": "OOMKilled"})), "OOMKilled", "memoryLimit")
            .remedied_by("raise spec.pod.resources.limits.memory"),
        row("crash", crashed(&json!({"exitCode": 1, "reason": "Error", "message": "it broke"})), "UploaderExited", "it broke")
            .remedied_by("its log may say more"),
        row("probe", crashed(&json!({"exitCode": 143, "reason": "Error"})), "UploaderUnhealthy", "health check")
            .remedied_by("usually the file server"),
        Row {
            stalled: true,
            ..row("words", crashed(&json!({"exitCode": 2, "message": own_words})), "WrongFlags", "No such flag.")
        },
        blamed(row("denied-share", Play::Check("source", "PermissionDenied"), "PermissionDenied", "It does not work.")),
        row("denied-blobs", Play::Check("destination", "Denied"), "Denied", "It does not work."),
        row("disk", Play::Ended("Evicted", "The node was low on resource: ephemeral-storage."), "Evicted", "ephemeral-storage")
            .remedied_by("lower spec.staging.sizeLimit"),
        row("ram", Play::Ended("Evicted", "The node was low on resource: memory."), "Evicted", "low on resource: memory")
            .remedied_by("raise spec.pod.resources.requests.memory"),
        row("shutdown", Play::Ended("Terminated", "Pod was terminated in response to node shutdown."), "Terminated", "shutdown")
            .remedied_by("a new one follows by itself"),
        row("admission", Play::Ended("OutOfcpu", "Node didn't have enough resource: cpu"), "OutOfcpu", "resource: cpu")
            .remedied_by("a new one follows by itself"),
    ]
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn whatever_is_wrong_is_said_with_its_remedy_and_gone_when_it_is_mended() -> Result<()> {
    let stage = Stage::new("matrix").await?;
    let table = table();
    try_join_all(table.iter().map(async |row| play(&stage, row).await.with_context(|| format!("row {}", row.name)))).await?;
    stage.until_quiet(FIRST).await?;
    let ended = table.iter().filter(|row| matches!(row.play, Play::Ended(..))).count();
    let made = stage.attempts(FIRST).into_iter().filter(|answer| *answer == Some(201)).count();
    ensure!(made == table.len() + ended, "one pod for each session, and one more where it ended: {made}");
    ensure!(stage.list::<Pod>().await?.len() == table.len());
    stage.end().await
}

async fn play(stage: &Stage, row: &Row) -> Result<()> {
    let session = stage.session(row.name, json!({"sessionName": row.name})).await?;
    let pod = stage.until_pod(row.name, None).await?;
    match &row.play {
        Play::Pod(status, event) => {
            if let Some((reason, words)) = event {
                warn(stage, &pod, reason, words).await?;
            }
            let status = status.to_string().replace("\\\"UID\\\"", &format!("\\\"{}\\\"", session.uid().unwrap_or_default()));
            stage.set_pod_status(&pod, serde_json::from_str(&status)?).await?;
            is_told(stage, row).await?;
        }
        Play::Check(end, reason) => {
            stage.run_pod(&pod).await?;
            let mut progress = all_well();
            let check = progress.checks.iter_mut().find(|check| check.type_ == *end).context("there is such a check")?;
            *check = Check { type_: (*end).into(), ok: false, reason: (*reason).into(), message: "It does not work.".into() };
            stage.report(row.name, &progress).await?;
            is_told(stage, row).await?;
        }
        Play::Ended(reason, words) => {
            stage.set_pod_status(&pod, json!({"phase": "Failed", "reason": reason, "message": words})).await?;
            stage.until_pod(row.name, pod.uid().as_deref()).await?;
            event_tells(stage, row).await?;
        }
    }
    heals(stage, row).await
}

/// The kubelet's warning about a pod.
pub(crate) async fn warn(stage: &Stage, pod: &Pod, reason: &str, words: &str) -> Result<()> {
    let about = json!({"kind": "Pod", "namespace": stage.namespace, "name": pod.name_any(), "uid": pod.uid()});
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    stage
        .create::<Event>(json!({
            "metadata": {"generateName": "kubelet-"}, "involvedObject": about, "type": "Warning", "reason": reason, "message": words,
            "lastTimestamp": now,
        }))
        .await?;
    Ok(())
}

/// The conditions say what is wrong, and whether anybody has to do something.
async fn is_told(stage: &Stage, row: &Row) -> Result<()> {
    let message = stage.until_condition(row.name, "Ready", "False", row.reason).await?;
    ensure!(message.contains(row.words) && message.contains(row.remedy), "{message}");
    let abnormal = if row.stalled { "Stalled" } else { "Reconciling" };
    stage.until_condition(row.name, abnormal, "True", row.reason).await?;
    if row.source {
        stage.until_condition(row.name, "SourceReachable", "False", row.reason).await?;
        stage.until_condition(row.name, "CaughtUp", "Unknown", row.reason).await?;
    }
    let session: UploadSession = stage.api().get(row.name).await?;
    let failed = session.status.as_ref().is_some_and(|status| status.phase == Some(Phase::Failed));
    ensure!(failed == row.stalled, "{:?}", session.status);
    follows_kstatus(&session)
}

async fn event_tells(stage: &Stage, row: &Row) -> Result<()> {
    stage
        .until("people are told why the pod was lost", async || {
            let events = stage.list::<Event>().await?.into_iter();
            let mut notes = events
                .filter(|event| event.involved_object.name.as_deref() == Some(row.name))
                .filter(|event| event.reason.as_deref() == Some("UploaderLost"))
                .filter_map(|event| event.message);
            Ok(notes.any(|note| [row.reason, row.words, row.remedy].iter().all(|part| note.contains(part))))
        })
        .await
}

/// The uploader runs and reports: nothing of the trouble is left.
async fn heals(stage: &Stage, row: &Row) -> Result<()> {
    let pod = stage.until_pod(row.name, None).await?;
    stage.run_pod(&pod).await?;
    stage.report(row.name, &all_well()).await?;
    stage.until_condition(row.name, "Ready", "True", "Running").await?;
    let session: UploadSession = stage.api().get(row.name).await?;
    let conditions = &session.status.as_ref().context("there is a status")?.conditions;
    let mut found: Vec<_> = conditions.iter().map(|it| (it.type_.as_str(), it.status.as_str())).collect();
    found.sort_unstable();
    let well = [("CaughtUp", "True"), ("DestinationReachable", "True"), ("Ready", "True"), ("SourceReachable", "True")];
    ensure!(found == well, "{conditions:#?}");
    few_events(stage, row).await?;
    follows_kstatus(&session)
}

/// A person is told what happened, and not again and again.
async fn few_events(stage: &Stage, row: &Row) -> Result<()> {
    let events = stage.list::<Event>().await?;
    let of_session = events.iter().filter(|event| event.involved_object.name.as_deref() == Some(row.name));
    let times = |event: &Event| event.series.as_ref().and_then(|series| series.count).or(event.count).unwrap_or(1).max(1);
    let told: i32 = of_session.clone().map(times).sum();
    let reasons: Vec<_> = of_session.filter_map(|event| event.reason.as_deref()).collect();
    ensure!((1..=6).contains(&told) && reasons.contains(&"UploaderCreated"), "told {told} times: {reasons:?}");
    Ok(())
}

/// What `kubectl wait`, `helm --wait` and Argo CD go by: <https://github.com/kubernetes-sigs/cli-utils/tree/master/pkg/kstatus>.
pub(crate) fn follows_kstatus(session: &UploadSession) -> Result<()> {
    let status = session.status.as_ref().context("there is a status")?;
    let is_true = |type_: &str| status.conditions.iter().any(|it| it.type_ == type_ && it.status == "True");
    ensure!(status.observed_generation == session.metadata.generation, "{:?} is not current", status.observed_generation);
    let old = status.conditions.iter().find(|condition| condition.observed_generation != session.metadata.generation);
    ensure!(old.is_none(), "{old:?} is not current");
    match (is_true("Ready"), is_true("Reconciling"), is_true("Stalled")) {
        (true, false, false) | (false, true, false) | (false, false, true) => Ok(()),
        other => bail!("Ready, Reconciling, Stalled are {other:?}"),
    }
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn pod_that_a_limit_range_refuses_is_made_when_the_limit_allows_it() -> Result<()> {
    let stage = Stage::new("limit-range").await?;
    let limit = json!({"type": "Container", "max": {"memory": "100Mi"}});
    stage.create::<LimitRange>(json!({"metadata": {"name": "small"}, "spec": {"limits": [limit]}})).await?;
    stage.session("truck-7", json!({})).await?;
    let message = stage.until_condition("truck-7", "Ready", "False", "PodRefused").await?;
    ensure!(message.contains("maximum memory usage per Container is 100Mi"), "{message}");
    follows_kstatus(&stage.api().get("truck-7").await?)?;
    stage.delete::<LimitRange>("small").await?;
    stage.until_pod("truck-7", None).await?;
    stage.end().await
}

/// Refuses all pods of the namespace, and `ConfigMap` objects, by which it is seen that it does so by now.
async fn refuse_pods(stage: &Stage) -> Result<()> {
    let rules = json!([{"apiGroups": [""], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["pods", "configmaps"]}]);
    let here = json!({"matchLabels": {"kubernetes.io/metadata.name": stage.namespace}});
    let policy: ValidatingAdmissionPolicy = serde_json::from_value(json!({
        "metadata": {"name": stage.namespace},
        "spec": {
            "matchConstraints": {"resourceRules": rules, "namespaceSelector": here},
            "validations": [{"expression": "false", "message": "nothing is made on Fridays"}],
        },
    }))?;
    let binding: ValidatingAdmissionPolicyBinding = serde_json::from_value(json!({
        "metadata": {"name": stage.namespace}, "spec": {"policyName": stage.namespace, "validationActions": ["Deny"]},
    }))?;
    Api::all(stage.client.clone()).create(&PostParams::default(), &policy).await?;
    Api::all(stage.client.clone()).create(&PostParams::default(), &binding).await?;
    let probe: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "probe"}}))?;
    let trial = PostParams { dry_run: true, ..PostParams::default() };
    stage.until("the policy is in force", async || Ok(stage.api().create(&trial, &probe).await.is_err())).await
}

async fn allow_pods(stage: &Stage) -> Result<()> {
    let (name, gone) = (&stage.namespace, DeleteParams::default());
    Api::<ValidatingAdmissionPolicyBinding>::all(stage.client.clone()).delete(name, &gone).await?;
    Api::<ValidatingAdmissionPolicy>::all(stage.client.clone()).delete(name, &gone).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn pod_that_a_policy_refuses_is_tried_rarely_and_made_when_the_policy_is_gone() -> Result<()> {
    let stage = Stage::new("policy").await?;
    refuse_pods(&stage).await?;
    let made = Instant::now();
    stage.session("truck-7", json!({})).await?;
    let message = stage.until_condition("truck-7", "Ready", "False", "PodRefused").await?;
    ensure!(message.contains("nothing is made on Fridays"), "{message}");
    stage.until_condition("truck-7", "Reconciling", "True", "PodRefused").await?;
    follows_kstatus(&stage.api().get("truck-7").await?)?;
    let before = stage.attempts(FIRST).len();
    tokio::time::sleep(Duration::from_secs(10)).await;
    stage.until("it is tried again", async || Ok(stage.attempts(FIRST).len() > before)).await?;
    // After a second, two, four and so on, up to a quarter sooner.
    let (attempts, time) = (stage.attempts(FIRST).len(), made.elapsed());
    ensure!(attempts <= 3 + time.as_secs().max(1).ilog2() as usize, "{attempts} attempts in {time:?}");
    allow_pods(&stage).await?;
    stage.until_pod("truck-7", None).await?;
    stage.end().await
}
