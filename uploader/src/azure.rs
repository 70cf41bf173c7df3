//! Azure Blob Storage as a [`BlobStore`].
//!
//! [`AzureStore`] calls the SDK; the SDK's pipeline runs [`tailor`] (path and checksum), then the policy of the [`credential`], then
//! our [`transport`], where [`scrub`] takes secrets out of what comes back before a library can log it. An error is sorted by
//! [`errors`]. A call is one HTTP request: the SDK's and the HTTP client's own retries are off, because callers decide when to look
//! and when to try again.

mod address;
mod credential;
mod denied;
mod errors;
mod scrub;
mod tailor;
mod transport;

use std::{collections::HashMap, num::NonZero, sync::Arc};

use azure_core::http::{
    ClientMethodOptions, ClientOptions, Etag, NoFormat, Response, RetryOptions, Transport as SdkTransport, Url,
};
use azure_storage_blob::{
    BlobClient, BlobContainerClient, BlobContainerClientOptions, BlockBlobClient,
    models::{
        AccessTier, BlobClientGetPropertiesOptions, BlobClientGetPropertiesResult, BlobClientGetPropertiesResultHeaders as _,
        Block, BlockBlobClientCommitBlockListOptions, BlockBlobClientCommitBlockListResultHeaders as _,
        BlockBlobClientGetBlockListOptions, BlockBlobClientStageBlockOptions, BlockBlobClientUploadOptions, BlockListType,
        BlockLookupList,
    },
};
use bytes::Bytes;
use uuid::Uuid;

pub use self::{
    address::AccountUrl,
    credential::{ConnectionString, CredentialSource, NamedCredential, Variables},
};
use self::{
    credential::{Authorize, Keeper},
    errors::{Operation, from_sdk, is_absent},
    tailor::{Tailor, Tailoring},
    transport::Transport,
};
use crate::{
    blob::{BlobError, BlobStore, BlockListKind, Condition, ETag, Found, ListedBlock, Properties},
    formats::{BlobName, BlockId, blob_name},
    pacer::Pacer,
};

/// A setting that cannot become right by itself. The text holds no credential.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(String);

/// Which container, and by what right.
#[derive(Clone, Debug)]
pub struct AzureSettings {
    /// The storage account.
    pub account_url: AccountUrl,
    /// The container's name.
    pub container: String,
    /// What all blob names start with, empty or without a slash at either end: a SAS token may be for this folder only, so the right
    /// to read is tried here.
    pub prefix: String,
    /// Where the credential comes from.
    pub credential: CredentialSource,
}

/// A container of Azure Blob Storage.
#[derive(Clone)]
pub struct AzureStore {
    settings: AzureSettings,
    container_url: Url,
    container: Arc<BlobContainerClient>,
    blob: Arc<BlobClient>,
    block_blob: Arc<BlockBlobClient>,
    keeper: Arc<Keeper>,
    pacer: Pacer,
}

