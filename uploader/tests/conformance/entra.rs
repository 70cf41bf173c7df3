//! A token service over TLS, which knows some credentials and how they stand.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

/// How a credential stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Valid,
    Expired,
}

/// A running service.
#[derive(Clone)]
pub(crate) struct Entra {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// By client secret, thumbprint of a certificate, or subject of a token.
    known: HashMap<String, Standing>,
    /// Requests by client id.
    requests: HashMap<String, usize>,
}

impl Entra {
    pub(crate) async fn start(tls: Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let entra = Self { address: listener.local_addr().unwrap(), state: Arc::default() };
        let (acceptor, shared) = (TlsAcceptor::from(tls), entra.clone());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, shared) = (acceptor.clone(), shared.clone());
                tokio::spawn(async move {
                    let Ok(mut socket) = acceptor.accept(socket).await else { return };
                    let mut request = Vec::new();
                    while !String::from_utf8_lossy(&request).contains("scope=") {
                        if socket.read_buf(&mut request).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    let request = String::from_utf8_lossy(&request);
                    let (status, body) = shared.answer(request.split("\r\n\r\n").nth(1).unwrap_or_default());
                    let reply = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
                    let _ = socket.write_all(reply.as_bytes()).await;
                    let _ = socket.shutdown().await;
                });
            }
        });
        entra
    }

    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// Sets how a credential stands; `None` is one that nobody knows.
    pub(crate) fn set(&self, credential: &str, standing: Option<Standing>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match standing {
            Some(standing) => state.known.insert(credential.to_owned(), standing),
            None => state.known.remove(credential),
        };
    }

    /// How many requests a client has sent.
    pub(crate) fn requests(&self, client: &str) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).requests.get(client).copied().unwrap_or_default()
    }

    fn answer(&self, form: &str) -> (&'static str, String) {
        let form: HashMap<_, _> = url::form_urlencoded::parse(form.as_bytes()).into_owned().collect();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state.requests.entry(form["client_id"].clone()).or_default() += 1;
        let (credential, refusals) = shown(&form);
        let refusal = match state.known.get(&credential) {
            Some(Standing::Valid) => {
                let lifetime = if form["client_id"].ends_with(SHORT) { SHORT_LIFE } else { LIFE };
                let seconds = lifetime.as_secs();
                let token = access_token(i64::try_from(seconds).unwrap());
                let reply = format!(r#"{{"token_type":"Bearer","expires_in":{seconds},"access_token":"{token}"}}"#);
                return ("200 OK", reply);
            }
            Some(Standing::Expired) => refusals[1],
            None => refusals[0],
        };
        ("401 Unauthorized", format!(r#"{{"error":"invalid_client","error_description":"{refusal} Trace ID: 1"}}"#))
    }
}

/// Which credential a request has, and what the real service says to one that it does not know or that has expired.
fn shown(form: &HashMap<String, String>) -> (String, [&'static str; 2]) {
    if let Some(secret) = form.get("client_secret") {
        let unknown = "AADSTS7000215: Invalid client secret provided.";
        return (secret.clone(), [unknown, "AADSTS7000222: The provided client secret keys for app 'app' are expired."]);
    }
    let assertion = form["client_assertion"].split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap_or_default());
    let parts: Vec<serde_json::Value> = assertion.take(2).map(|part| serde_json::from_slice(&part).unwrap_or_default()).collect();
    if let Some(thumbprint) = parts[0]["x5t#S256"].as_str() {
        let unknown =
            "AADSTS700027: The certificate with identifier used to sign the client assertion is not registered on application.";
        let expired = "AADSTS700027: Client assertion contains an invalid signature. [Reason - The key used is expired.]";
        return (thumbprint.to_owned(), [unknown, expired]);
    }
    let unknown = "AADSTS700213: No matching federated identity record found for presented assertion subject.";
    let subject = parts[1]["sub"].as_str().unwrap_or_default().to_owned();
    (subject, [unknown, "AADSTS700024: Client assertion is not within its valid time range."])
}

/// How long a token holds.
pub(crate) const LIFE: Duration = Duration::from_hours(1);
/// How the names of clients end whose tokens hold for a shorter time, so that a renewal can be waited for.
pub(crate) const SHORT: &str = "-short";
const SHORT_LIFE: Duration = Duration::from_secs(3);

/// A token as Azurite wants it, which ends in so many seconds; it does not check the signature.
pub(crate) fn access_token(seconds: i64) -> String {
    let now = jiff::Timestamp::now().as_second();
    let claims = format!(
        r#"{{"aud":"https://storage.azure.com","iss":"https://sts.windows.net/tenant/","iat":{now},"nbf":{},"exp":{}}}"#,
        now - 60,
        now + seconds
    );
    signed(&claims)
}

/// A token that says `claims`, without a signature that holds.
pub(crate) fn signed(claims: &str) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", part(r#"{"alg":"RS256","typ":"JWT"}"#), part(claims), part("signature"))
}
