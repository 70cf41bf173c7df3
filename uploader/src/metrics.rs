//! The instruments of the uploader. Names follow OpenTelemetry; Prometheus sees `files.processed` as `files_processed_total` and
//! `upload.duration` in seconds as `upload_duration_seconds`.
//!
//! Labels have closed sets of values: no file, session or blob name is ever one.

use std::time::Duration;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Histogram, Meter},
};

use crate::blob::BlobError;

/// Seconds, from a small file on a fast link to a large one on a slow link.
const UPLOAD_SECONDS: [f64; 14] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0];
/// Seconds; a poll is every two by default.
const SCAN_SECONDS: [f64; 10] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0];
/// Bytes, from 1 KiB to 100 GiB.
const FILE_BYTES: [f64; 12] = [
    1024.0,
    16_384.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
    268_435_456.0,
    1_073_741_824.0,
    4_294_967_296.0,
    17_179_869_184.0,
    107_374_182_400.0,
];

/// How a file was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// As blocks and a list of them.
    Blocks,
    /// In one request.
    Single,
}

/// Whose trouble a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The file's own.
    File,
    /// Reading or renaming on the share.
    Share,
    /// The network or the blob service.
    Service,
    /// The credential.
    Credential,
    /// What is under the blob's name already, or the container.
    Destination,
}

impl Method {
    const ALL: [Self; 2] = [Self::Blocks, Self::Single];

    fn label(self) -> KeyValue {
        KeyValue::new(
            "method",
            match self {
                Self::Blocks => "blocks",
                Self::Single => "single",
            },
        )
    }
}

impl Cause {
    const ALL: [Self; 5] = [Self::File, Self::Share, Self::Service, Self::Credential, Self::Destination];

    fn label(self) -> KeyValue {
        KeyValue::new(
            "cause",
            match self {
                Self::File => "file",
                Self::Share => "share",
                Self::Service => "service",
                Self::Credential => "credential",
                Self::Destination => "destination",
            },
        )
    }
}

impl From<&BlobError> for Cause {
    fn from(error: &BlobError) -> Self {
        match error {
            BlobError::Transient { .. } | BlobError::Corrupted { .. } => Self::Service,
            BlobError::Denied { .. } => Self::Credential,
            BlobError::Rejected { .. } => Self::File,
            BlobError::Conflict { .. }
            | BlobError::BlocksMissing { .. }
            | BlobError::ForeignBlocks { .. }
            | BlobError::Protected { .. }
            | BlobError::Unsupported { .. }
            | BlobError::ContainerMissing { .. } => Self::Destination,
        }
    }
}

/// The instruments; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    files_processed: Counter<u64>,
    files_failed: Counter<u64>,
    upload_duration: Histogram<f64>,
    file_size: Histogram<u64>,
    upload_sent: Counter<u64>,
    upload_resumed: Counter<u64>,
    upload_retries: Counter<u64>,
    scan_duration: Histogram<f64>,
    queue_depth: Gauge<u64>,
    oldest_waiting_age: Gauge<f64>,
    share_free: Gauge<u64>,
    staging_used: Gauge<u64>,
}

impl Metrics {
    /// The instruments of `meter`. Counters start at zero for every label, so that a first event shows as an increase.
    pub fn new(meter: &Meter) -> Self {
        let metrics = Self {
            files_processed: counter(meter, "files.processed", "{file}", "Files uploaded and verified"),
            files_failed: counter(meter, "files.failed", "{file}", "Attempts at a file that failed, by cause"),
            upload_duration: seconds(meter, "upload.duration", "From claim to completion of a file", &UPLOAD_SECONDS),
            file_size: sizes(meter, "file.size", "Sizes of uploaded files"),
            upload_sent: counter(meter, "upload.sent", "By", "Bytes that the blob service took, repeated ones counted again"),
            upload_resumed: counter(meter, "upload.resumed", "By", "Bytes that were not sent again after a restart"),
            upload_retries: counter(
                meter,
                "upload.retries",
                "{request}",
                "Requests to the blob service that were repeated, by cause",
            ),
            scan_duration: seconds(meter, "scan.duration", "One look at the incoming folder", &SCAN_SECONDS),
            queue_depth: gauge(meter, "queue.depth", "{file}", "Files that wait between the scan and the workers"),
            oldest_waiting_age: meter
                .f64_gauge("waiting.oldest.age")
                .with_unit("s")
                .with_description("For how long the oldest file waits; 0 when none does")
                .build(),
            share_free: gauge(meter, "share.free", "By", "Bytes that are free on the share"),
            staging_used: gauge(meter, "staging.used", "By", "Bytes of staged copies on the local disk"),
        };
        metrics.start_at_zero();
        metrics
    }

    fn start_at_zero(&self) {
        for method in Method::ALL {
            self.files_processed.add(0, &[method.label()]);
        }
        for cause in Cause::ALL {
            self.files_failed.add(0, &[cause.label()]);
            self.upload_retries.add(0, &[cause.label()]);
        }
        self.upload_sent.add(0, &[]);
        self.upload_resumed.add(0, &[]);
    }

