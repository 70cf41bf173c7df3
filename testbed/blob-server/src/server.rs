//! The running server and what a test may ask of it.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    AccountKey, Event, Faults, Keep, Record, Totals, Version,
    account::{Account, Slot},
    authorize::ACCOUNT,
    body::{Content, crc64},
    connection,
    record::Log,
};

/// Is told what happens, while it happens.
pub type Observer = Arc<dyn Fn(Event<'_>) + Send + Sync>;

/// How a server behaves.
#[derive(Clone)]
pub struct Settings {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What is kept of contents.
    pub keep: Keep,
    /// Most bytes held in memory; beyond them the server is busy.
    pub memory: u64,
    /// The account's key, if signatures are verified. Without it everybody may do everything.
    pub key: Option<AccountKey>,
    /// Whether every request is remembered, or only their sums.
    pub keeps_records: bool,
    /// Who is told what happens.
    pub observer: Option<Observer>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            keep: Keep::Contents,
            memory: 1 << 30,
            key: None,
            keeps_records: true,
            observer: None,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("listen", &self.listen).field("keep", &self.keep).finish_non_exhaustive()
    }
}

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) account: Mutex<Account>,
    pub(crate) faults: Mutex<Faults>,
    pub(crate) log: Mutex<Log>,
    pub(crate) key: Option<AccountKey>,
    pub(crate) observer: Option<Observer>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running server; it ends when this is dropped.
pub struct BlobServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl fmt::Debug for BlobServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobServer").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for BlobServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl BlobServer {
    /// Starts a server on the current runtime.
    ///
    /// # Errors
    ///
    /// When the address cannot be listened on.
    pub async fn start(settings: Settings) -> std::io::Result<Self> {
        let listener = TcpListener::bind(settings.listen).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            account: Mutex::new(Account::new(settings.keep, settings.memory)),
            faults: Mutex::default(),
            log: Mutex::new(Log::new(settings.keeps_records)),
            key: settings.key,
            observer: settings.observer,
        });
        let accepting = tokio::spawn(connection::accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The account's URL, as an uploader takes it.
    pub fn account_url(&self) -> String {
        format!("http://{}/{ACCOUNT}", self.address)
    }

    /// The faults to come.
    pub fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.shared.faults)
    }

    /// Sums over all requests so far.
    pub fn totals(&self) -> Totals {
        lock(&self.shared.log).totals()
    }

    /// The requests that `wanted` chooses, in the order in which they ended.
    pub fn records(&self, wanted: impl Fn(&Record) -> bool) -> Vec<Record> {
        lock(&self.shared.log).records().iter().filter(|record| wanted(record)).cloned().collect()
    }

    /// Forgets requests that are older than `age`; the sums keep them.
    pub fn forget_records(&self, age: Duration) {
        lock(&self.shared.log).forget(age, SystemTime::now());
    }

    /// The names of all blobs of a container, in order.
    pub fn names(&self, container: &str) -> Vec<String> {
        lock(&self.shared.account).names(container)
    }

    /// Every version that a blob ever had, oldest first.
    pub fn versions(&self, container: &str, blob: &str) -> Vec<Version> {
        lock(&self.shared.account).slot(container, blob).map(Slot::versions).unwrap_or_default().to_vec()
    }

    /// The current version of a blob.
    pub fn current(&self, container: &str, blob: &str) -> Option<Version> {
        let account = lock(&self.shared.account);
        account.slot(container, blob).and_then(|slot| slot.current()).cloned()
    }

    /// Makes a container, as an administrator would.
    pub fn create_container(&self, container: &str) {
        lock(&self.shared.account).create(container);
    }

    /// Leaves an uncommitted block under a name, as another tool would; the container is made if it is absent.
    pub fn plant_block(&self, container: &str, blob: &str, id: &[u8], bytes: Bytes) {
        let content = Content { size: bytes.len() as u64, crc64: crc64(&bytes), bytes: Some(bytes) };
        lock(&self.shared.account).plant_block(container, blob, id.to_vec(), &content);
    }

    /// Uncommitted blocks under a name: how many, and their bytes.
    pub fn uncommitted(&self, container: &str, blob: &str) -> (usize, u64) {
        let account = lock(&self.shared.account);
        let blocks = account.slot(container, blob).into_iter().flat_map(Slot::uncommitted);
        blocks.fold((0, 0), |(count, bytes), (_, size)| (count + 1, bytes + size))
    }
}
