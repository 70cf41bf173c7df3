//! What is sent to a collector by OTLP over HTTP, and how it ends.

use std::{
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use opentelemetry_otlp::{LogExporter, MetricExporter, SpanExporter, WithHttpConfig};
use opentelemetry_prometheus::PrometheusExporter;
use opentelemetry_sdk::{
    Resource,
    logs::SdkLoggerProvider,
    metrics::SdkMeterProvider,
    trace::{Sampler, SdkTracerProvider},
};
use reqwest::blocking::Client;

use super::signals::Signals;

/// The providers of the three signals.
#[derive(Debug)]
pub(super) struct Providers {
    /// Gives ids to spans, and exports them if that is wanted.
    pub traces: SdkTracerProvider,
    /// Read by `/metrics`, and exported if that is wanted.
    pub metrics: SdkMeterProvider,
    /// Only if logs are exported.
    pub logs: Option<SdkLoggerProvider>,
}

impl Providers {
    /// Providers that export `signals`. What cannot be exported is left out and told in `problems`.
    pub(super) fn new(signals: Signals, reader: PrometheusExporter, resource: Resource, problems: &mut Vec<String>) -> Self {
        let mut client = LazyClient::default();
        let spans = kept("traces", signals.traces.then(|| client.spans()), problems);
        let metrics = kept("metrics", signals.metrics.then(|| client.metrics()), problems);
        let logs = kept("logs", signals.logs.then(|| client.logs()), problems);

        let traces = SdkTracerProvider::builder().with_resource(resource.clone());
        let traces = match spans {
            Some(exporter) => traces.with_batch_exporter(exporter),
            // Spans have ids, for logs, and are not recorded.
            None => traces.with_sampler(Sampler::AlwaysOff),
        };
        let meters = SdkMeterProvider::builder().with_resource(resource.clone()).with_reader(reader);
        let meters = match metrics {
            Some(exporter) => meters.with_periodic_exporter(exporter),
            None => meters,
        };
        let logs = logs.map(|exporter| SdkLoggerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build());
        Self { traces: traces.build(), metrics: meters.build(), logs }
    }
}

/// One HTTP client for all signals, made when the first of them needs it.
#[derive(Default)]
struct LazyClient(Option<Client>);

impl LazyClient {
    /// Exporters run on threads of their own without a runtime, hence a blocking client; it must be made outside of one as well.
    fn get(&mut self) -> Result<Client, String> {
        if let Some(client) = &self.0 {
            return Ok(client.clone());
        }
        let made = thread::spawn(|| Client::builder().build()).join();
        let made = made.map_err(|_| "the thread that makes the HTTP client panicked".to_owned())?;
        let client = made.map_err(|error| format!("cannot make an HTTP client: {error:?}"))?;
        Ok(self.0.insert(client).clone())
    }

    fn spans(&mut self) -> Result<SpanExporter, String> {
        SpanExporter::builder().with_http().with_http_client(self.get()?).build().map_err(|error| error.to_string())
    }

    fn metrics(&mut self) -> Result<MetricExporter, String> {
        MetricExporter::builder().with_http().with_http_client(self.get()?).build().map_err(|error| error.to_string())
    }

    fn logs(&mut self) -> Result<LogExporter, String> {
        LogExporter::builder().with_http().with_http_client(self.get()?).build().map_err(|error| error.to_string())
    }
}

/// Keeps the exporter of a wanted signal, or says in `problems` why there is none.
fn kept<E>(signal: &str, exporter: Option<Result<E, String>>, problems: &mut Vec<String>) -> Option<E> {
    match exporter? {
        Ok(exporter) => Some(exporter),
        Err(error) => {
            problems.push(format!("cannot export {signal} by OTLP: {error}"));
            None
        }
    }
}

/// Sends what is left when a program ends.
#[derive(Clone, Debug)]
pub struct Flusher(Arc<Providers>);

impl Flusher {
    pub(super) fn new(providers: Providers) -> Self {
        Self(Arc::new(providers))
    }

    /// Sends what is left and ends telemetry, for at most `limit`; what is not sent by then is lost.
    pub fn end_within(&self, limit: Duration) {
        let (done, ended) = mpsc::channel();
        let signals: [fn(&Providers, Duration); 3] = [
            // Whether it worked does not matter any more.
            |providers, limit| drop(providers.traces.shutdown_with_timeout(limit)),
            |providers, limit| drop(providers.metrics.shutdown_with_timeout(limit)),
            |providers, limit| drop(providers.logs.as_ref().map(|logs| logs.shutdown_with_timeout(limit))),
        ];
        for signal in signals {
            let (providers, done) = (Arc::clone(&self.0), done.clone());
            // Threads of their own, because a signal may hang for longer than it was told.
            thread::spawn(move || {
                signal(&providers, limit);
                done.send(())
            });
        }
        let deadline = Instant::now() + limit;
        for _ in signals {
            if ended.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_err() {
                return;
            }
        }
    }
}
