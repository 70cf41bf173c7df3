//! How the operator bears many sessions, on a control plane without nodes: this program plays every kubelet and every uploader.

use std::{
    collections::HashMap,
    fs,
    io::{self, Write as _},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use blobferry_crds::{UploadSession, manifest, names};
use clap::Parser;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::{
    api::{
        core::v1::{Namespace, PersistentVolume, PersistentVolumeClaim, Pod},
        rbac::v1::ClusterRole,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Config, ResourceExt as _,
    api::{ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::{Value, json};

const PER_NAMESPACE: usize = 100;
const AT_ONCE: usize = 16;
const PATIENCE: Duration = Duration::from_mins(30);
/// Arrivals that are measured: so many, this far apart.
const ARRIVALS: usize = 300;
const APART: Duration = Duration::from_millis(200);
const IDLE: Duration = Duration::from_mins(1);

/// Measures the operator with many sessions.
#[derive(Debug, Parser)]
struct Arguments {
    /// Sessions that run
    #[arg(long, default_value_t = 1000)]
    size: usize,
    /// The operator's program
    #[arg(long)]
    operator: PathBuf,
    /// Kubeconfig of the control plane
    #[arg(long, env = "BLOBFERRY_BED_KUBECONFIG")]
    kubeconfig: PathBuf,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config =
        Config::from_custom_kubeconfig(Kubeconfig::read_from(&arguments.kubeconfig)?, &KubeConfigOptions::default()).await?;
    let client = Client::try_from(config)?;
    prepare(&client, arguments.size + ARRIVALS).await?;
    let born = Born::default();
    tokio::spawn(run_pods(client.clone(), born.clone()));
    let mut operator = Operator::start(&arguments)?;
    operator.until_ready().await?;
    measure(&client, &born, &mut operator, &arguments).await
}

async fn measure(client: &Client, born: &Born, operator: &mut Operator, arguments: &Arguments) -> Result<()> {
    let size = arguments.size;
    say(&format!("{size} sessions"));
    let (before, started) = (operator.sample().await?, Instant::now());
    create(client, 0..size, None).await?;
    until_running(client, size).await?;
    let after = operator.until_quiet().await?;
    row("create to running, all", format!("{:.0} s", started.elapsed().as_secs_f64()));
    row("requests per session", format!("{:.1}", (after.requests - before.requests) / count(size)));
    row("processor per session", format!("{:.1} ms", 1000.0 * (after.processor - before.processor) / count(size)));
    row("resident memory", format!("{:.1} MB, at most {:.1} MB", after.resident, after.peak));

    let before = operator.sample().await?;
    tokio::time::sleep(IDLE).await;
    let after = operator.sample().await?;
    let hours = IDLE.as_secs_f64() / 3600.0;
    row("requests per idle hour, watches left out", format!("{:.0}", (after.requests - before.requests) / hours));
    row("processor when idle", format!("{:.2} %", 100.0 * (after.processor - before.processor) / IDLE.as_secs_f64()));

    let sent = create(client, size..size + ARRIVALS, Some(APART)).await?;
    until_running(client, size + ARRIVALS).await?;
    let mut waits = born.waits(&sent)?;
    waits.sort();
    let at = |share: usize| waits.get(waits.len() * share / 100).copied().unwrap_or_default().as_millis();
    row("applied to pod made, 5 a second", format!("p50 {} ms, p99 {} ms", at(50), at(99)));

    operator.kill()?;
    let started = Instant::now();
    *operator = Operator::start(arguments)?;
    operator.until_ready().await?;
    row("restart until ready", format!("{:.1} s", started.elapsed().as_secs_f64()));
    let after = operator.until_quiet().await?;
    row("requests of a restart", format!("{:.0}", after.requests));
    row("resident memory after a restart", format!("{:.1} MB, at most {:.1} MB", after.resident, after.peak));
    operator.kill()
}

fn row(what: &str, figure: impl std::fmt::Display) {
    say(&format!("  {what:42} {figure}"));
}

fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

fn namespace(number: usize) -> String {
    format!("scale-{}", number / PER_NAMESPACE)
}

fn name(number: usize) -> String {
    format!("session-{number}")
}

/// The definition, the role, and namespaces with a claim each that is bound to an export.
async fn prepare(client: &Client, sessions: usize) -> Result<()> {
    let apply = PatchParams::apply("blobferry-scale").force();
    let definition = manifest::definition();
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    definitions.patch(&definition.name_any(), &apply, &Patch::Apply(&definition)).await?;
    kube::runtime::wait::await_condition(definitions, &definition.name_any(), kube::runtime::conditions::is_crd_established())
        .await?;
    let role: ClusterRole = object(json!({"metadata": {"name": "blobferry-uploader"}, "rules": []}))?;
    Api::<ClusterRole>::all(client.clone()).patch("blobferry-uploader", &apply, &Patch::Apply(&role)).await?;
    let namespaces = (0..sessions.div_ceil(PER_NAMESPACE)).map(|number| namespace(number * PER_NAMESPACE));
    stream::iter(namespaces).map(Ok).try_for_each_concurrent(AT_ONCE, |namespace| prepare_namespace(client, namespace)).await
}

async fn prepare_namespace(client: &Client, namespace: String) -> Result<()> {
    let apply = PatchParams::apply("blobferry-scale").force();
    let object_: Namespace = object(json!({"metadata": {"name": namespace}}))?;
    Api::<Namespace>::all(client.clone()).patch(&namespace, &apply, &Patch::Apply(&object_)).await?;
    let capacity = json!({"storage": "1Gi"});
    let volume: PersistentVolume = object(json!({"metadata": {"name": namespace}, "spec": {
        "capacity": capacity, "accessModes": ["ReadWriteMany"], "storageClassName": "", "persistentVolumeReclaimPolicy": "Retain",
        "nfs": {"server": "nas.example.com", "path": format!("/srv/{namespace}")},
        "claimRef": {"namespace": namespace, "name": "share"}}}))?;
    Api::<PersistentVolume>::all(client.clone()).patch(&namespace, &apply, &Patch::Apply(&volume)).await?;
    let claim: PersistentVolumeClaim = object(json!({"metadata": {"name": "share"}, "spec": {
        "accessModes": ["ReadWriteMany"], "storageClassName": "", "resources": {"requests": capacity}, "volumeName": namespace}}))?;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
    claims.patch("share", &apply, &Patch::Apply(&claim)).await?;
    let bound =
        |claim: Option<&PersistentVolumeClaim>| claim.and_then(|claim| claim.status.as_ref()?.phase.as_deref()) == Some("Bound");
    kube::runtime::wait::await_condition(claims, "share", bound).await?;
    Ok(())
}

fn object<K>(mut value: Value) -> Result<K>
where
    K: serde::de::DeserializeOwned + kube::Resource<DynamicType = ()>,
{
    value["apiVersion"] = json!(K::api_version(&()));
    value["kind"] = json!(K::kind(&()));
    Ok(serde_json::from_value(value)?)
}

/// Creates sessions, `apart` or as fast as it goes; when each was applied, by name.
async fn create(client: &Client, numbers: std::ops::Range<usize>, apart: Option<Duration>) -> Result<HashMap<String, Instant>> {
    let begun = Instant::now();
    let first = numbers.start;
    stream::iter(numbers)
        .map(async |number| {
            if let Some(apart) = apart {
                tokio::time::sleep_until((begun + apart * u32::try_from(number - first)?).into()).await;
            }
            let session: UploadSession = object(json!({"metadata": {"name": name(number)}, "spec": {
                "sessionName": name(number),
                "source": {"persistentVolumeClaim": {"claimName": "share"}},
                "destination": {"azureBlob": {"accountUrl": "https://acct.blob.core.windows.net", "container": "archive"}}}}))?;
            let sent = Instant::now();
            Api::namespaced(client.clone(), &namespace(number)).create(&PostParams::default(), &session).await?;
            Ok((name(number), sent))
        })
        .buffer_unordered(if apart.is_some() { ARRIVALS } else { AT_ONCE })
        .try_collect()
        .await
}

async fn until_running(client: &Client, sessions: usize) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let all = Api::<UploadSession>::all(client.clone()).list(&ListParams::default()).await?;
        let is_ready = |session: &&UploadSession| {
            let conditions = session.status.iter().flat_map(|status| &status.conditions);
            conditions.into_iter().any(|it| it.type_ == "Ready" && it.status == "True")
        };
        let ready = all.items.iter().filter(is_ready).count();
        if ready >= sessions {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "only {ready} of {sessions} sessions run");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// When the pod of each session was seen first.
#[derive(Clone, Default)]
struct Born(Arc<Mutex<HashMap<String, Instant>>>);

impl Born {
    fn note(&self, session: &str) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = !all.contains_key(session);
        all.entry(session.to_owned()).or_insert_with(Instant::now);
        first
    }

    fn waits(&self, sent: &HashMap<String, Instant>) -> Result<Vec<Duration>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sent.iter()
            .map(|(session, sent)| {
                let born = all.get(session).with_context(|| format!("no pod for {session}"))?;
                Ok(born.saturating_duration_since(*sent))
            })
            .collect()
    }
}

/// Plays the kubelets and the uploaders: every new pod runs at once, and reports.
async fn run_pods(client: Client, born: Born) {
    let ours = watcher::Config::default().labels(&format!("{}={}", names::APP_NAME_LABEL, names::UPLOADER_APP));
    let pods = watcher(Api::<Pod>::all(client.clone()), ours).default_backoff().applied_objects();
    pods.for_each_concurrent(AT_ONCE, |pod| async {
        let Ok(pod) = pod else { return };
        let session = pod.labels().get(names::SESSION_LABEL).cloned().unwrap_or_default();
        if born.note(&session)
            && let Err(error) = run_pod(&client, &pod, &session).await
        {
            say(&format!("{session} does not run: {error:#}"));
        }
    })
    .await;
}

async fn run_pod(client: &Client, pod: &Pod, session: &str) -> Result<()> {
    let namespace = pod.namespace().unwrap_or_default();
    let since = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let container = json!({"name": "uploader", "image": "x", "imageID": "x", "ready": true, "started": true, "restartCount": 0,
        "state": {"running": {"startedAt": since}}});
    let conditions = json!([{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}]);
    let status = json!({"status": {"phase": "Running", "conditions": conditions, "containerStatuses": [container]}});
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(status)).await?;
    let check = |type_: &str| json!({"type": type_, "ok": true, "reason": "Works", "message": "It works."});
    let report = json!({"apiVersion": "blobferry.io/v1alpha1", "kind": "UploadSession", "metadata": {"name": session}, "status": {
        "progress": {"checks": [check("source"), check("destination")], "caughtUp": true},
        "activity": {"rate": "0 B/s"}}});
    let sessions: Api<UploadSession> = Api::namespaced(client.clone(), &namespace);
    sessions.patch_status(session, &PatchParams::apply(names::UPLOADER_MANAGER).force(), &Patch::Apply(report)).await?;
    Ok(())
}

/// What the operator has used so far.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// Requests to the API server, watches left out.
    requests: f64,
    /// Seconds of processor time.
    processor: f64,
    /// Megabytes.
    resident: f64,
    /// Megabytes.
    peak: f64,
}

