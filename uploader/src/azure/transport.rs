//! HTTP for the SDK over our own client.
//!
//! One request is one exchange: nothing is repeated, no redirect is followed. A body goes out in slices of the caller's buffer, which
//! are not copied, and an exchange fails when nothing moves for a while, however long it takes as a whole.

mod body;
mod progress;

use std::{error::Error, sync::Arc, time::Duration};

use async_trait::async_trait;
use azure_core::{
    error::ErrorKind,
    http::{
        AsyncRawResponse, Body, HttpClient, Method, Request,
        headers::{HeaderName, HeaderValue, Headers},
    },
};
use bytes::{Bytes, BytesMut};

use self::{body::SlicedBody, progress::Progress};
use super::{
    SettingsError,
    errors::carry,
    scrub::{Scrub, Scrubber},
};
use crate::{blob::BlobError, pacer::Pacer};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// How long nothing may move.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// While the body is sent, and until the reply is complete.
    usual: Duration,
    /// Until the reply to a Put Block List, whose work grows with the number of blocks.
    commit: Duration,
    /// What a slow line may stretch the wait for a reply to.
    most: Duration,
}

const PATIENCE: Patience = Patience { usual: Duration::from_mins(1), commit: Duration::from_mins(2), most: Duration::from_mins(5) };

/// Connections to the service, kept for reuse.
#[derive(Clone, Debug)]
pub(super) struct Transport {
    client: reqwest::Client,
    pacer: Pacer,
    scrubber: Scrubber,
    patience: Patience,
}

impl Transport {
    /// A client that trusts the system's certificates, or those that `SSL_CERT_FILE` names, and uses the system's proxy.
    pub(super) fn new(https: bool) -> Result<Self, SettingsError> {
        Self::build(reqwest::Client::builder(), https)
    }

    /// A client for addresses of this machine, which no proxy can reach. It hides what this one hides.
    pub(super) fn without_proxy(&self) -> Result<Self, SettingsError> {
        let local = Self::build(reqwest::Client::builder().no_proxy(), false)?;
        Ok(Self { scrubber: self.scrubber.clone(), ..local })
    }

    fn build(builder: reqwest::ClientBuilder, https: bool) -> Result<Self, SettingsError> {
        // Another part of the program may have installed it before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = builder
            .http1_only()
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_user_timeout(PATIENCE.usual)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never());
        // Plain HTTP needs no certificates, and a test image may have none.
        let builder = if https { builder } else { builder.tls_certs_only([]) };
        let client = builder.build().map_err(|error| {
            let cause = causes(&error);
            SettingsError(format!("cannot set up TLS: {cause}: name a file of CA certificates in SSL_CERT_FILE"))
        })?;
        Ok(Self { client, pacer: Pacer::default(), scrubber: Scrubber::default(), patience: PATIENCE })
    }

    /// What keeps all bodies together to a rate.
    pub(super) fn pacer(&self) -> Pacer {
        self.pacer.clone()
    }

    /// What keeps secrets out of replies and errors.
    pub(super) fn scrubber(&self) -> Scrubber {
        self.scrubber.clone()
    }

    async fn exchange(&self, request: &Request, progress: Arc<Progress>) -> Result<AsyncRawResponse, BlobError> {
        let host = request.url().host_str().unwrap_or_default();
        let request = self.to_reqwest(request, Arc::clone(&progress))?;
        let mut response = self.client.execute(request).await.map_err(|error| broken(&error, host))?;
        progress.advance(0);
        let scrub = self.scrubber.now();
        let (status, headers) = (response.status().as_u16(), to_headers(response.headers(), &scrub));
        let mut content = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| broken(&error, host))? {
            progress.advance(0);
            content.extend_from_slice(&chunk);
        }
        Ok(AsyncRawResponse::from_bytes(status.into(), headers, scrub.clean_body(status, content.freeze())))
    }

    fn to_reqwest(&self, request: &Request, progress: Arc<Progress>) -> Result<reqwest::Request, BlobError> {
        let Body::Bytes(content) = request.body().clone() else {
            return Err(unsendable("a body of unknown length"));
        };
        let method = reqwest::Method::from_bytes(request.method().as_str().as_bytes());
        let method = method.map_err(|_| unsendable("an unknown method"))?;
        let mut builder = self.client.request(method, request.url().clone());
        for (name, value) in request.headers().iter() {
            builder = builder.header(name.as_str(), value.as_str());
        }
        let builder = with_body(builder, content, progress, self.pacer.clone());
        builder.build().map_err(|error| unsendable(&causes(&error)))
    }
}

fn with_body(builder: reqwest::RequestBuilder, content: Bytes, progress: Arc<Progress>, pacer: Pacer) -> reqwest::RequestBuilder {
    if content.is_empty() {
        return builder;
    }
    builder.body(reqwest::Body::wrap(SlicedBody::new(content, progress, pacer)))
}

#[async_trait]
impl HttpClient for Transport {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let commit = request.method() == Method::Put && request.url().query().is_some_and(|query| query.contains("comp=blocklist"));
        let reply = if commit { self.patience.commit } else { self.patience.usual };
        let progress = Arc::new(Progress::new(request.body().len().unwrap_or_default()));
        let stalled = progress.stalled(self.patience.usual, reply, self.patience.most);
        let outcome = tokio::select! {
            outcome = self.exchange(request, Arc::clone(&progress)) => outcome,
            seconds = stalled => Err(transient(format!(
                "no progress in {seconds} s in an exchange with {}",
                request.url().host_str().unwrap_or_default()
            ))),
        };
        outcome.map_err(|error| carry(ErrorKind::Io, self.scrubber.now().clean_error(error)))
    }
}

fn to_headers(map: &reqwest::header::HeaderMap, scrub: &Scrub) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in map {
        // Metadata that others wrote may be of any bytes; ours is ASCII.
        let value = scrub.clean_header(name.as_str(), &String::from_utf8_lossy(value.as_bytes()));
        headers.insert(HeaderName::from(name.as_str().to_owned()), HeaderValue::from(value));
    }
    headers
}

fn transient(message: String) -> BlobError {
    BlobError::Transient { message, retry_after: None }
}

fn unsendable(cause: &str) -> BlobError {
    BlobError::Rejected { code: "InvalidRequest".to_owned(), message: format!("the request cannot be sent: {cause}") }
}

/// The client's own text would hold the URL, and with it a SAS token.
fn broken(error: &reqwest::Error, host: &str) -> BlobError {
    let cause = causes(error);
    let hint = if cause.contains("invalid peer certificate") { " (SSL_CERT_FILE names the authorities to trust)" } else { "" };
    if error.is_connect() {
        return transient(format!("cannot connect to {host}: {cause}{hint}"));
    }
    transient(format!("the connection to {host} broke: {cause}{hint}"))
}

/// What lies below the client's own words.
fn causes(error: &reqwest::Error) -> String {
    let mut texts = Vec::<String>::new();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !text.starts_with("client error (") && !texts.iter().any(|before| before.contains(&text)) {
            texts.push(text);
        }
        source = cause.source();
    }
    match texts.is_empty() {
        false => texts.join(": "),
        true if error.is_timeout() => "timed out".to_owned(),
        true => "the request failed".to_owned(),
    }
}

#[cfg(test)]
mod tests;
