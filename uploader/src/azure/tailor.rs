//! Adds to a request what the SDK's calls cannot say.
//!
//! One client serves all blobs of the container: making one per blob, as the SDK has it, costs more than a small request. The SDK
//! escapes fewer characters of a name than we want, and has no place for the checksum of a Put Blob.

use std::sync::Arc;

use async_trait::async_trait;
use azure_core::{
    error::ErrorKind,
    http::{
        ClientMethodOptions, Context, Request,
        policies::{Policy, PolicyResult},
    },
};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::errors::carry;
use crate::blob::BlobError;

/// Travels in the context of one call.
#[derive(Clone, Debug)]
pub(super) struct Tailoring {
    /// Path of the blob, percent-encoded.
    pub(super) path: String,
    /// Checksum of the body, which the service verifies.
    pub(super) crc64: Option<u64>,
}

impl Tailoring {
    pub(super) fn into_options<'a>(self) -> ClientMethodOptions<'a> {
        ClientMethodOptions { context: Context::new().with_value(self) }
    }
}

/// The policy that applies a [`Tailoring`].
#[derive(Debug)]
pub(super) struct Tailor;

#[async_trait]
#[allow(elided_lifetimes_in_paths, reason = "the macro needs the lifetimes as the trait has them")]
impl Policy for Tailor {
    async fn send(&self, ctx: &Context, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        if let Some(tailoring) = ctx.value::<Tailoring>() {
            apply(tailoring, request)?;
        }
        next[0].send(ctx, request, &next[1..]).await
    }
}

fn apply(tailoring: &Tailoring, request: &mut Request) -> azure_core::Result<()> {
    request.url_mut().set_path(&tailoring.path);
    if request.url().path() != tailoring.path {
        // A component of dots only; no name that we make has one.
        let message = "the blob's name does not survive in a URL".to_owned();
        return Err(carry(ErrorKind::Other, BlobError::Rejected { code: "InvalidUri".to_owned(), message }));
    }
    if let Some(crc64) = tailoring.crc64 {
        request.insert_header("x-ms-content-crc64", encode_crc64(crc64));
    }
    Ok(())
}

/// Base64 of the checksum's eight bytes, little endian, as the service has it.
fn encode_crc64(crc64: u64) -> String {
    STANDARD.encode(crc64.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use azure_core::http::{Method, Url};

    use super::*;

    fn request() -> Request {
        Request::new(Url::parse("https://truck.blob.core.windows.net/data?comp=block&blockid=x%2B").unwrap(), Method::Put)
    }

    #[test]
    fn checksum_is_sent_in_the_services_form() {
        let crc64 = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, b"123456789");
        assert_eq!(encode_crc64(crc64), "iJh5CoYUi64=");
    }

    #[test]
    fn path_is_replaced_and_the_query_stays() {
        let mut request = request();
        apply(&Tailoring { path: "/data/a%20b%3F".to_owned(), crc64: None }, &mut request).unwrap();
        assert_eq!(request.path_and_query(), "/data/a%20b%3F?comp=block&blockid=x%2B");
    }

    #[test]
    fn a_path_that_would_be_another_one_is_refused() {
        let error = apply(&Tailoring { path: "/data/../other".to_owned(), crc64: None }, &mut request()).unwrap_err();
        assert_eq!(error.to_string(), "the blob's name does not survive in a URL");
    }
}
