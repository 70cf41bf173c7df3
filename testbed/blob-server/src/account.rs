//! The account: containers, blobs with every version that they ever had, and the rules of the service. (pure)
//!
//! - <https://learn.microsoft.com/rest/api/storageservices/put-block>
//! - <https://learn.microsoft.com/rest/api/storageservices/put-block-list>
//! - <https://learn.microsoft.com/rest/api/storageservices/put-blob>
//! - <https://learn.microsoft.com/rest/api/storageservices/get-block-list>

mod headers;
mod limits;
mod slot;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::SystemTime,
};

use bytes::Bytes;

use self::headers::Properties;
pub(crate) use self::slot::Slot;
pub use self::slot::{Block, Version};
use crate::{
    block_list,
    body::Content,
    call::{Call, Operation},
    listing,
    refusal::{self, Refusal},
};

/// What is kept of contents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// Everything, so that blobs can be read.
    #[default]
    Contents,
    /// Bytes until a write made a version of them, then its SHA-256.
    Hashes,
    /// Checksums only: any amount of data passes through.
    Checksums,
}

/// What a successful request is answered with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
    /// For HEAD: the length that a GET would have.
    pub(crate) length: Option<u64>,
    /// True if the request made a new version of its blob.
    pub(crate) wrote: bool,
}

impl Reply {
    fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    fn xml(body: String) -> Self {
        let headers = vec![("content-type".to_owned(), "application/xml".to_owned())];
        Self { status: 200, headers, body: body.into(), ..Self::default() }
    }
}

type Container = BTreeMap<String, Slot>;

/// All containers.
#[derive(Debug, Default)]
pub(crate) struct Account {
    containers: BTreeMap<String, Container>,
    keep: Keep,
    /// Most bytes held in memory.
    limit: u64,
    held: u64,
    writes: u64,
}

impl Account {
    pub(crate) fn new(keep: Keep, limit: u64) -> Self {
        Self { keep, limit, ..Self::default() }
    }

    /// Whether the bytes of an operation's body are needed.
    pub(crate) fn needs_bytes(&self, operation: Operation) -> bool {
        match operation {
            Operation::PutBlob | Operation::PutBlock => self.keep != Keep::Checksums,
            _ => true,
        }
    }

    /// Does what a request asks for.
    pub(crate) fn apply(&mut self, call: &Call, content: &Content, now: SystemTime) -> Result<Reply, Refusal> {
        match call.operation {
            Operation::CreateContainer => self.create_container(call),
            Operation::DeleteContainer => {
                self.containers.remove(&call.container).map(|_| Reply::new(202)).ok_or(refusal::CONTAINER_NOT_FOUND)
            }
            Operation::GetContainerProperties => self.container(call).map(|_| Reply::new(200)),
            Operation::ListBlobs => Ok(Reply::xml(listing::write(call, self.container(call)?))),
            Operation::PutBlob => self.put_blob(call, content, now),
            Operation::PutBlock => self.put_block(call, content),
            Operation::PutBlockList => self.put_block_list(call, content, now),
            Operation::GetBlockList => self.get_block_list(call),
            Operation::GetBlob => self.get_blob(call),
            Operation::GetBlobProperties => Ok(self.current(call)?.properties_reply()),
            Operation::DeleteBlob => self.delete_blob(call),
            Operation::SetBlobTags => self.set_tags(call, content),
            Operation::GetBlobTags => Ok(Reply::xml(block_list::write_tags(self.current(call)?.tags.iter()))),
        }
    }

    fn create_container(&mut self, call: &Call) -> Result<Reply, Refusal> {
        match self.containers.entry(call.container.clone()) {
            Entry::Occupied(_) => Err(refusal::CONTAINER_ALREADY_EXISTS),
            Entry::Vacant(entry) => {
                entry.insert(Container::default());
                Ok(Reply::new(201))
            }
        }
    }

    fn put_blob(&mut self, call: &Call, content: &Content, now: SystemTime) -> Result<Reply, Refusal> {
        limits::check_put_blob(call, content)?;
        headers::verify(call, content)?;
        let properties = Properties::read(call)?;
        self.room_for(content)?;
        self.check_condition(call)?;
        let etag = self.next_etag();
        let version = Version::whole(content, properties, etag, now, self.keep);
        self.write(call, version)
    }

    fn put_block(&mut self, call: &Call, content: &Content) -> Result<Reply, Refusal> {
        let id = limits::check_put_block(call, content)?;
        headers::verify(call, content)?;
        self.room_for(content)?;
        let slot = self.container_mut(call)?.entry(call.blob.clone()).or_default();
        let freed = slot.put_block(id, content)?;
        self.held += content.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        self.held -= freed;
        Ok(headers::with_crc64(Reply::new(201), content.crc64))
    }

    fn put_block_list(&mut self, call: &Call, content: &Content, now: SystemTime) -> Result<Reply, Refusal> {
        headers::verify(call, content)?;
        let list = block_list::parse(content.bytes.as_deref().unwrap_or_default())?;
        limits::check_block_list(&list)?;
        let properties = Properties::read(call)?;
        self.check_condition(call)?;
        let blocks = match self.container(call)?.get(&call.blob) {
            Some(slot) => slot.find(&list)?,
            None if list.is_empty() => Vec::new(),
            None => return Err(refusal::INVALID_BLOCK_LIST),
        };
        let etag = self.next_etag();
        let version = Version::of_blocks(blocks, properties, etag, now, self.keep);
        self.write(call, version)
    }

