//! A client whose requests pass through the hands of the test.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use anyhow::{Context as _, Result};
use kube::{Client, client::Body};
use tokio::{sync::Notify, time::timeout};

use crate::stage::PATIENCE;

/// A request as the test sees it: method and path.
pub(crate) fn line(request: &http::Request<Body>) -> String {
    format!("{} {}", request.method(), request.uri().path())
}

/// `client`, whose requests are handled by `act`, which may pass them on to it.
pub(crate) fn around<A, F, B>(client: Client, act: A) -> Client
where
    A: Fn(http::Request<Body>, Client) -> F + Clone + Send + 'static,
    F: Future<Output = kube::Result<http::Response<B>>> + Send + 'static,
    B: http_body::Body<Data = bytes::Bytes, Error = kube::Error> + Send + 'static,
{
    let namespace = client.default_namespace().to_owned();
    Client::new(tower::service_fn(move |request| act(request, client.clone())), namespace)
}

/// Freezes a client, as if its process was paused: the first request that fits stays on its way, and all that follow do too.
#[derive(Clone, Default)]
pub(crate) struct Freezer(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Start of the line of the request at which it freezes.
    at: Mutex<Option<String>>,
    /// Whether that request alone stays on its way.
    alone: AtomicBool,
    frozen: AtomicBool,
    /// Whether the request at which it freezes has come.
    has_frozen: AtomicBool,
    /// Lines of all requests so far.
    lines: Mutex<Vec<String>>,
    froze: Notify,
    woken: Arc<Notify>,
    /// What the late request was answered.
    late: Mutex<Option<u16>>,
}

impl Freezer {
    /// Freezes at the next request whose line starts like this.
    pub(crate) fn arm(&self, at: &str) {
        *self.0.at.lock().unwrap_or_else(PoisonError::into_inner) = Some(at.to_owned());
    }

    /// Keeps the next request whose line starts like this on its way, as if the network did, and no other.
    pub(crate) fn hold(&self, at: &str) {
        self.0.alone.store(true, Ordering::SeqCst);
        self.arm(at);
    }

    /// How many requests so far had a line that starts like this.
    pub(crate) fn count(&self, start: &str) -> usize {
        let lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().filter(|line| line.starts_with(start)).count()
    }

    /// Waits until it is frozen.
    pub(crate) async fn until_frozen(&self) -> Result<()> {
        timeout(PATIENCE, self.0.froze.notified()).await.context("the request that was to be kept never came")
    }

    /// Whether the request at which it freezes has come.
    pub(crate) fn has_frozen(&self) -> bool {
        self.0.has_frozen.load(Ordering::SeqCst)
    }

    /// Lets everything go on.
    pub(crate) fn wake(&self) {
        self.0.frozen.store(false, Ordering::SeqCst);
        self.0.woken.notify_waiters();
    }

    /// The code that answered the request that was frozen.
    pub(crate) fn late_answer(&self) -> Option<u16> {
        *self.0.late.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `client` with this freezer around it.
    pub(crate) fn around(&self, client: Client) -> Client {
        let freezer = self.clone();
        around(client, move |request, client| freezer.clone().send(request, client))
    }

    async fn send(self, request: http::Request<Body>, client: Client) -> kube::Result<http::Response<Body>> {
        let line = line(&request);
        // Before it looks: it may be woken right afterwards.
        let woken = Arc::clone(&self.0.woken).notified_owned();
        let first = self.freezes_at(&line);
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        if !first && !self.0.frozen.load(Ordering::SeqCst) {
            return client.send(request).await;
        }
        // What is on its way arrives, whoever has stopped waiting for it meanwhile.
        let task = tokio::spawn(async move {
            if first {
                self.0.has_frozen.store(true, Ordering::SeqCst);
                self.0.froze.notify_one();
            }
            woken.await;
            let answer = client.send(request).await;
            if first {
                let code = answer.as_ref().map_or(0, |answer| answer.status().as_u16());
                *self.0.late.lock().unwrap_or_else(PoisonError::into_inner) = Some(code);
            }
            answer
        });
        task.await.map_err(|error| kube::Error::Service(Box::new(error)))?
    }

    fn freezes_at(&self, line: &str) -> bool {
        let mut at = self.0.at.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = at.as_ref().is_some_and(|at| line.starts_with(at.as_str()));
        if fits {
            *at = None;
            self.0.frozen.store(!self.0.alone.load(Ordering::SeqCst), Ordering::SeqCst);
        }
        fits
    }
}
