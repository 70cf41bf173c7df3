//! An operator that dies at a chosen write, in the one way or the other.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use anyhow::Result;
use http::{Method, Request};
use kube::{Client, client::Body};
use tokio::{sync::Notify, task::JoinHandle};
use tower::{Layer, Service, service_fn};

use crate::{calls::write_down, chart::operator_client, stage};

/// The name of every operator here.
pub(crate) const MORTAL: &str = "operator-mortal";

/// When an operator dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Right before it sends its write of this number, counted from 1.
    Before(usize),
    /// After that write has reached the API server, and before its answer arrives.
    After(usize),
    /// Never.
    Never,
}

/// A life that ends at its moment: from then on nothing is sent and no answer arrives.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    namespace: Arc<str>,
    moment: Moment,
    writes: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    end: Arc<Notify>,
}

/// An operator at work.
pub(crate) struct Mortal {
    life: Life,
    task: JoinHandle<()>,
}

impl Mortal {
    /// Starts an operator that dies at `moment` of its work for `namespace`.
    pub(crate) async fn start(namespace: &str, moment: Moment) -> Result<Self> {
        let life = Life { namespace: namespace.into(), moment, writes: Arc::default(), over: Arc::default(), end: Arc::default() };
        let client = write_down(MORTAL, operator_client().await?);
        let way = service_fn(move |request| {
            let client = client.clone();
            async move { client.send(request).await }
        });
        let client = Client::new(life.layer(way), "default");
        let operator = stage::operator_of(MORTAL, client)?;
        Ok(Self { life, task: tokio::spawn(operator.run(std::future::pending())) })
    }

    /// Resolves when it is dead.
    pub(crate) async fn dies(&self) {
        while !self.life.over.load(Ordering::SeqCst) {
            self.life.end.notified().await;
        }
    }

    /// Writes so far.
    pub(crate) fn writes(&self) -> usize {
        self.life.writes.load(Ordering::SeqCst)
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Life {
    /// Whether `request` changes something of this test; events change nothing that matters.
    fn counts(&self, request: &Request<Body>) -> bool {
        let path = request.uri().path();
        let writes = !matches!(*request.method(), Method::GET | Method::HEAD);
        let here = path.contains(&format!("/namespaces/{}/", self.namespace)) || path.contains("/persistentvolumes");
        writes && here && !path.contains("/events")
    }

    fn dies(&self) {
        self.over.store(true, Ordering::SeqCst);
        self.end.notify_one();
    }
}

impl<S> Layer<S> for Life {
    type Service = Living<S>;

    fn layer(&self, inner: S) -> Living<S> {
        Living { inner, life: self.clone() }
    }
}

/// The way to the API server of an operator that is alive.
#[derive(Clone)]
pub(crate) struct Living<S> {
    inner: S,
    life: Life,
}

impl<S> Service<Request<Body>> for Living<S>
where
    S: Service<Request<Body>>,
    S::Future: Send + 'static,
    S::Response: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let life = self.life.clone();
        let number = if life.counts(&request) { life.writes.fetch_add(1, Ordering::SeqCst) + 1 } else { 0 };
        if number > 0 && life.moment == Moment::Before(number) {
            life.dies();
        }
        if life.over.load(Ordering::SeqCst) {
            return Box::pin(std::future::pending());
        }
        let call = self.inner.call(request);
        Box::pin(async move {
            let answer = call.await;
            if number > 0 && life.moment == Moment::After(number) {
                life.dies();
            }
            if life.over.load(Ordering::SeqCst) { std::future::pending().await } else { answer }
        })
    }
}
