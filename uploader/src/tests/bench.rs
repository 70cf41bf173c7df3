//! A session on a temporary folder, driven pass by pass.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use blobferry_crds::{Overwrite, Progress};
use tempfile::TempDir;
use tokio::{sync::watch, time::Instant};

use crate::{
    args::Mode,
    blob::{Properties, memory::MemoryStore},
    books::{Books, SharedBooks},
    collect::Collector,
    formats::{BlobName, Marker, ProcessId, ProcessingName, State, blob_name},
    live::Live,
    metrics::Metrics,
    run::recover,
    scan::{self, Filter, Table},
    schedule::Schedule,
    session::{Edges, Folders, Parts, Rules, Session},
    share::{LocalShare, Pool},
    stage::{Budget, DiskStage},
    start::check_share,
    work,
};

pub(super) const QUIET: Duration = Duration::from_secs(5);
pub(super) const DATE: &str = "20261121";
pub(super) const SESSION: &str = "truck-7";

#[derive(Debug)]
pub(super) struct Edge;

impl Edges for Edge {
    type Share = LocalShare;
    type Store = MemoryStore;
    type Stage = DiskStage;
}

/// A share, a container, and one process after another.
#[derive(Debug)]
pub(super) struct Bench {
    share: TempDir,
    pub(super) store: MemoryStore,
    pub(super) session: Arc<Session<Edge>>,
    pub(super) collector: Collector,
    processes: u64,
    pub(super) rules: Rules,
    pub(super) live: watch::Sender<Live>,
    /// Where files are staged.
    pub(super) stage: Option<PathBuf>,
}

pub(super) fn blob(name: &str) -> BlobName {
    blob_name("", DATE, SESSION, name.as_bytes()).unwrap()
}

pub(super) fn rules() -> Rules {
    Rules {
        mode: Mode::Watch,
        recursive: false,
        overwrite: Overwrite::OwnSource,
        properties: Properties::default(),
        block_size: 64 << 10,
        single_put_size: 100 << 10,
        concurrency: 4,
        memory_limit: 16 << 20,
        max_attempts: 0,
    }
}

fn live() -> Live {
    Live {
        generation: None,
        poll_interval: Duration::from_secs(2),
        min_file_age: QUIET,
        workers: 4,
        bandwidth_limit: None,
        collect_interval: Duration::from_secs(30),
        keep_completed_for: Duration::from_mins(1),
        idle_timeout: None,
        run_token: None,
    }
}

impl Bench {
    pub(super) async fn new() -> Self {
        Self::with(rules()).await
    }

    pub(super) async fn with(rules: Rules) -> Self {
        let share = tempfile::tempdir().unwrap();
        fs::create_dir(share.path().join("incoming")).unwrap();
        let store = MemoryStore::new();
        let live = watch::Sender::new(live());
        let (session, collector) = process(share.path(), &store, &rules, &live, None, 1).await;
        Self { share, store, session, collector, processes: 1, rules, live, stage: None }
    }

    /// The process is gone, with all that it knew; another one starts in the same pod.
    pub(super) async fn restart(&mut self) {
        self.processes += 1;
        (self.session, self.collector) =
            process(self.share.path(), &self.store, &self.rules, &self.live, self.stage.as_deref(), self.processes).await;
    }

    pub(super) fn incoming(&self, name: &str) -> PathBuf {
        self.share.path().join("incoming").join(SESSION).join(name)
    }

    pub(super) fn drop_file(&self, name: &str, content: &[u8]) {
        fs::write(self.incoming(name), content).unwrap();
    }

    /// Scans until what is there is stable, and works until nothing is due.
    pub(super) async fn settle(&mut self) {
        for _ in 0..3 {
            scan::pass(&self.session).await.unwrap();
            tokio::time::advance(QUIET).await;
        }
        self.work().await;
    }

    /// Works until nothing is due.
    pub(super) async fn work(&mut self) {
        loop {
            let taken = self.session.books().schedule.take(Instant::now(), true);
            let Some((blob, task)) = taken else { return };
            work::pass(&self.session, &blob, task).await;
            self.session.finished(&blob);
        }
    }

    /// Lets time pass, and works.
    pub(super) async fn later(&mut self, time: Duration) {
        tokio::time::advance(time).await;
        self.work().await;
    }

    pub(super) fn content(&self, name: &str) -> Option<Vec<u8>> {
        self.store.content(&blob(name)).map(|bytes| bytes.to_vec())
    }

    /// Contents of all versions that were ever committed.
    pub(super) fn versions(&self, name: &str) -> Vec<Vec<u8>> {
        self.store.versions(&blob(name)).iter().map(|version| version.bytes().to_vec()).collect()
    }

    /// Names below the processing folder, sorted by producer's name and claim; a reason comes after its file.
    pub(super) fn processing(&self) -> Vec<ProcessingName> {
        let folder = self.session.claims_today();
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| ProcessingName::parse(entry.unwrap().file_name().as_encoded_bytes()).unwrap())
            .collect();
        names.sort_by_key(|name| (name.producer.clone(), name.claim, name.state == State::FailedReason));
        names
    }

    pub(super) fn processing_path(&self, name: &ProcessingName) -> PathBuf {
        crate::share::join(&self.session.claims_today(), &name.to_bytes())
    }

    pub(super) fn states(&self) -> Vec<&'static str> {
        let state = |name: &ProcessingName| match name.state {
            State::Claimed => "claimed",
            State::Completed(_) => "completed",
            State::Failed => "failed",
            State::FailedReason => "reason",
            State::Superseded => "superseded",
        };
        self.processing().iter().map(state).collect()
    }

    pub(super) fn progress(&self) -> Progress {
        self.session.books().progress()
    }
}

async fn process(
    share: &Path,
    store: &MemoryStore,
    rules: &Rules,
    live: &watch::Sender<Live>,
    stage: Option<&Path>,
    number: u64,
) -> (Arc<Session<Edge>>, Collector) {
    let folders = Folders {
        incoming: share.join("incoming").join(SESSION),
        processing: share.join(".processing"),
        session: SESSION.into(),
        date: DATE.into(),
        prefix: String::new(),
    };
    let marker = Marker { version: 1, session_uid: "uid".into(), incoming_dir: "incoming".into(), destination: "container".into() };
    let local = LocalShare::new(Pool::new("share", 2).unwrap());
    let process = ProcessId::new(number);
    let ground = check_share(&local, &folders, &marker, process).await.unwrap();
    let session = Arc::new(Session::<Edge>::new(Parts {
        share: local,
        store: store.clone(),
        stage: stage.map_or_else(DiskStage::none, |root| {
            DiskStage::open_or_stream(root, "p", Budget { disk: 1 << 30, memory: 1 << 20 }, Pool::new("stage", 1).unwrap())
        }),
        folders,
        rules: rules.clone(),
        live: live.subscribe(),
        source: ground.source,
        process,
        pod_uid: "pod".into(),
        longest_name: ground.longest_name,
        since: ground.since,
        books: SharedBooks::new(Books::new(
            Table::new(Filter::new(&[], &["*.tmp".to_owned()]).unwrap(), rules.recursive),
            Schedule::new(100),
        )),
        metrics: Metrics::new(&opentelemetry::global::meter("test")),
        seed: number,
    }));
    session.books().ledger.resume(&Progress::default());
    let mut collector = Collector::default();
    recover(&session, &mut collector, "uid").await.unwrap();
    (session, collector)
}
