//! Connections and requests: what arrives is read, meets its fate, is applied and answered.

use std::{
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{
    Request, Response,
    body::{Body, Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, task::JoinSet};

use crate::{
    Event, Fault, Operation, Record, Refusal,
    account::Reply,
    body::{self, Content},
    call::Call,
    refusal,
    server::{Shared, lock},
};

type ReplyBody = BoxBody<Bytes, io::Error>;

/// Takes connections until it is dropped, and with it all of them.
pub(crate) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors, most likely: others will be closed.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(move |request| serve(Arc::clone(&shared), request));
            let connection =
                hyper::server::conn::http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
            // A cut connection is an error of the service here, and clients are killed in the middle of requests.
            let _ = connection.await;
        });
    }
}

/// The connection is cut; no reply.
#[derive(Debug)]
struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection is cut")
    }
}

impl std::error::Error for Cut {}

async fn serve(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<ReplyBody>, Cut> {
    let (head, mut incoming) = request.into_parts();
    let call = Call::parse(&head.method, &head.uri, head.headers.clone());
    let mut record = arrived(&shared, call.as_ref().ok());
    let allowed = match &shared.key {
        Some(key) => key.verify(&head.method, &head.uri, &head.headers, SystemTime::now()),
        None => Ok(()),
    };
    let length = head.headers.get("content-length").and_then(|length| length.to_str().ok()?.parse().ok());
    let exchange = match call.and_then(|call| allowed.map(|()| call)) {
        Ok(call) => {
            record.fault = lock(&shared.faults).fate_of(call.operation, length.unwrap_or_default());
            exchange(&shared, call, &mut incoming, length, &mut record).await
        }
        Err(refusal) => {
            drain(&mut incoming).await;
            record.outcome = Some(Err(refusal));
            Ok(Reply::default())
        }
    };
    let fault = record.fault;
    let answer = exchange.map(|reply| answer(&record, reply, fault));
    lock(&shared.log).add(record);
    answer
}

fn arrived(shared: &Shared, call: Option<&Call>) -> Record {
    let record = Record {
        number: lock(&shared.log).number(),
        at: SystemTime::now(),
        operation: call.map(|call| call.operation),
        container: call.map(|call| call.container.as_str()).unwrap_or_default().into(),
        blob: call.map(|call| call.blob.as_str()).unwrap_or_default().into(),
        received: 0,
        fault: None,
        outcome: None,
        wrote: None,
    };
    if let Some(observer) = &shared.observer {
        observer(Event::Arrived(&record));
    }
    record
}

/// The service must read what it refuses, or the client sees a reset instead of the answer.
async fn drain(incoming: &mut Incoming) {
    while let Some(Ok(_)) = incoming.frame().await {}
}

/// One request that was understood and may be done.
async fn exchange(
    shared: &Arc<Shared>,
    call: Call,
    incoming: &mut Incoming,
    length: Option<u64>,
    record: &mut Record,
) -> Result<Reply, Cut> {
    if call.operation.has_body() && length.is_none() {
        drain(incoming).await;
        record.outcome = Some(Err(refusal::MISSING_CONTENT_LENGTH));
        return Ok(Reply::default());
    }
    let keep = lock(&shared.account).needs_bytes(call.operation);
    let content = match body::take(incoming, length.unwrap_or_default(), keep, record.fault).await {
        Ok(content) => content,
        Err(broken) => {
            record.received = broken.0;
            return Err(Cut);
        }
    };
    record.received = content.size;
    match record.fault {
        Some(Fault::Busy(status, retry_after)) => return Ok(refused(record, refusal::busy(status, retry_after))),
        Some(Fault::Refuse(status, code)) => return Ok(refused(record, refusal::with(status, code))),
        Some(Fault::Forbidden) => return Ok(refused(record, refusal::AUTHORIZATION_FAILURE)),
        Some(Fault::Late(time)) => {
            apply_later(Arc::clone(shared), call, content, record.clone(), time);
            return Err(Cut);
        }
        Some(Fault::Again(time)) => apply_later(Arc::clone(shared), call.clone(), content.clone(), record.clone(), time),
        Some(Fault::Slow(time)) => tokio::time::sleep(time).await,
        _ => {}
    }
    let reply = apply(shared, &call, &content, record);
    match record.fault {
        Some(Fault::LoseReply) => return Err(Cut),
        // A reply without a body is its head; a shorter one would be a lie about the blob's size.
        Some(Fault::CutReply) if record.operation == Some(Operation::GetBlobProperties) => return Err(Cut),
        Some(Fault::SlowReply(time)) => tokio::time::sleep(time).await,
        _ => {}
    }
    Ok(reply)
}

fn refused(record: &mut Record, refusal: Refusal) -> Reply {
    record.outcome = Some(Err(refusal));
    Reply::default()
}

fn apply(shared: &Shared, call: &Call, content: &Content, record: &mut Record) -> Reply {
    let mut account = lock(&shared.account);
    let result = account.apply(call, content, SystemTime::now());
    record.outcome = Some(result.as_ref().map(|reply| reply.status).map_err(Clone::clone));
    let wrote = result.as_ref().is_ok_and(|reply| reply.wrote);
    let version = account.slot(&call.container, &call.blob).and_then(|slot| slot.current()).filter(|_| wrote);
    record.wrote = version.map(|version| (version.crc64, version.size));
    if let Some(observer) = &shared.observer {
        observer(Event::Applied(record, version));
    }
    result.unwrap_or_default()
}

/// A request that stays on its way, or arrives a second time; nobody waits for the reply.
fn apply_later(shared: Arc<Shared>, call: Call, content: Content, record: Record, time: Duration) {
    tokio::spawn(async move {
        tokio::time::sleep(time).await;
        let mut record = Record { number: lock(&shared.log).number(), at: SystemTime::now(), received: 0, ..record };
        apply(&shared, &call, &content, &mut record);
        lock(&shared.log).add(record);
    });
}

fn answer(record: &Record, reply: Reply, fault: Option<Fault>) -> Response<ReplyBody> {
    let failed = (fault == Some(Fault::FailAfter)).then(|| refusal::busy(500, None));
    let refusal = failed.as_ref().or_else(|| record.outcome.as_ref()?.as_ref().err());
    let mut response = match refusal {
        Some(refusal) => refused_response(refusal, record.number),
        None => response(reply),
    };
    let headers = response.headers_mut();
    if let Ok(number) = format!("{:032x}", record.number).parse() {
        headers.insert("x-ms-request-id", number);
    }
    headers.insert("x-ms-version", http::HeaderValue::from_static("2021-12-02"));
    headers.insert("server", http::HeaderValue::from_static("Blobferry-test"));
    if fault == Some(Fault::CutReply) {
        // More is promised than comes.
        headers.insert("content-length", http::HeaderValue::from_static("4096"));
        let status = response.status();
        *response.body_mut() = Ended.boxed();
        *response.status_mut() = if status.as_u16() == 204 { http::StatusCode::OK } else { status };
    }
    response
}

fn refused_response(refusal: &Refusal, number: u64) -> Response<ReplyBody> {
    let mut builder = Response::builder().status(refusal.status).header("x-ms-error-code", refusal.code);
    if let Some(time) = refusal.retry_after {
        builder = builder.header("retry-after", time.as_secs());
    }
    built(builder.header("content-type", "application/xml"), refusal.to_xml(number).into())
}

fn response(reply: Reply) -> Response<ReplyBody> {
    let mut builder = Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        builder = builder.header(name, value);
    }
    if let Some(length) = reply.length {
        builder = builder.header("content-length", length);
    }
    built(builder, reply.body)
}

/// A header that cannot be sent, which nothing here makes, would be an empty 500.
fn built(builder: http::response::Builder, body: Bytes) -> Response<ReplyBody> {
    let body = Full::new(body).map_err(|never| match never {}).boxed();
    builder.body(body).unwrap_or_else(|_| {
        let mut response = Response::new(Full::default().map_err(|never| match never {}).boxed());
        *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
}

/// A body that breaks after its first bytes.
#[derive(Debug)]
struct Ended;

impl Body for Ended {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        std::task::Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::ConnectionReset))))
    }
}
