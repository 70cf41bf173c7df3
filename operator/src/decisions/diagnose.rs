//! (pure) Why a pod does not run its uploader, in words that a person can act on.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    hearing::Hearing,
    observed::Observed,
    pod_state::{Disruption, Exit, KILLED, Stage, UploaderPod},
    reasons,
};

/// How long a pod may be made before its events are worth a look: pulling and mounting usually take less.
pub const LOOK_AFTER: Duration = Duration::from_secs(20);

/// What only the events of a pod tell.
#[derive(Clone, Copy, Debug)]
pub enum Subject {
    /// Why its container is not made for a while, like the text of a mount that fails.
    Start,
    /// That the kubelet killed its container, which had not ended when its health check failed.
    Kill,
}

/// What the events of `pod` may tell, and since when.
pub fn worth_a_look(pod: &UploaderPod, hearing: Hearing) -> Option<(Subject, Timestamp)> {
    match (&pod.stage, &pod.last_exit) {
        (Stage::Creating { since }, _) => since.map(|since| (Subject::Start, since + LOOK_AFTER)),
        (Stage::Waiting(..) | Stage::Running { .. }, Some(exit)) if matches!(hearing, Hearing::Absent | Hearing::NotYet) => {
            exit.finished.filter(|_| exit.is_unexplained_kill()).map(|finished| (Subject::Kill, finished))
        }
        _ => None,
    }
}

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
        Stage::Unscheduled(None) => Cause::new(reasons::SCHEDULING, "The pod waits for the scheduler."),
        Stage::Unscheduled(Some(words)) => unscheduled(words, &pod.namespace),
        Stage::Creating { .. } => creating(pod, observed),
        Stage::Waiting(reason, words) => waiting(reason, words, pod, observed),
        Stage::Finished(reason, words) => finished(reason, words, pod, observed),
        Stage::Running { .. } => pod.last_exit.as_ref().map_or_else(
            || Cause::new(reasons::STARTING, "The uploader has started and has not reported yet."),
            |exit| exited(exit, pod, observed),
        ),
    }
}

/// The scheduler names what is wrong with a claim only in its message; where its wording is new, it is passed on as it is.
fn unscheduled(words: &str, namespace: &str) -> Cause {
    if let Some(claim) = quoted_before(words, "persistentvolumeclaim ", " not found") {
        let message = format!(
            "The PersistentVolumeClaim {claim} does not exist in namespace {namespace}: create it; the session starts by itself then."
        );
        return Cause::of_source(reasons::CLAIM_NOT_FOUND, message);
    }
    if let Some(claim) = quoted_before(words, "persistentvolumeclaim ", " is being deleted") {
        let message = format!(
            "The PersistentVolumeClaim {claim} is being deleted in namespace {namespace}, which takes until no other pod uses it: create \
             it again then; the session starts by itself."
        );
        return Cause::of_source(reasons::CLAIM_TERMINATING, message);
    }
    if UNBOUND.iter().any(|unbound| words.contains(unbound)) {
        let message = format!(
            "The PersistentVolumeClaim is not bound to a volume yet: `kubectl describe pvc --namespace {namespace}` says why. Make a \
             volume of the capacity, access mode and storage class that it asks for, or correct it; the session starts by itself then. \
             The scheduler says: {words}"
        );
        return Cause::of_source(reasons::CLAIM_PENDING, message);
    }
    let message = format!(
        "No node takes the pod: free or add resources, lower spec.pod.resources or spec.staging.sizeLimit, or correct spec.pod.nodeSelector, \
         affinity and tolerations. The scheduler says: {words}"
    );
    Cause::new(reasons::UNSCHEDULABLE, message)
}

/// The scheduler's words on a claim that waits for its volume, and on one that waits for a pod, for which no volume is left.
const UNBOUND: [&str; 2] = ["unbound immediate PersistentVolumeClaims", "didn't find available persistent volumes to bind"];

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
            let message = format!(
                "The share cannot be mounted on {node}, which tries again: look for a wrong server or path, an export that leaves out the \
                 node, or an NFS client that it lacks (nfs-common). The node says: {words}"
            );
            Cause::of_source(reason.clone(), message)
        }
        Some((reason, words)) => {
            let message = format!(
                "The pod cannot start on {node}, which tries again: if it stays so, look at the node's container runtime and network. The \
                 node says: {words}"
            );
            Cause::new(reason.clone(), message)
        }
        None => Cause::new(reasons::CONTAINER_CREATING, format!("{node} mounts the share and pulls the image.")),
    }
}

