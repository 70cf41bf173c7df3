//! A new image of the uploader over running sessions, on a real node: it comes to a few at a time, and a file in the middle goes
//! on.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use blobferry_crds::{UploadSession, conditions};
use blobferry_testbed::{
    Delivery, Stage, figures,
    release::{CHART, RELEASE, helm},
    scenario,
    stage::is_sending,
    wait,
};
use futures::{StreamExt as _, future::try_join_all};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt as _,
    api::{WatchEvent, WatchParams},
};
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::Instant};

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_mins(3);
const LATER: Duration = Duration::from_mins(10);
/// Long enough for an operator to give the next turn, which takes it three seconds.
const SETTLED: Duration = Duration::from_secs(15);

const REPOSITORY: &str = "localhost/blobferry-uploader";
const TAG: &str = "dev";
const LATER_TAG: &str = "later";
const BUSY: &str = "busy";
const SESSIONS: [&str; 4] = [BUSY, "idle-1", "idle-2", "idle-3"];

/// What was seen of the sessions of a stage since somebody last asked.
#[derive(Debug, Default)]
struct Seen {
    /// UID of the pod of each session, and whether it is ready and not being deleted.
    pods: BTreeMap<String, (String, bool)>,
    /// The most sessions that were without a ready uploader at the same time.
    most_without: usize,
    /// Sessions in the order in which they got another pod.
    replaced: Vec<String>,
    /// Sessions that said that an upgrade waits.
    pending: BTreeSet<String>,
    /// What must never be.
    violation: Option<String>,
}

impl Seen {
    fn pod(&mut self, event: WatchEvent<Pod>) {
        let (pod, is_gone) = match event {
            WatchEvent::Added(pod) | WatchEvent::Modified(pod) => (pod, false),
            WatchEvent::Deleted(pod) => (pod, true),
            WatchEvent::Bookmark(_) | WatchEvent::Error(_) => return,
        };
        let (Some(session), Some(uid)) = (pod.labels().get("blobferry.io/session").cloned(), pod.uid()) else { return };
        let (known, _) = self.pods.entry(session.clone()).or_default();
        if !known.is_empty() && *known != uid {
            self.violation = Some(format!("session {session} has two pods"));
        }
        if is_gone {
            self.replaced.push(session.clone());
            self.pods.insert(session, (String::new(), false));
        } else {
            self.pods.insert(session, (uid, pod.metadata.deletion_timestamp.is_none() && is_ready(&pod)));
        }
        self.most_without = self.most_without.max(self.pods.values().filter(|(_, is_ready)| !is_ready).count());
    }

    fn session(&mut self, event: WatchEvent<UploadSession>) {
        let (WatchEvent::Added(session) | WatchEvent::Modified(session)) = event else { return };
        if ready(&session).is_some_and(|(_, reason)| reason == "UpgradePending") {
            self.pending.insert(session.name_any());
        }
    }
}

fn is_ready(pod: &Pod) -> bool {
    figures::ready_since(pod).is_some()
}

/// Status and reason of the session's readiness.
fn ready(session: &UploadSession) -> Option<(&str, &str)> {
    let mut conditions = session.status.iter().flat_map(|status| &status.conditions);
    conditions.find(|condition| condition.type_ == conditions::READY).map(|it| (it.status.as_str(), it.reason.as_str()))
}

/// Sees every change of the pods and sessions of a stage, in the order of the API server.
struct Watchman {
    seen: Arc<Mutex<Seen>>,
    tasks: [JoinHandle<()>; 2],
}

impl Watchman {
    fn post(stage: &Stage) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let tasks = [
            tokio::spawn(watch(stage.api::<Pod>(), Arc::clone(&seen), Seen::pod)),
            tokio::spawn(watch(stage.sessions(), Arc::clone(&seen), Seen::session)),
        ];
        Self { seen, tasks }
    }

    /// The session that was the first to get another pod.
    fn first_replaced(&self) -> Option<&'static str> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        SESSIONS.into_iter().find(|session| seen.replaced.first().is_some_and(|first| first == session))
    }

    /// What was seen since this was asked last.
    fn report(&self) -> Result<Seen> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = Seen { pods: seen.pods.clone(), ..Seen::default() };
        let told = std::mem::replace(&mut *seen, fresh);
        match told.violation {
            Some(violation) => bail!(violation),
            None => Ok(told),
        }
    }
}

