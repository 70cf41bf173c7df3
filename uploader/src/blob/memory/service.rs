//! The rules of Azure's block blobs.
//!
//! - <https://learn.microsoft.com/rest/api/storageservices/put-block>
//! - <https://learn.microsoft.com/rest/api/storageservices/put-block-list>
//! - <https://learn.microsoft.com/rest/api/storageservices/put-blob>
//! - <https://learn.microsoft.com/rest/api/storageservices/get-block-list>

use std::collections::BTreeMap;

use blobferry_crds::AccessTier;
use bytes::Bytes;

use super::{
    super::{BlobError, BlockListKind, Condition, ETag, Found, ListedBlock, Properties},
    Request,
};
use crate::formats::{BlobName, BlockId};

/// Most blocks of a blob.
const COMMITTED_LIMIT: usize = 50_000;
/// Most uncommitted blocks under a name.
const UNCOMMITTED_LIMIT: usize = 100_000;

/// The state of the container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Container {
    /// It exists.
    #[default]
    Present,
    /// It does not exist; `prepare` makes it.
    Absent,
    /// It does not exist, and the credential does not allow to make it.
    AbsentAndForbidden,
}

/// A blob as one write made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The version's tag.
    pub etag: ETag,
    /// What the write gave it; names of metadata in lower case.
    pub properties: Properties,
    /// The blocks in order, with their bytes; one without an id if it was written whole.
    pub parts: Vec<(Vec<u8>, Bytes)>,
}

impl Version {
    /// The content.
    pub fn bytes(&self) -> Bytes {
        match self.parts.as_slice() {
            [(_, only)] => only.clone(),
            parts => parts.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect(),
        }
    }

    fn size(&self) -> u64 {
        self.parts.iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }

    fn committed_blocks(&self) -> Vec<ListedBlock> {
        self.parts.iter().filter(|(id, _)| !id.is_empty()).map(listed).collect()
    }
}

fn listed((id, bytes): &(Vec<u8>, Bytes)) -> ListedBlock {
    ListedBlock { id: id.clone(), size: bytes.len() as u64 }
}

/// What is under one name.
#[derive(Debug, Default)]
struct Slot {
    /// Of all versions the last is the current one, unless it was deleted.
    versions: Vec<Version>,
    deleted: bool,
    uncommitted: BTreeMap<Vec<u8>, Bytes>,
    protection: Option<String>,
}

impl Slot {
    fn current(&self) -> Option<&Version> {
        if self.deleted { None } else { self.versions.last() }
    }
}

/// The parts of all replies; each request fills in its own.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) found: Option<Found>,
    pub(super) etag: ETag,
    pub(super) blocks: Vec<ListedBlock>,
}

impl Default for Reply {
    fn default() -> Self {
        Self { found: None, etag: ETag(String::new()), blocks: Vec::new() }
    }
}

/// One container.
#[derive(Debug, Default)]
pub(super) struct Service {
    pub(super) container: Container,
    slots: BTreeMap<BlobName, Slot>,
    writes: u64,
}

impl Service {
    pub(super) fn apply(&mut self, request: &Request) -> Result<Reply, BlobError> {
        if matches!(request, Request::Prepare) {
            return self.prepare();
        }
        if self.container != Container::Present {
            return Err(BlobError::ContainerMissing { message: "ContainerNotFound".to_owned() });
        }
        match request {
            Request::Look { name } => Ok(self.look(name)),
            Request::Blocks { name, kind } => self.blocks(name, *kind),
            Request::PutBlock { name, id, body, crc64 } => self.put_block(name, id, body, *crc64),
            Request::PutBlob { name, body, crc64, condition, properties } => {
                verify(body, *crc64)?;
                self.check_write(name, condition)?;
                Ok(self.write(name, vec![(Vec::new(), body.clone())], properties))
            }
            Request::Commit { name, blocks, condition, properties } => self.commit(name, blocks, condition, properties),
            Request::Prepare => Ok(Reply::default()),
        }
    }

    fn prepare(&mut self) -> Result<Reply, BlobError> {
        if self.container == Container::AbsentAndForbidden {
            return Err(BlobError::ContainerMissing { message: "the container does not exist and may not be made".to_owned() });
        }
        self.container = Container::Present;
        Ok(Reply::default())
    }

    fn look(&self, name: &BlobName) -> Reply {
        let found = self.current(name).map(|version| Found {
            etag: version.etag.clone(),
            size: version.size(),
            metadata: version.properties.metadata.clone(),
        });
        Reply { found, ..Reply::default() }
    }

    fn blocks(&self, name: &BlobName, kind: BlockListKind) -> Result<Reply, BlobError> {
        let tier = self.current(name).and_then(|version| version.properties.access_tier);
        if kind == BlockListKind::Committed && tier == Some(AccessTier::Archive) {
            return Err(BlobError::Protected { code: "BlobArchived".to_owned(), message: "its content is offline".to_owned() });
        }
        let blocks = match (kind, self.slots.get(name)) {
            (_, None) => Vec::new(),
            (BlockListKind::Committed, Some(slot)) => slot.current().map(Version::committed_blocks).unwrap_or_default(),
            (BlockListKind::Uncommitted, Some(slot)) => {
                slot.uncommitted.iter().map(|(id, bytes)| listed(&(id.clone(), bytes.clone()))).collect()
            }
        };
        Ok(Reply { blocks, ..Reply::default() })
    }

