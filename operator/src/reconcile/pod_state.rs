//! (pure) What a pod's object says of the uploader in it.

use blobferry_crds::names::{self, TerminationMessage, TerminationResult};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodCondition},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::ResourceExt;

use super::{area::Area, build::is_managed, ending::Mode};

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
    /// Judges `pod` for the session with `uid` and `name`. Ours is what our session controls, and what nobody controls and has our label
    /// with its UID.
    pub fn of(pod: &Pod, name: &str, uid: &str) -> Self {
        match made_for(pod) {
            Some((_, of)) if of == uid => Self::Ours(Box::new(UploaderPod::read(pod, uid))),
            Some((of, earlier)) if of == name => Self::Previous(Box::new(UploaderPod::read(pod, earlier))),
            _ => Self::Foreign,
        }
    }
}

/// Name and UID of the session for which the operator made `pod`, if it did.
pub fn made_for(pod: &Pod) -> Option<(&str, &str)> {
    match controller(pod) {
        Some(owner) if owner.kind == "UploadSession" => Some((&owner.name, &owner.uid)),
        None if is_managed(&pod.metadata) => {
            let label = |name: &str| pod.labels().get(name).map(String::as_str);
            Some((label(names::SESSION_LABEL)?, label(names::SESSION_UID_LABEL)?))
        }
        _ => None,
    }
}

/// Whoever controls `pod`, if anybody does.
pub fn controller(pod: &Pod) -> Option<&OwnerReference> {
    pod.owner_references().iter().find(|owner| owner.controller == Some(true))
}

/// A pod, as far as it matters.
#[derive(Clone, Debug, PartialEq)]
pub struct UploaderPod {
    /// UID of the session for which it was made.
    pub session_uid: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// UID of the pod.
    pub uid: String,
    /// Node that it runs on, once scheduled.
    pub node: Option<String>,
    /// Whether the garbage collector removes it with the session.
    pub owned: bool,
    /// What its uploader is to do.
    pub mode: Mode,
    /// Hash of what was meant when it was built.
    pub spec_hash: Option<String>,
    /// The folders for which it was made.
    pub area: Option<Area>,
    /// The installation's image when it was built; none if the session names one.
    pub image: Option<String>,
    /// When it was made, by the API server's clock.
    pub created: Option<Timestamp>,
    /// When it should be gone: the time of its deletion and its grace period.
    pub terminating: Option<Timestamp>,
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

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code.
    pub code: i32,
    /// The kubelet's reason, like `OOMKilled` or `Error`.
    pub reason: String,
    /// The termination message, or the end of the log.
    pub message: String,
}

impl UploaderPod {
    /// What `pod`, made for the session with `session_uid`, says.
    pub fn read(pod: &Pod, session_uid: &str) -> Self {
        let status = pod.status.as_ref();
        let container = status
            .and_then(|status| status.container_statuses.as_ref())
            .and_then(|all| all.iter().find(|container| container.name == names::UPLOADER_CONTAINER));
        Self {
            session_uid: session_uid.to_owned(),
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            owned: controller(pod).is_some(),
            mode: Mode::parse(pod.annotations().get(names::MODE_ANNOTATION).map(String::as_str)),
            spec_hash: pod.annotations().get(names::SPEC_HASH_ANNOTATION).cloned(),
            area: area_of(pod),
            image: pod.annotations().get(names::IMAGE_ANNOTATION).cloned(),
            created: pod.creation_timestamp().map(|time| time.0),
            terminating: pod.metadata.deletion_timestamp.as_ref().map(|time| time.0),
            restarts: container.map_or(0, |container| container.restart_count),
            stage: stage(pod, container),
            ready: condition(pod, "Ready").is_some_and(|condition| condition.status == "True"),
            forsaken: container.is_some_and(|container| container.ready)
                && condition(pod, "Ready").is_some_and(|condition| condition.status == "False"),
            last_exit: last_exit(container),
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

    /// Whether it will run nothing any more.
    pub fn has_ended(&self) -> bool {
        matches!(self.stage, Stage::Finished(..))
    }

    /// Whether its container was never made.
    pub fn is_unstarted(&self) -> bool {
        matches!(self.stage, Stage::Unscheduled(_) | Stage::Creating { .. })
    }

    /// Whether an uploader can be at work in it.
    pub fn runs(&self) -> bool {
        matches!(self.stage, Stage::Running { .. })
    }
}

/// Whether the uploader in `pod`, which was made for the session with `uid`, has ended with success and works in no folder any more.
pub fn has_succeeded(pod: &Pod, uid: &str) -> bool {
    UploaderPod::read(pod, uid).success().is_some()
}

/// The folders for which `pod` was made.
pub fn area_of(pod: &Pod) -> Option<Area> {
    serde_json::from_str(pod.annotations().get(names::AREA_ANNOTATION)?).ok()
}

impl Exit {
    /// The uploader's own account of its end, if it left one for the session with `uid`.
    pub fn account(&self, uid: &str) -> Option<TerminationMessage> {
        serde_json::from_str::<TerminationMessage>(&self.message).ok().filter(|message| message.session_uid == uid)
    }

    /// Whether the uploader gave up because its configuration cannot become right.
    pub fn is_final(&self, uid: &str) -> bool {
        self.account(uid).is_some_and(|account| account.result == TerminationResult::Failed)
    }
}

fn stage(pod: &Pod, container: Option<&ContainerStatus>) -> Stage {
    let status = pod.status.clone().unwrap_or_default();
    if matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")) {
        let reason = status.reason.or(status.phase).unwrap_or_default();
        return Stage::Finished(reason, status.message.unwrap_or_default());
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
        Some(ContainerState { terminated: Some(_), .. }) => Stage::Waiting("Restarting".into(), String::new()),
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

fn last_exit(container: Option<&ContainerStatus>) -> Option<Exit> {
    let container = container?;
    let ended = |state: &Option<ContainerState>| state.as_ref().and_then(|state| state.terminated.clone());
    let ContainerStateTerminated { exit_code, reason, message, .. } =
        ended(&container.state).or_else(|| ended(&container.last_state))?;
    Some(Exit { code: exit_code, reason: reason.unwrap_or_default(), message: message.unwrap_or_default() })
}