impl Drop for Watchman {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn watch<K>(api: Api<K>, seen: Arc<Mutex<Seen>>, look: fn(&mut Seen, WatchEvent<K>))
where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let mut version = "0".to_owned();
    let end: Result<()> = async {
        loop {
            let mut events = api.watch(&WatchParams::default(), &version).await?.boxed();
            while let Some(event) = events.next().await.transpose()? {
                version = match &event {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) => {
                        object.resource_version().context("an object has no version")?
                    }
                    WatchEvent::Bookmark(mark) => mark.metadata.resource_version.clone(),
                    WatchEvent::Error(error) => bail!("{error}"),
                };
                look(&mut seen.lock().unwrap_or_else(PoisonError::into_inner), event);
            }
        }
    }
    .await;
    seen.lock().unwrap_or_else(PoisonError::into_inner).violation = end.err().map(|error| format!("a watch ended: {error:#}"));
}

/// Sends its files with so many bytes a second.
fn limited(bandwidth: &str) -> Value {
    json!({
        "watch": {"pollInterval": "200ms", "minFileAge": "1s"},
        "transfer": {"bandwidthLimit": bandwidth, "blockSize": "1Mi", "singlePutSize": "1Mi"},
    })
}

/// All sessions have uploaded a small file, and one of them is in the middle of a large one; the files of each.
async fn at_work(stage: &Stage) -> Result<BTreeMap<&'static str, Vec<Delivery>>> {
    let mut delivered = BTreeMap::new();
    for session in SESSIONS {
        stage.apply_session(session, limited("256Ki")).await?;
        delivered.insert(session, vec![stage.deliver(session, "small.dat", 4096)?]);
    }
    try_join_all(SESSIONS.map(|session| stage.await_uploaded(session, 1, SOON))).await?;
    delivered.entry(BUSY).or_default().push(stage.deliver(BUSY, "large.dat", 300 * MIB)?);
    stage.await_session(BUSY, SOON, "sends the large file", is_sending).await?;
    all_run(stage, TAG).await?;
    Ok(delivered)
}

/// Waits until every session runs the image with this tag, and says that nothing waits any more.
async fn all_run(stage: &Stage, tag: &str) -> Result<()> {
    let wanted = format!("{REPOSITORY}:{tag}");
    let runs = async |session| {
        wait::until(LATER, &format!("{session} runs {wanted}"), async || {
            let pod = stage.uploader_pod(session).await?.context("it has no pod")?;
            ensure!(image(&pod) == Some(wanted.as_str()) && is_ready(&pod), "its pod is {:?}", pod.status);
            let found = stage.sessions().get(session).await?;
            ensure!(ready(&found) == Some(("True", "Running")), "its status is {:?}", found.status);
            Ok(Some(()))
        })
        .await
    };
    try_join_all(SESSIONS.map(runs)).await.map(drop)
}

fn image(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.containers.first()?.image.as_deref()
}

/// The large file, which is still being sent, arrives, and every file was committed once; how many bytes of the large one were not
/// sent again.
async fn arrive(stage: &Stage, delivered: &BTreeMap<&'static str, Vec<Delivery>>) -> Result<u64> {
    stage.await_session(BUSY, SOON, "still sends the large file", is_sending).await?;
    stage.apply_session(BUSY, limited("64Mi")).await?;
    for (session, files) in delivered {
        stage.await_uploaded(session, files.len(), LATER).await?;
        stage.compare(session, files).await?;
        stage.ensure_each_committed_once(session, files).await?;
    }
    let busy = stage.sessions().get(BUSY).await?;
    Ok(busy.status.and_then(|status| status.progress).context("no progress")?.bytes_resumed)
}

/// Names the node's image of the uploader a second time.
fn tag_image(stage: &Stage) -> Result<()> {
    let [image, later] = [TAG, LATER_TAG].map(|tag| format!("{REPOSITORY}:{tag}"));
    ctr(stage, &["tag", "--force", &image, &later])
}

fn untag_image(stage: &Stage) -> Result<()> {
    ctr(stage, &["remove", &format!("{REPOSITORY}:{LATER_TAG}")])
}

fn ctr(stage: &Stage, arguments: &[&str]) -> Result<()> {
    const CTR: [&str; 7] = ["enter", "ctr", "--address", "/run/containerd/containerd.sock", "--namespace", "k8s.io", "images"];
    stage.bed.command(&[&CTR[..], arguments].concat()).map(drop)
}

