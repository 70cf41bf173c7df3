//! A blob service in memory that follows Azure's rules, with faults that a test scripts.
//!
//! A call becomes a [`Request`]; the client's script decides whether it fails before it is applied, is applied with its reply lost,
//! or stays on its way to be applied later; the service applies it. Every version that a blob ever had is kept with its bytes.
//!
//! ```
//! # use blobferry_uploader::blob::{BlobError, memory::{MemoryStore, Operation}};
//! let store = MemoryStore::new();
//! store.lose_reply(Operation::Commit, 1);
//! store.fail_before(Operation::PutBlock, 3, BlobError::Denied { message: "no right to write".into() });
//! let other_uploader = store.another_client();
//! ```

mod script;
mod service;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use futures::future::BoxFuture;

use self::{
    script::{Fate, Script},
    service::Service,
};
pub use self::{
    script::{Operation, Request},
    service::{Container, Version},
};
use super::{BlobError, BlobStore, BlockListKind, Condition, ETag, Found, ListedBlock, Properties};
use crate::formats::{BlobName, BlockId};

/// Awaited before a request is looked at; may wait as long as it likes.
type Hook = Arc<dyn Fn(Request) -> BoxFuture<'static, ()> + Send + Sync>;

/// One client of a blob service in memory. A clone is the same client; [`Self::another_client`] has faults of its own.
#[derive(Clone)]
pub struct MemoryStore {
    service: Arc<Mutex<Service>>,
    script: Arc<Mutex<Script>>,
    hook: Arc<Mutex<Option<Hook>>>,
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a test scripts.
impl MemoryStore {
    /// A client of a new service with an empty container.
    pub fn new() -> Self {
        Self::of(Arc::new(Mutex::new(Service::default())))
    }

    /// Another client of the same service, without faults.
    #[must_use]
    pub fn another_client(&self) -> Self {
        Self::of(Arc::clone(&self.service))
    }

    fn of(service: Arc<Mutex<Service>>) -> Self {
        Self { service, script: Arc::default(), hook: Arc::default() }
    }

    /// Answers the `nth` call of `operation` from now (1 is the next one) with `error`, without applying it.
    pub fn fail_before(&self, operation: Operation, nth: usize, error: BlobError) {
        lock(&self.script).plan(operation, nth, Fate::FailBefore(error));
    }

    /// Applies the `nth` call of `operation` from now, then answers it with `error` whatever came out.
    pub fn fail_after(&self, operation: Operation, nth: usize, error: BlobError) {
        lock(&self.script).plan(operation, nth, Fate::FailAfter(error));
    }

    /// Applies the `nth` call of `operation` from now; the client sees a broken connection.
    pub fn lose_reply(&self, operation: Operation, nth: usize) {
        self.fail_after(operation, nth, lost());
    }

    /// The client of the `nth` call of `operation` from now sees a broken connection; the request stays on its way until
    /// [`Self::deliver_late_requests`].
    pub fn delay_request(&self, operation: Operation, nth: usize) {
        lock(&self.script).plan(operation, nth, Fate::Late);
    }

    /// Applies the requests that were delayed, in their order.
    pub fn deliver_late_requests(&self) {
        let late = lock(&self.script).take_late();
        let mut service = lock(&self.service);
        for request in late {
            // Nobody waits for the reply any more.
            let _ = service.apply(&request);
        }
    }

    /// Awaits `hook` before each request of this client is looked at.
    pub fn set_hook(&self, hook: impl Fn(Request) -> BoxFuture<'static, ()> + Send + Sync + 'static) {
        *lock(&self.hook) = Some(Arc::new(hook));
    }

    /// How many calls of `operation` this client made.
    pub fn calls(&self, operation: Operation) -> usize {
        lock(&self.script).calls(operation)
    }

    /// The state of the container.
    pub fn set_container(&self, container: Container) {
        lock(&self.service).container = container;
    }

    /// Makes every write to `name` fail as [`BlobError::Protected`] with `code` (`BlobArchived`, ...); `None` ends it.
    pub fn protect(&self, name: &BlobName, code: Option<&str>) {
        lock(&self.service).protect(name, code);
    }

