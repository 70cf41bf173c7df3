//! The API server as far as an uploader needs it: the session's object with its progress, and what people write into it.

use std::time::Duration;

use blobferry_crds::Progress;
use blobferry_uploader::args::Mode;

/// What the session's object says, as far as that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Its number among the objects of its name.
    pub object: u32,
    /// What its pod is to do.
    pub mode: Mode,
    /// Whether it is completed, and has no pod.
    pub completed: bool,
    /// Its `runToken`.
    pub token: Option<String>,
    /// It is completed when nothing new came for so long.
    pub idle: Option<Duration>,
}

impl Spec {
    /// UID of the object.
    pub fn uid(&self) -> String {
        format!("session-{}", self.object)
    }
}

/// The session's object.
#[derive(Debug)]
pub struct Api {
    /// What was reported last.
    pub progress: Option<Progress>,
    /// What it says.
    pub spec: Spec,
}

impl Api {
    /// A new object.
    pub fn new(idle: Option<Duration>) -> Self {
        let spec = Spec { object: 1, mode: Mode::Watch, completed: false, token: None, idle };
        Self { progress: None, spec }
    }
}
