//! (I/O) Events of Kubernetes: what people are told in the moment it happens.

use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, Recorder, Reporter},
};
use tracing::{debug, warn};

use crate::api;

/// A recorder keeps every event whole for minutes, and looks at all of them with each new one, so that one which comes again is counted
/// instead of told anew. What repeats itself quickly does so within these; anything else is told anew.
const REMEMBERED: usize = 100;

/// Tells people of objects.
pub struct Events {
    client: Client,
    reporter: Reporter,
    recorder: Mutex<(Recorder, usize)>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("reporter", &self.reporter).finish_non_exhaustive()
    }
}

impl Events {
    /// Events by the pod `instance`.
    pub fn new(client: Client, instance: Option<String>) -> Self {
        let reporter = Reporter { controller: "blobferry.io/operator".into(), instance };
        let recorder = Mutex::new((Recorder::new(client.clone(), reporter.clone()), 0));
        Self { client, reporter, recorder }
    }

    /// Tells people of the object `regarding`. An event that cannot be sent is only logged: the conditions say the same. A namespace that is
    /// being deleted takes none.
    pub async fn tell(&self, regarding: &ObjectReference, event: Event) {
        let recorder = self.recorder();
        match api::call("send an event", recorder.publish(&event, regarding)).await {
            Err(error) if error.is_of_ending_namespace() => {
                debug!(reason = event.reason, "people were not told: the namespace ends");
            }
            Err(error) => warn!(reason = event.reason, error = &error as &dyn std::error::Error, "people were not told"),
            Ok(()) => {}
        }
    }

    fn recorder(&self) -> Recorder {
        let (recorder, told) = &mut *self.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        if *told == REMEMBERED {
            (*recorder, *told) = (Recorder::new(self.client.clone(), self.reporter.clone()), 0);
        }
        *told += 1;
        recorder.clone()
    }
}
