//! A container under test, with a way to look at it from outside.

use std::collections::BTreeMap;

use blobferry_uploader::{
    blob::{
        BlobStore,
        memory::{Container, MemoryStore},
    },
    formats::BlobName,
};
use bytes::Bytes;

/// What a write gives a blob besides content and metadata.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) access_tier: String,
    pub(crate) content_type: String,
    pub(crate) tags: BTreeMap<String, String>,
}

/// A new container of a service.
pub(crate) trait Backend: Sized {
    /// What is tested.
    type Store: BlobStore;

    /// Azurite refuses a Put Blob with `If-None-Match: *` where there are only uncommitted blocks. The service does not, and neither
    /// refuses a Put Block List there.
    const PUT_BLOB_TAKES_UNCOMMITTED_BLOCKS_FOR_A_BLOB: bool = false;

    /// Azurite leaves uncommitted blocks beside a blob that was put whole over another. The service drops them.
    const PUT_BLOB_LEAVES_UNCOMMITTED_BLOCKS: bool = false;

    /// A container that does not exist.
    async fn start_without_container() -> Self;

    /// An empty container.
    async fn start() -> Self {
        let backend = Self::start_without_container().await;
        backend.store().prepare().await.unwrap();
        backend
    }

    /// A client of the container.
    fn store(&self) -> &Self::Store;

    /// The names of all blobs, as another client lists them.
    async fn list(&self) -> Vec<String>;

    /// The bytes of a blob, as another client reads them.
    async fn read(&self, name: &BlobName) -> Option<Bytes>;

    /// What a blob has besides content and metadata, as another client reads it.
    async fn given(&self, name: &BlobName) -> Given;

    /// Leaves an uncommitted block of the bytes `foreign`, as another tool would.
    async fn plant_block(&self, name: &BlobName, id: &[u8]);
}

/// The service in memory.
pub(crate) struct Memory(MemoryStore);

impl Backend for Memory {
    type Store = MemoryStore;

    async fn start_without_container() -> Self {
        let store = MemoryStore::new();
        store.set_container(Container::Absent);
        Self(store)
    }

    fn store(&self) -> &MemoryStore {
        &self.0
    }

    async fn list(&self) -> Vec<String> {
        self.0.names().iter().map(|name| name.as_str().to_owned()).collect()
    }

    async fn read(&self, name: &BlobName) -> Option<Bytes> {
        self.0.content(name)
    }

    async fn given(&self, name: &BlobName) -> Given {
        let properties = self.0.versions(name).pop().unwrap().properties;
        Given {
            access_tier: properties.access_tier.map(|tier| format!("{tier:?}")).unwrap_or_default(),
            content_type: properties.content_type.unwrap_or_default(),
            tags: properties.tags,
        }
    }

    async fn plant_block(&self, name: &BlobName, id: &[u8]) {
        self.0.plant_block(name, id, Bytes::from_static(b"foreign"));
    }
}
