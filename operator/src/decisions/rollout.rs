//! (pure) Who gets a new image, and how far each session is with it.

pub mod choice;
pub mod progress;

use blobferry_crds::{UploadSession, names};
use kube::ResourceExt;

/// What a session's pod has to do with a new image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Upgrade {
    /// Nothing: it has the image that is wanted.
    #[default]
    None,
    /// It runs another image until its turn comes.
    Pending {
        /// The session of the same namespace that holds up the rollout, if one does.
        behind: Option<String>,
    },
    /// It is replaced now.
    Turn,
}

/// The annotation of `session` that puts its next pod on trial with `image`: it holds for this UID and generation, and for the pod after
/// the one that is `replaced`.
pub fn mark(uid: &str, replaced: &str, generation: i64, image: &str) -> String {
    format!("{uid} {replaced} {generation} {image}")
}

/// Whether `session` says that its next pod is on trial with `image`, and has had no other pod than the one that it says is replaced. What
/// was copied from another session, or stayed from a trial that is over, says nothing.
pub fn is_on_trial(session: &UploadSession, image: &str) -> bool {
    let (Some(told), Some(uid)) = (session.annotations().get(names::TRIAL_ANNOTATION), session.metadata.uid.as_deref()) else {
        return false;
    };
    let last = session.status.as_ref().and_then(|status| status.pod_uid.as_deref());
    let replaced = last.or_else(|| told.split(' ').nth(1)).unwrap_or_default();
    *told == mark(uid, replaced, session.metadata.generation.unwrap_or_default(), image)
}

#[cfg(test)]
mod tests {
    use blobferry_crds::UploadSessionStatus;

    use super::*;
    use crate::fixtures;

    #[test]
    fn mark_is_of_one_session_one_generation_one_image_and_the_pod_after_one() {
        let session = fixtures::session("");
        let uid = session.uid().unwrap();
        let says = |mark: &str, pod: Option<&str>| {
            let mut session = session.clone();
            session.annotations_mut().insert(names::TRIAL_ANNOTATION.into(), mark.into());
            session.status = Some(UploadSessionStatus { pod_uid: pod.map(Into::into), ..Default::default() });
            is_on_trial(&session, "new")
        };
        let marked = mark(&uid, "pod-1", 1, "new");
        assert_eq!([None, Some("pod-1"), Some("pod-2")].map(|pod| says(&marked, pod)), [true, true, false]);
        let others =
            [mark("other", "pod-1", 1, "new"), mark(&uid, "pod-1", 2, "new"), mark(&uid, "pod-1", 1, "old"), String::new()];
        for other in others {
            assert!(!says(&other, None) && !says(&other, Some("pod-1")), "{other}");
        }
        assert!(!is_on_trial(&session, "new"));
    }
}