fn waiting(reason: &str, words: &str, pod: &UploaderPod, observed: &Observed) -> Cause {
    match (reason, &pod.last_exit) {
        ("CrashLoopBackOff" | reasons::RESTARTING, Some(exit)) => exited(exit, pod, observed),
        ("ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "InvalidImageName" | "ImageInspectError", _) => {
            let named_in = if pod.image.is_some() { "image.uploader of the chart" } else { "spec.pod.image" };
            let message = format!(
                "The uploader's image cannot be pulled: build and import it on the node, or correct {named_in}. The node says: {words}"
            );
            Cause::new(reasons::IMAGE_PULL_FAILED, message)
        }
        _ => Cause::new(
            if reason.is_empty() { reasons::WAITING } else { reason },
            format!("The node waits with the uploader, and tries again: make or correct what it names. It says: {words}"),
        ),
    }
}

fn finished(reason: &str, words: &str, pod: &UploaderPod, observed: &Observed) -> Cause {
    match &pod.last_exit {
        Some(exit) if matches!(reason, "Failed" | "Succeeded") => exited(exit, pod, observed),
        _ if reason == "Evicted" => evicted(words, pod),
        _ => Cause::new(reason, format!("The pod {} has ended; a new one follows by itself. {words}", pod.name).trim_end()),
    }
}

/// The kubelet says which limit was passed, or what its node was short of.
fn evicted(words: &str, pod: &UploaderPod) -> Cause {
    let node = pod.node.as_deref().unwrap_or("its node");
    let says = |some: &[&str]| some.iter().any(|some| words.contains(some));
    let remedy = if says(&["low on resource: memory", "MemoryPressure"]) {
        format!("free memory on {node}, or raise spec.pod.resources.requests.memory")
    } else if says(&["low on resource: pids", "PIDPressure"]) {
        format!("end processes on {node}")
    } else if says(&["low on resource", "DiskPressure"]) {
        format!("free disk space on {node}, or lower spec.staging.sizeLimit")
    } else {
        "raise spec.pod.resources.limits.ephemeral-storage, or lower spec.staging.sizeLimit".into()
    };
    Cause::new(
        reasons::EVICTED,
        format!("The node removed the pod {}; a new one follows: {remedy}. The node says: {words}", pod.name),
    )
}

/// Why `pod` is taken away although its session is to go on.
pub fn disrupted(disruption: Disruption, pod: &UploaderPod) -> Cause {
    let name = &pod.name;
    match disruption {
        Disruption::Evicted => Cause::new(
            reasons::EVICTED,
            format!(
                "Somebody has the pod {name} evicted, as `kubectl drain` or an autoscaler does; a new one follows on a node that takes \
                 it."
            ),
        ),
        Disruption::Preempted => Cause::new(
            reasons::PREEMPTED,
            format!(
                "The scheduler removes the pod {name} to make room for one of higher priority; a new one follows where there is room: free \
                 resources, or raise spec.pod.priorityClassName."
            ),
        ),
    }
}

/// SIGTERM. Nobody but the kubelet sends it to an uploader, and to one whose pod stays only after its probe failed.
const STOPPED: i32 = 143;

fn exited(exit: &Exit, pod: &UploaderPod, observed: &Observed) -> Cause {
    let session_uid = &pod.session_uid;
    if let Some(account) = exit.account(session_uid).filter(|account| !account.message.is_empty()) {
        return Cause { is_final: exit.is_final(session_uid), ..Cause::new(account.reason, account.message) };
    }
    if exit.reason == "OOMKilled" {
        let message = "The uploader used more memory than its limit and was killed: raise spec.pod.resources.limits.memory, or lower \
                       spec.transfer.memoryLimit.";
        return Cause::new(reasons::OUT_OF_MEMORY, message);
    }
    if exit.code == STOPPED || (exit.is_unexplained_kill() && was_unhealthy(observed)) {
        let message = "The kubelet stopped the uploader because its health check failed, and starts it again: usually the file server \
                       does not answer.";
        return Cause::new(reasons::UPLOADER_UNHEALTHY, message);
    }
    let end = match exit.code {
        KILLED => "was killed".to_owned(),
        code => format!("ended with exit code {code}"),
    };
    let message = match exit.message.trim() {
        "" => format!("The uploader {end} and is started again; its log may say why."),
        words => format!("The uploader {end} and is started again; its log may say more. Its last words: {words}"),
    };
    Cause::new(reasons::UPLOADER_EXITED, message)
}

/// Whether the kubelet said that a probe was the reason to kill the uploader, which was too busy or frozen to end by itself.
fn was_unhealthy(observed: &Observed) -> bool {
    let told = observed.look.as_ref().and_then(|look| look.warning.as_ref());
    told.is_some_and(|(reason, words)| reason == "Killing" && words.contains("probe"))
}

