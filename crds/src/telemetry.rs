//! Logs, traces and metrics of both programs.
//!
//! Spans and events come from `tracing`, instruments from the OpenTelemetry API; each is written once. Events go to standard output,
//! as JSON or as text for a person. With an OTLP endpoint in the environment, spans, events and instruments go there as well;
//! without one nothing is sent, but spans still have ids. The same instruments are read by `/metrics`.

mod console;
mod filter;
mod json;
mod metrics_text;
mod otlp;
mod signals;

use std::{env, time::Duration};

use opentelemetry::{
    KeyValue,
    metrics::{Meter, MeterProvider as _},
    trace::TracerProvider as _,
};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_sdk::Resource;
use tracing_subscriber::{Layer, Registry, layer::SubscriberExt, util::SubscriberInitExt};

pub use console::Console;
pub use metrics_text::MetricsText;
pub use otlp::Flusher;

/// How long a program waits at its end for its last telemetry to be sent.
const LAST_FLUSH: Duration = Duration::from_millis(900);

/// Telemetry that could not be set up at all.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// Another subscriber is installed.
    #[error("cannot install the subscriber for logs and traces")]
    Subscriber(#[from] tracing_subscriber::util::TryInitError),
    /// The metrics cannot be read.
    #[error("cannot set up metrics")]
    Metrics(#[from] opentelemetry_sdk::error::OTelSdkError),
}

/// What a program says about itself.
#[derive(Debug)]
pub struct Telemetry {
    service: &'static str,
    version: &'static str,
    session: Option<String>,
    attributes: Vec<KeyValue>,
    console: Console,
}

impl Telemetry {
    /// Telemetry of the program called `service`; `OTEL_SERVICE_NAME` gives it another name.
    pub fn new(service: &'static str, version: &'static str) -> Self {
        Self { service, version, session: None, attributes: Vec::new(), console: Console::detect() }
    }

    /// All that the program does is for this session: the `session_name` of logs outside of any span with another one.
    #[must_use]
    pub fn session(mut self, name: &str) -> Self {
        self.session = Some(name.to_owned());
        self.attribute("blobferry.session.name", name)
    }

    /// Adds an attribute of the program, such as `k8s.pod.name`; `OTEL_RESOURCE_ATTRIBUTES` wins over it.
    #[must_use]
    pub fn attribute(mut self, key: &'static str, value: &str) -> Self {
        self.attributes.push(KeyValue::new(key, value.to_owned()));
        self
    }

    /// Where logs go; what suits standard output if it is not called.
    #[must_use]
    pub fn console(mut self, console: Console) -> Self {
        self.console = console;
        self
    }

    /// Starts it for the whole process, which keeps the guard until it ends. A mistake in the `OTEL_*` variables or in `RUST_LOG`
    /// is logged and stops nothing: files matter more.
    pub fn init(self) -> Result<Guard, TelemetryError> {
        crate::tls::install();
        let variable = |name: &str| env::var(name).ok();
        let mut problems = Vec::new();
        let (text, reader) = MetricsText::new()?;
        let signals = signals::wanted(variable);
        let providers = otlp::Providers::new(signals, reader, self.resource(&variable), &mut problems);

        let directives = variable("RUST_LOG");
        let quiet = self.console.is_quiet();
        let filter = |problems: &mut Vec<String>| filter::events(directives.as_deref(), quiet, problems);
        let console = self.console.layer(self.session).with_filter(filter(&mut problems));
        let traces = tracing_opentelemetry::layer()
            .with_tracer(providers.traces.tracer(self.service))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(filter::spans());
        let logs = providers
            .logs
            .as_ref()
            .map(|logs| OpenTelemetryTracingBridge::new(logs).with_filter(filter::exported(directives.as_deref())));
        Registry::default().with(traces).with(console).with(logs).try_init()?;
        for problem in problems {
            tracing::warn!("{problem}");
        }
        Ok(Guard { meter: providers.metrics.meter("blobferry"), text, flusher: Flusher::new(providers) })
    }

    fn resource(&self, variable: &impl Fn(&str) -> Option<String>) -> Resource {
        let named = variable("OTEL_SERVICE_NAME").filter(|name| !name.is_empty());
        let own = [KeyValue::new("service.name", self.service), KeyValue::new("service.version", self.version)];
        Resource::builder_empty()
            .with_attributes(own.into_iter().chain(self.attributes.iter().cloned()))
            .with_detector(Box::new(opentelemetry_sdk::resource::EnvResourceDetector::new()))
            .with_detector(Box::new(opentelemetry_sdk::resource::TelemetryResourceDetector))
            .with_attributes(named.map(|name| KeyValue::new("service.name", name)))
            .build()
    }
}

/// Keeps telemetry running; dropping it sends what is left and takes less than a second.
#[derive(Debug)]
#[must_use = "telemetry ends when the guard is dropped"]
pub struct Guard {
    meter: Meter,
    text: MetricsText,
    flusher: Flusher,
}

impl Guard {
    /// What instruments are made of.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// All instruments as Prometheus reads them.
    pub fn metrics_text(&self) -> MetricsText {
        self.text.clone()
    }

    /// Sends what is left, for a program that ends without dropping the guard.
    pub fn flusher(&self) -> Flusher {
        self.flusher.clone()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.flusher.end_within(LAST_FLUSH);
    }
}
