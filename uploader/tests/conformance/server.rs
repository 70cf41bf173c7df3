//! The project's own blob server, which verifies every signature.

use azure_core::credentials::Secret;
use blobferry_blob_server::{ACCOUNT, AccountKey, BlobServer, KEY, Settings};
use blobferry_uploader::{
    azure::{AccountUrl, AzureSettings, AzureStore, CredentialSource},
    formats::BlobName,
};
use bytes::Bytes;

use crate::backend::{Backend, Given};

/// The container.
pub(crate) const CONTAINER: &str = "data";

/// A server of one's own with one container.
pub(crate) struct Server {
    /// The server.
    pub(crate) server: BlobServer,
    store: AzureStore,
}

/// A store of the container, with the right key.
pub(crate) fn store_at(account_url: &str) -> AzureStore {
    let account_url = AccountUrl::parse(account_url).unwrap();
    let credential = CredentialSource::AccountKey { account: Some(ACCOUNT.to_owned()), key: Secret::new(KEY) };
    AzureStore::new(AzureSettings { account_url, container: CONTAINER.to_owned(), prefix: String::new(), credential }).unwrap()
}

impl Backend for Server {
    type Store = AzureStore;

    async fn start_without_container() -> Self {
        let settings = Settings { key: Some(AccountKey::new(KEY).unwrap()), ..Settings::default() };
        let server = BlobServer::start(settings).await.unwrap();
        let store = store_at(&server.account_url());
        Self { server, store }
    }

    fn store(&self) -> &AzureStore {
        &self.store
    }

    async fn list(&self) -> Vec<String> {
        self.server.names(CONTAINER)
    }

    async fn read(&self, name: &BlobName) -> Option<Bytes> {
        self.server.current(CONTAINER, name.as_str())?.bytes
    }

    async fn given(&self, name: &BlobName) -> Given {
        let version = self.server.current(CONTAINER, name.as_str()).unwrap();
        Given { access_tier: version.access_tier.unwrap_or_default(), content_type: version.content_type, tags: version.tags }
    }

    async fn plant_block(&self, name: &BlobName, id: &[u8]) {
        self.server.plant_block(CONTAINER, name.as_str(), id, Bytes::from_static(b"foreign"));
    }
}