#[cfg(test)]
mod tests {
    use blobferry_crds::names;
    use k8s_openapi::api::core::v1::Pod;

    use super::*;
    use crate::decisions::observed::Look;
    use crate::{decisions::pod_state::Slot, fixtures};

    const SCHEDULED: &str = "{type: PodScheduled, status: 'True', lastTransitionTime: '2026-11-21T08:29:00Z'}";

    fn cause(status: &str, warning: Option<(&str, &str)>) -> Cause {
        cause_of(&pod(status), warning)
    }

    fn pod(status: &str) -> Pod {
        fixtures::pod(&fixtures::session(""), status)
    }

    fn cause_of(pod: &Pod, warning: Option<(&str, &str)>) -> Cause {
        let mut observed = fixtures::observed(&fixtures::session(""), Some(pod));
        observed.look = warning.map(|(reason, words)| {
            let (now, warning) = (fixtures::now(), Some((reason.into(), words.into())));
            Box::new(Look { pod_uid: "pod-1".into(), since: now, count: 1, due: now, warning })
        });
        let Slot::Ours(pod) = observed.slot.clone() else { panic!("the pod is ours") };
        diagnose(&pod, &observed)
    }

    fn container(state: &str, last_state: &str) -> String {
        format!(
            "{{phase: Running, conditions: [{SCHEDULED}], containerStatuses: [{{name: uploader, image: '', imageID: '', ready: false, \
             restartCount: 1, state: {state}, lastState: {last_state}}}]}}"
        )
    }

    fn unscheduled(words: &str) -> Cause {
        cause(&format!("conditions: [{{type: PodScheduled, status: 'False', message: '{words}'}}]"), None)
    }