    fn put_block(&mut self, name: &BlobName, id: &BlockId, body: &Bytes, crc64: u64) -> Result<Reply, BlobError> {
        if body.is_empty() {
            return Err(rejected("InvalidHeaderValue", "a block has at least one byte"));
        }
        verify(body, crc64)?;
        let slot = self.slots.entry(name.clone()).or_default();
        check_protection(slot)?;
        let id = id.to_bytes().to_vec();
        // All have the length of any.
        if slot.uncommitted.keys().next().is_some_and(|other| other.len() != id.len()) {
            return Err(BlobError::ForeignBlocks { message: "InvalidBlobOrBlock: ids of another length".to_owned() });
        }
        if slot.uncommitted.len() >= UNCOMMITTED_LIMIT && !slot.uncommitted.contains_key(&id) {
            return Err(BlobError::ForeignBlocks { message: "BlockCountExceedsLimit".to_owned() });
        }
        slot.uncommitted.insert(id, body.clone());
        Ok(Reply::default())
    }

    fn commit(
        &mut self,
        name: &BlobName,
        blocks: &[BlockId],
        condition: &Condition,
        properties: &Properties,
    ) -> Result<Reply, BlobError> {
        if blocks.len() > COMMITTED_LIMIT {
            return Err(rejected("BlockListTooLong", "at most 50,000 blocks"));
        }
        self.check_write(name, condition)?;
        let uncommitted = self.slots.get(name).map(|slot| &slot.uncommitted);
        let parts = blocks.iter().map(|id| {
            let id = id.to_bytes().to_vec();
            let bytes = uncommitted.and_then(|blocks| blocks.get(&id)).cloned()?;
            Some((id, bytes))
        });
        let parts = parts.collect::<Option<_>>();
        let parts = parts.ok_or_else(|| BlobError::BlocksMissing { message: "InvalidBlockList".to_owned() })?;
        Ok(self.write(name, parts, properties))
    }

    fn check_write(&self, name: &BlobName, condition: &Condition) -> Result<(), BlobError> {
        let slot = self.slots.get(name);
        match (condition, slot.and_then(Slot::current)) {
            (Condition::Absent, Some(_)) => return Err(conflict("BlobAlreadyExists")),
            (Condition::Matches(etag), Some(version)) if version.etag != *etag => return Err(conflict("ConditionNotMet")),
            (Condition::Matches(_), None) => return Err(conflict("ConditionNotMet")),
            (Condition::Absent, None) | (Condition::Matches(_), Some(_)) => {}
        }
        slot.map_or(Ok(()), check_protection)
    }

    /// The new version; every uncommitted block is gone with it.
    fn write(&mut self, name: &BlobName, parts: Vec<(Vec<u8>, Bytes)>, properties: &Properties) -> Reply {
        self.writes += 1;
        let etag = ETag(format!("\"0x{:016X}\"", self.writes));
        let metadata = properties.metadata.iter().map(|(key, value)| (key.to_ascii_lowercase(), value.clone())).collect();
        let slot = self.slots.entry(name.clone()).or_default();
        slot.versions.push(Version { etag: etag.clone(), properties: Properties { metadata, ..properties.clone() }, parts });
        slot.deleted = false;
        slot.uncommitted.clear();
        Reply { etag, ..Reply::default() }
    }
}

/// What others do, and what a test looks at.
impl Service {
    pub(super) fn protect(&mut self, name: &BlobName, code: Option<&str>) {
        self.slots.entry(name.clone()).or_default().protection = code.map(str::to_owned);
    }

    pub(super) fn plant_block(&mut self, name: &BlobName, id: &[u8], body: Bytes) {
        self.slots.entry(name.clone()).or_default().uncommitted.insert(id.to_vec(), body);
    }

    pub(super) fn write_as_another(&mut self, name: &BlobName, body: Bytes, metadata: &BTreeMap<String, String>) -> ETag {
        let properties = Properties { metadata: metadata.clone(), ..Properties::default() };
        self.write(name, vec![(Vec::new(), body)], &properties).etag
    }

    pub(super) fn delete(&mut self, name: &BlobName) {
        let slot = self.slots.entry(name.clone()).or_default();
        slot.deleted = true;
        slot.uncommitted.clear();
    }

    pub(super) fn expire_blocks(&mut self, name: &BlobName) {
        self.slots.entry(name.clone()).or_default().uncommitted.clear();
    }

    pub(super) fn names(&self) -> Vec<BlobName> {
        self.slots.iter().filter(|(_, slot)| slot.current().is_some()).map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn current(&self, name: &BlobName) -> Option<&Version> {
        self.slots.get(name).and_then(Slot::current)
    }

    pub(super) fn versions(&self, name: &BlobName) -> Vec<Version> {
        self.slots.get(name).map(|slot| slot.versions.clone()).unwrap_or_default()
    }
}

fn verify(body: &Bytes, crc64: u64) -> Result<(), BlobError> {
    if crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, body) == crc64 {
        return Ok(());
    }
    Err(BlobError::Corrupted { message: "Crc64Mismatch".to_owned() })
}

fn check_protection(slot: &Slot) -> Result<(), BlobError> {
    match &slot.protection {
        Some(code) => Err(BlobError::Protected { code: code.clone(), message: format!("the blob cannot be written: {code}") }),
        None => Ok(()),
    }
}

fn conflict(code: &str) -> BlobError {
    BlobError::Conflict { message: code.to_owned() }
}

fn rejected(code: &str, message: &str) -> BlobError {
    BlobError::Rejected { code: code.to_owned(), message: message.to_owned() }
}

#[cfg(test)]
mod tests;
