//! Counters of the operator; label sets are closed, so that nobody's object names become time series.

use std::time::Duration;

use blobferry_crds::Phase;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

/// Counters of the operator.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Pods made since the start.
    pub pods_created: Counter,
    passes: Family<OutcomeLabel, Counter>,
    duration: Histogram,
    sessions: Family<PhaseLabel, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: PassOutcome,
}

/// How a pass over a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
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

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabel {
    phase: PhaseValue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum PhaseValue {
    Pending,
    Running,
    Suspended,
    Failed,
    Unknown,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            pods_created: Counter::default(),
            passes: Family::default(),
            duration: Histogram::new([0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0]),
            sessions: Family::default(),
        }
    }
}

impl Metrics {
    /// Counts a pass that ended in `outcome` after `duration`.
    pub fn passed(&self, outcome: PassOutcome, duration: Duration) {
        self.passes.get_or_create(&OutcomeLabel { outcome }).inc();
        self.duration.observe(duration.as_secs_f64());
    }

    /// Everything in Prometheus' text format; `phases` are those of all sessions now.
    pub fn text(&self, phases: &[Option<Phase>]) -> Result<String, std::fmt::Error> {
        self.count_phases(phases);
        let mut registry = Registry::with_prefix("blobferry_operator");
        registry.register("pods_created", "Uploader pods made", self.pods_created.clone());
        registry.register("passes", "Passes over sessions by outcome", self.passes.clone());
        registry.register_with_unit("pass_duration", "Duration of a pass over a session", Unit::Seconds, self.duration.clone());
        registry.register("sessions", "Sessions by phase", self.sessions.clone());
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }

    fn count_phases(&self, phases: &[Option<Phase>]) {
        let all = [PhaseValue::Pending, PhaseValue::Running, PhaseValue::Suspended, PhaseValue::Failed, PhaseValue::Unknown];
        for phase in all {
            let count = phases.iter().filter(|found| value(**found) == phase).count();
            self.sessions.get_or_create(&PhaseLabel { phase }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

fn value(phase: Option<Phase>) -> PhaseValue {
    match phase {
        Some(Phase::Pending) => PhaseValue::Pending,
        Some(Phase::Running) => PhaseValue::Running,
        Some(Phase::Suspended) => PhaseValue::Suspended,
        Some(Phase::Failed) => PhaseValue::Failed,
        None => PhaseValue::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_counted_by_phase() {
        let metrics = Metrics::default();
        metrics.passed(PassOutcome::Done, Duration::from_millis(3));
        let text = metrics.text(&[Some(Phase::Running), Some(Phase::Running), None]).unwrap();
        assert!(text.contains(r#"blobferry_operator_sessions{phase="Running"} 2"#), "{text}");
        assert!(text.contains(r#"blobferry_operator_sessions{phase="Failed"} 0"#), "{text}");
        assert!(text.contains(r#"blobferry_operator_passes_total{outcome="Done"} 1"#), "{text}");
    }
}
