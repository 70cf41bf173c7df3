//! What all parts of a running session share: its two edges, its folders and rules, and the books.

use std::{
    fmt,
    ops::Deref,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use blobferry_crds::Overwrite;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::{
    args::Mode,
    blob::{BlobStore, Properties},
    books::{Books, SharedBooks},
    file::ClaimedFile,
    formats::{BlobName, BlobNameError, ClaimId, OrderKey, ProcessId, SourceId, blob_name},
    live::Live,
    metrics::Metrics,
    schedule::Task,
    share::{Identity, Share},
    stage::Stage,
    transfer::{Buffers, Flight},
};

/// The kinds of the two edges and of the stage between them.
pub trait Edges: Send + Sync + 'static {
    /// The share.
    type Share: Share;
    /// The container.
    type Store: BlobStore;
    /// The local disk.
    type Stage: Stage;
}

/// Where things are on the share and in the container.
#[derive(Clone, Debug)]
pub struct Folders {
    /// Where this session's producers put files.
    pub incoming: PathBuf,
    /// Where claimed files of all sessions live.
    pub processing: PathBuf,
    /// The session.
    pub session: String,
    /// The date of new claims, `YYYYMMDD`.
    pub date: String,
    /// What blob names start with.
    pub prefix: String,
}

impl Folders {
    /// Where the claims of a date live.
    pub fn claims(&self, date: &str) -> PathBuf {
        self.processing.join(date).join(&self.session)
    }

    /// The blob of a producer's file of a date.
    pub fn blob(&self, date: &str, producer: &[u8]) -> Result<BlobName, BlobNameError> {
        blob_name(&self.prefix, date, &self.session, producer)
    }
}

/// How files are taken, sent and kept.
#[derive(Clone, Debug)]
pub struct Rules {
    /// What is done with claimed files, and whether others are taken.
    pub mode: Mode,
    /// Whether files in folders below the incoming one are taken too.
    pub recursive: bool,
    /// What happens when a blob of the name exists.
    pub overwrite: Overwrite,
    /// What blobs get besides our own metadata.
    pub properties: Properties,
    /// Least bytes of a block.
    pub block_size: u64,
    /// Most bytes of a file that is one Put Blob.
    pub single_put_size: u64,
    /// Blocks in flight per file.
    pub concurrency: usize,
    /// Most bytes buffered for all files.
    pub memory_limit: u64,
    /// Failures of its own after which a file is set aside; 0 means never.
    pub max_attempts: u32,
}

/// What a session is made of.
#[derive(Debug)]
pub struct Parts<E: Edges> {
    /// The share.
    pub share: E::Share,
    /// The container.
    pub store: E::Store,
    /// The local disk.
    pub stage: E::Stage,
    /// Where things are.
    pub folders: Folders,
    /// How things are done.
    pub rules: Rules,
    /// What changes meanwhile.
    pub live: watch::Receiver<Live>,
    /// What our blobs belong to.
    pub source: SourceId,
    /// This process.
    pub process: ProcessId,
    /// UID of this pod.
    pub pod_uid: String,
    /// Most bytes of a producer's name.
    pub longest_name: usize,
    /// When the session came to the share (server clock).
    pub since: i128,
    /// The books, which others may hold too.
    pub books: SharedBooks,
    /// The instruments.
    pub metrics: Metrics,
    /// Seed of the session's randomness.
    pub seed: u64,
}

/// A running session: its parts and what comes to be while it runs.
pub struct Session<E: Edges> {
    parts: Parts<E>,
    /// The memory for blocks.
    pub buffers: Buffers,
    /// The blocks under way.
    pub flight: Flight,
    random: Mutex<StdRng>,
    /// What the server's clock said last, in nanoseconds since 1970.
    server_time: AtomicU64,
    wake: Notify,
}

impl<E: Edges> fmt::Debug for Session<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("folders", &self.folders).field("process", &self.process).finish_non_exhaustive()
    }
}

impl<E: Edges> Deref for Session<E> {
    type Target = Parts<E>;

    fn deref(&self) -> &Parts<E> {
        &self.parts
    }
}