/// Installs another image of the uploader, does what the test is about, and installs the one before again; other tests may follow.
async fn with_image(tag: &str, at_a_time: usize, play: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
    let status: Value = serde_json::from_slice(&helm(&["status", RELEASE, "--output", "json"])?)?;
    let values = format!("image.uploader.tag={tag},uploaders.update.maxUnavailable={at_a_time}");
    let outcome = async {
        helm(&["upgrade", RELEASE, CHART, "--reuse-values", "--set", &values, "--wait", "--timeout", "5m"])?;
        play().await
    }
    .await;
    helm(&["rollback", RELEASE, &status["version"].to_string(), "--wait", "--timeout", "5m"])?;
    outcome
}

/// Every session got another pod once, so many at a time and the busy one among the last, and those that had to wait said so.
fn one_by_one(seen: &Seen, at_a_time: usize) -> Result<()> {
    let everybody: BTreeSet<_> = SESSIONS.iter().map(ToString::to_string).collect();
    let replaced: BTreeSet<_> = seen.replaced.iter().cloned().collect();
    ensure!(replaced == everybody && seen.replaced.len() == SESSIONS.len(), "replaced were {:?}", seen.replaced);
    let last = &seen.replaced[seen.replaced.len() - at_a_time..];
    ensure!(last.iter().any(|session| session == BUSY), "the busy one was not among the last: {:?}", seen.replaced);
    ensure!(seen.most_without == at_a_time, "{} were without an uploader, not {at_a_time}", seen.most_without);
    let waited = seen.replaced.iter().skip(at_a_time);
    let silent: Vec<_> = waited.filter(|session| !seen.pending.contains(*session)).collect();
    ensure!(silent.is_empty(), "these did not say that an upgrade waits: {silent:?}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn new_image_comes_to_so_many_sessions_at_a_time_and_back_and_a_file_in_the_middle_goes_on() -> Result<()> {
    const AT_A_TIME: usize = 2;
    scenario("images", async |stage| {
        tag_image(stage)?;
        let delivered = at_work(stage).await?;
        let watchman = Watchman::post(stage);
        let began = Instant::now();
        let there = with_image(LATER_TAG, AT_A_TIME, async || {
            all_run(stage, LATER_TAG).await?;
            figures::print(&format!(
                "four sessions had the new image {:.0} s after the upgrade began",
                began.elapsed().as_secs_f64()
            ));
            one_by_one(&watchman.report()?, AT_A_TIME)
        })
        .await;
        let back = async {
            there?;
            all_run(stage, TAG).await?;
            // The chart's default.
            one_by_one(&watchman.report()?, 1)?;
            let resumed = arrive(stage, &delivered).await?;
            ensure!(resumed >= MIB, "what was sent before was sent again: only {resumed} bytes were not");
            Ok(())
        }
        .await;
        // After a way back that failed the chart still names it.
        if back.is_ok() {
            untag_image(stage)?;
        }
        back
    })
    .await
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn image_that_no_node_has_stops_at_the_first_session_and_the_way_back_mends_it() -> Result<()> {
    scenario("no-image", async |stage| {
        let mut delivered = at_work(stage).await?;
        let busy = stage.run(BUSY).await?;
        let watchman = Watchman::post(stage);
        let mut first = "";
        with_image("absent", 1, async || {
            first = wait::until(SOON, "a session has lost its pod", async || Ok(watchman.first_replaced())).await?;
            let words = ["ImagePullFailed", "image.uploader of the chart", "blobferry-uploader:absent"];
            stage.await_condition(first, SOON, (conditions::READY, "False"), &words).await?;
            tokio::time::sleep(SETTLED).await;
            for session in SESSIONS.into_iter().filter(|session| *session != first) {
                stage.await_condition(session, SOON, (conditions::READY, "True"), &["UpgradePending"]).await?;
                delivered.entry(session).or_default().push(stage.deliver(session, "meanwhile.dat", 4096)?);
            }
            for session in SESSIONS.into_iter().filter(|session| ![first, BUSY].contains(session)) {
                stage.await_uploaded(session, 2, SOON).await?;
            }
            Ok(())
        })
        .await?;
        delivered.entry(first).or_default().push(stage.deliver(first, "after.dat", 4096)?);
        all_run(stage, TAG).await?;
        let seen = watchman.report()?;
        ensure!(seen.replaced == [first, first] && first != BUSY, "replaced were {:?}", seen.replaced);
        ensure!(seen.most_without == 1, "{} sessions were without an uploader", seen.most_without);
        arrive(stage, &delivered).await?;
        ensure!(stage.run(BUSY).await? == busy, "the busy uploader was started again");
        Ok(())
    })
    .await
}
