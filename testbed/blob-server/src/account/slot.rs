//! What is under one name.

use std::{collections::BTreeMap, time::SystemTime};

use bytes::{Bytes, BytesMut};
use crc_fast::{CrcAlgorithm, checksum_combine};
use sha2::{Digest as _, Sha256};

use super::{Keep, Reply, headers::Properties, limits};
use crate::{
    block_list::From,
    body::{Content, crc64},
    refusal::{self, Refusal},
};

/// A block of a committed blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The raw id.
    pub id: Vec<u8>,
    /// Bytes.
    pub size: u64,
    /// CRC-64/NVME of the bytes.
    pub crc64: u64,
    bytes: Option<Bytes>,
}

/// A blob as one write made it.
#[derive(Clone, Debug)]
pub struct Version {
    /// The version's tag.
    pub etag: String,
    /// When it was written.
    pub written: SystemTime,
    /// Bytes of content.
    pub size: u64,
    /// CRC-64/NVME of the content.
    pub crc64: u64,
    /// SHA-256 of the content, unless only checksums are kept.
    pub sha256: Option<[u8; 32]>,
    /// The content, if contents are kept.
    pub bytes: Option<Bytes>,
    /// Its blocks; none if it was put whole.
    pub blocks: Vec<Block>,
    /// User-defined metadata, names in lower case.
    pub metadata: BTreeMap<String, String>,
    /// Index tags.
    pub tags: BTreeMap<String, String>,
    /// `x-ms-access-tier`, if it was named.
    pub access_tier: Option<String>,
    /// `x-ms-blob-content-type` or the default.
    pub content_type: String,
}

impl Version {
    pub(super) fn whole(content: &Content, properties: Properties, etag: String, now: SystemTime, keep: Keep) -> Self {
        let version = Self::empty(properties, etag, now);
        let sha256 = content.bytes.as_ref().map(|bytes| Sha256::digest(bytes).into());
        let bytes = content.bytes.clone().filter(|_| keep == Keep::Contents);
        Self { size: content.size, crc64: content.crc64, sha256, bytes, ..version }
    }

    pub(super) fn of_blocks(mut blocks: Vec<Block>, properties: Properties, etag: String, now: SystemTime, keep: Keep) -> Self {
        let version = Self::empty(properties, etag, now);
        let size = blocks.iter().map(|block| block.size).sum();
        let combine = |whole, block: &Block| checksum_combine(CrcAlgorithm::Crc64Nvme, whole, block.crc64, block.size);
        let crc64 = blocks.iter().fold(crc64(&[]), combine);
        let all: Option<BytesMut> = blocks.iter_mut().try_fold(BytesMut::new(), |mut all, block| {
            all.extend_from_slice(block.bytes.take()?.as_ref());
            Some(all)
        });
        let bytes = all.map(BytesMut::freeze);
        let sha256 = bytes.as_ref().map(|bytes| Sha256::digest(bytes).into());
        Self { size, crc64, sha256, bytes: bytes.filter(|_| keep == Keep::Contents), blocks, ..version }
    }

    fn empty(properties: Properties, etag: String, written: SystemTime) -> Self {
        let Properties { metadata, tags, access_tier, content_type } = properties;
        let (blocks, bytes, sha256) = (Vec::new(), None, None);
        Self { etag, written, size: 0, crc64: 0, sha256, bytes, blocks, metadata, tags, access_tier, content_type }
    }

    /// `ETag` and `Last-Modified`.
    pub(super) fn validators(&self) -> [(String, String); 2] {
        [("etag".to_owned(), self.etag.clone()), ("last-modified".to_owned(), httpdate::fmt_http_date(self.written))]
    }

    /// The reply to a look.
    pub(super) fn properties_reply(&self) -> Reply {
        let mut headers = vec![
            ("content-type".to_owned(), self.content_type.clone()),
            ("x-ms-blob-type".to_owned(), "BlockBlob".to_owned()),
            ("x-ms-access-tier".to_owned(), self.access_tier.clone().unwrap_or_else(|| "Hot".to_owned())),
            ("x-ms-lease-status".to_owned(), "unlocked".to_owned()),
            ("x-ms-lease-state".to_owned(), "available".to_owned()),
            ("x-ms-creation-time".to_owned(), httpdate::fmt_http_date(self.written)),
        ];
        if !self.tags.is_empty() {
            headers.push(("x-ms-tag-count".to_owned(), self.tags.len().to_string()));
        }
        headers.extend(self.validators());
        headers.extend(self.metadata.iter().map(|(name, value)| (format!("x-ms-meta-{name}"), value.clone())));
        Reply { status: 200, headers, length: Some(self.size), ..Reply::default() }
    }

