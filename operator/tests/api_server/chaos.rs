//! A proxy in front of the API server that loses, delays, doubles and refuses requests, as a seed decides.

use std::{
    collections::{BTreeMap, HashMap},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use anyhow::Result;
use blobferry_operator::api::{DEADLINE, impatient};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use kube::{Client, Config, client::Body};
use serde_json::json;
use tokio::time::{Sleep, sleep};

/// What may happen to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// It never arrives.
    Lost,
    /// It arrives, and its answer does not.
    AnswerLost,
    /// It arrives late.
    Late,
    /// It arrives when nobody waits for it any more; only once, because it takes so long.
    TooLate,
    /// It arrives twice; the second answer counts.
    Doubled,
    /// 429 with Retry-After.
    Busy,
    /// 500.
    Broken,
    /// 409, although nothing has changed.
    Conflict,
    /// A listing for a watch that was given before.
    Stale,
    /// A watch is too old from the start.
    Gone,
    /// A watch ends early.
    Cut,
    /// A watch is too old after a while.
    CutGone,
}

/// More than the operator waits for an answer.
const TOO_LATE: Duration = DEADLINE.saturating_add(Duration::from_secs(5));
/// All that may happen.
pub(crate) const FAULTS: [Fault; 12] = [
    Fault::Lost,
    Fault::AnswerLost,
    Fault::Late,
    Fault::TooLate,
    Fault::Doubled,
    Fault::Busy,
    Fault::Broken,
    Fault::Conflict,
    Fault::Stale,
    Fault::Gone,
    Fault::Cut,
    Fault::CutGone,
];

/// Faults by seed; cloned handles share everything.
#[derive(Clone)]
pub(crate) struct Chaos(Arc<Inner>);

struct Inner {
    /// Faults of a hundred requests.
    percent: u64,
    on: AtomicBool,
    away: AtomicBool,
    busy: AtomicBool,
    state: Mutex<State>,
}

struct State {
    random: u64,
    faults: BTreeMap<Fault, usize>,
    requests: usize,
    /// Requests that will arrive too late.
    under_way: usize,
    answers: HashMap<String, Bytes>,
}

