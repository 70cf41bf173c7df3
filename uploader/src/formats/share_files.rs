//! The small files that we keep on the share beside the producers' files.

use serde::{Deserialize, Serialize};

use super::ProcessId;

/// File below the processing folder with the UUID of the share, as text.
pub const SHARE_ID: &str = ".blobferry-share";
/// Folder below the processing folder with a file per running process.
pub const HEARTBEATS: &str = ".heartbeats";
/// Folder below the processing folder with a file per session.
pub const MARKERS: &str = ".sessions";

/// The name of a process's heartbeat file.
pub fn heartbeat_name(pod_uid: &str, process: ProcessId) -> String {
    format!("{pod_uid}.{process}")
}

/// What a heartbeat file holds, as JSON. Its mtime, set every 10 seconds, is the heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Heartbeat {
    /// Version of this format, 1.
    pub version: u32,
    /// UID of the session's object.
    #[serde(rename = "sessionUID")]
    pub session_uid: String,
    /// Name of the session.
    pub session: String,
    /// UID of the pod.
    #[serde(rename = "podUID")]
    pub pod_uid: String,
    /// The process, as in claim ids.
    #[serde(rename = "processID")]
    pub process_id: String,
}

/// What the reason file beside a file that was set aside holds, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedReason {
    /// Version of this format, 1.
    pub version: u32,
    /// `CamelCase` reason of the last failure.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
    /// Failures of the file's own.
    pub attempts: u32,
    /// The session's `runToken` then: another one takes the file back to work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_token: Option<String>,
}

/// What a session's marker holds, as JSON. It prevents confusion between sessions and protects no file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Marker {
    /// Version of this format, 1.
    pub version: u32,
    /// UID of the session's object.
    #[serde(rename = "sessionUID")]
    pub session_uid: String,
    /// The session's incoming folder, as the uploader was told.
    pub incoming_dir: String,
    /// Account, container and prefix.
    pub destination: String,
}
