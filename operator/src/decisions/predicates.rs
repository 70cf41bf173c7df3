//! (pure) Which changes of a session wake the reconciler: its meaning, its annotations, what the uploader found and whether it has
//! caught up. Counters and the operator's own writes do not.

use std::hash::{DefaultHasher, Hash, Hasher};

use blobferry_crds::{UploadSession, names};
use kube::{ResourceExt, core::DeserializeGuard};

use super::finalizer::is_held;

/// A session, or the reason why it could not be read.
pub type Guarded = DeserializeGuard<UploadSession>;

/// The hash of what wakes the reconciler; equal hashes mean that nothing happened that it must look at.
pub fn waking(session: &Guarded) -> u64 {
    let mut hasher = DefaultHasher::new();
    match &session.0 {
        Ok(session) => hash_session(session, &mut hasher),
        Err(unreadable) => (unreadable.error.as_str(), unreadable.metadata.generation).hash(&mut hasher),
    }
    hasher.finish()
}

fn hash_session(session: &UploadSession, hasher: &mut DefaultHasher) {
    session.metadata.generation.hash(hasher);
    session.metadata.deletion_timestamp.is_some().hash(hasher);
    is_held(&session.metadata).hash(hasher);
    for annotation in [names::SESSION_NAME_ANNOTATION, names::DATE_PREFIX_ANNOTATION] {
        session.annotations().get(annotation).hash(hasher);
    }
    let status = session.status.as_ref();
    let progress = status.and_then(|status| status.progress.as_ref());
    if let Some(progress) = progress {
        progress.caught_up.hash(hasher);
        for check in &progress.checks {
            (&check.type_, check.ok, &check.reason, &check.message).hash(hasher);
        }
    }
    // Activity that appears tells of an uploader's first report; one that appears when none runs has to be removed.
    status.is_some_and(|status| status.activity.is_some()).hash(hasher);
}

#[cfg(test)]
mod tests {
    use blobferry_crds::{Activity, Check, Phase, Progress, UploadSessionStatus};
    use kube::core::DeserializeGuard;

    use super::*;
    use crate::fixtures;

    fn wakes(change: impl FnOnce(&mut UploadSession)) -> bool {
        let mut session = fixtures::session("");
        session.status = Some(UploadSessionStatus { progress: Some(Progress::default()), ..Default::default() });
        let before = waking(&DeserializeGuard(Ok(session.clone())));
        change(&mut session);
        waking(&DeserializeGuard(Ok(session))) != before
    }

    fn progress(session: &mut UploadSession) -> &mut Progress {
        session.status.as_mut().unwrap().progress.as_mut().unwrap()
    }

    #[test]
    fn counters_alone_do_not_wake() {
        assert!(!wakes(|session| {
            *progress(session) =
                Progress { files_seen: 9, files_uploaded: 8, bytes_total: 7, percent: "88%".into(), ..Progress::default() };
            session.metadata.resource_version = Some("8".into());
            session.metadata.managed_fields = Some(vec![]);
        }));
    }

    #[test]
    fn the_operators_own_status_does_not_wake() {
        assert!(!wakes(|session| session.status.as_mut().unwrap().phase = Some(Phase::Running)));
    }

    #[test]
    fn a_change_of_meaning_wakes() {
        assert!(wakes(|session| session.metadata.generation = Some(2)));
    }

    #[test]
    fn deletion_and_our_finalizer_wake() {
        assert!(wakes(|session| session.metadata.deletion_timestamp = session.metadata.creation_timestamp.clone()));
        assert!(wakes(|session| session.metadata.finalizers = Some(vec![names::FINALIZER.into()])));
        assert!(!wakes(|session| session.metadata.finalizers = Some(vec!["example.com/other".into()])));
    }

    #[test]
    fn checks_wake() {
        let check = |ok| Check { type_: "source".into(), ok, reason: "Mounted".into(), message: String::new() };
        assert!(wakes(|session| progress(session).checks = vec![check(true)]));
        assert!(wakes(|session| progress(session).checks = vec![check(false)]));
    }

    #[test]
    fn catching_up_wakes() {
        assert!(wakes(|session| progress(session).caught_up = true));
    }

    #[test]
    fn activity_wakes_when_it_appears_only() {
        let report = |session: &mut UploadSession, rate: &str| {
            session.status.as_mut().unwrap().activity = Some(Activity { rate: rate.into(), ..Activity::default() });
        };
        assert!(wakes(|session| report(session, "1 MB/s")));
        let mut session = fixtures::session("");
        session.status = Some(UploadSessionStatus::default());
        report(&mut session, "1 MB/s");
        let before = waking(&DeserializeGuard(Ok(session.clone())));
        report(&mut session, "2 MB/s");
        assert_eq!(waking(&DeserializeGuard(Ok(session))), before);
    }

    #[test]
    fn an_annotation_that_somebody_changes_wakes() {
        assert!(wakes(|session| drop(session.annotations_mut().insert(names::SESSION_NAME_ANNOTATION.into(), "x".into()))));
    }

    #[test]
    fn an_unreadable_session_wakes_once_per_error() {
        let unreadable = |error: &str| {
            let metadata = fixtures::session("").metadata;
            waking(&DeserializeGuard(Err(kube::core::error_boundary::InvalidObject { error: error.into(), metadata })))
        };
        assert_eq!(unreadable("a"), unreadable("a"));
        assert_ne!(unreadable("a"), unreadable("b"));
    }
}