impl<E: Edges> Session<E> {
    /// A session of these parts.
    pub fn new(parts: Parts<E>) -> Self {
        Self {
            buffers: Buffers::new(parts.rules.memory_limit),
            flight: Flight::default(),
            random: Mutex::new(StdRng::seed_from_u64(parts.seed)),
            server_time: AtomicU64::new(0),
            wake: Notify::new(),
            parts,
        }
    }

    /// The books, for a moment: never held across an await.
    pub fn books(&self) -> MutexGuard<'_, Books> {
        self.parts.books.lock()
    }

    /// The settings of now.
    pub fn live(&self) -> Live {
        self.parts.live.borrow().clone()
    }

    /// Random bits.
    pub fn random(&self) -> u64 {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).next_u64()
    }

    /// A claim of this process for the file with this identity, which has waited since this time (server clock).
    pub fn claim_id(&self, key: OrderKey, identity: &Identity, since: i128) -> ClaimId {
        ClaimId::new(key, self.process, self.random()).made_for(identity).waiting_since(since)
    }

    /// A random number in `0.0..1.0`.
    pub fn jitter(&self) -> f64 {
        f64::from(u32::try_from(self.random() >> 32).unwrap_or(0)) / (f64::from(u32::MAX) + 1.0)
    }

    /// A time that the server's clock has reached, at most a heartbeat old.
    pub fn server_now(&self) -> i128 {
        self.server_time.load(Ordering::Relaxed).into()
    }

    /// Takes note of what the server's clock says. It may have stepped back; then later times of before count no more.
    pub fn set_server_time(&self, nanoseconds: i128) {
        self.server_time.store(u64::try_from(nanoseconds.max(0)).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Takes note of a time that the server set just now.
    pub fn saw_server_time(&self, nanoseconds: i128) {
        self.server_time.fetch_max(u64::try_from(nanoseconds.max(0)).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Hands stable files to the schedule as far as its queue has room.
    pub fn offer_stable(&self) {
        self.books().offer_stable(&self.folders, self.longest_name, Instant::now());
        self.wake.notify_waiters();
    }

    /// Wakes workers: what they may take has changed.
    pub fn wake(&self) {
        self.wake.notify_waiters();
    }

    /// Has a claimed file uploaded that nobody held.
    pub fn take_up(&self, file: Box<ClaimedFile>) {
        self.books().take_up(file, Instant::now());
        self.wake.notify_waiters();
    }

    /// Notes that no worker holds a task of `blob` any more.
    pub fn finished(&self, blob: &BlobName) {
        let mut books = self.books();
        books.schedule.finished(blob);
        books.refill(&self.folders, self.longest_name, Instant::now());
        drop(books);
        self.wake.notify_waiters();
    }

    /// The next task that is due, as soon as there is one.
    pub async fn next_task(&self) -> (BlobName, Task) {
        loop {
            let woken = self.wake.notified();
            tokio::pin!(woken);
            // Registered before the look, so that no wake-up is lost between the look and the wait.
            woken.as_mut().enable();
            let next_due = {
                let mut books = self.books();
                if let Some(task) = books.take(Instant::now()) {
                    return task;
                }
                books.next_due()
            };
            match next_due {
                Some(due) => {
                    let _ = tokio::time::timeout_at(due, woken).await;
                }
                None => woken.await,
            }
        }
    }

    /// Sets the instruments that show what is now.
    pub fn measure(&self) {
        let (depth, oldest) = {
            let mut books = self.books();
            (books.schedule.queued(), books.oldest_waiting())
        };
        let age = oldest.and_then(|oldest| u64::try_from(self.server_now() - oldest).ok()).map(Duration::from_nanos);
        self.metrics.queue_depth(depth);
        self.metrics.oldest_waiting(age);
        self.metrics.staging_used(self.stage.used());
    }

    /// The folder of new claims.
    pub fn claims_today(&self) -> PathBuf {
        self.folders.claims(&self.folders.date)
    }

    /// Path of a file below the processing folder.
    pub fn processing(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folders.processing.join(name)
    }
}
