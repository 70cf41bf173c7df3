//! `/healthz`, `/readyz` and `/metrics`. None of them touches the share: what they say of it is read from memory.

use std::{io, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use blobferry_crds::telemetry::MetricsText;
use tokio::{net::TcpListener, sync::watch};

use crate::{args::Listen, share::Pulse};

/// For how long calls to the share may wait without any of them ending before the pod is restarted.
const HANG_LIMIT: Duration = Duration::from_secs(30);

/// What the three pages are made of.
#[derive(Clone, Debug)]
pub struct Health {
    pulse: Arc<Pulse>,
    hang_limit: Duration,
    ready: watch::Receiver<bool>,
    metrics: MetricsText,
}

impl Health {
    /// The health of a process with this pulse of its calls to the share; `ready` says whether its start checks have passed.
    pub fn new(pulse: Arc<Pulse>, ready: watch::Receiver<bool>, metrics: MetricsText) -> Self {
        Self { pulse, hang_limit: HANG_LIMIT, ready, metrics }
    }

    /// Answers requests for ever.
    pub async fn serve(self, listener: TcpListener) -> io::Result<()> {
        let pages = Router::new()
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(Arc::new(self));
        axum::serve(listener, pages).await
    }
}

/// Binds the first of the addresses that can be bound.
pub async fn bind(listen: Listen) -> io::Result<TcpListener> {
    TcpListener::bind(listen.candidates().as_slice()).await
}

async fn healthz(State(health): State<Arc<Health>>) -> Response {
    let silent = health.pulse.silent_for();
    if silent > health.hang_limit {
        let text = format!("the share has answered no call for {} s: its mount hangs\n", silent.as_secs());
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    }
    "ok\n".into_response()
}

async fn readyz(State(health): State<Arc<Health>>) -> Response {
    if *health.ready.borrow() {
        return "ok\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, "the start checks have not passed: see the session's status or the log\n").into_response()
}

async fn metrics(State(health): State<Arc<Health>>) -> Response {
    match health.metrics.render() {
        Ok(text) => ([(CONTENT_TYPE, MetricsText::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot render metrics: {error}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use opentelemetry::metrics::MeterProvider as _;
    use opentelemetry_sdk::metrics::SdkMeterProvider;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::share::Pool;

    struct Served {
        address: std::net::SocketAddr,
        ready: watch::Sender<bool>,
        _provider: SdkMeterProvider,
    }

    async fn serve(pool: &Pool, hang_limit: Duration) -> Served {
        let (text, reader) = MetricsText::new().unwrap();
        let provider = SdkMeterProvider::builder().with_reader(reader).build();
        provider.meter("test").u64_counter("files.processed").build().add(3, &[]);
        let (ready, is_ready) = watch::channel(false);
        let listener = bind("127.0.0.1:0".parse().map(Listen::Address).unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(Health { hang_limit, ..Health::new(pool.pulse(), is_ready, text) }.serve(listener));
        Served { address, ready, _provider: provider }
    }

    impl Served {
        async fn get(&self, path: &str) -> String {
            let mut stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut reply = String::new();
            stream.read_to_string(&mut reply).await.unwrap();
            reply
        }
    }

    #[tokio::test]
    async fn liveness_fails_while_the_share_hangs_and_returns_with_it() {
        let pool = Pool::new("test", 1).unwrap();
        let served = serve(&pool, Duration::from_millis(50)).await;
        assert!(served.get("/healthz").await.starts_with("HTTP/1.1 200"));
        let (release, hold) = mpsc::channel::<()>();
        let hung = tokio::spawn({
            let pool = pool.clone();
            async move { pool.run(move || hold.recv().map_err(io::Error::other)).await }
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        let reply = served.get("/healthz").await;
        assert!(reply.starts_with("HTTP/1.1 503") && reply.contains("its mount hangs"), "{reply}");
        release.send(()).unwrap();
        hung.await.unwrap().unwrap();
        assert!(served.get("/healthz").await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn readiness_follows_the_start_checks() {
        let served = serve(&Pool::new("test", 1).unwrap(), HANG_LIMIT).await;
        assert!(served.get("/readyz").await.starts_with("HTTP/1.1 503"));
        served.ready.send(true).unwrap();
        assert!(served.get("/readyz").await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn metrics_are_served_as_prometheus_reads_them() {
        let served = serve(&Pool::new("test", 1).unwrap(), HANG_LIMIT).await;
        let reply = served.get("/metrics").await;
        assert!(reply.contains("content-type: text/plain; version=0.0.4"), "{reply}");
        assert!(reply.contains("files_processed_total 3"), "{reply}");
        assert!(served.get("/other").await.starts_with("HTTP/1.1 404"));
    }

    #[tokio::test]
    async fn a_port_alone_is_served_on_all_addresses() {
        let listener = bind(Listen::Port(0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    }
}
