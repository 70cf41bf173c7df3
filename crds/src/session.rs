//! The `UploadSession`: what a person writes (`spec`) and what the two programs answer (`status`).
//!
//! A field is here only once it works. Doc comments are what `kubectl explain` shows; rules are CEL, evaluated by the API server,
//! each with a message that says what to write instead. Rules about immutability stand on the parent of a field, because a rule
//! on the field itself is bypassed by removing the field first.

mod completion;
mod destination;
mod pod;
mod source;
mod status;
mod transfer;
mod watch;
mod workload_identity;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::TextDuration;

pub use completion::Completion;
pub use destination::{AccessTier, AzureBlob, Destination, Overwrite, SecretReference};
pub use pod::{PodResources, PodSecurity, PodTemplate};
pub use source::{DEFAULT_MOUNT_OPTIONS, NfsSource, PvcSource, Source};
pub use status::{ActiveFile, Activity, Check, FileProblem, Phase, Progress, UploadSessionStatus};
pub use transfer::{Retention, Staging, StagingMode, Transfer};
pub use watch::Watch;
pub use workload_identity::WorkloadIdentity;

/// Ferries the files that appear in one folder of an NFS share to Azure Blob Storage, with one uploader pod.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "blobferry.io",
    version = "v1alpha1",
    kind = "UploadSession",
    plural = "uploadsessions",
    shortname = "ups",
    category = "blobferry",
    namespaced,
    derive = "PartialEq",
    status = "UploadSessionStatus",
    doc = "UploadSession ferries the files that appear in one folder of an NFS share to Azure Blob Storage.",
    printcolumn(name = "Session", type_ = "string", json_path = ".status.sessionName", description = "Folder that is drained"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase", description = "Where the session is in its life"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status", description = "True while nothing is wrong"),
    printcolumn(name = "Uploaded", type_ = "integer", json_path = ".status.progress.filesUploaded", description = "Files uploaded so far"),
    printcolumn(name = "Waiting", type_ = "integer", json_path = ".status.progress.filesWaiting", description = "Files waiting for upload"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.progress.filesFailing", description = "Files set aside or being retried"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.progress.percent", description = "Share of the seen bytes that is uploaded"),
    printcolumn(name = "Rate", type_ = "string", json_path = ".status.activity.rate", description = "Bytes sent per second"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", description = "Why it is ready or not", priority = 1),
    printcolumn(name = "ETA", type_ = "string", json_path = ".status.activity.eta", description = "When the known files will be uploaded", priority = 1),
    printcolumn(name = "Oldest", type_ = "date", json_path = ".status.progress.oldestWaitingSince", description = "Age of the oldest waiting file", priority = 1),
    printcolumn(name = "Pod", type_ = "string", json_path = ".status.podName", description = "The uploader's pod", priority = 1),
    printcolumn(name = "Last-Error", type_ = "string", json_path = ".status.progress.lastError", description = "The newest error", priority = 1),
    validation = Rule::new("self.metadata.name.size() <= 52").message("metadata.name has more than 52 characters: choose a shorter one, it becomes part of the pod's name and a label; sessionName may be longer"),
)]
#[x_kube(
    validation = Rule::new("has(self.sessionName) == has(oldSelf.sessionName) && (!has(self.sessionName) || self.sessionName == oldSelf.sessionName)").message("sessionName cannot be changed: the files are in its folder; create another session for another folder"),
)]
#[serde(rename_all = "camelCase")]
pub struct UploadSessionSpec {
    /// Name of the folder below the incoming folder that this session drains, and part of every blob's name. Generated as
    /// 00-session-<UUID> when absent. Letters, digits, underscore, dot and hyphen; at most 200 characters. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200))]
    #[x_kube(validation = Rule::new(r"self.matches('^[A-Za-z0-9_][A-Za-z0-9_.-]*$') && !self.endsWith('.')").message("sessionName takes letters, digits, underscore, dot and hyphen, starts with none of the last two and does not end with a dot, like truck-7"))]
    pub session_name: Option<String>,

    /// True stops the uploader at once; files stay where they are. False resumes.
    #[serde(default)]
    pub suspend: bool,

    /// A value that was not there before has files that were set aside tried again, and starts a Completed session again. Any text of at
    /// most 128 characters, like a date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub run_token: Option<String>,

    /// Where the files come from.
    pub source: Source,

    /// Where the files go.
    pub destination: Destination,

    /// Which files are taken, and when.
    #[serde(default)]
    pub watch: Watch,

    /// How files are sent.
    #[serde(default)]
    pub transfer: Transfer,

    /// The copy on the pod's local disk that a file has while it is uploaded.
    #[serde(default)]
    pub staging: Staging,

    /// What happens to files that are uploaded.
    #[serde(default)]
    pub retention: Retention,

    /// When the session is over by itself. Without it the uploader watches until the session is suspended or deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion: Option<Completion>,

    /// Seconds after its completion at which a Completed session is deleted; never if absent. A tool that keeps manifests applied would
    /// make it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 315_360_000))]
    pub ttl_seconds_after_finished: Option<u32>,

    /// What happens to the uploader and the files when the session is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// How long Drain and Release may take, 1s to 8760h; what is left then stays on the share, as with Stop. May be changed while the session
    /// is being deleted.
    #[serde(default = "drain_timeout")]
    #[x_kube(validation = Rule::new(r"self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('1s') && duration(self) <= duration('8760h')").message("drainTimeout is a duration from 1s to 8760h, like 1h"))]
    pub drain_timeout: TextDuration,

    /// How the uploader's pod is made.
    #[serde(default)]
    pub pod: PodTemplate,
}

/// What happens to the uploader and the files when the session is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum DeletionPolicy {
    /// The uploader stops at once. Files stay on the share for a later session of the same name.
    #[default]
    Stop,
    /// Claimed files are uploaded first, and no others; the session's object stays until then.
    Drain,
    /// Claimed files that are not in Azure are given back to the incoming folder first; the session's object stays until then.
    Release,
}

fn drain_timeout() -> TextDuration {
    "1h".into()
}
