//! (pure) What a pod's object says of the uploader in it.

use blobferry_crds::names::{self, TerminationMessage, TerminationResult};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodCondition};
use kube::ResourceExt;

use super::{
    area::{Area, Occupant, index::InArea},
    build::is_managed,
    mode::Mode,
    reasons,
};
use crate::place::Place;

/// Who is behind the name that a session's pod has.
#[derive(Clone, Debug, PartialEq)]
pub enum Slot {
    /// Nobody.
    Empty,
    /// The session's own pod.
    Ours(Box<UploaderPod>),
    /// The pod of an earlier session of the same name, which the garbage collector or the sweep removes.
    Previous(Box<UploaderPod>),
    /// A pod that somebody else made.
    Foreign,
}

impl Slot {
    /// Judges `pod` for the session with `uid` and `name`.
    pub fn of(pod: &UploaderPod, name: &str, uid: &str) -> Self {
        if pod.origin == Origin::Foreign {
            Self::Foreign
        } else if pod.session_uid == uid {
            Self::Ours(Box::new(pod.clone()))
        } else if pod.session == name {
            Self::Previous(Box::new(pod.clone()))
        } else {
            Self::Foreign
        }
    }
}

/// Who made a pod that has our labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The operator, for a session that controls it: the garbage collector removes it with the session.
    Owned,
    /// The operator, for a session that it is to outlive: nobody controls it.
    Unowned,
    /// Somebody who has copied the labels.
    Foreign,
}

/// Who made `pod`, and name and UID of the session for which; empty if it does not say. Whoever may change pods can give them any owner;
/// our labels only the operator sets, by an admission policy.
fn origin(pod: &Pod) -> (Origin, &str, &str) {
    let label = |name: &str| pod.labels().get(name).map(String::as_str);
    let Some((session, uid)) = label(names::SESSION_LABEL).zip(label(names::SESSION_UID_LABEL)) else {
        return (Origin::Foreign, "", "");
    };
    let origin = match pod.owner_references().iter().find(|owner| owner.controller == Some(true)) {
        _ if !is_managed(&pod.metadata) => Origin::Foreign,
        Some(owner) if owner.kind == "UploadSession" && owner.uid == uid => Origin::Owned,
        Some(_) => Origin::Foreign,
        None => Origin::Unowned,
    };
    (origin, session, uid)
}

/// A pod, as far as it matters: an eightieth of the whole object, so that thousands fit into memory.
#[derive(Clone, Debug, PartialEq)]
pub struct UploaderPod {
    /// Name of the session for which it was made; empty if the pod does not say.
    pub session: String,
    /// UID of that session; empty if the pod does not say.
    pub session_uid: String,
    /// Who made it.
    pub origin: Origin,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// UID of the pod.
    pub uid: String,
    /// Node that it runs on, once scheduled.
    pub node: Option<String>,
    /// What its uploader is to do.
    pub mode: Mode,
    /// Hash of what was meant when it was built.
    pub spec_hash: Option<String>,
    /// The folders for which it was made.
    pub area: Option<Area>,
    /// The installation's image when it was built; none if the session names one.
    pub image: Option<String>,
    /// The generation of its session, if that was well before it got that image.
    pub trial: Option<i64>,
    /// When it was made, by the API server's clock.
    pub created: Option<Timestamp>,
    /// When it should be gone: the time of its deletion and its grace period.
    pub terminating: Option<Timestamp>,
    /// The finalizer that holds its object although nothing of it runs any more: its node has said so, or was not waited for.
    pub held_by: Option<String>,
    /// How far it is.
    pub stage: Stage,
    /// How often its container was started again.
    pub restarts: i32,
    /// Whether its readiness probe succeeds.
    pub ready: bool,
    /// Whether somebody else than the kubelet, which knows its container, says that it is not ready: its node does not answer.
    pub forsaken: bool,
    /// How its container ended the last time.
    pub last_exit: Option<Exit>,
    /// Why the cluster takes it away, if it does.
    pub disruption: Option<Disruption>,
}

/// Why the cluster takes a pod away before its time, as its condition `DisruptionTarget` says
/// (<https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions>). What the kubelet ends itself it says
/// in the pod's status, and a node that is lost shows as such.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disruption {
    /// Somebody has asked to evict it, as `kubectl drain` does.
    Evicted,
    /// The scheduler makes room for a pod of higher priority.
    Preempted,
}

