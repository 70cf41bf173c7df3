//! `status`: the root and the conditions are written by the operator, `progress` and `activity` by the uploader.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How far a session is.
///
/// Both programs write with server-side apply under field managers of their own and never send the other's fields. `progress` and
/// `activity` are atomic: their writer always sends the whole.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("!has(oldSelf.sessionName) || (has(self.sessionName) && self.sessionName == oldSelf.sessionName)").message("status.sessionName never changes"),
    validation = Rule::new("!has(oldSelf.datePrefix) || (has(self.datePrefix) && self.datePrefix == oldSelf.datePrefix)").message("status.datePrefix never changes"),
)]
#[serde(rename_all = "camelCase")]
pub struct UploadSessionStatus {
    /// Generation of the spec that the rest of the status speaks of; -1 before the operator has seen the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Summary for people, derived from the conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,

    /// Name of the session; never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200))]
    pub session_name: Option<String>,

    /// Date in folders and blob names, YYYYMMDD; never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    pub date_prefix: Option<String>,

    /// Name of the uploader's pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub pod_name: Option<String>,

    /// UID of the uploader's pod; only this pod may report progress.
    #[serde(default, rename = "podUID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub pod_uid: Option<String>,

    /// Seconds between two reports of an active uploader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report_interval: Option<u32>,

    /// Where the blobs are: account, container, prefix, date and session.
    #[serde(default, rename = "destinationURL", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub destination_url: Option<String>,

    /// When the first uploader was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,

    /// When the session was completed; absent while it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,

    /// The runToken of the run that completed the session; another one in the spec starts it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub completed_run_token: Option<String>,

    /// What is true of the session now. Written by the operator.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// The ledger of files and bytes. Written by the uploader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,

    /// What the uploader does right now; absent when none runs. Written by the uploader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activity: Option<Activity>,
}

/// Summary for people; never the source of truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// No uploader runs yet.
    Pending,
    /// An uploader runs.
    Running,
    /// Stopped by `suspend`.
    Suspended,
    /// Deleted; claimed files are uploaded or given back before it goes.
    Draining,
    /// Everything is uploaded and nothing more is expected.
    Completed,
    /// A person has to change something.
    Failed,
}

/// The ledger. `filesSeen` = `filesUploaded` + `filesFailed` + `filesSuperseded` + `filesWithdrawn` (these last) + `filesWaiting`
/// + `filesActive` + `filesRetrying` + `filesIgnored` (these as of now).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Progress {
    /// Files ever seen, and those ignored now.
    pub files_seen: u64,
    /// Files committed and verified.
    pub files_uploaded: u64,
    /// Files set aside after too many failures of their own.
    pub files_failed: u64,
    /// Files that a later file of the same name overtook; they are kept on the share.
    pub files_superseded: u64,
    /// Files that were gone before they were claimed.
    pub files_withdrawn: u64,
    /// Files that wait for their turn or are not quiet yet.
    pub files_waiting: u64,
    /// Files that are being uploaded.
    pub files_active: u64,
    /// Files that failed and are tried again.
    pub files_retrying: u64,
    /// Files that the session's rules leave alone.
    pub files_ignored: u64,
    /// Files set aside or being retried: the column FAILED.
    pub files_failing: u64,
    /// Bytes of all files uploaded and known to wait.
    pub bytes_total: u64,
    /// Bytes of the files that are uploaded; those of active files are in percent.
    pub bytes_uploaded: u64,
    /// Bytes that were not sent again after a restart, because the service had them.
    pub bytes_resumed: u64,
    /// Share of the bytes that is uploaded, blocks of active files included, like 87%.
    #[schemars(length(max = 8))]
    pub percent: String,
    /// What the uploader found of the share and the container.
    #[schemars(length(max = 4))]
    pub checks: Vec<Check>,
    /// Everything that the last complete scan saw is uploaded, ignored files left out.
    pub caught_up: bool,
    /// All bytes that the server had before this time (server clock) are uploaded, ignored files left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub safe_through: Option<Time>,
    /// Files completed up to this time (server clock) are in the counters.
    // With nanoseconds, as the server's ctimes have them: `Time` would be cut to seconds, and files of that second counted twice.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Time>")]
    pub counted_through: Option<Timestamp>,
    /// Of the files uploaded, those that came after countedThrough.
    pub files_counted_beyond: u64,
    /// Bytes of the files of filesCountedBeyond.
    pub bytes_counted_beyond: u64,
    /// Since when the oldest file waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_waiting_since: Option<Time>,
    /// When the newest file was uploaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_upload_time: Option<Time>,
    /// The newest error that still stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200))]
    pub last_error: Option<String>,
    /// Bytes that are free on the share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share_free_bytes: Option<u64>,
    /// The newest failures of files, at most three.
    #[schemars(length(max = 3))]
    pub recent_failures: Vec<FileProblem>,
    /// The oldest files that are still on the share and why, at most five.
    #[schemars(length(max = 5))]
    pub held_back: Vec<FileProblem>,
}

/// What an uploader found of one of the two ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// `source` or `destination`.
    #[serde(rename = "type")]
    #[schemars(length(max = 16))]
    pub type_: String,
    /// Whether it works.
    pub ok: bool,
    /// `CamelCase` reason.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// A sentence that a person can act on.
    #[schemars(length(max = 1000))]
    pub message: String,
}

/// A file and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileProblem {
    /// Name of the file; bytes that are no UTF-8 are replaced.
    #[schemars(length(max = 256))]
    pub name: String,
    /// `CamelCase` reason.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// A sentence that a person can act on.
    #[schemars(length(max = 200))]
    pub message: String,
}

/// What the uploader does right now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Activity {
    /// Bytes sent per second, like 12.3 MB/s.
    #[schemars(length(max = 32))]
    pub rate: String,
    /// Time until the known files are uploaded, like 4m.
    #[schemars(length(max = 32))]
    pub eta: String,
    /// Files in progress, at most three.
    #[schemars(length(max = 3))]
    pub active_files: Vec<ActiveFile>,
    /// When the last complete scan started (server clock).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_scan_time: Option<Time>,
    /// When this was written (the uploader's clock); no two reports are equal, so that each leaves a trace in the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report_time: Option<Time>,
    /// Generation of the spec whose live settings the uploader works with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied_generation: Option<i64>,
}

/// A file in progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActiveFile {
    /// Name of the file.
    #[schemars(length(max = 256))]
    pub name: String,
    /// Bytes that the service has.
    pub bytes_sent: u64,
    /// Bytes of the file.
    pub size: u64,
}
