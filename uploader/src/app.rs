//! From settings to a running session: the share is checked, the container prepared, what earlier processes left taken up, and then
//! the loops run until the session's object is gone.

use std::{io, pin::pin, sync::Arc, time::Duration};

use rand::Rng;
use tokio::sync::watch;

use crate::{
    args::{Secret, Settings, StagingSettings},
    azure::{AccountUrl, AzureSettings, AzureStore, NamedCredential, SettingsError},
    blob::BlobStore,
    books::{Books, SharedBooks},
    collect::Collector,
    ending::{self, Conclusion},
    ends::End,
    formats::{Marker, ProcessId},
    live::Live,
    metrics::Metrics,
    pacer::Pacer,
    publish::Publisher,
    report::Report,
    run,
    scan::{Filter, Table},
    schedule::Schedule,
    session::{Edges, Folders, Parts, Rules, Session},
    share::{LocalShare, Pool, Pulse},
    stage::{Budget, DiskStage},
    start::{Ground, Obstacle, check_share},
};
use blobferry_crds::StagingMode;

/// Threads for calls on the share: enough to read blocks of all workers ahead of the network.
const SHARE_THREADS: usize = 16;
/// Threads for the local disk.
const STAGE_THREADS: usize = 2;
/// The part of our work that takes up what earlier processes left.
const RECOVERY: &str = "recovery";
/// Time between two tries to start.
const TRY_AGAIN: Duration = Duration::from_secs(10);

/// The real edges.
#[derive(Debug)]
pub struct Real;

impl Edges for Real {
    type Share = LocalShare;
    type Store = AzureStore;
    type Stage = DiskStage;
}

/// What cannot become right by waiting.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// A setting is wrong.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A glob is wrong.
    #[error("a pattern of ignored names is wrong")]
    Ignore(#[from] globset::Error),
    /// The system gives no threads.
    #[error("cannot start threads")]
    Threads(#[source] io::Error),
    /// A check failed, and nobody asked to try again.
    #[error("{message}")]
    Check {
        /// `CamelCase` reason.
        reason: String,
        /// A sentence for people.
        message: String,
    },
}

/// An uploader before its checks.
#[derive(Debug)]
pub struct Uploader {
    settings: Settings,
    share: LocalShare,
    pulse: Arc<Pulse>,
    store: AzureStore,
    folders: Folders,
    process: ProcessId,
    seed: u64,
    publisher: Publisher,
    metrics: Metrics,
    books: SharedBooks,
    live: watch::Sender<Live>,
}

impl Uploader {
    /// An uploader that publishes into `reports`. Makes no call yet.
    pub fn new(settings: Settings, reports: watch::Sender<Report>, metrics: Metrics) -> Result<Self, Fatal> {
        let pool = Pool::new("share", SHARE_THREADS).map_err(Fatal::Threads)?;
        let pulse = pool.pulse();
        let mut random = rand::rng();
        let live = watch::Sender::new(Live::of(&settings));
        Ok(Self {
            share: LocalShare::new(pool),
            pulse,
            store: AzureStore::new(azure_settings(&settings)?)?,
            folders: folders(&settings),
            process: ProcessId::new(random.next_u64()),
            seed: random.next_u64(),
            metrics,
            books: SharedBooks::new(books(&settings)?),
            publisher: Publisher::new(reports, live.subscribe()),
            live,
            settings,
        })
    }

    /// The sign of life of the threads for the share.
    pub fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.pulse)
    }

    /// The books, which exist before the session does.
    pub fn books(&self) -> SharedBooks {
        self.books.clone()
    }

    /// The settings that may change.
    pub fn live(&self) -> watch::Sender<Live> {
        self.live.clone()
    }

    /// Checks both ends, over and over if `patient`, and starts the session.
    pub async fn start(mut self, patient: bool) -> Result<Running, Fatal> {
        let ground = loop {
            match self.check().await {
                Ok(ground) => break ground,
                Err(fatal) if !patient => return Err(fatal),
                Err(problem) => tracing::warn!(%problem, "cannot start, trying again"),
            }
            tokio::time::sleep(TRY_AGAIN).await;
        };
        let uid = self.settings.session.uid.clone();
        let (session, publisher) = self.session(ground)?;
        let mut tasks = run::attend(&session, &uid, publisher);
        let mut collector = Collector::default();
        while let Err(error) = run::recover(&session, &mut collector, &uid).await {
            if !patient {
                return Err(Fatal::Check { reason: "ShareFailed".into(), message: error.full().to_string() });
            }
            run::source_fails(&session, RECOVERY, &error);
            tokio::time::sleep(TRY_AGAIN).await;
        }
        session.books().ends.works(End::Source, RECOVERY);
        run::start(&session, collector, &mut tasks);
        tasks.spawn(keep_rate(session.live.clone(), session.store.pacer()));
        Ok(Running { session, tasks })
    }

    /// Both ends, each reported by itself.
    async fn check(&mut self) -> Result<Ground, Fatal> {
        const START: &str = "start";
        let marker = marker(&self.settings);
        let ground = self.check_source(&marker).await;
        match &ground {
            Ok(_) => self.books.lock().ends.works(End::Source, START),
            Err(obstacle) => self.books.lock().ends.fails(End::Source, START, obstacle.reason, &obstacle.message),
        }
        self.store.refresh().await;
        let prepared = self.store.prepare().await;
        match &prepared {
            Ok(()) => self.books.lock().ends.works(End::Destination, START),
            Err(error) => self.books.lock().ends.fails(End::Destination, START, error.reason(), &error.to_string()),
        }
        self.publisher.publish(&mut self.books.lock(), tokio::time::Instant::now());
        let ground = ground.map_err(|obstacle| Fatal::Check { reason: obstacle.reason.into(), message: obstacle.message })?;
        prepared.map_err(|error| Fatal::Check { reason: error.reason().into(), message: error.to_string() })?;
        Ok(ground)
    }

    /// Checks the share, and says so when that does not end: the first call may hang before there is anything else to tell of it.
    async fn check_source(&mut self, marker: &Marker) -> Result<Ground, Obstacle> {
        let mut ground = pin!(check_share(&self.share, &self.folders, marker, self.process));
        loop {
            let answer = tokio::time::timeout(run::PUBLISH, &mut ground).await;
            let books = &mut self.books.lock();
            run::look_whether_it_hangs(&self.share, books);
            if let Ok(ground) = answer {
                return ground;
            }
            self.publisher.publish(books, tokio::time::Instant::now());
        }
    }

    fn session(self, ground: Ground) -> Result<(Arc<Session<Real>>, Publisher), Fatal> {
        let stage = stage(&self.settings, self.process)?;
        let session = Session::new(Parts {
            share: self.share,
            store: self.store,
            stage,
            folders: self.folders,
            rules: rules(&self.settings),
            live: self.live.subscribe(),
            source: ground.source,
            process: self.process,
            pod_uid: self.settings.report.pod_uid.clone(),
            longest_name: ground.longest_name,
            since: ground.since,
            books: self.books,
            metrics: self.metrics,
            seed: self.seed,
        });
        Ok((Arc::new(session), self.publisher))
    }
}

