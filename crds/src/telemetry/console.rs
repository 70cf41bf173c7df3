//! Where logs go.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
};

use tracing::Subscriber;
use tracing_subscriber::{
    Layer,
    fmt::{layer, writer::BoxMakeWriter},
    registry::LookupSpan,
};

use super::json::JsonLayer;

/// Where logs go.
pub enum Console {
    /// To standard output, one JSON object a line.
    Json,
    /// To standard output, as text for a person.
    Text,
    /// Through a writer that shares the terminal with something else, such as a progress bar; only what a person must know.
    Through(BoxMakeWriter),
}

impl Console {
    /// Text if standard output is a terminal, else JSON.
    pub fn detect() -> Self {
        if io::stdout().is_terminal() { Self::Text } else { Self::Json }
    }

    /// Through writers that `make` makes, one for each event.
    pub fn through<W: Write + 'static>(make: impl Fn() -> W + Send + Sync + 'static) -> Self {
        Self::Through(BoxMakeWriter::new(make))
    }

    pub(super) fn is_quiet(&self) -> bool {
        matches!(self, Self::Through(_))
    }

    pub(super) fn layer<S>(self, session: Option<String>) -> Box<dyn Layer<S> + Send + Sync>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        match self {
            Self::Json => Box::new(JsonLayer::new(session, io::stdout)),
            Self::Text => Box::new(layer().compact().with_writer(io::stdout)),
            Self::Through(writer) => Box::new(layer().compact().with_target(false).with_writer(writer)),
        }
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "Json",
            Self::Text => "Text",
            Self::Through(_) => "Through",
        })
    }
}
