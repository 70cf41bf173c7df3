//! (pure) Our finalizer, and those of others, on a session.

use blobferry_crds::{DeletionPolicy, UploadSession, names};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::pod_state::{Origin, Slot};

/// [Finalizers](https://kubernetes.io/docs/concepts/architecture/garbage-collection/#cascading-deletion) of a deletion in the foreground,
/// and of one that leaves the children alone.
const GARBAGE_COLLECTION: [&str; 2] = ["foregroundDeletion", "orphan"];

/// Whether our finalizer holds the object with this metadata.
pub fn is_held(meta: &ObjectMeta) -> bool {
    meta.finalizers.iter().flatten().any(|finalizer| finalizer == names::FINALIZER)
}

/// Whether nothing is left to do for `session`: it is deleted, and nobody holds it but the garbage collector, which sees to its pod.
pub fn is_let_go(session: &UploadSession) -> bool {
    is_left(session) && session.finalizers().iter().all(|finalizer| GARBAGE_COLLECTION.contains(&finalizer.as_str()))
}

/// Whether `session` is deleted and we do not hold it, or do so no more.
pub fn is_left(session: &UploadSession) -> bool {
    session.metadata.deletion_timestamp.is_some() && !is_held(&session.metadata)
}

/// The finalizers that `session` should have, if they are others than it has: ours is there before the first pod, and goes when the
/// policy does not need it any more and no pod without an owner is left.
pub fn finalizers(session: &UploadSession, slot: &Slot) -> Option<Vec<String>> {
    if session.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let needed = session.spec.deletion_policy != DeletionPolicy::Stop;
    let unowned = matches!(slot, Slot::Ours(pod) if pod.origin == Origin::Unowned);
    match (needed, is_held(&session.metadata)) {
        (true, false) => Some(session.finalizers().iter().cloned().chain([names::FINALIZER.to_owned()]).collect()),
        (false, true) if !unowned => Some(without_ours(session.finalizers())),
        _ => None,
    }
}

/// `finalizers` without ours.
pub fn without_ours(finalizers: &[String]) -> Vec<String> {
    finalizers.iter().filter(|finalizer| *finalizer != names::FINALIZER).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn finalizer_is_there_for_drain_and_release_and_goes_with_them() {
        let session = fixtures::session("deletionPolicy: Drain");
        assert_eq!(finalizers(&session, &Slot::Empty), Some(vec![names::FINALIZER.to_owned()]));
        let mut held = fixtures::session("");
        held.metadata.finalizers = Some(vec!["other/one".into(), names::FINALIZER.into()]);
        assert_eq!(finalizers(&held, &Slot::Empty), Some(vec!["other/one".to_owned()]));
        let slot = fixtures::observed(&held, Some(&fixtures::running_pod(&session))).slot;
        assert_eq!(finalizers(&held, &slot), None, "a pod without an owner is left");
        let slot = fixtures::observed(&held, Some(&fixtures::running_pod(&fixtures::session("")))).slot;
        assert!(finalizers(&held, &slot).is_some(), "a pod with an owner goes by itself");
        held.spec.deletion_policy = DeletionPolicy::Release;
        assert_eq!(finalizers(&held, &Slot::Empty), None);
        assert_eq!(finalizers(&fixtures::session(""), &Slot::Empty), None);
        assert_eq!(
            finalizers(&fixtures::deleted_after_a_run("deletionPolicy: Drain"), &Slot::Empty),
            None,
            "nothing can be added to a deleted object"
        );
    }
}