    /// A file of `size` bytes is completed, `took` after its claim.
    pub fn file_processed(&self, method: Method, size: u64, took: Duration) {
        self.files_processed.add(1, &[method.label()]);
        self.upload_duration.record(took.as_secs_f64(), &[method.label()]);
        self.file_size.record(size, &[]);
    }

    /// An attempt at a file failed.
    pub fn file_failed(&self, cause: Cause) {
        self.files_failed.add(1, &[cause.label()]);
    }

    /// A request is repeated.
    pub fn retried(&self, cause: Cause) {
        self.upload_retries.add(1, &[cause.label()]);
    }

    /// The blob service took `bytes`.
    pub fn sent(&self, bytes: u64) {
        self.upload_sent.add(bytes, &[]);
    }

    /// The blob service had `bytes` already.
    pub fn resumed(&self, bytes: u64) {
        self.upload_resumed.add(bytes, &[]);
    }

    /// A scan was complete.
    pub fn scanned(&self, took: Duration) {
        self.scan_duration.record(took.as_secs_f64(), &[]);
    }

    /// So many files wait for a worker.
    pub fn queue_depth(&self, files: usize) {
        self.queue_depth.record(files as u64, &[]);
    }

    /// The oldest file waits for so long.
    pub fn oldest_waiting(&self, age: Option<Duration>) {
        self.oldest_waiting_age.record(age.unwrap_or_default().as_secs_f64(), &[]);
    }

    /// The share has so many bytes free.
    pub fn share_free(&self, bytes: u64) {
        self.share_free.record(bytes, &[]);
    }

    /// Staged copies take so many bytes.
    pub fn staging_used(&self, bytes: u64) {
        self.staging_used.record(bytes, &[]);
    }
}

fn counter(meter: &Meter, name: &'static str, unit: &'static str, description: &'static str) -> Counter<u64> {
    meter.u64_counter(name).with_unit(unit).with_description(description).build()
}

fn gauge(meter: &Meter, name: &'static str, unit: &'static str, description: &'static str) -> Gauge<u64> {
    meter.u64_gauge(name).with_unit(unit).with_description(description).build()
}

fn seconds(meter: &Meter, name: &'static str, description: &'static str, boundaries: &[f64]) -> Histogram<f64> {
    meter.f64_histogram(name).with_unit("s").with_description(description).with_boundaries(boundaries.to_vec()).build()
}

fn sizes(meter: &Meter, name: &'static str, description: &'static str) -> Histogram<u64> {
    meter.u64_histogram(name).with_unit("By").with_description(description).with_boundaries(FILE_BYTES.to_vec()).build()
}

#[cfg(test)]
mod tests {
    use blobferry_crds::telemetry::MetricsText;
    use opentelemetry::metrics::MeterProvider as _;
    use opentelemetry_sdk::metrics::SdkMeterProvider;

    use super::*;

    fn rendered(work: impl FnOnce(&Metrics)) -> String {
        let (text, reader) = MetricsText::new().unwrap();
        let provider = SdkMeterProvider::builder().with_reader(reader).build();
        work(&Metrics::new(&provider.meter("test")));
        text.render().unwrap()
    }

    #[track_caller]
    fn has(text: &str, line: &str) {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }

    #[test]
    fn counters_show_zero_before_anything_happened() {
        let text = rendered(|_| ());
        has(&text, "files_processed_total{method=\"single\"} 0");
        has(&text, "files_failed_total{cause=\"credential\"} 0");
        has(&text, "upload_sent_bytes_total 0");
    }

    #[test]
    fn a_processed_file_is_counted_timed_and_measured() {
        let text = rendered(|metrics| metrics.file_processed(Method::Blocks, 2_000_000, Duration::from_millis(700)));
        has(&text, "files_processed_total{method=\"blocks\"} 1");
        has(&text, "files_processed_total{method=\"single\"} 0");
        has(&text, "upload_duration_seconds_bucket{method=\"blocks\",le=\"0.5\"} 0");
        has(&text, "upload_duration_seconds_bucket{method=\"blocks\",le=\"1\"} 1");
        has(&text, "file_size_bytes_bucket{le=\"4194304\"} 1");
        has(&text, "file_size_bytes_sum 2000000");
    }

    #[test]
    fn the_other_instruments_have_the_documented_names_and_units() {
        let text = rendered(|metrics| {
            metrics.file_failed(Cause::File);
            metrics.retried(Cause::Service);
            metrics.sent(5);
            metrics.resumed(6);
            metrics.scanned(Duration::from_millis(20));
            metrics.queue_depth(7);
            metrics.oldest_waiting(Some(Duration::from_millis(1500)));
            metrics.share_free(8);
            metrics.staging_used(9);
        });
        for line in [
            "files_failed_total{cause=\"file\"} 1",
            "upload_retries_total{cause=\"service\"} 1",
            "upload_sent_bytes_total 5",
            "upload_resumed_bytes_total 6",
            "scan_duration_seconds_bucket{le=\"0.05\"} 1",
            "queue_depth 7",
            "waiting_oldest_age_seconds 1.5",
            "share_free_bytes 8",
            "staging_used_bytes 9",
        ] {
            has(&text, line);
        }
    }

    #[test]
    fn nothing_waiting_is_an_age_of_zero() {
        has(&rendered(|metrics| metrics.oldest_waiting(None)), "waiting_oldest_age_seconds 0");
    }
}
