//! The blobs of one container: what is there, and with which bytes.

use std::{collections::BTreeMap, fmt, sync::Once, time::Duration};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{
    Method, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue},
};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use url::Url;

use crate::{Delivery, files::Fingerprint, shared_key::SharedKey};

const SERVICE_VERSION: &str = "2025-11-05";
const REQUEST_TIMEOUT: Duration = Duration::from_mins(2);

/// Everything but what RFC 3986 calls unreserved, and the slash between the folders of a name.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// A storage account and the right to do everything in it.
#[derive(Clone)]
pub struct Account {
    url: Url,
    key: SharedKey,
    http: reqwest::Client,
}

impl fmt::Debug for Account {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Account").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

impl Account {
    /// The account at `url`, used with its `key` (base64).
    ///
    /// # Errors
    ///
    /// When the key is not base64.
    pub fn new(url: Url, name: String, key: String) -> Result<Self> {
        Ok(Self { url, key: SharedKey::new(name, key)?, http: http_client(None)? })
    }

    /// An account of the same name and key elsewhere, whose certificate is of `authority` (PEM).
    ///
    /// # Errors
    ///
    /// When `authority` is no certificate.
    pub fn at(&self, url: Url, authority: &str) -> Result<Self> {
        Ok(Self { url, key: self.key.clone(), http: http_client(Some(authority))? })
    }

    /// Name of the account.
    pub fn name(&self) -> &str {
        self.key.account()
    }

    /// URL of the account, as sessions name it.
    pub fn url(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    /// Data of a Secret that lets an uploader use the account.
    pub fn secret(&self) -> BTreeMap<String, String> {
        [("accountName", self.key.account()), ("accountKey", self.key.encoded())]
            .map(|(name, value)| (name.into(), value.into()))
            .into()
    }

    /// A SAS token that allows to read and write blobs of existing containers, and nothing else.
    pub fn blobs_only_token(&self) -> String {
        self.key.blobs_only_token()
    }

    /// One of the account's containers, which need not exist.
    pub fn container(&self, name: impl Into<String>) -> Blobs {
        Blobs { account: self.clone(), container: name.into() }
    }
}

fn http_client(authority: Option<&str>) -> Result<reqwest::Client> {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // Fails when a test has installed one itself, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    let mut builder = reqwest::Client::builder().no_proxy().timeout(REQUEST_TIMEOUT);
    if let Some(pem) = authority {
        builder = builder.tls_certs_only([reqwest::Certificate::from_pem(pem.as_bytes())?]);
    }
    Ok(builder.build()?)
}

/// The blobs of one container.
#[derive(Clone, Debug)]
pub struct Blobs {
    account: Account,
    container: String,
}

/// A blob, as a listing describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Name inside the container.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
}

impl Blobs {
    /// Name of the container.
    pub fn container(&self) -> &str {
        &self.container
    }

    /// Creates the container unless it exists.
    pub async fn create_container(&self) -> Result<()> {
        let reply = self.send(Method::PUT, "", &[("restype", "container")], &[], Bytes::new()).await?;
        if reply.status() == StatusCode::CONFLICT { Ok(()) } else { self.accept(reply, "create").await.map(drop) }
    }

    /// Deletes the container with all its blobs, if it exists.
    pub async fn delete_container(&self) -> Result<()> {
        let reply = self.send(Method::DELETE, "", &[("restype", "container")], &[], Bytes::new()).await?;
        if reply.status() == StatusCode::NOT_FOUND { Ok(()) } else { self.accept(reply, "delete").await.map(drop) }
    }

    /// All committed blobs whose name starts with `prefix`, by name. None when the container does not exist.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        let mut found = Vec::new();
        let mut marker = String::new();
        loop {
            let query = [("restype", "container"), ("comp", "list"), ("prefix", prefix), ("marker", marker.as_str())];
            let reply = self.send(Method::GET, "", &query, &[], Bytes::new()).await?;
            if reply.status() == StatusCode::NOT_FOUND {
                return Ok(found);
            }
            let body = self.accept(reply, "list").await?.text().await?;
            let page: Listing = quick_xml::de::from_str(body.trim_start_matches('\u{feff}')).context("cannot read the listing")?;
            found.extend(page.blobs.blob.into_iter().map(|blob| Listed { name: blob.name, size: blob.properties.size }));
            marker = page.next_marker;
            if marker.is_empty() {
                return Ok(found);
            }
        }
    }

    /// Size and hash of a blob's bytes; `None` when it does not exist.
    pub async fn fingerprint(&self, name: &str) -> Result<Option<Fingerprint>> {
        let Some(mut reply) = self.get(name).await? else { return Ok(None) };
        let (mut size, mut hash) = (0, Sha256::new());
        while let Some(chunk) = reply.chunk().await.with_context(|| format!("cannot read blob {name}"))? {
            size += chunk.len() as u64;
            hash.update(&chunk);
        }
        Ok(Some(Fingerprint::new(size, hash)))
    }

    /// A blob's bytes; `None` when it does not exist.
    pub async fn read(&self, name: &str) -> Result<Option<Bytes>> {
        match self.get(name).await? {
            Some(reply) => Ok(Some(reply.bytes().await?)),
            None => Ok(None),
        }
    }

    /// A blob's own metadata, with lower-case names; `None` when it does not exist.
    pub async fn metadata(&self, name: &str) -> Result<Option<BTreeMap<String, String>>> {
        let reply = self.send(Method::HEAD, name, &[], &[], Bytes::new()).await?;
        if reply.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let reply = self.accept(reply, "look at").await?;
        let own = reply.headers().iter().filter_map(|(name, value)| {
            Some((name.as_str().strip_prefix("x-ms-meta-")?.to_owned(), value.to_str().ok()?.to_owned()))
        });
        Ok(Some(own.collect()))
    }

