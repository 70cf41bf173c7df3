//! What happens to files that are uploaded.

use std::time::Duration;

use super::value;

const YEAR: f64 = 8760.0 * 3600.0;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct RetentionArguments {
    /// Seconds between two passes of the collector
    #[arg(long, env = "APP_GC_INTERVAL_S", value_name = "SECONDS", default_value = "30", value_parser = |text: &str| value::seconds(text, 1.0, 3600.0))]
    gc_interval_s: Duration,

    /// Seconds for which an uploaded file stays; it is never deleted before it was unchanged for 60 seconds
    #[arg(long, env = "APP_KEEP_COMPLETED_FOR_S", value_name = "SECONDS", default_value = "60", value_parser = |text: &str| value::seconds(text, 0.0, YEAR))]
    keep_completed_for_s: Duration,
}

/// What happens to files that are uploaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionSettings {
    /// Time between two passes of the collector.
    pub interval: Duration,
    /// How long a completed file is kept.
    pub keep_completed_for: Duration,
}

impl RetentionArguments {
    pub(super) fn check(self) -> RetentionSettings {
        RetentionSettings { interval: self.gc_interval_s, keep_completed_for: self.keep_completed_for_s }
    }
}
