//! Instruments as Prometheus reads them.

use opentelemetry_prometheus::PrometheusExporter;
use opentelemetry_sdk::error::OTelSdkError;
use prometheus::{Registry, TextEncoder};

/// All instruments of the process, in the text format of Prometheus.
#[derive(Clone, Debug)]
pub struct MetricsText(Registry);

impl MetricsText {
    /// What a scraper must send and expect as `Content-Type`.
    pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

    /// The text, and the reader that fills it once a meter provider has it.
    pub fn new() -> Result<(Self, PrometheusExporter), OTelSdkError> {
        let registry = Registry::new();
        let reader = opentelemetry_prometheus::exporter().with_registry(registry.clone()).scope_info_enabled(false).build()?;
        Ok((Self(registry), reader))
    }

    /// The values as of now.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.0.gather())
    }
}