    /// Writes a blob, as somebody else would who shares the container.
    pub async fn write(&self, name: &str, content: impl Into<Bytes>) -> Result<()> {
        let reply = self.send(Method::PUT, name, &[], &[("x-ms-blob-type", "BlockBlob")], content.into()).await?;
        self.accept(reply, "write").await.map(drop)
    }

    /// Deletes a blob.
    pub async fn delete(&self, name: &str) -> Result<()> {
        let reply = self.send(Method::DELETE, name, &[], &[], Bytes::new()).await?;
        self.accept(reply, "delete").await.map(drop)
    }

    /// What differs between the blobs below `folder` (with its slash) and the files that were delivered: one line each.
    ///
    /// # Errors
    ///
    /// When the account cannot be asked.
    pub async fn differences(&self, folder: &str, deliveries: &[Delivery]) -> Result<Vec<String>> {
        let mut differences = Vec::new();
        for delivery in deliveries {
            match self.fingerprint(&format!("{folder}{}", delivery.name)).await? {
                Some(found) if found == delivery.fingerprint => {}
                Some(found) => differences.push(format!("{}: {found:?} instead of {:?}", delivery.name, delivery.fingerprint)),
                None => differences.push(format!("{}: no such blob", delivery.name)),
            }
        }
        for blob in self.list(folder).await? {
            let name = blob.name.strip_prefix(folder).unwrap_or(&blob.name);
            if !deliveries.iter().any(|delivery| delivery.name == name) {
                differences.push(format!("{name}: a blob of {} bytes that nobody delivered", blob.size));
            }
        }
        Ok(differences)
    }

    async fn get(&self, name: &str) -> Result<Option<Response>> {
        let reply = self.send(Method::GET, name, &[], &[], Bytes::new()).await?;
        if reply.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        self.accept(reply, "read").await.map(Some)
    }

    async fn send(
        &self,
        method: Method,
        blob: &str,
        query: &[(&str, &str)],
        own: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Response> {
        let url = self.url(blob, query)?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, body.len().into());
        for &(name, value) in [("x-ms-version", SERVICE_VERSION)].iter().chain(own) {
            headers.insert(HeaderName::try_from(name)?, HeaderValue::from_str(value)?);
        }
        headers.insert("x-ms-date", HeaderValue::from_str(&Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())?);
        let authorization = self.account.key.authorize(&method, &url, &headers);
        headers.insert(AUTHORIZATION, HeaderValue::from_str(&authorization)?);
        let request = self.account.http.request(method, url).headers(headers).body(body);
        request.send().await.with_context(|| format!("cannot reach {}", self.account.url))
    }

    fn url(&self, blob: &str, query: &[(&str, &str)]) -> Result<Url> {
        let mut text = format!("{}/{}", self.account.url(), self.container);
        if !blob.is_empty() {
            text.push('/');
            text.extend(utf8_percent_encode(blob, ENCODED));
        }
        let mut url = Url::parse(&text)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query.iter().filter(|(_, value)| !value.is_empty()));
        }
        Ok(url)
    }

    async fn accept(&self, reply: Response, action: &str) -> Result<Response> {
        let status = reply.status();
        if status.is_success() {
            return Ok(reply);
        }
        let url = reply.url().clone();
        bail!("cannot {action} {}: {status} {}", url.path(), reply.text().await.unwrap_or_default())
    }
}

#[derive(Deserialize)]
struct Listing {
    #[serde(rename = "Blobs", default)]
    blobs: ListedBlobs,
    #[serde(rename = "NextMarker", default)]
    next_marker: String,
}

#[derive(Default, Deserialize)]
struct ListedBlobs {
    #[serde(rename = "Blob", default)]
    blob: Vec<ListedBlob>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListedBlob {
    name: String,
    properties: Properties,
}

#[derive(Deserialize)]
struct Properties {
    #[serde(rename = "Content-Length")]
    size: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_are_encoded_once_and_keep_their_folders() {
        let account =
            Account::new(Url::parse("http://192.0.2.9:10000/devstoreaccount1").unwrap(), "devstoreaccount1".into(), "a2V5".into())
                .unwrap();
        let url = account.container("data").url("20260102/s/100% #1 ü?.dat", &[]).unwrap();
        assert_eq!(url.path(), "/devstoreaccount1/data/20260102/s/100%25%20%231%20%C3%BC%3F.dat");
        assert_eq!(url.query(), None);
    }

    #[test]
    fn an_empty_listing_has_no_blobs() {
        let body = r#"<?xml version="1.0"?><EnumerationResults ContainerName="c"><Blobs/><NextMarker/></EnumerationResults>"#;
        let listing: Listing = quick_xml::de::from_str(body).unwrap();
        assert!(listing.blobs.blob.is_empty() && listing.next_marker.is_empty());
    }

    #[test]
    fn a_listed_name_is_unescaped_and_keeps_its_spaces() {
        let body = "<EnumerationResults><Blobs><Blob><Name>a &amp; b </Name><Properties><Content-Length>7</Content-Length>\
                    <BlobType>BlockBlob</BlobType></Properties></Blob></Blobs><NextMarker>n</NextMarker></EnumerationResults>";
        let listing: Listing = quick_xml::de::from_str(body).unwrap();
        assert_eq!((listing.blobs.blob[0].name.as_str(), listing.blobs.blob[0].properties.size), ("a & b ", 7));
    }
}