/// How far a pod is.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// No node was chosen; the scheduler's words, if it said any.
    Unscheduled(Option<String>),
    /// The node mounts volumes and makes the container.
    Creating {
        /// When the node was chosen.
        since: Option<Timestamp>,
    },
    /// The kubelet waits before it tries again; its reason and words.
    Waiting(String, String),
    /// The container runs.
    Running {
        /// When it started.
        since: Option<Timestamp>,
    },
    /// The pod will run nothing any more; reason and words of whoever ended it.
    Finished(String, String),
}

/// Exit code after SIGKILL.
pub const KILLED: i32 = 137;

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code.
    pub code: i32,
    /// The kubelet's reason, like `OOMKilled` or `Error`.
    pub reason: String,
    /// The termination message, or the end of the log.
    pub message: String,
    /// When, by the node's clock.
    pub finished: Option<Timestamp>,
}

impl InArea for UploaderPod {
    fn area(&self) -> Option<&Area> {
        self.area.as_ref()
    }
}

impl UploaderPod {
    /// What `pod` says.
    pub fn read(pod: &Pod) -> Self {
        let (origin, session, session_uid) = origin(pod);
        let status = pod.status.as_ref();
        let container = status
            .and_then(|status| status.container_statuses.as_ref())
            .and_then(|all| all.iter().find(|container| container.name == names::UPLOADER_CONTAINER));
        Self {
            session: session.to_owned(),
            session_uid: session_uid.to_owned(),
            origin,
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            mode: Mode::parse(pod.annotations().get(names::MODE_ANNOTATION).map(String::as_str)),
            spec_hash: pod.annotations().get(names::SPEC_HASH_ANNOTATION).cloned(),
            area: area_of(pod),
            image: pod.annotations().get(names::IMAGE_ANNOTATION).cloned(),
            trial: pod.annotations().get(names::TRIAL_ANNOTATION).and_then(|generation| generation.parse().ok()),
            created: pod.creation_timestamp().map(|time| time.0),
            terminating: pod.metadata.deletion_timestamp.as_ref().map(|time| time.0),
            held_by: pod.finalizers().first().filter(|_| pod.metadata.deletion_grace_period_seconds == Some(0)).cloned(),
            restarts: container.map_or(0, |container| container.restart_count),
            stage: stage(pod, container),
            ready: condition(pod, "Ready").is_some_and(|condition| condition.status == "True"),
            forsaken: container.is_some_and(|container| container.ready)
                && condition(pod, "Ready").is_some_and(|condition| condition.status == "False"),
            last_exit: last_exit(container),
            disruption: disruption(pod),
        }
    }

    /// The uploader's account of its success, if it can be believed: it ended by itself, with exit code 0, while nobody was deleting the
    /// pod. The phase says nothing: a pod that was deleted in time shows `Succeeded`, one that was killed after its end `Failed`.
    pub fn success(&self) -> Option<TerminationMessage> {
        let exit = self.last_exit.as_ref().filter(|exit| exit.code == 0 && self.terminating.is_none() && self.has_ended())?;
        exit.account(&self.session_uid).filter(|account| {
            matches!(
                (account.result, account.mode.as_str()),
                (TerminationResult::Completed, "watch")
                    | (TerminationResult::Drained, "drain")
                    | (TerminationResult::Released, "release")
            )
        })
    }

    /// The folders that it holds: those for which it was made, until its uploader has ended with success and works in none any more.
    pub fn occupant(&self) -> Option<Occupant<'_>> {
        let area = self.area.as_ref().filter(|_| !self.session_uid.is_empty() && self.success().is_none())?;
        Some(Occupant {
            session_uid: &self.session_uid,
            namespace: &self.namespace,
            session: &self.session,
            area,
            gone_by: self.terminating,
        })
    }

    /// Whether it will run nothing any more.
    pub fn has_ended(&self) -> bool {
        matches!(self.stage, Stage::Finished(..))
    }

    /// Whether its container was never made.
    pub fn is_unstarted(&self) -> bool {
        matches!(self.stage, Stage::Unscheduled(_) | Stage::Creating { .. })
    }

    /// Where its session is.
    pub fn session_place(&self) -> Place {
        Place::new(&self.namespace, &self.session)
    }

    /// Whether an uploader can be at work in it.
    pub fn runs(&self) -> bool {
        matches!(self.stage, Stage::Running { .. })
    }
}

