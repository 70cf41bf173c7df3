//! What is worth logging.

use tracing::{Metadata, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter,
    filter::{FilterExt, Targets, filter_fn},
    layer::Filter,
    registry::LookupSpan,
};

/// All targets of this project start with it.
const OURS: &str = "blobferry";

/// Libraries whose information is of no use to a person who runs this. A directive for one of them in `RUST_LOG` still counts.
const NOISY: [&str; 15] = [
    "azure_core",
    "azure_identity",
    "azure_storage_blob",
    "h2",
    "hyper",
    "hyper_util",
    "kube_client",
    "kube_runtime",
    "opentelemetry",
    "opentelemetry_otlp",
    "opentelemetry_sdk",
    "reqwest",
    "rustls",
    "tower",
    "typespec_client_core",
];

/// Libraries that send our telemetry: exporting what they say would be talking about talking.
const EXPORTERS: [&str; 6] = ["h2", "hyper", "opentelemetry", "reqwest", "rustls", "tower"];

/// The events for people: those that `directives` (`RUST_LOG`) ask for, or from `info` on, or from `warn` on when `quiet`. Our spans
/// pass in any case, because their fields are part of events.
pub(super) fn events<S>(directives: Option<&str>, quiet: bool, problems: &mut Vec<String>) -> impl Filter<S> + use<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let level = if quiet { LevelFilter::WARN } else { LevelFilter::INFO };
    let mut filter = EnvFilter::default().add_directive(level.into());
    let quietened = NOISY.iter().map(|target| format!("{target}=warn"));
    let asked = directives.unwrap_or_default().split(',').map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    for directive in quietened.chain(asked) {
        match directive.parse() {
            Ok(directive) => filter = filter.add_directive(directive),
            Err(_) => problems.push(unreadable(&directive)),
        }
    }
    filter.or(filter_fn(is_our_span))
}

/// The events for a collector.
pub(super) fn exported<S>(directives: Option<&str>) -> impl Filter<S> + use<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let silent = |metadata: &Metadata<'_>| !EXPORTERS.iter().any(|target| metadata.target().starts_with(target));
    events(directives, false, &mut Vec::new()).and(filter_fn(silent))
}

/// The spans of traces, and the events that are shown in them.
pub(super) fn spans() -> Targets {
    Targets::new().with_target(OURS, LevelFilter::INFO)
}

fn unreadable(directive: &str) -> String {
    format!("RUST_LOG: \"{directive}\" is no directive and is left out: write a level or target=level")
}

fn is_our_span(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target().starts_with(OURS) && *metadata.level() <= LevelFilter::INFO
}

#[cfg(test)]
mod tests {
    use tracing::{error, info, info_span, warn};
    use tracing_subscriber::{Layer, Registry, layer::SubscriberExt};

    use super::*;
    use crate::telemetry::json::{JsonLayer, tests::Written};

    /// What of a fixed series of events gets through.
    fn passed(filter: impl Filter<Registry> + Send + Sync + 'static) -> String {
        let written = Written::default();
        let writer = written.clone();
        let layer = JsonLayer::new(None, move || writer.clone()).with_filter(filter);
        tracing::subscriber::with_default(Registry::default().with(layer), || {
            info!("ours");
            info!(target: "hyper::client", "theirs");
            warn!(target: "hyper::client", "their-warning");
            info_span!("upload", file_name = "a.dat").in_scope(|| error!("inside"));
        });
        written.text()
    }

    fn told(directives: Option<&str>, quiet: bool) -> [bool; 5] {
        let text = passed(events(directives, quiet, &mut Vec::new()));
        ["\"ours\"", "\"theirs\"", "\"their-warning\"", "\"inside\"", "\"a.dat\""].map(|word| text.contains(word))
    }

    #[test]
    fn by_default_libraries_are_heard_from_warnings_on() {
        assert_eq!(told(None, false), [true, false, true, true, true]);
    }

    #[test]
    fn beside_a_progress_bar_only_warnings_are_shown() {
        assert_eq!(told(None, true), [false, false, true, true, true]);
    }

    #[test]
    fn a_level_alone_keeps_libraries_quiet_and_a_target_of_its_own_does_not() {
        assert_eq!(told(Some("debug"), false), [true, false, true, true, true]);
        assert_eq!(told(Some("info,hyper=info"), false), [true, true, true, true, true]);
    }

    #[test]
    fn events_keep_the_fields_of_their_spans_when_only_errors_are_asked_for() {
        assert_eq!(told(Some("error"), false), [false, false, true, true, true]);
    }

    #[test]
    fn exporting_does_not_export_itself() {
        let text = passed(exported(Some("trace,hyper=trace")));
        assert!(text.contains("ours") && !text.contains("their"), "{text}");
    }

    #[test]
    fn an_unreadable_directive_is_told_and_the_others_count() {
        let mut problems = Vec::new();
        let text = passed(events(Some("hyper=info,=="), false, &mut problems));
        assert!(text.contains("theirs"));
        assert!(problems.len() == 1 && problems[0].contains("\"==\""), "{problems:?}");
    }
}
