//! The instruments of the operator. Names follow OpenTelemetry; Prometheus sees `blobferry.passes` as `blobferry_passes_total`.
//!
//! Labels have closed sets of values: no object's name is ever one.

use std::time::Duration;

use blobferry_crds::Phase;
use http::Request;
use kube::client::Body;
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Histogram, Meter},
};
use tower::util::MapRequestLayer;

use crate::{
    leader::{Leadership, Role},
    state::sessions::Sessions,
};

/// Seconds, from a pass that only looks to one whose calls are tried again.
const PASS_SECONDS: [f64; 9] = [0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 30.0, 120.0];

/// How a pass over a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassOutcome {
    /// All steps were done.
    Done,
    /// The session changed meanwhile.
    Conflict,
    /// A call failed.
    Failed,
    /// The session could not be read.
    Unreadable,
}

impl PassOutcome {
    const ALL: [Self; 4] = [Self::Done, Self::Conflict, Self::Failed, Self::Unreadable];

    fn label(self) -> KeyValue {
        KeyValue::new(
            "outcome",
            match self {
                Self::Done => "done",
                Self::Conflict => "conflict",
                Self::Failed => "failed",
                Self::Unreadable => "unreadable",
            },
        )
    }
}

/// What the operator counts.
#[derive(Clone, Debug)]
pub struct Metrics {
    passes: Counter<u64>,
    pass_duration: Histogram<f64>,
    pods_created: Counter<u64>,
    outdated: Gauge<u64>,
    blockers: Gauge<u64>,
}

impl Metrics {
    /// Instruments of `meter`; those that count start at zero, so that a first failure is seen as an increase.
    pub fn new(meter: &Meter) -> Self {
        let metrics = Self {
            passes: meter.u64_counter("blobferry.passes").with_description("Passes over sessions by outcome").build(),
            pass_duration: meter
                .f64_histogram("blobferry.pass.duration")
                .with_description("Duration of a pass over a session")
                .with_unit("s")
                .with_boundaries(PASS_SECONDS.to_vec())
                .build(),
            pods_created: meter.u64_counter("blobferry.pods.created").with_description("Uploader pods made").build(),
            outdated: meter
                .u64_gauge("blobferry.rollout.waiting")
                .with_description("Sessions that wait for the installation's new image")
                .build(),
            blockers: meter
                .u64_gauge("blobferry.rollout.blockers")
                .with_description("Sessions that are not well with the new image and hold up the others; the log names them")
                .build(),
        };
        for outcome in PassOutcome::ALL {
            metrics.passes.add(0, &[outcome.label()]);
        }
        metrics.pods_created.add(0, &[]);
        metrics.rolls_out(0, 0);
        metrics
    }

    /// Counts a pass that ended in `outcome` after `duration`.
    pub fn passed(&self, outcome: PassOutcome, duration: Duration) {
        self.passes.add(1, &[outcome.label()]);
        self.pass_duration.record(duration.as_secs_f64(), &[]);
    }

    /// The rollout of a new image has sessions `waiting` for it, held up by so many `blockers`.
    pub fn rolls_out(&self, waiting: usize, blockers: usize) {
        self.outdated.record(waiting as u64, &[]);
        self.blockers.record(blockers as u64, &[]);
    }

    /// Counts a pod that was made.
    pub fn created_pod(&self) {
        self.pods_created.add(1, &[]);
    }
}

/// Shows the watched sessions by phase, each time somebody reads the instruments of `meter`.
pub fn show_sessions(meter: &Meter, sessions: Sessions) {
    let _kept_by_the_meter = meter
        .u64_observable_gauge("blobferry.sessions")
        .with_description("Sessions by phase")
        .with_callback(move |observer| {
            let found = sessions.phases();
            for phase in PHASES {
                let count = found.iter().filter(|found| **found == phase).count();
                observer.observe(count as u64, &[KeyValue::new("phase", label(phase))]);
            }
        })
        .build();
}

const PHASES: [Option<Phase>; 7] = [
    Some(Phase::Pending),
    Some(Phase::Running),
    Some(Phase::Suspended),
    Some(Phase::Draining),
    Some(Phase::Completed),
    Some(Phase::Failed),
    None,
];

/// Shows whether this operator leads, each time somebody reads the instruments of `meter`.
pub fn show_role(meter: &Meter, leadership: Leadership) {
    let _kept_by_the_meter = meter
        .u64_observable_gauge("blobferry.leader")
        .with_description("1 if this operator leads, 0 if it stands by")
        .with_callback(move |observer| observer.observe(u64::from(leadership.role() == Role::Leader), &[]))
        .build();
}

/// A layer of the client that counts its requests with `meter`; watches are counted when they begin.
pub fn count_requests(meter: &Meter) -> MapRequestLayer<impl Fn(Request<Body>) -> Request<Body> + Clone + use<>> {
    let requests = meter.u64_counter("blobferry.api.requests").with_description("Requests to the API server by method").build();
    MapRequestLayer::new(move |request: Request<Body>| {
        requests.add(1, &[KeyValue::new("method", verb(&request))]);
        request
    })
}

fn verb(request: &Request<Body>) -> &'static str {
    match request.method().as_str() {
        "GET" if request.uri().query().is_some_and(|query| query.contains("watch=true")) => "WATCH",
        "GET" => "GET",
        "POST" => "POST",
        "PATCH" => "PATCH",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        _ => "other",
    }
}

fn label(phase: Option<Phase>) -> &'static str {
    match phase {
        Some(Phase::Pending) => "pending",
        Some(Phase::Running) => "running",
        Some(Phase::Suspended) => "suspended",
        Some(Phase::Draining) => "draining",
        Some(Phase::Completed) => "completed",
        Some(Phase::Failed) => "failed",
        None => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use blobferry_crds::telemetry::MetricsText;
    use opentelemetry::metrics::MeterProvider as _;
    use opentelemetry_sdk::metrics::SdkMeterProvider;

    use super::*;
    use crate::fixtures;

    #[test]
    fn passes_and_sessions_are_counted_by_closed_labels() {
        let (text, reader) = MetricsText::new().unwrap();
        let provider = SdkMeterProvider::builder().with_reader(reader).build();
        let meter = provider.meter("test");
        let (sessions, _listed) = Sessions::new();
        sessions.saw(fixtures::kept(&fixtures::session("")));
        show_sessions(&meter, sessions);
        let metrics = Metrics::new(&meter);
        metrics.passed(PassOutcome::Done, Duration::from_millis(3));
        metrics.rolls_out(2, 1);
        let text = text.render().unwrap();
        for line in [
            r#"blobferry_sessions{phase="unknown"} 1"#,
            r#"blobferry_sessions{phase="running"} 0"#,
            r#"blobferry_passes_total{outcome="done"} 1"#,
            r#"blobferry_passes_total{outcome="failed"} 0"#,
            "blobferry_pass_duration_seconds_count 1",
            "blobferry_pods_created_total 0",
            "blobferry_rollout_waiting 2",
            "blobferry_rollout_blockers 1",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
