//! A token service as Microsoft Entra is one: it gives an access token for a pod's own token, if the API server has signed that and
//! somebody has said that its issuer, subject and audience are trusted.
//!
//! A request is taken by [`serve`](TokenService::start), judged by [`exchange`], for which [`jwt`] verifies the signature with the
//! cluster's published keys.

mod exchange;
mod jwt;
mod tls;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result};
use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    routing::post,
};
use jiff::{SignedDuration, Timestamp};
use tokio::{net::TcpListener, task::JoinHandle};

pub use self::{
    exchange::{AUDIENCE, Trust},
    jwt::Keys,
};
use crate::authority::Authority;

/// The only identity, as sessions name it.
pub const CLIENT: &str = "11111111-2222-3333-4444-555555555555";
/// Its tenant.
pub const TENANT: &str = "99999999-2222-3333-4444-555555555555";

/// A running token service; it ends when this is dropped.
#[derive(Debug)]
pub struct TokenService {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    serving: JoinHandle<()>,
}

/// What the service knows and remembers.
#[derive(Debug)]
struct Shared {
    keys: Keys,
    trusted: Vec<Trust>,
    ahead: SignedDuration,
    granted: Vec<String>,
}

impl TokenService {
    /// Starts one at a free port of `host`, with a certificate of `authority`. It trusts nobody at first.
    ///
    /// # Errors
    ///
    /// When the address cannot be listened on.
    pub async fn start(host: IpAddr, authority: &Authority, keys: Keys) -> Result<Self> {
        let listener = TcpListener::bind((host, 0)).await.with_context(|| format!("cannot listen on {host}"))?;
        let address = listener.local_addr()?;
        let shared = Shared { keys, trusted: Vec::new(), ahead: SignedDuration::ZERO, granted: Vec::new() };
        let shared = Arc::new(Mutex::new(shared));
        let pages = Router::new().route("/{tenant}/oauth2/v2.0/token", post(answer)).with_state(Arc::clone(&shared));
        let listener = tls::Listener::new(listener, authority.server()?);
        let serving = tokio::spawn(async move {
            let _ = axum::serve(listener, pages).await;
        });
        Ok(Self { address, shared, serving })
    }

    /// Its URL, as `workloadIdentity.authorityHost` has it.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Replaces the federated credentials of the identity.
    pub fn trust(&self, trusted: Vec<Trust>) {
        lock(&self.shared).trusted = trusted;
    }

    /// Sets the service's clock ahead of this machine's.
    pub fn set_ahead(&self, by: SignedDuration) {
        lock(&self.shared).ahead = by;
    }

    /// The subjects that were given a token so far.
    pub fn granted(&self) -> Vec<String> {
        lock(&self.shared).granted.clone()
    }
}

impl Drop for TokenService {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(State(shared): State<Arc<Mutex<Shared>>>, Path(tenant): Path<String>, form: String) -> (StatusCode, String) {
    let mut shared = lock(&shared);
    let now = Timestamp::now();
    match exchange::judge(&tenant, &form, &shared.keys, &shared.trusted, now + shared.ahead) {
        Ok(subject) => {
            let reply = exchange::grant(&subject, now);
            shared.granted.push(subject);
            (StatusCode::OK, reply)
        }
        Err(refusal) => (StatusCode::BAD_REQUEST, refusal.to_reply()),
    }
}
