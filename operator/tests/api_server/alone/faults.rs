//! Everything at once through a bad connection: the operator converges, and does not storm.

use std::{
    collections::{BTreeSet, HashMap},
    env,
    io::Write as _,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use blobferry_crds::{UploadSession, names};
use futures::{StreamExt as _, future::try_join_all};
use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, ServiceAccount},
    rbac::v1::RoleBinding,
};
use kube::{
    Api, ResourceExt,
    api::ListParams,
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::{Value, json};

use super::Running;
use crate::{
    chaos::{Chaos, FAULTS, Fault},
    stage::{Stage, all_well},
};

/// Sessions that run at the end.
const LASTING: [&str; 6] = ["plain", "changed", "evicted", "deleted-pod", "inline", "second"];
/// Sessions that are deleted, and how.
const DELETED: [(&str, &str); 4] = [("removed", "Stop"), ("drained", "Drain"), ("released", "Release"), ("first", "Stop")];
/// For how long the API server has too much to do for anything.
const BUSY: Duration = Duration::from_secs(10);
/// Calls of both operators within this time: two watches and a pass or two of each session, once a second each, as the server asks.
const MOST_CALLS_WHILE_BUSY: usize = 600;
/// Calls of one operator for all of this, faults and repeats included; a storm makes thousands.
const MOST_CALLS: usize = 2500;

fn seeds() -> Result<Vec<u64>> {
    let text = env::var("FAULT_SEEDS").unwrap_or_else(|_| "1 2".to_owned());
    text.split_whitespace().map(|seed| seed.parse().with_context(|| format!("{seed} is no seed"))).collect()
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn operators_behind_a_bad_connection_converge_without_a_storm() -> Result<()> {
    for seed in seeds()? {
        let happened = Box::pin(converge(seed)).await.with_context(|| format!("FAULT_SEEDS={seed}"))?;
        let never: Vec<_> = FAULTS.into_iter().filter(|fault| !happened.contains(fault)).collect();
        ensure!(never.is_empty(), "FAULT_SEEDS={seed}: {never:?} did not happen");
    }
    Ok(())
}

/// What happened.
async fn converge(seed: u64) -> Result<BTreeSet<Fault>> {
    let stage = Stage::bare(&format!("faults-{seed}")).await?;
    // No lease: two operators work at the same time, which no election allows for longer than a moment.
    let chaos = [Chaos::new(seed, 10), Chaos::new(!seed, 10)];
    let operators = chaos.clone().map(|chaos| {
        Running::start_with(&["--pod-name", "chaos"], move |client| {
            chaos.in_front_of(client).expect("there is a port for the proxy")
        })
    });
    let kubelet = tokio::spawn(kubelet(stage.clone()));
    let doubles = Doubles::default();
    let watch = tokio::spawn(watch_pods(stage.clone(), Arc::clone(&doubles)));
    let played =
        tokio::time::timeout(Duration::from_mins(6), Box::pin(play(&stage, &chaos))).await.context("it does not converge")?;
    kubelet.abort();
    watch.abort();
    let mut happened = BTreeSet::new();
    for chaos in &chaos {
        let (requests, faults) = chaos.totals();
        happened.extend(faults.keys().copied());
        let _ = writeln!(std::io::stdout(), "seed {seed}: {requests} requests, {faults:?}");
    }
    played?;
    let doubles = std::mem::take(&mut *doubles.lock().unwrap_or_else(PoisonError::into_inner));
    ensure!(doubles.is_empty(), "sessions had two pods at a time: {doubles:?}");
    for operator in operators {
        operator.end()?;
    }
    stage.end().await?;
    Ok(happened)
}

/// Sessions that had two pods at a time.
type Doubles = Arc<Mutex<Vec<String>>>;

/// Looks at every pod that there ever is; with a good connection, unlike the operators.
async fn watch_pods(stage: Stage, doubles: Doubles) {
    let mut live: HashMap<String, BTreeSet<String>> = HashMap::new();
    let mut events = Box::pin(watcher(stage.api::<Pod>(), watcher::Config::default()).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => {
                let pods = live.entry(session_of(&pod)).or_default();
                pods.extend(pod.uid());
                if pods.len() > 1 {
                    doubles.lock().unwrap_or_else(PoisonError::into_inner).push(session_of(&pod));
                }
            }
            Ok(watcher::Event::Delete(pod)) => drop(live.remove(&session_of(&pod))),
            Ok(watcher::Event::Init) => live.clear(),
            Ok(watcher::Event::InitDone) | Err(_) => {}
        }
    }
}

fn session_of(pod: &Pod) -> String {
    pod.labels().get(names::SESSION_LABEL).cloned().unwrap_or_default()
}

/// Runs every pod, and reports for it.
async fn kubelet(stage: Stage) {
    loop {
        for pod in stage.list::<Pod>().await.unwrap_or_default() {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
            let session = pod.name_any().trim_end_matches("-uploader").to_owned();
            if phase == "Pending" && stage.run_pod(&pod).await.is_ok() {
                let _ = stage.report(&session, &all_well()).await;
            } else if phase == "Running" {
                let _ = stage.ends_if_last(&pod).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// What `name` says of itself; two want the same folders.
fn spec(name: &str) -> Value {
    let policy = DELETED.iter().find(|(deleted, _)| *deleted == name).map_or("Stop", |(_, policy)| policy);
    let folder = if ["first", "second"].contains(&name) { "shared" } else { name };
    let mut spec = json!({"sessionName": folder, "deletionPolicy": policy});
    match name {
        "inline" => spec["source"] = json!({"nfs": {"server": "nas.example.com", "path": "/srv/drop/faults"}}),
        "ended" => spec["completion"] = json!({"idleTimeout": "10m"}),
        _ => {}
    }
    spec
}

async fn play(stage: &Stage, chaos: &[Chaos]) -> Result<()> {
    let first = LASTING.into_iter().filter(|name| *name != "second").chain(["suspended", "ended"]);
    try_join_all(first.chain(DELETED.map(|(name, _)| name)).map(async |name| {
        stage.session(name, spec(name)).await?;
        stage.until_condition(name, "Ready", "True", "Running").await
    }))
    .await?;
    stage.session("second", spec("second")).await?;
    stage.until_condition("second", "Ready", "False", "SessionNameInUse").await?;
    stage.ends(&stage.until_pod("ended", None).await?, "Completed", "watch").await?;
    let changed = stage.until_pod("changed", None).await?;
    stage.change("changed", json!({"transfer": {"queueSize": 8}})).await?;
    stage.change("suspended", json!({"suspend": true})).await?;
    for (name, _) in DELETED {
        stage.delete::<UploadSession>(name).await?;
    }
    let evicted = stage.until_pod("evicted", None).await?;
    stage.set_pod_status(&evicted, json!({"phase": "Failed", "reason": "Evicted", "message": "disk"})).await?;
    let by_hand = stage.until_pod("deleted-pod", None).await?;
    stage.delete::<Pod>("deleted-pod-uploader").await?;
    for (name, old) in [("changed", &changed), ("evicted", &evicted), ("deleted-pod", &by_hand)] {
        stage.until_pod(name, old.uid().as_deref()).await?;
    }
    // The API server is away for a while.
    for chaos in chaos {
        chaos.away(true);
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    stage.change("plain", json!({"transfer": {"queueSize": 9}})).await?;
    for chaos in chaos {
        chaos.away(false);
    }
    // Then it has too much to do for a while, and says so.
    let count = || chaos.iter().map(|chaos| chaos.totals().0).sum::<usize>();
    let before = count();
    for chaos in chaos {
        chaos.busy(true);
    }
    stage.change("plain", json!({"transfer": {"queueSize": 10}})).await?;
    tokio::time::sleep(BUSY).await;
    for chaos in chaos {
        chaos.busy(false);
    }
    let asked = count() - before;
    ensure!(asked <= MOST_CALLS_WHILE_BUSY, "a storm: {asked} requests to a busy server within {BUSY:?}");
    stage.until_condition("suspended", "Ready", "True", "Suspended").await?;
    stage.until_condition("ended", "Complete", "True", "Completed").await?;
    for name in LASTING {
        stage.until_condition(name, "Ready", "True", "Running").await?;
    }
    chaos.iter().for_each(Chaos::calm);
    settles(stage, chaos).await?;
    // A sweep that failed is tried again after a while in which nothing is heard of it.
    let mut wrong = None;
    let there = stage.until("there is exactly what should be", async || {
        wrong = exactly(stage).await.err();
        Ok(wrong.is_none())
    });
    there.await.with_context(|| format!("{wrong:?}"))
}

/// Once the connection is good, nobody calls any more: only what looks after watches and leases remains.
pub(super) async fn settles(stage: &Stage, chaos: &[Chaos]) -> Result<()> {
    let count = || chaos.iter().map(|chaos| chaos.totals().0).sum::<usize>();
    let mut before = count();
    stage
        .until("the operators are quiet", async || {
            tokio::time::sleep(Duration::from_secs(5)).await;
            let (last, now) = (before, count());
            before = now;
            Ok(now - last <= 4 && !chaos.iter().any(Chaos::is_late))
        })
        .await?;
    for chaos in chaos {
        ensure!(chaos.totals().0 < MOST_CALLS, "a storm: {:?}", chaos.totals());
    }
    Ok(())
}

/// The objects that there must be, and no others.
async fn exactly(stage: &Stage) -> Result<()> {
    let mut sessions: Vec<_> = stage.list::<UploadSession>().await?.iter().map(ResourceExt::name_any).collect();
    sessions.sort();
    let mut wanted: Vec<_> = LASTING.into_iter().chain(["ended", "suspended"]).collect();
    wanted.sort_unstable();
    ensure!(sessions == wanted, "{sessions:?}");
    let mut pods: Vec<_> = stage.list::<Pod>().await?.iter().map(ResourceExt::name_any).collect();
    pods.sort();
    // The pod of a session that ended stays, for its log.
    let mut wanted: Vec<_> = LASTING.iter().chain(&["ended"]).map(|name| format!("{name}-uploader")).collect();
    wanted.sort();
    ensure!(pods == wanted, "{pods:?}");
    let claims = stage.list::<PersistentVolumeClaim>().await?;
    ensure!(claims.len() == 1, "{claims:#?}");
    let ours = ListParams::default().labels(&format!("blobferry.io/session-namespace={}", stage.namespace));
    let volumes = Api::<PersistentVolume>::all(stage.client.clone()).list(&ours).await?.items;
    ensure!(volumes.len() == 1 && volumes[0].name_any() == claims[0].name_any(), "{volumes:#?}");
    ensure!(stage.list::<RoleBinding>().await?.len() == 1);
    ensure!(stage.list::<ServiceAccount>().await?.len() == 2, "ours and the default");
    for name in LASTING {
        let session: UploadSession = stage.api().get(name).await?;
        let pod = stage.until_pod(name, None).await?;
        ensure!(session.status.as_ref().and_then(|status| status.pod_uid.clone()) == pod.uid(), "{session:#?}");
        crate::matrix::follows_kstatus(&session)?;
    }
    Ok(())
}
