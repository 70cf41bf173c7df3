//! Events as one JSON object a line.

use std::{error::Error, fmt, io::Write};

use k8s_openapi::jiff::Timestamp;
use opentelemetry::trace::TraceContextExt;
use serde_json::{Map, Value};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    Layer,
    fmt::MakeWriter,
    layer::Context,
    registry::{LookupSpan, Scope, SpanRef},
};

/// Fields of spans that every event inside them has; the innermost span wins.
const HOISTED: [&str; 2] = [SESSION_NAME, "file_name"];
const SESSION_NAME: &str = "session_name";

/// Writes events with `timestamp`, `level`, `target`, `message`, their own fields, the hoisted fields, `trace_id` and `span_id`.
pub(super) struct JsonLayer<W> {
    session: Option<String>,
    writer: W,
}

impl<W> JsonLayer<W> {
    pub(super) fn new(session: Option<String>, writer: W) -> Self {
        Self { session, writer }
    }
}

/// The hoisted fields of one span.
#[derive(Default)]
struct Hoisted(Map<String, Value>);

impl<S, W> Layer<S> for JsonLayer<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut hoisted = Hoisted::default();
        attributes.record(&mut hoisted);
        if let Some(span) = context.span(id) {
            span.extensions_mut().replace(hoisted);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(hoisted) = span.extensions_mut().get_mut::<Hoisted>()
        {
            values.record(hoisted);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut line = Line::default();
        line.put("timestamp", format!("{:.6}", Timestamp::now()).into());
        line.put("level", event.metadata().level().as_str().into());
        line.put("target", event.metadata().target().into());
        if let Some(session) = &self.session {
            line.put(SESSION_NAME, session.as_str().into());
        }
        for span in context.event_scope(event).into_iter().flat_map(Scope::from_root) {
            line.hoist(&span);
        }
        line.trace();
        event.record(&mut line);
        // There is nobody to tell that telling does not work.
        let _ = self.writer.make_writer_for(event.metadata()).write_all(&line.bytes());
    }
}

impl Visit for Hoisted {
    fn record_str(&mut self, field: &Field, value: &str) {
        if HOISTED.contains(&field.name()) {
            self.0.insert(field.name().to_owned(), value.into());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if HOISTED.contains(&field.name()) {
            self.record_str(field, &format!("{value:?}"));
        }
    }
}

/// One line in the making.
#[derive(Default)]
struct Line(Map<String, Value>);

impl Line {
    fn put(&mut self, key: &str, value: Value) {
        self.0.insert(key.to_owned(), value);
    }

    fn hoist<'a, S: LookupSpan<'a>>(&mut self, span: &SpanRef<'a, S>) {
        if let Some(hoisted) = span.extensions().get::<Hoisted>() {
            self.0.extend(hoisted.0.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
    }

    /// The ids of the span that is active on this thread.
    fn trace(&mut self) {
        let context = opentelemetry::Context::current();
        let span = context.span().span_context().clone();
        if span.is_valid() {
            self.put("trace_id", span.trace_id().to_string().into());
            self.put("span_id", span.span_id().to_string().into());
        }
    }

    fn bytes(self) -> Vec<u8> {
        let mut bytes = Value::Object(self.0).to_string().into_bytes();
        bytes.push(b'\n');
        bytes
    }
}

impl Visit for Line {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field.name(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field.name(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            // What the `log` crate says comes as an event of the target `log` with these fields.
            "log.target" => self.put("target", value.into()),
            "log.module_path" | "log.file" => {}
            name => self.put(name, value.into()),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut chain = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            chain = format!("{chain}: {error}");
            cause = error.source();
        }
        self.put(field.name(), chain.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::{
        io,
        sync::{Arc, Mutex, PoisonError},
    };

    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
    use tracing::{field::Empty, info, info_span};
    use tracing_subscriber::{Registry, layer::SubscriberExt};

    use super::*;

    /// What was written, for tests.
    #[derive(Clone, Default)]
    pub(in crate::telemetry) struct Written(Arc<Mutex<Vec<u8>>>);

    impl Written {
        pub(in crate::telemetry) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(session: Option<&str>, work: impl FnOnce()) -> Vec<Value> {
        let written = Written::default();
        let writer = written.clone();
        let tracer = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOff).build().tracer("test");
        let subscriber = Registry::default()
            .with(tracing_opentelemetry::layer().with_tracer(tracer))
            .with(JsonLayer::new(session.map(str::to_owned), move || writer.clone()));
        tracing::subscriber::with_default(subscriber, work);
        written.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn an_event_has_its_own_fields_with_their_types() {
        let lines = lines(None, || info!(bytes = 7, ok = true, rate = 1.5, name = "a\"b", "sent"));
        let line = &lines[0];
        assert_eq!((line["level"].as_str(), line["message"].as_str()), (Some("INFO"), Some("sent")));
        assert_eq!((line["bytes"].as_u64(), line["ok"].as_bool(), line["rate"].as_f64()), (Some(7), Some(true), Some(1.5)));
        assert_eq!(line["name"], "a\"b");
        assert!(line["timestamp"].as_str().unwrap().parse::<Timestamp>().is_ok());
        assert!(line.get("trace_id").is_none() && line.get("session_name").is_none());
    }

    #[test]
    fn an_event_has_the_names_and_ids_of_the_spans_around_it() {
        let lines = lines(Some("default"), || {
            let file = info_span!("file", file_name = Empty, size = 3);
            let _file = file.enter();
            info!("before");
            file.record("file_name", "a.dat");
            info_span!("commit", session_name = "truck-7").in_scope(|| info!("inside"));
        });
        assert_eq!((&lines[0]["session_name"], lines[0].get("file_name")), (&"default".into(), None));
        assert_eq!((&lines[1]["session_name"], &lines[1]["file_name"]), (&"truck-7".into(), &"a.dat".into()));
        assert!(lines[1].get("size").is_none());
        assert_eq!(lines[0]["trace_id"], lines[1]["trace_id"]);
        assert_ne!(lines[0]["span_id"], lines[1]["span_id"]);
        assert_eq!((lines[1]["trace_id"].as_str().map(str::len), lines[1]["span_id"].as_str().map(str::len)), (Some(32), Some(16)));
    }

    #[test]
    fn an_error_is_written_with_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot rename a.dat")]
        struct Outer(#[source] io::Error);
        let error = Outer(io::Error::other("stale handle"));
        let lines = lines(None, || info!(error = &error as &dyn Error, "failed"));
        assert_eq!(lines[0]["error"], "cannot rename a.dat: stale handle");
    }
}
