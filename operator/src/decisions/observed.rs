//! (pure) What is there when a pass begins.

use blobferry_crds::{UploadSession, names};
use jiff::Timestamp;

use super::{completion::Completed, deletion::Deletion, hearing::Reports, pod_state::Slot, rollout::Upgrade};
use crate::backoff::Attempts;

/// What is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// Who has the name of the session's pod.
    pub slot: Slot,
    /// Whether the spec was changed since a pass wrote the status last.
    pub is_new_spec: bool,
    /// How the session came to its end, if it has.
    pub completed: Option<Completed>,
    /// What is known of the session's deletion, if our finalizer holds it.
    pub deletion: Option<Deletion>,
    /// Pods that were created so far.
    pub creations: Attempts,
    /// Health of the node of a pod that does not end, or whose uploader is silent.
    pub node: Option<NodeHealth>,
    /// The last look at the events of a pod that does not start, or whose uploader was killed.
    pub look: Option<Box<Look>>,
    /// What is known of the reports of the session's uploaders.
    pub reports: Reports,
    /// Sessions in the cluster.
    pub sessions: usize,
    /// Whether the rights of a silent uploader may be looked at again.
    pub rights_due: bool,
    /// Whether people were warned, and not yet told that all is well again.
    pub warned: bool,
    /// When a step of the start was written to the status last.
    pub step_written: Option<Timestamp>,
    /// What the pod has to do with a new image.
    pub upgrade: Upgrade,
}

/// What is known of the node of a pod that does not end, or whose uploader is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeHealth {
    /// The kubelet reports.
    Ready,
    /// The kubelet does not report, or there is no such node.
    Lost,
}

/// A look at the events of a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Look {
    /// The pod.
    pub pod_uid: String,
    /// Since when there may be something to see; later, it is about something else.
    pub since: Timestamp,
    /// Looks so far.
    pub count: u32,
    /// When the next look is worth its call.
    pub due: Timestamp,
    /// What the newest warning said: its reason and message.
    pub warning: Option<(String, String)>,
}

/// Whether the spec of `session` was changed since a pass wrote the status last.
pub fn is_new_spec(session: &UploadSession) -> bool {
    let observed = session.status.as_ref().and_then(|status| status.observed_generation);
    observed.zip(session.metadata.generation).is_some_and(|(observed, generation)| observed < generation)
}

/// When the API server last took a change from the uploader; it costs no call and is the API server's clock.
pub fn last_report(session: &UploadSession) -> Option<Timestamp> {
    let fields = session.metadata.managed_fields.iter().flatten();
    fields
        .filter(|entry| entry.manager.as_deref() == Some(names::UPLOADER_MANAGER))
        .filter_map(|entry| Some(entry.time.as_ref()?.0))
        .max()
}