impl Chaos {
    pub(crate) fn new(seed: u64, percent: u64) -> Self {
        let state = State { random: seed, faults: BTreeMap::new(), requests: 0, under_way: 0, answers: HashMap::new() };
        Self(Arc::new(Inner {
            percent,
            on: AtomicBool::new(true),
            away: AtomicBool::new(false),
            busy: AtomicBool::new(false),
            state: Mutex::new(state),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on nothing goes wrong.
    pub(crate) fn calm(&self) {
        self.0.on.store(false, Ordering::SeqCst);
    }

    /// Whether the API server is away altogether.
    pub(crate) fn away(&self, away: bool) {
        self.0.away.store(away, Ordering::SeqCst);
    }

    /// Whether the API server has too much to do for anything.
    pub(crate) fn busy(&self, busy: bool) {
        self.0.busy.store(busy, Ordering::SeqCst);
    }

    /// Requests so far, and how often which fault happened.
    pub(crate) fn totals(&self) -> (usize, BTreeMap<Fault, usize>) {
        let state = self.state();
        (state.requests, state.faults.clone())
    }

    /// Whether a request is still to arrive that nobody waits for any more.
    pub(crate) fn is_late(&self) -> bool {
        self.state().under_way > 0
    }

    /// A client like every other one of a proxy with these faults, which passes on what it passes on as `client`. The proxy ends with the
    /// runtime in which this is called.
    pub(crate) fn in_front_of(&self, client: Client) -> Result<Client> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let config = Config::new(format!("http://{}", listener.local_addr()?).parse()?);
        tokio::spawn(self.clone().serve(tokio::net::TcpListener::from_std(listener)?, client));
        Ok(Client::try_from(impatient(config))?)
    }

    async fn serve(self, listener: tokio::net::TcpListener, client: Client) {
        while let Ok((connection, _)) = listener.accept().await {
            let (chaos, client) = (self.clone(), client.clone());
            // A request that fails here closes its connection without an answer.
            let service = service_fn(move |request| chaos.clone().take(request, client.clone()));
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(connection), service));
        }
    }

    async fn take(self, request: Request<Incoming>, client: Client) -> kube::Result<Response<Cut>> {
        let (mut head, body) = request.into_parts();
        head.headers.remove(http::header::HOST);
        let body = axum::body::to_bytes(axum::body::Body::new(body), usize::MAX).await;
        let body = body.map_err(|error| kube::Error::Service(Box::new(error)))?;
        self.cut_or_not(Request::from_parts(head, Body::from(body)), client).await
    }

    /// A number below `bound`.
    fn draw(&self, bound: u64) -> u64 {
        let mut state = self.state();
        // SplitMix64, https://prng.di.unimi.it/splitmix64.c
        state.random = state.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    /// What happens to this request, if anything.
    fn fault(&self, request: &Request<Body>) -> Option<Fault> {
        use Fault::{AnswerLost, Broken, Busy, Conflict, Doubled, Late, Lost, Stale, TooLate};
        self.state().requests += 1;
        if !self.0.on.load(Ordering::SeqCst) {
            return None;
        }
        if is_listing(request) && !self.state().faults.contains_key(&Stale) && self.has_listed(request) {
            return Some(self.count(Stale));
        }
        if is_watch(request) {
            return Some(self.count(self.end_of_watch()));
        }
        let possible: &[Fault] = match request.method().as_str() {
            "GET" if self.has_listed(request) => &[Lost, AnswerLost, Late, Busy, Broken, Stale],
            "GET" => &[Lost, AnswerLost, Late, Busy, Broken],
            _ => &[Lost, AnswerLost, Late, Doubled, Busy, Broken, Conflict],
        };
        if self.draw(100) >= self.0.percent {
            return None;
        }
        if !is_listing(request) && !self.state().faults.contains_key(&TooLate) {
            return Some(self.count(TooLate));
        }
        // What has not happened yet comes first.
        let fresh: Vec<_> = possible.iter().copied().filter(|fault| !self.state().faults.contains_key(fault)).collect();
        let choices = if fresh.is_empty() { possible } else { &fresh };
        Some(self.count(choices[usize::try_from(self.draw(choices.len() as u64)).unwrap_or(0)]))
    }

    /// Every watch ends early; most of the time without a word.
    fn end_of_watch(&self) -> Fault {
        let new = [Fault::CutGone, Fault::Gone].into_iter().find(|fault| !self.state().faults.contains_key(fault));
        let ends = [Fault::Cut, Fault::Cut, Fault::Cut, Fault::Cut, Fault::CutGone, Fault::Gone];
        new.unwrap_or_else(|| ends[usize::try_from(self.draw(6)).unwrap_or(0)])
    }

    /// Whether this listing was given before.
    fn has_listed(&self, request: &Request<Body>) -> bool {
        self.state().answers.contains_key(&request.uri().to_string())
    }

    fn count(&self, fault: Fault) -> Fault {
        *self.state().faults.entry(fault).or_default() += 1;
        fault
    }

    async fn cut_or_not(self, request: Request<Body>, client: Client) -> kube::Result<Response<Cut>> {
        let fault = self.fault(&request);
        let answer = self.send(fault, request, client).await?;
        let end = matches!(fault, Some(Fault::Cut | Fault::CutGone)).then(|| 300 + self.draw(5000));
        Ok(answer.map(|inner| Cut {
            inner: Box::pin(inner),
            end: end.map(|end| Box::pin(sleep(Duration::from_millis(end)))),
            last: (fault == Some(Fault::CutGone)).then(gone),
            done: false,
        }))
    }

    async fn send(&self, fault: Option<Fault>, request: Request<Body>, client: Client) -> kube::Result<Response<Body>> {
        if self.0.away.load(Ordering::SeqCst) {
            return Err(lost());
        }
        if self.0.busy.load(Ordering::SeqCst) {
            return Ok(refused(429, "TooManyRequests"));
        }
        match fault {
            None => self.pass(request, client).await,
            Some(Fault::Lost) => Err(lost()),
            Some(Fault::AnswerLost) => client.send(request).await.and(Err(lost())),
            Some(Fault::Late) => {
                sleep(Duration::from_millis(self.draw(1500))).await;
                client.send(request).await
            }
            Some(Fault::TooLate) => {
                self.state().under_way += 1;
                let chaos = self.clone();
                tokio::spawn(async move {
                    sleep(TOO_LATE).await;
                    let _ = client.send(request).await;
                    chaos.state().under_way -= 1;
                });
                std::future::pending().await
            }
            Some(Fault::Doubled) => doubled(request, client).await,
            Some(Fault::Busy) => Ok(refused(429, "TooManyRequests")),
            Some(Fault::Broken) => Ok(refused(500, "InternalError")),
            Some(Fault::Conflict) => Ok(refused(409, "Conflict")),
            Some(Fault::Stale) => self.stale(request, client).await,
            Some(Fault::Gone) => Ok(refused(410, "Expired")),
            Some(Fault::Cut | Fault::CutGone) => client.send(request).await,
        }
    }

    /// Nothing happens to the request; listings are kept for later.
    async fn pass(&self, request: Request<Body>, client: Client) -> kube::Result<Response<Body>> {
        if !is_listing(&request) {
            return client.send(request).await;
        }
        let question = request.uri().to_string();
        let (head, body) = client.send(request).await?.into_parts();
        let body = body.collect_bytes().await?;
        if head.status.is_success() {
            self.state().answers.entry(question).or_insert_with(|| body.clone());
        }
        Ok(Response::from_parts(head, Body::from(body)))
    }

    async fn stale(&self, request: Request<Body>, client: Client) -> kube::Result<Response<Body>> {
        let old = self.state().answers.get(&request.uri().to_string()).cloned();
        match old {
            Some(body) => Ok(Response::new(Body::from(body))),
            None => self.pass(request, client).await,
        }
    }
}

fn is_watch(request: &Request<Body>) -> bool {
    request.uri().query().is_some_and(|query| query.contains("watch=true"))
}

/// Whether a watch begins with this. Reads for a decision ask for the newest state, and get it from every API server.
fn is_listing(request: &Request<Body>) -> bool {
    let of_cluster = ["/apis/blobferry.io/v1alpha1/uploadsessions", "/api/v1/pods"].contains(&request.uri().path());
    of_cluster && request.method() == http::Method::GET && !is_watch(request)
}

fn lost() -> kube::Error {
    kube::Error::Service("the connection was reset".into())
}

fn refused(code: u16, reason: &str) -> Response<Body> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason,
        "message": "made by the test"});
    let mut answer = Response::new(Body::from(status.to_string().into_bytes()));
    *answer.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
    answer.headers_mut().insert(http::header::RETRY_AFTER, http::HeaderValue::from_static("1"));
    answer
}

/// An event that ends a watch.
fn gone() -> Bytes {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 410, "reason": "Expired",
        "message": "too old resource version"});
    Bytes::from(format!("{}\n", json!({"type": "ERROR", "object": status})))
}

async fn doubled(request: Request<Body>, client: Client) -> kube::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let body = body.collect_bytes().await?;
    let _first = client.send(Request::from_parts(head.clone(), Body::from(body.clone()))).await?;
    client.send(Request::from_parts(head, Body::from(body))).await
}

/// A body that may end before its time.
struct Cut {
    inner: Pin<Box<Body>>,
    end: Option<Pin<Box<Sleep>>>,
    last: Option<Bytes>,
    done: bool,
}

impl http_body::Body for Cut {
    type Data = Bytes;
    type Error = kube::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, kube::Error>>> {
        if self.done {
            return Poll::Ready(None);
        }
        if self.end.as_mut().is_some_and(|end| end.as_mut().poll(context).is_ready()) {
            self.done = true;
            return Poll::Ready(self.last.take().map(|last| Ok(Frame::data(last))));
        }
        self.inner.as_mut().poll_frame(context)
    }
}
