//! Signatures of requests with an account's key.
//!
//! <https://learn.microsoft.com/en-us/rest/api/storageservices/authorize-with-shared-key>

use anyhow::{Context as _, Result};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::{Method, header::HeaderMap};
use sha2::Sha256;
use url::Url;

/// An account's name and its key.
#[derive(Clone)]
pub(crate) struct SharedKey {
    account: String,
    encoded: String,
    key: Vec<u8>,
}

impl SharedKey {
    /// `encoded` is the key in base64, as the portal shows it.
    pub(crate) fn new(account: String, encoded: String) -> Result<Self> {
        let key = BASE64_STANDARD.decode(&encoded).context("the account's key is not base64")?;
        Ok(Self { account, encoded, key })
    }

    pub(crate) fn account(&self) -> &str {
        &self.account
    }

    pub(crate) fn encoded(&self) -> &str {
        &self.encoded
    }

    /// A SAS token that allows to read and write blobs of existing containers, and nothing else.
    ///
    /// <https://learn.microsoft.com/en-us/rest/api/storageservices/create-account-sas>
    pub(crate) fn blobs_only_token(&self) -> String {
        const EXPIRY: &str = "2100-01-01T00:00:00Z";
        const VERSION: &str = "2020-08-04";
        let text = format!("{}\nrw\nb\no\n\n{EXPIRY}\n\nhttps,http\n{VERSION}\n", self.account);
        let signature: String = url::form_urlencoded::byte_serialize(self.sign(&text).as_bytes()).collect();
        format!("sv={VERSION}&ss=b&srt=o&sp=rw&se={EXPIRY}&spr=https,http&sig={signature}")
    }

    fn sign(&self, text: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        mac.update(text.as_bytes());
        BASE64_STANDARD.encode(mac.finalize().into_bytes())
    }

    /// Value of the `Authorization` header.
    pub(crate) fn authorize(&self, method: &Method, url: &Url, headers: &HeaderMap) -> String {
        format!("SharedKey {}:{}", self.account, self.sign(&self.string_to_sign(method, url, headers)))
    }

    fn string_to_sign(&self, method: &Method, url: &Url, headers: &HeaderMap) -> String {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let length = Some(header("content-length")).filter(|length| *length != "0").unwrap_or_default();
        // Content-Encoding, -Language, -MD5, Date and the conditions are never sent here; x-ms-date stands for the date.
        format!(
            "{method}\n\n\n{length}\n\n{}\n\n\n\n\n\n{}\n{}{}",
            header("content-type"),
            header("range"),
            canonical_headers(headers),
            self.canonical_resource(url)
        )
    }

    fn canonical_resource(&self, url: &Url) -> String {
        let mut parameters: Vec<_> = url.query_pairs().map(|(name, value)| format!("\n{}:{value}", name.to_lowercase())).collect();
        parameters.sort();
        format!("/{}{}{}", self.account, url.path(), parameters.concat())
    }
}

fn canonical_headers(headers: &HeaderMap) -> String {
    let mut lines: Vec<_> = headers
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("x-ms-"))
        .map(|(name, value)| format!("{name}:{}\n", value.to_str().unwrap_or_default().trim()))
        .collect();
    lines.sort();
    lines.concat()
}
