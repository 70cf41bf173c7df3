//! (pure) Reasons of the condition `Ready` by which something is decided. Those that only people read are written where they are said.

/// The session is deleted, and somebody else's finalizer keeps its object.
pub const DELETED: &str = "Deleted";
/// The session was written for another version of the resource.
pub const UNREADABLE: &str = "Unreadable";
/// Something was found under one of our names and is not ours.
pub const NAME_TAKEN: &str = "NameTaken";
/// The API server answers a call with an error which is no refusal, or not at all, again and again.
pub const CALL_FAILED: &str = "CallFailed";
/// Nothing can be made because the namespace is being deleted.
pub const NAMESPACE_ENDING: &str = "NamespaceEnding";

/// An uploader is on its way.
pub const STARTING: &str = "Starting";
/// Its pod has no node yet.
pub const SCHEDULING: &str = "Scheduling";
/// Its claim has no volume yet.
pub const CLAIM_PENDING: &str = "PersistentVolumeClaimPending";
/// Its node makes the container.
pub const CONTAINER_CREATING: &str = "ContainerCreating";
/// It runs and is not ready yet.
pub const UPLOADER_NOT_READY: &str = "UploaderNotReady";

/// It ferries files.
pub const RUNNING: &str = "Running";
/// The same, with an earlier image.
pub const UPGRADE_PENDING: &str = "UpgradePending";
/// None is wanted.
pub const SUSPENDED: &str = "Suspended";

/// It is being stopped because the session is suspended.
pub const SUSPENDING: &str = "Suspending";
/// Its pod is replaced because the session was changed.
pub const REPLACING: &str = "Replacing";
/// Its pod is replaced because the installation was upgraded.
pub const UPGRADING: &str = "Upgrading";
/// Its pod is being removed.
pub const STOPPING: &str = "Stopping";
/// The session is to run again.
pub const RESTARTING: &str = "Restarting";
/// The pod of an earlier session of the name is being removed.
pub const PREVIOUS_POD_ENDING: &str = "PreviousPodEnding";
/// The pod is removed from a node that does not answer.
pub const NODE_LOST: &str = "NodeLost";
/// The node waits with the container and does not say why.
pub const WAITING: &str = "Waiting";
/// Claimed files of a deleted session are uploaded.
pub const DRAINING: &str = "Draining";
/// They are given back.
pub const RELEASING: &str = "Releasing";

/// Whether it is a step of a start that goes well so far. A claim that was made together with its session is bound within seconds.
pub fn is_step(reason: &str) -> bool {
    matches!(reason, STARTING | SCHEDULING | CLAIM_PENDING | CONTAINER_CREATING | UPLOADER_NOT_READY)
}

/// Whether it is that of a session that ferries files. An upgrade that waits is one of them: every session says so at once, and its turn is
/// told.
pub fn is_usual(reason: &str) -> bool {
    matches!(reason, RUNNING | UPGRADE_PENDING)
}

/// Whether every healthy session passes through it, or an action has already told it.
pub fn is_passage(reason: &str) -> bool {
    let passes = matches!(
        reason,
        SUSPENDING
            | REPLACING
            | UPGRADING
            | STOPPING
            | RESTARTING
            | PREVIOUS_POD_ENDING
            | NODE_LOST
            | WAITING
            | DRAINING
            | RELEASING
            | DELETED
    );
    passes || (is_step(reason) && reason != CLAIM_PENDING)
}