    /// Leaves an uncommitted block under `name` as somebody else's tool would, with an id of any length.
    pub fn plant_block(&self, name: &BlobName, id: &[u8], body: Bytes) {
        lock(&self.service).plant_block(name, id, body);
    }

    /// Writes a blob as somebody else would, without a condition.
    pub fn write_as_another(&self, name: &BlobName, body: Bytes, metadata: &BTreeMap<String, String>) -> ETag {
        lock(&self.service).write_as_another(name, body, metadata)
    }

    /// Deletes a blob as somebody else would. Its versions stay known.
    pub fn delete_as_another(&self, name: &BlobName) {
        lock(&self.service).delete(name);
    }

    /// Drops the uncommitted blocks under `name`, as the service does seven days after the last one.
    pub fn expire_blocks(&self, name: &BlobName) {
        lock(&self.service).expire_blocks(name);
    }

    /// The names of all blobs, in order.
    pub fn names(&self) -> Vec<BlobName> {
        lock(&self.service).names()
    }

    /// The content of a blob now.
    pub fn content(&self, name: &BlobName) -> Option<Bytes> {
        lock(&self.service).current(name).map(Version::bytes)
    }

    /// Every version that `name` ever had, oldest first, whoever wrote it.
    pub fn versions(&self, name: &BlobName) -> Vec<Version> {
        lock(&self.service).versions(name)
    }

    async fn call(&self, request: Request) -> Result<service::Reply, BlobError> {
        let hook = lock(&self.hook).clone();
        if let Some(hook) = hook {
            hook(request.clone()).await;
        }
        let fate = lock(&self.script).fate_of(&request);
        match fate {
            Fate::Normal => lock(&self.service).apply(&request),
            Fate::FailBefore(error) => Err(error),
            Fate::FailAfter(error) => {
                let _ = lock(&self.service).apply(&request);
                Err(error)
            }
            Fate::Late => {
                lock(&self.script).keep_late(request);
                Err(lost())
            }
        }
    }
}

/// What a client sees when the connection breaks before the reply.
fn lost() -> BlobError {
    BlobError::Transient { message: "connection closed before the reply".to_owned(), retry_after: None }
}

/// The bytes in memory of the service's own: the client's buffer is its own again after the reply.
fn received(body: &Bytes) -> Bytes {
    Bytes::copy_from_slice(body)
}

impl BlobStore for MemoryStore {
    async fn look(&self, name: &BlobName) -> Result<Option<Found>, BlobError> {
        Ok(self.call(Request::Look { name: name.clone() }).await?.found)
    }

    async fn put_block(&self, name: &BlobName, id: &BlockId, body: Bytes, crc64: u64) -> Result<(), BlobError> {
        self.call(Request::PutBlock { name: name.clone(), id: *id, body: received(&body), crc64 }).await?;
        Ok(())
    }

    async fn put_blob(
        &self,
        name: &BlobName,
        body: Bytes,
        crc64: u64,
        condition: &Condition,
        properties: &Properties,
    ) -> Result<ETag, BlobError> {
        let (condition, properties) = (condition.clone(), properties.clone());
        let body = received(&body);
        Ok(self.call(Request::PutBlob { name: name.clone(), body, crc64, condition, properties }).await?.etag)
    }

    async fn commit(
        &self,
        name: &BlobName,
        blocks: &[BlockId],
        condition: &Condition,
        properties: &Properties,
    ) -> Result<ETag, BlobError> {
        let (condition, properties) = (condition.clone(), properties.clone());
        Ok(self.call(Request::Commit { name: name.clone(), blocks: blocks.to_vec(), condition, properties }).await?.etag)
    }

    async fn blocks(&self, name: &BlobName, kind: BlockListKind) -> Result<Vec<ListedBlock>, BlobError> {
        Ok(self.call(Request::Blocks { name: name.clone(), kind }).await?.blocks)
    }

    async fn prepare(&self) -> Result<(), BlobError> {
        self.call(Request::Prepare).await?;
        Ok(())
    }

    async fn refresh(&self) {
        lock(&self.script).count(Operation::Refresh);
    }
}
