//! What the headers of a write say about the blob. (pure)

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::Reply;
use crate::{
    body::Content,
    call::{Call, parse_pairs},
    refusal::{self, Refusal},
};

/// Most bytes of all metadata of a blob.
const METADATA: usize = 8 << 10;
/// Most tags of a blob, and most characters of a tag's key and value.
const TAGS: (usize, usize, usize) = (10, 128, 256);
const TIERS: [&str; 4] = ["Hot", "Cool", "Cold", "Archive"];

/// Everything that a commit gives the blob besides its content.
#[derive(Clone, Debug)]
pub(super) struct Properties {
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) tags: BTreeMap<String, String>,
    pub(super) access_tier: Option<String>,
    pub(super) content_type: String,
}

impl Properties {
    pub(super) fn read(call: &Call) -> Result<Self, Refusal> {
        let access_tier = call.header("x-ms-access-tier").map(str::to_owned);
        if access_tier.as_ref().is_some_and(|tier| !TIERS.contains(&tier.as_str())) {
            return Err(refusal::INVALID_HEADER_VALUE);
        }
        let content_type = call.header("x-ms-blob-content-type").unwrap_or("application/octet-stream").to_owned();
        let tags = check_tags(parse_pairs(&call.header("x-ms-tags").unwrap_or_default().replace('+', " "))?)?;
        Ok(Self { metadata: metadata(call)?, tags, access_tier, content_type })
    }
}

/// Names follow the rules of C# identifiers.
fn metadata(call: &Call) -> Result<BTreeMap<String, String>, Refusal> {
    let mut metadata = BTreeMap::new();
    for (name, value) in &call.headers {
        let Some(name) = name.as_str().strip_prefix("x-ms-meta-") else { continue };
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) || !plain {
            return Err(refusal::INVALID_METADATA);
        }
        let value = value.to_str().map_err(|_| refusal::INVALID_METADATA)?;
        metadata.insert(name.to_owned(), value.to_owned());
    }
    let size: usize = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > METADATA { Err(refusal::METADATA_TOO_LARGE) } else { Ok(metadata) }
}

/// <https://learn.microsoft.com/rest/api/storageservices/set-blob-tags>
pub(super) fn check_tags(tags: Vec<(String, String)>) -> Result<BTreeMap<String, String>, Refusal> {
    let plain = |text: &str| text.chars().all(|letter| letter.is_ascii_alphanumeric() || " +-./:=_".contains(letter));
    for (key, value) in &tags {
        if key.is_empty() || key.len() > TAGS.1 || value.len() > TAGS.2 {
            return Err(refusal::TAGS_TOO_LARGE);
        }
        if !plain(key) || !plain(value) {
            return Err(refusal::INVALID_HEADER_VALUE);
        }
    }
    if tags.len() > TAGS.0 { Err(refusal::TAGS_TOO_LARGE) } else { Ok(tags.into_iter().collect()) }
}

/// `x-ms-content-crc64`, if the client sent it.
pub(super) fn verify(call: &Call, content: &Content) -> Result<(), Refusal> {
    let Some(given) = call.header("x-ms-content-crc64") else { return Ok(()) };
    let given = BASE64_STANDARD.decode(given).ok().and_then(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?)));
    match given {
        None => Err(refusal::INVALID_HEADER_VALUE),
        Some(given) if given != content.crc64 => Err(refusal::CRC64_MISMATCH),
        Some(_) => Ok(()),
    }
}

/// The service tells the checksum of what it took.
pub(super) fn with_crc64(mut reply: Reply, crc64: u64) -> Reply {
    reply.headers.push(("x-ms-content-crc64".to_owned(), BASE64_STANDARD.encode(crc64.to_le_bytes())));
    reply
}