/// The folders for which `pod` was made.
fn area_of(pod: &Pod) -> Option<Area> {
    serde_json::from_str(pod.annotations().get(names::AREA_ANNOTATION)?).ok()
}

impl Exit {
    /// The uploader's own account of its end, if it left one for the session with `uid`.
    pub fn account(&self, uid: &str) -> Option<TerminationMessage> {
        serde_json::from_str::<TerminationMessage>(&self.message).ok().filter(|message| message.session_uid == uid)
    }

    /// Whether it was killed without a word on why: by the kubelet, because it did not end when it was told to, or by somebody else.
    pub fn is_unexplained_kill(&self) -> bool {
        self.code == KILLED && self.reason != "OOMKilled"
    }

    /// Whether the uploader gave up because its configuration cannot become right.
    pub fn is_final(&self, uid: &str) -> bool {
        self.account(uid).is_some_and(|account| account.result == TerminationResult::Failed)
    }
}

fn stage(pod: &Pod, container: Option<&ContainerStatus>) -> Stage {
    if let Some(status) = &pod.status
        && let Some(phase @ ("Failed" | "Succeeded")) = status.phase.as_deref()
    {
        return Stage::Finished(status.reason.as_deref().unwrap_or(phase).to_owned(), status.message.clone().unwrap_or_default());
    }
    match container.and_then(|container| container.state.as_ref()) {
        Some(ContainerState { running: Some(running), .. }) => {
            Stage::Running { since: running.started_at.as_ref().map(|time| time.0) }
        }
        Some(ContainerState { waiting: Some(waiting), .. }) if !is_preparing(waiting.reason.as_deref()) => {
            Stage::Waiting(waiting.reason.clone().unwrap_or_default(), waiting.message.clone().unwrap_or_default())
        }
        // It is not started again.
        Some(ContainerState { terminated: Some(ended), .. }) if ended.exit_code == 0 => {
            Stage::Finished("Succeeded".into(), String::new())
        }
        Some(ContainerState { terminated: Some(_), .. }) => Stage::Waiting(reasons::RESTARTING.into(), String::new()),
        _ => unstarted(pod),
    }
}

fn is_preparing(reason: Option<&str>) -> bool {
    matches!(reason, None | Some("" | "ContainerCreating" | "PodInitializing"))
}

fn unstarted(pod: &Pod) -> Stage {
    match condition(pod, "PodScheduled") {
        Some(scheduled) if scheduled.status == "True" => {
            Stage::Creating { since: scheduled.last_transition_time.as_ref().map(|time| time.0) }
        }
        Some(scheduled) => Stage::Unscheduled(scheduled.message.clone()),
        None => Stage::Unscheduled(None),
    }
}

fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == type_)
}

fn disruption(pod: &Pod) -> Option<Disruption> {
    let target = condition(pod, "DisruptionTarget").filter(|condition| condition.status == "True")?;
    match target.reason.as_deref() {
        Some("EvictionByEvictionAPI") => Some(Disruption::Evicted),
        Some("PreemptionByScheduler") => Some(Disruption::Preempted),
        _ => None,
    }
}

fn last_exit(container: Option<&ContainerStatus>) -> Option<Exit> {
    let container = container?;
    let ended = |state: &Option<ContainerState>| state.as_ref().and_then(|state| state.terminated.clone());
    let ContainerStateTerminated { exit_code, reason, message, finished_at, .. } =
        ended(&container.state).or_else(|| ended(&container.last_state))?;
    Some(Exit {
        code: exit_code,
        reason: reason.unwrap_or_default(),
        message: message.unwrap_or_default(),
        finished: finished_at.map(|time| time.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    const SINCE: &str = "2026-11-21T08:10:00Z";

    #[test]
    fn pod_on_trial_says_so() {
        let mut pod = fixtures::pod(&fixtures::session(""), &fixtures::running(SINCE));
        assert_eq!(UploaderPod::read(&pod).trial, None);
        pod.metadata.annotations.as_mut().unwrap().insert(names::TRIAL_ANNOTATION.into(), "7".into());
        assert_eq!(UploaderPod::read(&pod).trial, Some(7));
    }
}