    fn held(&self) -> u64 {
        self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)
    }
}

/// One name.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    /// Of all versions the last is the current one, unless it was deleted.
    versions: Vec<Version>,
    deleted: bool,
    uncommitted: BTreeMap<Vec<u8>, Content>,
}

impl Slot {
    pub(crate) fn current(&self) -> Option<&Version> {
        if self.deleted { None } else { self.versions.last() }
    }

    pub(super) fn current_mut(&mut self) -> Option<&mut Version> {
        if self.deleted { None } else { self.versions.last_mut() }
    }

    /// Every version that the name ever had, oldest first.
    pub(crate) fn versions(&self) -> &[Version] {
        &self.versions
    }

    /// True if there is neither a blob nor a block.
    pub(super) fn is_void(&self) -> bool {
        self.current().is_none() && self.uncommitted.is_empty()
    }

    pub(super) fn committed(&self) -> impl Iterator<Item = (&[u8], u64)> {
        self.current().into_iter().flat_map(|version| &version.blocks).map(|block| (block.id.as_slice(), block.size))
    }

    pub(crate) fn uncommitted(&self) -> impl Iterator<Item = (&[u8], u64)> {
        self.uncommitted.iter().map(|(id, block)| (id.as_slice(), block.size))
    }

    /// Takes a block in; returns the bytes that are no longer held.
    pub(super) fn put_block(&mut self, id: Vec<u8>, content: &Content) -> Result<u64, Refusal> {
        // All have the length of any.
        if self.uncommitted.keys().next().is_some_and(|other| other.len() != id.len()) {
            return Err(refusal::INVALID_BLOB_OR_BLOCK);
        }
        if self.uncommitted.len() >= limits::UNCOMMITTED_BLOCKS && !self.uncommitted.contains_key(&id) {
            return Err(refusal::BLOCK_COUNT_EXCEEDS_LIMIT);
        }
        Ok(self.plant(id, content))
    }

    /// Takes a block in, whatever is there; returns the bytes that are no longer held.
    pub(super) fn plant(&mut self, id: Vec<u8>, content: &Content) -> u64 {
        let replaced = self.uncommitted.insert(id, content.clone());
        replaced.and_then(|block| block.bytes).map_or(0, |bytes| bytes.len() as u64)
    }

    /// The blocks that a list names.
    pub(super) fn find(&self, list: &[(From, Vec<u8>)]) -> Result<Vec<Block>, Refusal> {
        list.iter().map(|(from, id)| self.find_block(*from, id).ok_or(refusal::INVALID_BLOCK_LIST)).collect()
    }

    fn find_block(&self, from: From, id: &[u8]) -> Option<Block> {
        let uncommitted = || {
            let Content { size, crc64, bytes } = self.uncommitted.get(id)?.clone();
            Some(Block { id: id.to_vec(), size, crc64, bytes })
        };
        let committed = || self.committed_block(id);
        match from {
            From::Uncommitted => uncommitted(),
            From::Committed => committed(),
            From::Latest => uncommitted().or_else(committed),
        }
    }

    /// A block of the current version, with its part of the content.
    fn committed_block(&self, id: &[u8]) -> Option<Block> {
        let version = self.current()?;
        let place = version.blocks.iter().position(|block| block.id == id)?;
        let block = version.blocks[place].clone();
        let start: u64 = version.blocks[..place].iter().map(|block| block.size).sum();
        let part = |bytes: &Bytes| Some(bytes.slice(usize::try_from(start).ok()?..usize::try_from(start + block.size).ok()?));
        Some(Block { bytes: version.bytes.as_ref().and_then(part), ..block })
    }

    /// Makes a version the current one and drops all uncommitted blocks; returns the bytes that are no longer held.
    pub(super) fn write(&mut self, version: Version) -> u64 {
        self.versions.push(version);
        self.deleted = false;
        self.drop_uncommitted()
    }

    /// Deletes the blob; its versions stay known. Returns the bytes that are no longer held.
    pub(super) fn delete(&mut self) -> u64 {
        self.deleted = true;
        let mut freed = self.drop_uncommitted();
        for version in &mut self.versions {
            freed += version.held();
            version.bytes = None;
        }
        freed
    }

    fn drop_uncommitted(&mut self) -> u64 {
        let dropped = std::mem::take(&mut self.uncommitted);
        dropped.values().filter_map(|block| block.bytes.as_ref()).map(|bytes| bytes.len() as u64).sum()
    }
}