    #[test]
    fn missing_claim_is_named_with_its_namespace() {
        let cause = unscheduled(r#"0/1 nodes are available: persistentvolumeclaim "share" not found. preemption: 0/1"#);
        assert_eq!((cause.reason.as_str(), cause.source), ("PersistentVolumeClaimNotFound", true));
        assert!(cause.message.contains("PersistentVolumeClaim share") && cause.message.contains("namespace cameras"), "{cause:?}");
    }

    #[test]
    fn claim_that_is_not_bound_or_goes_and_full_nodes_say_what_to_do_or_the_schedulers_words() {
        for words in
            ["pod has unbound immediate PersistentVolumeClaims.", "1 node(s) didn''t find available persistent volumes to bind."]
        {
            let cause = unscheduled(&format!("0/1 nodes are available: {words}"));
            assert_eq!((cause.reason.as_str(), cause.source), ("PersistentVolumeClaimPending", true));
            assert!(
                cause.message.contains("kubectl describe pvc --namespace cameras")
                    && cause.message.contains(&words.replace("''", "'")),
                "{cause:?}"
            );
        }
        let cause = unscheduled(r#"0/1 nodes are available: persistentvolumeclaim "share" is being deleted. preemption: 0/1"#);
        assert_eq!((cause.reason.as_str(), cause.source), ("PersistentVolumeClaimTerminating", true));
        assert!(cause.message.contains("PersistentVolumeClaim share is being deleted in namespace cameras"), "{cause:?}");
        let cause = unscheduled("0/1 nodes are available: 1 Insufficient memory.");
        assert_eq!((cause.reason.as_str(), cause.source), ("Unschedulable", false));
        assert!(cause.message.contains("Insufficient memory"));
    }

    #[test]
    fn mount_that_fails_blames_the_share() {
        let status = format!("{{phase: Pending, conditions: [{SCHEDULED}]}}");
        let cause = self::cause(&status, Some(("FailedMount", "mount.nfs: access denied by server")));
        assert_eq!((cause.reason.as_str(), cause.source), ("FailedMount", true));
        assert!(cause.message.contains("access denied by server") && cause.message.contains("node-a"));
        assert_eq!(self::cause(&status, None).reason, "ContainerCreating");
        let cause = self::cause(&status, Some(("FailedCreatePodSandBox", "no network")));
        assert_eq!((cause.reason.as_str(), cause.source), ("FailedCreatePodSandBox", false));
    }

    #[test]
    fn image_that_cannot_be_pulled_says_what_to_do() {
        let cause = cause(&container("{waiting: {reason: ImagePullBackOff, message: 'not found'}}", "{}"), None);
        assert_eq!(cause.reason, "ImagePullFailed");
        assert!(cause.message.contains("image.uploader") && cause.message.contains("not found"));
    }

    #[test]
    fn image_that_the_session_names_is_to_be_corrected_there() {
        let mut pod = pod(&container("{waiting: {reason: ErrImagePull, message: 'not found'}}", "{}"));
        pod.metadata.annotations.as_mut().unwrap().remove(names::IMAGE_ANNOTATION);
        let message = cause_of(&pod, None).message;
        assert!(message.contains("correct spec.pod.image.") && !message.contains("image.uploader"), "{message}");
    }

    #[test]
    fn uploaders_own_words_go_before_the_kubelets() {
        let account = r#"{"result":"Failed","sessionUID":"6f7e0b0c-0000-4000-8000-000000000001","mode":"watch","reason":"BadFlag","message":"No such flag."}"#;
        let ended = format!("{{terminated: {{exitCode: 2, reason: Error, message: '{account}'}}}}");
        for state in ["{waiting: {reason: CrashLoopBackOff}}", "{running: {startedAt: '2026-11-21T08:29:00Z'}}", &ended] {
            let cause = cause(&container(state, &ended), None);
            assert_eq!(
                (cause.reason.as_str(), cause.message.as_str(), cause.is_final),
                ("BadFlag", "No such flag.", true),
                "{state}"
            );
        }
    }

    #[test]
    fn account_of_another_session_is_not_believed() {
        let account = r#"{"result":"Failed","sessionUID":"other","mode":"watch","reason":"BadFlag","message":"No such flag."}"#;
        let ended = format!("{{terminated: {{exitCode: 2, message: '{account}'}}}}");
        let cause = cause(&container("{waiting: {reason: CrashLoopBackOff}}", &ended), None);
        assert_eq!((cause.reason.as_str(), cause.is_final), ("UploaderExited", false));
    }

    #[test]
    fn memory_kill_says_which_fields_to_change() {
        let ended = "{terminated: {exitCode: 137, reason: OOMKilled}}";
        let cause = cause(&container("{waiting: {reason: CrashLoopBackOff}}", ended), None);
        assert_eq!(cause.reason, "OOMKilled");
        assert!(cause.message.contains("memoryLimit"));
    }

    #[test]
    fn uploader_that_the_kubelet_stopped_was_unhealthy() {
        let ended = "{terminated: {exitCode: 143, reason: Error, message: 'ended by a signal'}}";
        for state in ["{waiting: {reason: CrashLoopBackOff}}", "{running: {startedAt: '2026-11-21T08:29:00Z'}}"] {
            let cause = cause(&container(state, ended), None);
            assert_eq!(cause.reason, "UploaderUnhealthy");
            assert!(cause.message.contains("file server"));
        }
    }

    #[test]
    fn kill_is_laid_to_the_health_check_where_the_kubelet_says_so() {
        let killed = "{terminated: {exitCode: 137, reason: Error}}";
        let out_of_memory = "{terminated: {exitCode: 137, reason: OOMKilled}}";
        let probe = Some(("Killing", "Container uploader failed liveness probe, will be restarted"));
        let running = "{running: {startedAt: '2026-11-21T08:29:00Z'}}";
        for (exit, told, reason) in [
            (killed, probe, "UploaderUnhealthy"),
            (killed, Some(("Killing", "Stopping container uploader")), "UploaderExited"),
            (killed, None, "UploaderExited"),
            (out_of_memory, probe, "OOMKilled"),
        ] {
            assert_eq!(cause(&container(running, exit), told).reason, reason, "{exit} {told:?}");
        }
    }

    #[test]
    fn eviction_is_named_with_the_kubelets_words_and_a_remedy() {
        for (words, remedy) in [
            ("The node was low on resource: memory. Threshold quantity: 100Mi.", "requests.memory"),
            ("The node was low on resource: ephemeral-storage. Threshold quantity: 1Gi.", "free disk space on node-a"),
            ("The node was low on resource: pids. Threshold quantity: 1k.", "end processes on node-a"),
            ("Pod was rejected: The node had condition: [DiskPressure]. ", "free disk space on node-a"),
            ("Pod ephemeral local storage usage exceeds the total limit of containers 16Mi.", "limits.ephemeral-storage"),
            ("Usage of EmptyDir volume \"staging\" exceeds the limit \"1Gi\".", "limits.ephemeral-storage"),
        ] {
            let cause = cause(&format!("{{phase: Failed, reason: Evicted, message: '{words}'}}"), None);
            assert_eq!(cause.reason, "Evicted");
            assert!(cause.message.contains(words) && cause.message.contains(remedy), "{cause:?}");
        }
    }
}
