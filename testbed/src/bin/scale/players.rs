//! Plays every kubelet and every uploader.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use blobferry_crds::{UploadSession, names};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::json;

use crate::{
    AT_ONCE, PATIENCE, REPORT_APART,
    cluster::{name, namespace},
    say,
};

/// An uploader looks at both ends before its first report.
const START: Duration = Duration::from_secs(1);
/// Between two looks of an uploader at whether the operator names its pod.
const PAUSE: Duration = Duration::from_millis(200);
/// Between two reports of an uploader that has nothing to do: often enough that none is called silent, and rare enough that 10,000 of
/// them stay below 50 reports a second.
const BEAT: Duration = Duration::from_mins(4);

/// When the pod of each session was seen first.
#[derive(Clone, Default)]
pub(crate) struct Born(Arc<Mutex<HashMap<String, Instant>>>);

impl Born {
    fn note(&self, session: &str) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = !all.contains_key(session);
        all.entry(session.to_owned()).or_insert_with(Instant::now);
        first
    }

    pub(crate) fn waits(&self, sent: &HashMap<String, Instant>) -> Result<Vec<Duration>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sent.iter()
            .map(|(session, sent)| {
                let born = all.get(session).with_context(|| format!("no pod for {session}"))?;
                Ok(born.saturating_duration_since(*sent))
            })
            .collect()
    }
}

/// Uploaders that have reported, by when each has to report again.
#[derive(Clone, Default)]
pub(crate) struct Uploaders {
    due: Arc<Mutex<VecDeque<Uploader>>>,
    /// Held by whoever has uploaders report.
    turn: Arc<tokio::sync::Mutex<()>>,
}

struct Uploader {
    namespace: String,
    session: String,
    due: Instant,
}

impl Uploaders {
    fn reported(&self, namespace: String, session: String) {
        let uploader = Uploader { namespace, session, due: Instant::now() + BEAT };
        self.due.lock().unwrap_or_else(PoisonError::into_inner).push_back(uploader);
    }

    fn take_due(&self) -> Option<Uploader> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner).pop_front_if(|uploader| uploader.due <= Instant::now())
    }

    /// Has idle uploaders report in turn, for ever.
    pub(crate) async fn beat(self, client: Client) {
        // No two reports of an uploader are equal: one that changes nothing would leave no trace.
        for files in 1_000_000.. {
            let uploader = loop {
                match self.take_due() {
                    Some(uploader) => break uploader,
                    None => tokio::time::sleep(REPORT_APART).await,
                }
            };
            let _turn = self.turn.lock().await;
            let Uploader { namespace, session, .. } = uploader;
            if let Err(error) = report(&Api::namespaced(client.clone(), &namespace), &session, files).await {
                say(&format!("{session} does not report: {error:#}"));
            }
            self.reported(namespace, session);
        }
    }

    /// Those of `sessions` sessions report in turn, `count` times in all and so far apart; nobody else does meanwhile.
    pub(crate) async fn report_in_turn(&self, client: &Client, sessions: usize, count: usize, apart: Duration) -> Result<()> {
        let _turn = self.turn.lock().await;
        let begun = Instant::now();
        stream::iter(0..count)
            .map(async |place| {
                tokio::time::sleep_until((begun + apart * u32::try_from(place)?).into()).await;
                let number = place % sessions;
                report(&Api::namespaced(client.clone(), &namespace(number)), &name(number), 1 + place).await
            })
            .buffer_unordered(10 * AT_ONCE)
            .try_collect()
            .await
    }
}

/// Plays the kubelets and the uploaders: every new pod runs at once, and reports.
pub(crate) async fn run_pods(client: Client, born: Born, uploaders: Uploaders) {
    let ours = watcher::Config::default().labels(&format!("{}={}", names::APP_NAME_LABEL, names::UPLOADER_APP));
    let pods = watcher(Api::<Pod>::all(client.clone()), ours).default_backoff().applied_objects();
    pods.for_each_concurrent(10 * AT_ONCE, |pod| async {
        let Ok(pod) = pod else { return };
        let session = pod.labels().get(names::SESSION_LABEL).cloned().unwrap_or_default();
        if born.note(&session)
            && let Err(error) = run_pod(&client, &pod, &session, &uploaders).await
        {
            say(&format!("{session} does not run: {error:#}"));
        }
    })
    .await;
}

async fn run_pod(client: &Client, pod: &Pod, session: &str, uploaders: &Uploaders) -> Result<()> {
    let namespace = pod.namespace().unwrap_or_default();
    let since = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let container = json!({"name": "uploader", "image": "x", "imageID": "x", "ready": true, "started": true, "restartCount": 0,
        "state": {"running": {"startedAt": since}}});
    let conditions = json!([{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}]);
    let status = json!({"status": {"phase": "Running", "conditions": conditions, "containerStatuses": [container]}});
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(status)).await?;
    tokio::time::sleep(START).await;
    let sessions: Api<UploadSession> = Api::namespaced(client.clone(), &namespace);
    until_named(&sessions, pod, session).await?;
    report(&sessions, session, 0).await?;
    uploaders.reported(namespace, session.to_owned());
    Ok(())
}

/// The admission policy lets no other pod report.
async fn until_named(sessions: &Api<UploadSession>, pod: &Pod, session: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while sessions.get(session).await?.status.and_then(|status| status.pod_uid) != pod.uid() {
        ensure!(Instant::now() < deadline, "the operator does not name the pod of {session}");
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// A report of the usual size.
async fn report(sessions: &Api<UploadSession>, session: &str, files: usize) -> Result<()> {
    let check = |type_: &str| json!({"type": type_, "ok": true, "reason": "Works", "message": "It works."});
    let report = json!({"apiVersion": "blobferry.io/v1alpha1", "kind": "UploadSession", "metadata": {"name": session}, "status": {
        "progress": {"checks": [check("source"), check("destination")], "caughtUp": true, "filesSeen": files, "filesUploaded": files,
            "bytesTotal": 1000 * files, "bytesUploaded": 1000 * files, "percent": "100%",
            "lastUploadTime": "2026-11-21T08:00:00Z", "safeThrough": "2026-11-21T08:00:00Z", "countedThrough": "2026-11-21T08:00:00Z"},
        "activity": {"rate": format!("{files} B/s"), "lastScanTime": "2026-11-21T08:00:00Z"}}});
    sessions.patch_status(session, &PatchParams::apply(names::UPLOADER_MANAGER).force(), &Patch::Apply(report)).await?;
    Ok(())
}