impl std::fmt::Debug for AzureStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AzureStore").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl AzureStore {
    /// Makes no request.
    pub fn new(settings: AzureSettings) -> Result<Self, SettingsError> {
        let container_url = settings.account_url.container_url(&settings.container)?;
        let transport = Transport::new(settings.account_url.is_https())?;
        let pacer = transport.pacer();
        let keeper = Keeper::new(settings.credential.clone(), settings.account_url.clone(), transport.clone())?;
        let keeper = Arc::new(keeper);
        let client_options = ClientOptions {
            per_call_policies: vec![Arc::new(Tailor)],
            per_try_policies: vec![Arc::new(Authorize(Arc::clone(&keeper)))],
            retry: RetryOptions::none(),
            transport: Some(SdkTransport::new(Arc::new(transport))),
            ..ClientOptions::default()
        };
        let options = BlobContainerClientOptions { client_options, ..BlobContainerClientOptions::default() };
        let container = BlobContainerClient::new(container_url.clone(), None, Some(options));
        let container = container.map_err(|error| SettingsError(error.to_string()))?;
        // The name is replaced in every request.
        let blob = container.blob_client("blob");
        let block_blob = Arc::new(blob.block_blob_client());
        Ok(Self { settings, container_url, container: Arc::new(container), blob: Arc::new(blob), block_blob, keeper, pacer })
    }

    /// What keeps all requests together to a rate.
    pub fn pacer(&self) -> Pacer {
        self.pacer.clone()
    }

    /// Options that send a call to the path of `name`.
    fn at<'a>(&self, name: &BlobName, crc64: Option<u64>) -> ClientMethodOptions<'a> {
        Tailoring { path: address::blob_path(&self.container_url, name), crc64 }.into_options()
    }

    /// Reads the properties of a blob that cannot exist, to learn whether reading is allowed.
    async fn try_to_read(&self) -> Result<(), BlobError> {
        let file = format!("blobferry-may-read-{}", Uuid::now_v7());
        let name = blob_name(&self.settings.prefix, "0", "0", file.as_bytes());
        let name = name.map_err(|error| BlobError::Rejected { code: "InvalidUri".to_owned(), message: error.to_string() })?;
        self.look(&name).await.map(|_| ())
    }

    async fn create_container(&self) -> Result<(), BlobError> {
        let Err(error) = self.container.create(None).await else { return Ok(()) };
        match from_sdk(&error, Operation::CreateContainer) {
            // It is there by now.
            BlobError::Conflict { .. } => Ok(()),
            BlobError::Denied { message } => {
                let container = &self.settings.container;
                Err(BlobError::ContainerMissing {
                    message: format!("the container {container} does not exist: make it, or let the uploader make it: {message}"),
                })
            }
            other => Err(other),
        }
    }
}

impl BlobStore for AzureStore {
    async fn look(&self, name: &BlobName) -> Result<Option<Found>, BlobError> {
        let options = BlobClientGetPropertiesOptions { method_options: self.at(name, None), ..Default::default() };
        let found = match self.blob.get_properties(Some(options)).await {
            Ok(response) => read_properties(&response),
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => Err(error),
        };
        found.map(Some).map_err(|error| from_sdk(&error, Operation::Look))
    }

    async fn put_block(&self, name: &BlobName, id: &BlockId, body: Bytes, crc64: u64) -> Result<(), BlobError> {
        let options = BlockBlobClientStageBlockOptions { method_options: self.at(name, Some(crc64)), ..Default::default() };
        let sent = self.block_blob.stage_block(&id.to_bytes(), body.len() as u64, body.into(), Some(options)).await;
        sent.map(|_| ()).map_err(|error| from_sdk(&error, Operation::PutBlock))
    }

    async fn put_blob(
        &self,
        name: &BlobName,
        body: Bytes,
        crc64: u64,
        condition: &Condition,
        properties: &Properties,
    ) -> Result<ETag, BlobError> {
        let (if_match, if_none_match) = condition_headers(condition);
        let options = BlockBlobClientUploadOptions {
            if_match,
            if_none_match,
            metadata: Some(metadata_headers(properties)),
            blob_tags_string: tags_header(properties),
            blob_content_type: properties.content_type.clone(),
            tier: properties.access_tier.map(tier),
            // What fits in one part goes out as one Put Blob.
            partition_size: NonZero::new(body.len().max(1) as u64),
            parallel: NonZero::new(1),
            method_options: self.at(name, Some(crc64)),
            ..Default::default()
        };
        let sent = self.block_blob.upload(body.into(), Some(options)).await;
        let etag = sent.map_err(|error| from_sdk(&error, Operation::PutBlob))?.etag;
        require_etag(etag, Operation::PutBlob)
    }

    async fn commit(
        &self,
        name: &BlobName,
        blocks: &[BlockId],
        condition: &Condition,
        properties: &Properties,
    ) -> Result<ETag, BlobError> {
        let (if_match, if_none_match) = condition_headers(condition);
        let options = BlockBlobClientCommitBlockListOptions {
            if_match,
            if_none_match,
            metadata: Some(metadata_headers(properties)),
            blob_tags_string: tags_header(properties),
            blob_content_type: properties.content_type.clone(),
            tier: properties.access_tier.map(tier),
            method_options: self.at(name, None),
            ..Default::default()
        };
        let ids = blocks.iter().map(|id| id.to_bytes().to_vec()).collect();
        let list = BlockLookupList { uncommitted: Some(ids), ..Default::default() };
        let failed = |error: azure_core::Error| from_sdk(&error, Operation::Commit);
        let list = list.try_into().map_err(failed)?;
        let response = self.block_blob.commit_block_list(list, Some(options)).await.map_err(failed)?;
        require_etag(response.etag().map_err(failed)?, Operation::Commit)
    }

