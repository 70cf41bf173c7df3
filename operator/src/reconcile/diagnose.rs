//! (pure) Why a pod does not run its uploader, in words that a person can act on.

use super::{
    observe::Observed,
    pod_state::{Exit, Stage, UploaderPod},
};

/// Why no uploader is at work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// `CamelCase` reason.
    pub reason: String,
    /// A sentence that a person can act on.
    pub message: String,
    /// Whether the share is to blame.
    pub source: bool,
    /// Whether waiting does not help.
    pub is_final: bool,
}

impl Cause {
    fn new(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into(), source: false, is_final: false }
    }

    fn of_source(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { source: true, ..Self::new(reason, message) }
    }
}

/// Why `pod` does not run its uploader, or did not until now.
pub fn diagnose(pod: &UploaderPod, observed: &Observed) -> Cause {
    match &pod.stage {
        Stage::Unscheduled(None) => Cause::new("Scheduling", "The pod waits for the scheduler."),
        Stage::Unscheduled(Some(words)) => unscheduled(words, &pod.namespace),
        Stage::Creating { .. } => creating(pod, observed),
        Stage::Waiting(reason, words) => waiting(reason, words, pod),
        Stage::Finished(reason, words) => finished(reason, words, pod),
        Stage::Running { .. } => pod.last_exit.as_ref().map_or_else(
            || Cause::new("Starting", "The uploader has started and has not reported yet."),
            |exit| exited(exit, &pod.session_uid),
        ),
    }
}

/// The scheduler names what is wrong with a claim only in its message; where its wording is new, it is passed on as it is.
fn unscheduled(words: &str, namespace: &str) -> Cause {
    if let Some(claim) = quoted_before(words, "persistentvolumeclaim ", " not found") {
        let message = format!(
            "The PersistentVolumeClaim {claim} does not exist in namespace {namespace}: create it; the session starts by itself then."
        );
        return Cause::of_source("PersistentVolumeClaimNotFound", message);
    }
    if words.contains("unbound immediate PersistentVolumeClaims") {
        let message = format!("The PersistentVolumeClaim is not bound to a volume yet. The scheduler says: {words}");
        return Cause::of_source("PersistentVolumeClaimPending", message);
    }
    Cause::new("Unschedulable", format!("No node takes the pod. The scheduler says: {words}"))
}

/// The text between the quotes that stand between `before` and `after`.
fn quoted_before<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let rest = &text[text.find(before)? + before.len()..];
    let name = rest.strip_prefix('"')?;
    let (name, rest) = name.split_once('"')?;
    rest.starts_with(after).then_some(name)
}

fn creating(pod: &UploaderPod, observed: &Observed) -> Cause {
    let node = pod.node.as_deref().unwrap_or("the node");
    match observed.look.as_ref().and_then(|look| look.warning.as_ref()) {
        Some((reason, words)) if reason.contains("Mount") || reason.contains("Attach") => {
            Cause::of_source(reason.clone(), format!("The share cannot be mounted on {node}: {words}"))
        }
        Some((reason, words)) => Cause::new(reason.clone(), format!("The pod cannot start on {node}: {words}")),
        None => Cause::new("ContainerCreating", format!("{node} mounts the share and pulls the image.")),
    }
}

fn waiting(reason: &str, words: &str, pod: &UploaderPod) -> Cause {
    match (reason, &pod.last_exit) {
        ("CrashLoopBackOff" | "Restarting", Some(exit)) => exited(exit, &pod.session_uid),
        ("ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "InvalidImageName" | "ImageInspectError", _) => {
            let message = format!(
                "The uploader's image cannot be pulled: build and import it on the node, or correct image.uploader of the chart. The \
                 node says: {words}"
            );
            Cause::new(reason, message)
        }
        _ => Cause::new(if reason.is_empty() { "Waiting" } else { reason }, format!("The node waits with the uploader: {words}")),
    }
}

fn finished(reason: &str, words: &str, pod: &UploaderPod) -> Cause {
    match &pod.last_exit {
        Some(exit) if matches!(reason, "Failed" | "Succeeded") => exited(exit, &pod.session_uid),
        _ if words.is_empty() => Cause::new(reason, format!("The pod {} has ended; a new one follows.", pod.name)),
        _ => Cause::new(reason, format!("The pod {} has ended; a new one follows. {words}", pod.name)),
    }
}

fn exited(exit: &Exit, session_uid: &str) -> Cause {
    if let Some(account) = exit.account(session_uid).filter(|account| !account.message.is_empty()) {
        return Cause { is_final: exit.is_final(session_uid), ..Cause::new(account.reason, account.message) };
    }
    if exit.reason == "OOMKilled" {
        let message = "The uploader used more memory than its limit and was killed: raise spec.pod.resources.limits.memory, or lower \
                       spec.transfer.memoryLimit.";
        return Cause::new("OOMKilled", message);
    }
    let end = match exit.code {
        137 => "was killed".to_owned(),
        143 => "was stopped".to_owned(),
        code => format!("ended with exit code {code}"),
    };
    let words = exit.message.trim();
    let tail = if words.is_empty() { String::new() } else { format!(": {words}") };
    Cause::new("UploaderExited", format!("The uploader {end} and is started again{tail}"))
}