    /// The new version; every uncommitted block is gone with it.
    fn write(&mut self, call: &Call, version: Version) -> Result<Reply, Refusal> {
        let mut reply = headers::with_crc64(Reply::new(201), version.crc64);
        reply.wrote = true;
        reply.headers.extend(version.validators());
        let added = version.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        let slot = self.container_mut(call)?.entry(call.blob.clone()).or_default();
        let freed = slot.write(version);
        self.held = (self.held + added).saturating_sub(freed);
        Ok(reply)
    }

    fn get_block_list(&self, call: &Call) -> Result<Reply, Refusal> {
        let slot = self.container(call)?.get(&call.blob).filter(|slot| !slot.is_void()).ok_or(refusal::BLOB_NOT_FOUND)?;
        let kind = call.parameter("blocklisttype").unwrap_or("committed");
        if !matches!(kind, "committed" | "uncommitted" | "all") {
            return Err(refusal::INVALID_QUERY);
        }
        let committed = (kind != "uncommitted").then(|| slot.committed());
        let uncommitted = (kind != "committed").then(|| slot.uncommitted());
        let mut reply = Reply::xml(block_list::write(committed, uncommitted));
        if let Some(version) = slot.current() {
            reply.headers.extend(version.validators());
            reply.headers.push(("x-ms-blob-content-length".to_owned(), version.size.to_string()));
        }
        Ok(reply)
    }

    fn get_blob(&self, call: &Call) -> Result<Reply, Refusal> {
        let version = self.current(call)?;
        let body = version.bytes.clone().ok_or(refusal::NOT_KEPT)?;
        Ok(Reply { body, length: None, ..version.properties_reply() })
    }

    fn delete_blob(&mut self, call: &Call) -> Result<Reply, Refusal> {
        self.current(call)?;
        self.check_condition(call)?;
        let freed = self.slot_mut(call)?.delete();
        self.held = self.held.saturating_sub(freed);
        Ok(Reply::new(202))
    }

    fn set_tags(&mut self, call: &Call, content: &Content) -> Result<Reply, Refusal> {
        let tags = block_list::parse_tags(content.bytes.as_deref().unwrap_or_default())?;
        let tags = headers::check_tags(tags)?;
        let version = self.slot_mut(call)?.current_mut().ok_or(refusal::BLOB_NOT_FOUND)?;
        version.tags = tags;
        Ok(Reply::new(204))
    }

    /// `If-Match` and `If-None-Match`:
    /// <https://learn.microsoft.com/rest/api/storageservices/specifying-conditional-headers-for-blob-service-operations>.
    fn check_condition(&self, call: &Call) -> Result<(), Refusal> {
        let current = self.container(call)?.get(&call.blob).and_then(Slot::current).map(|version| version.etag.as_str());
        match (call.header("if-none-match"), current) {
            (Some("*"), Some(_)) => return Err(refusal::BLOB_ALREADY_EXISTS),
            (Some(unwanted), Some(etag)) if unwanted == etag => return Err(refusal::CONDITION_NOT_MET),
            _ => {}
        }
        match (call.header("if-match"), current) {
            (None, _) | (Some("*"), Some(_)) => Ok(()),
            (Some(wanted), Some(etag)) if wanted == etag => Ok(()),
            (Some(_), _) => Err(refusal::CONDITION_NOT_MET),
        }
    }

    fn room_for(&self, content: &Content) -> Result<(), Refusal> {
        let room = content.bytes.is_none() || self.held + content.size <= self.limit;
        if room { Ok(()) } else { Err(refusal::TOO_MANY_BYTES_KEPT) }
    }

    fn next_etag(&mut self) -> String {
        self.writes += 1;
        format!("\"0x{:016X}\"", self.writes)
    }

    fn container(&self, call: &Call) -> Result<&Container, Refusal> {
        self.containers.get(&call.container).ok_or(refusal::CONTAINER_NOT_FOUND)
    }

    fn container_mut(&mut self, call: &Call) -> Result<&mut Container, Refusal> {
        self.containers.get_mut(&call.container).ok_or(refusal::CONTAINER_NOT_FOUND)
    }

    fn slot_mut(&mut self, call: &Call) -> Result<&mut Slot, Refusal> {
        self.container_mut(call)?.get_mut(&call.blob).ok_or(refusal::BLOB_NOT_FOUND)
    }

    fn current(&self, call: &Call) -> Result<&Version, Refusal> {
        self.container(call)?.get(&call.blob).and_then(Slot::current).ok_or(refusal::BLOB_NOT_FOUND)
    }
}

/// What a test looks at and arranges.
impl Account {
    pub(crate) fn slot(&self, container: &str, blob: &str) -> Option<&Slot> {
        self.containers.get(container)?.get(blob)
    }

    pub(crate) fn names(&self, container: &str) -> Vec<String> {
        let blobs = self.containers.get(container).into_iter().flatten();
        blobs.filter(|(_, slot)| slot.current().is_some()).map(|(name, _)| name.clone()).collect()
    }

    pub(crate) fn create(&mut self, container: &str) {
        self.containers.entry(container.to_owned()).or_default();
    }

    pub(crate) fn plant_block(&mut self, container: &str, blob: &str, id: Vec<u8>, content: &Content) {
        let slot = self.containers.entry(container.to_owned()).or_default().entry(blob.to_owned()).or_default();
        slot.plant(id, content);
    }
}

#[cfg(test)]
mod tests;