    async fn blocks(&self, name: &BlobName, kind: BlockListKind) -> Result<Vec<ListedBlock>, BlobError> {
        let options = BlockBlobClientGetBlockListOptions { method_options: self.at(name, None), ..Default::default() };
        let list_type = match kind {
            BlockListKind::Committed => BlockListType::Committed,
            BlockListKind::Uncommitted => BlockListType::Uncommitted,
        };
        let list = match self.block_blob.get_block_list(list_type, Some(options)).await {
            Ok(response) => response.into_model().map_err(|error| from_sdk(&error, Operation::Blocks))?,
            Err(error) if is_absent(&error) => return Ok(Vec::new()),
            Err(error) => return Err(from_sdk(&error, Operation::Blocks)),
        };
        let blocks = match kind {
            BlockListKind::Committed => list.committed_blocks,
            BlockListKind::Uncommitted => list.uncommitted_blocks,
        };
        Ok(blocks.unwrap_or_default().into_iter().filter_map(listed).collect())
    }

    /// Two requests at most are needed where the container exists or may be made, one in the usual case.
    async fn prepare(&self) -> Result<(), BlobError> {
        match self.try_to_read().await {
            Err(BlobError::ContainerMissing { .. }) => {
                self.create_container().await?;
                self.try_to_read().await
            }
            other => other,
        }
    }

    async fn refresh(&self) {
        self.keeper.refresh().await;
    }
}

fn read_properties(response: &Response<BlobClientGetPropertiesResult, NoFormat>) -> azure_core::Result<Found> {
    let unreadable = |what: &'static str| azure_core::Error::with_message(azure_core::error::ErrorKind::DataConversion, what);
    Ok(Found {
        etag: ETag(response.etag()?.ok_or_else(|| unreadable("no ETag"))?.to_string()),
        size: response.content_length()?.ok_or_else(|| unreadable("no Content-Length"))?,
        metadata: response.metadata()?.into_iter().collect(),
    })
}

/// `If-Match` and `If-None-Match`.
fn condition_headers(condition: &Condition) -> (Option<Etag>, Option<Etag>) {
    match condition {
        Condition::Absent => (None, Some(Etag::from("*"))),
        Condition::Matches(etag) => (Some(Etag::from(etag.0.as_str())), None),
    }
}

fn metadata_headers(properties: &Properties) -> HashMap<String, String> {
    properties.metadata.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect()
}

/// The tags as a query string, as the header `x-ms-tags` has them; `None` without any, because the header needs a right of its own.
fn tags_header(properties: &Properties) -> Option<String> {
    let mut text = url::form_urlencoded::Serializer::new(String::new());
    text.extend_pairs(&properties.tags);
    // Everybody understands this as a space.
    Some(text.finish().replace('+', "%20")).filter(|text| !text.is_empty())
}

fn tier(tier: blobferry_crds::AccessTier) -> AccessTier {
    match tier {
        blobferry_crds::AccessTier::Hot => AccessTier::Hot,
        blobferry_crds::AccessTier::Cool => AccessTier::Cool,
        blobferry_crds::AccessTier::Cold => AccessTier::Cold,
        blobferry_crds::AccessTier::Archive => AccessTier::Archive,
    }
}

/// A write that is answered without an `ETag` has happened, but cannot be built upon: the caller looks.
fn require_etag(etag: Option<Etag>, operation: Operation) -> Result<ETag, BlobError> {
    let message = || format!("could not {}: the reply has no ETag", operation.verb());
    etag.map(|etag| ETag(etag.to_string())).ok_or_else(|| BlobError::Transient { message: message(), retry_after: None })
}

fn listed(block: Block) -> Option<ListedBlock> {
    Some(ListedBlock { id: block.name?, size: u64::try_from(block.size?).ok()? })
}

#[cfg(test)]
mod tests;