/// The operator as a process.
struct Operator {
    child: Child,
    pages: String,
}

impl Operator {
    fn start(arguments: &Arguments) -> Result<Self> {
        let listen = "127.0.0.1:18080";
        let child = Command::new(&arguments.operator)
            .args(["--uploader-image=localhost/blobferry-uploader:dev", "--listen", listen])
            .env("KUBECONFIG", &arguments.kubeconfig)
            .env("RUST_LOG", "warn")
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", arguments.operator.display()))?;
        Ok(Self { child, pages: format!("http://{listen}") })
    }

    async fn page(&self, path: &str) -> Result<String> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        Ok(client.get(format!("{}{path}", self.pages)).send().await?.error_for_status()?.text().await?)
    }

    async fn until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.page("/readyz").await.is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("the operator has ended: {status}");
            }
            ensure!(Instant::now() < deadline, "the operator is not ready");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn sample(&self) -> Result<Sample> {
        let metrics = self.page("/metrics").await?;
        let requests = metrics
            .lines()
            .filter(|line| line.starts_with("blobferry_api_requests_total{") && !line.contains("WATCH"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum();
        let process = format!("/proc/{}", self.child.id());
        let status = fs::read_to_string(format!("{process}/status"))?;
        let megabytes = |field: &str| {
            let line = status.lines().find(|line| line.starts_with(field));
            line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok()).unwrap_or_default() / 1024.0
        };
        let stat = fs::read_to_string(format!("{process}/stat"))?;
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        let ticks: f64 = after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
        Ok(Sample { requests, processor: ticks / 100.0, resident: megabytes("VmRSS"), peak: megabytes("VmHWM") })
    }

    /// Waits until it makes no more requests.
    async fn until_quiet(&self) -> Result<Sample> {
        let mut last = self.sample().await?;
        loop {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let now = self.sample().await?;
            if (now.requests - last.requests).abs() < 0.5 {
                return Ok(now);
            }
            last = now;
        }
    }

    fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
