//! What end-to-end tests measure by the way. It is printed and not asserted, because machines differ.

use std::{
    fs,
    io::{self, Write as _},
};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use crate::processes;

/// Prints a figure of a test, also of one that passes: unlike `println!` the test harness does not keep it to itself.
pub fn print(text: &str) {
    // Where nobody reads, nobody misses it.
    let _ = writeln!(io::stderr(), "measured: {text}");
}

/// Seconds from one instant to another.
pub fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

/// When the kubelet started the pod's container; `None` while it does not run.
pub fn container_start(pod: &Pod) -> Option<Timestamp> {
    let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
    Some(containers.first()?.state.as_ref()?.running.as_ref()?.started_at.as_ref()?.0)
}

/// How often the pod's container was started again; `None` before it was made.
pub fn restarts(pod: &Pod) -> Option<i32> {
    Some(pod.status.as_ref()?.container_statuses.as_ref()?.first()?.restart_count)
}

/// Since when the pod has been ready; `None` while it is not.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready" && condition.status == "True")?;
    Some(ready.last_transition_time.as_ref()?.0)
}

/// Memory that the pod's processes hold, in MiB (`VmRSS` of proc(5)).
///
/// # Errors
///
/// When the pod has no process.
pub fn resident_mebibytes(pod: &Pod) -> Result<f64> {
    let uid = pod.uid().context("the pod has no UID")?;
    let process = *processes::of_pod(&uid)?.first().with_context(|| format!("pod {} has no process", pod.name_any()))?;
    let status = fs::read_to_string(format!("/proc/{}/status", process.as_raw_pid())).context("the process has ended")?;
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    Ok(kibibytes.context("the process has no VmRSS")?.parse::<f64>()? / 1024.0)
}
