//! Which signals are exported, as the standard variables say.
//! See <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>.

/// What is exported by OTLP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Signals {
    /// Spans.
    pub traces: bool,
    /// Instruments.
    pub metrics: bool,
    /// Events.
    pub logs: bool,
}

/// The signals for which `variable` names an endpoint and that it does not switch off.
pub(super) fn wanted(variable: impl Fn(&str) -> Option<String>) -> Signals {
    let is = |name: &str, value: &str| variable(name).is_some_and(|text| text.trim().eq_ignore_ascii_case(value));
    let set = |name: &str| variable(name).is_some_and(|text| !text.trim().is_empty());
    if is("OTEL_SDK_DISABLED", "true") {
        return Signals::default();
    }
    let wanted = |signal: &str| {
        let endpoint = set("OTEL_EXPORTER_OTLP_ENDPOINT") || set(&format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"));
        endpoint && !is(&format!("OTEL_{signal}_EXPORTER"), "none")
    };
    Signals { traces: wanted("TRACES"), metrics: wanted("METRICS"), logs: wanted("LOGS") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)]) -> Signals {
        wanted(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn nothing_is_exported_without_an_endpoint() {
        assert_eq!(with(&[]), Signals::default());
        assert_eq!(with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]), Signals::default());
        assert_eq!(with(&[("OTEL_TRACES_EXPORTER", "otlp")]), Signals::default());
    }

    #[test]
    fn an_endpoint_is_for_all_signals_and_that_of_a_signal_for_it_alone() {
        assert_eq!(with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318")]), Signals { traces: true, metrics: true, logs: true });
        let one = [("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://c:4318/v1/logs")];
        assert_eq!(with(&one), Signals { logs: true, ..Signals::default() });
    }

    #[test]
    fn a_signal_or_all_of_them_can_be_switched_off() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
        assert_eq!(with(&[endpoint, ("OTEL_METRICS_EXPORTER", "none")]), Signals { traces: true, metrics: false, logs: true });
        assert_eq!(with(&[endpoint, ("OTEL_SDK_DISABLED", "TRUE")]), Signals::default());
    }
}