/// A running uploader.
#[derive(Debug)]
pub struct Running {
    /// The session.
    pub session: Arc<Session<Real>>,
    tasks: tokio::task::JoinSet<()>,
}

impl Running {
    /// Resolves when the run is over and its last numbers are published, or with an error if a loop ends, which is a bug.
    pub async fn ended(&mut self) -> anyhow::Result<Conclusion> {
        let concluded = async {
            let conclusion = ending::conclusion(&self.session).await;
            tokio::time::sleep(run::PUBLISH * 2).await;
            conclusion
        };
        tokio::select! {
            conclusion = concluded => Ok(conclusion),
            ended = self.tasks.join_next() => Err(match ended {
                Some(Err(error)) => anyhow::Error::new(error).context("a part of the uploader failed"),
                _ => anyhow::anyhow!("a part of the uploader ended"),
            }),
        }
    }
}

fn books(settings: &Settings) -> Result<Books, globset::Error> {
    let filter = Filter::new(&settings.watch.extensions, &settings.watch.ignore)?;
    Ok(Books::new(Table::new(filter, settings.watch.recursive), Schedule::new(settings.transfer.queue_size.get())))
}

fn folders(settings: &Settings) -> Folders {
    Folders {
        incoming: settings.folders.incoming_root.join(&settings.session.name),
        processing: settings.folders.processing_root.clone(),
        session: settings.session.name.clone(),
        date: settings.session.date_prefix.clone(),
        prefix: settings.destination.prefix.clone(),
    }
}

fn marker(settings: &Settings) -> Marker {
    let destination = &settings.destination;
    Marker {
        version: 1,
        session_uid: settings.session.uid.clone(),
        incoming_dir: settings.folders.incoming_root.display().to_string(),
        destination: format!(
            "{}/{}/{}",
            destination.account_url.as_str().trim_end_matches('/'),
            destination.container,
            destination.prefix
        ),
    }
}

fn rules(settings: &Settings) -> Rules {
    let transfer = &settings.transfer;
    Rules {
        mode: settings.session.mode,
        recursive: settings.watch.recursive,
        overwrite: settings.destination.overwrite,
        properties: settings.destination.properties.clone(),
        block_size: transfer.block_size,
        single_put_size: transfer.single_put_size,
        concurrency: transfer.concurrency.get(),
        memory_limit: transfer.memory_limit,
        max_attempts: transfer.max_attempts,
    }
}

/// Gives the store the rate of now, over and over.
async fn keep_rate(mut live: watch::Receiver<Live>, pacer: Pacer) {
    loop {
        pacer.set(live.borrow_and_update().bandwidth_limit);
        if live.changed().await.is_err() {
            // Nobody can change it any more.
            std::future::pending::<()>().await;
        }
    }
}

fn stage(settings: &Settings, process: ProcessId) -> Result<DiskStage, Fatal> {
    let StagingSettings { mode, size_limit } = settings.staging;
    if mode == StagingMode::None {
        return Ok(DiskStage::none());
    }
    let pool = Pool::new("stage", STAGE_THREADS).map_err(Fatal::Threads)?;
    let budget = Budget { disk: size_limit, memory: settings.transfer.memory_limit / 4 };
    Ok(DiskStage::open_or_stream(&settings.folders.staging_root, &process.to_string(), budget, pool))
}

fn azure_settings(settings: &Settings) -> Result<AzureSettings, SettingsError> {
    let destination = &settings.destination;
    let named = destination.credentials.clone();
    let secret = |secret: Secret| azure_core::credentials::Secret::new(secret.expose().to_owned());
    let (account_name, account_key) = named.account_key.unzip();
    let credential = NamedCredential {
        folder: named.folder,
        connection_string: named.connection_string.map(secret),
        account_name,
        account_key: account_key.map(secret),
        sas_token: named.sas_token.map(secret),
        workload_identity: named.workload_identity,
    };
    Ok(AzureSettings {
        account_url: AccountUrl::parse(destination.account_url.as_str())?,
        container: destination.container.clone(),
        prefix: destination.prefix.clone(),
        credential: credential.source(),
    })
}
