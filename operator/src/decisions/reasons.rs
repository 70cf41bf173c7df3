//! (pure) Reasons of the condition `Ready`, but for those in the words of the uploader, the kubelet or a controller, which are passed on.

/// Constants, and the list of them all.
macro_rules! reasons {
    ($(#[$about:meta])* $all:ident: $($(#[$meaning:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$meaning])* pub const $name: &str = $text;)*
        $(#[$about])*
        pub const $all: &[&str] = &[$($name),*];
    };
}

reasons! {
    /// Those for which somebody has to do something, or may want to know what; `docs/troubleshooting.md` says what.
    TROUBLES:
    /// A field has a value that it cannot have.
    INVALID_SPEC = "InvalidSpec";
    /// An annotation of ours has a value that it cannot have.
    BAD_ANNOTATION = "BadAnnotation";
    /// The installation does not allow the export.
    NFS_NOT_ALLOWED = "NfsNotAllowed";
    /// The installation does not allow the host of the account.
    ACCOUNT_HOST_NOT_ALLOWED = "AccountHostNotAllowed";
    /// The installation does not allow the host that gives tokens.
    AUTHORITY_HOST_NOT_ALLOWED = "AuthorityHostNotAllowed";
    /// The installation does not allow images of a session's own.
    IMAGE_NOT_ALLOWED = "ImageNotAllowed";
    /// The session was written for another version of the resource.
    UNREADABLE = "Unreadable";
    /// The session is deleted, and somebody else's finalizer keeps its object.
    DELETED = "Deleted";
    /// Another session works in the folders.
    SESSION_NAME_IN_USE = "SessionNameInUse";
    /// Something was found under one of our names and is not ours.
    NAME_TAKEN = "NameTaken";
    /// The API server answers a call with an error which is no refusal, or not at all, again and again.
    CALL_FAILED = "CallFailed";
    /// Nothing can be made because the namespace is being deleted.
    NAMESPACE_ENDING = "NamespaceEnding";
    /// The API server refuses the pod.
    POD_REFUSED = "PodRefused";
    /// The API server refuses the uploaders' account.
    ACCOUNT_REFUSED = "AccountRefused";
    /// The API server refuses the uploaders' rights.
    BINDING_REFUSED = "BindingRefused";
    /// The API server refuses the volume, or its claim.
    VOLUME_REFUSED = "VolumeRefused";
    /// There is no such claim.
    CLAIM_NOT_FOUND = "PersistentVolumeClaimNotFound";
    /// The claim has no volume yet.
    CLAIM_PENDING = "PersistentVolumeClaimPending";
    /// The claim is being deleted.
    CLAIM_TERMINATING = "PersistentVolumeClaimTerminating";
    /// The volume is being deleted.
    VOLUME_TERMINATING = "PersistentVolumeTerminating";
    /// No node takes the pod.
    UNSCHEDULABLE = "Unschedulable";
    /// The node does not get the image.
    IMAGE_PULL_FAILED = "ImagePullFailed";
    /// The node waits with the container and does not say why.
    WAITING = "Waiting";
    /// The uploader took more memory than it may.
    OUT_OF_MEMORY = "OOMKilled";
    /// The pod had to leave its node.
    EVICTED = "Evicted";
    /// The pod had to make room for another one.
    PREEMPTED = "Preempted";
    /// The uploader ends again and again.
    UPLOADER_EXITED = "UploaderExited";
    /// The kubelet kills the uploader because it does not answer.
    UPLOADER_UNHEALTHY = "UploaderUnhealthy";
    /// The uploader does not report.
    UPLOADER_SILENT = "UploaderSilent";
    /// The node of the pod does not answer.
    NODE_NOT_READY = "NodeNotReady";
    /// The pod is removed from a node that does not answer.
    NODE_LOST = "NodeLost";
    /// The pod does not end.
    POD_STUCK = "PodStuck";
}

reasons! {
    /// Those that pass, or stay while all is well.
    STEPS:
    /// An uploader is on its way.
    STARTING = "Starting";
    /// Its pod has no node yet.
    SCHEDULING = "Scheduling";
    /// Its node makes the container.
    CONTAINER_CREATING = "ContainerCreating";
    /// It runs and is not ready yet.
    UPLOADER_NOT_READY = "UploaderNotReady";
    /// It ferries files.
    RUNNING = "Running";
    /// The same, with an earlier image.
    UPGRADE_PENDING = "UpgradePending";
    /// None is wanted.
    SUSPENDED = "Suspended";
    /// It is being stopped because the session is suspended.
    SUSPENDING = "Suspending";
    /// Its pod is replaced because the session was changed.
    REPLACING = "Replacing";
    /// Its pod is replaced because the installation was upgraded.
    UPGRADING = "Upgrading";
    /// Its pod is being removed.
    STOPPING = "Stopping";
    /// The session is to run again.
    RESTARTING = "Restarting";
    /// The pod of an earlier session of the name is being removed.
    PREVIOUS_POD_ENDING = "PreviousPodEnding";
    /// Claimed files of a deleted session are uploaded.
    DRAINING = "Draining";
    /// They are given back.
    RELEASING = "Releasing";
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_trouble_is_in_the_document_with_what_to_do_and_no_step_is() {
        let document = include_str!("../../../docs/troubleshooting.md");
        let is_told = |reason: &&str| document.lines().any(|line| line.starts_with('|') && line.contains(&format!("`{reason}`")));
        assert_eq!(TROUBLES.iter().filter(|reason| !is_told(reason)).collect::<Vec<_>>(), [&""; 0]);
        assert_eq!(STEPS.iter().filter(|reason| is_told(reason)).collect::<Vec<_>>(), [&""; 0]);
    }
}
