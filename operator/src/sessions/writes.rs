//! Our own writes that the watch has not shown yet.
//!
//! Under load the API server shows a write seconds after it has answered it. Whoever takes what the watch shows for the newest state
//! meets conflicts until then, each a call for nothing.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use blobferry_crds::UploadSession;
use kube::{Resource, ResourceExt, core::error_boundary::InvalidObject};

use super::kept::{KeptSession, Packed};

/// Sessions as they were answered, by their UID, as long as that is newer than what is shown.
#[derive(Debug, Default)]
pub(super) struct Writes(Mutex<HashMap<String, Written>>);

#[derive(Debug)]
struct Written {
    version: u64,
    session: Packed,
}

impl Writes {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Written>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A write was answered with `session`, while the watch shows `shown`.
    pub(super) fn note(&self, session: &UploadSession, shown: &KeptSession) {
        let (Some(uid), Some(version)) = (session.uid(), version(session)) else { return };
        if is_later(version, shown) && shown.meta().uid.as_ref() == Some(&uid) {
            self.lock().insert(uid, Written { version, session: Packed::of(session.clone()) });
        }
    }

    /// The session `shown` as it was written since.
    pub(super) fn since(&self, shown: &KeptSession) -> Option<Result<UploadSession, Box<InvalidObject>>> {
        let all = self.lock();
        let written = all.get(shown.meta().uid.as_ref()?).filter(|written| is_later(written.version, shown))?;
        Some(written.session.unpack(shown.meta()))
    }

    /// Whether the session `shown` was written since.
    pub(super) fn are_ahead_of(&self, shown: &KeptSession) -> bool {
        let written = |uid: &String| self.lock().get(uid).is_some_and(|written| is_later(written.version, shown));
        shown.meta().uid.as_ref().is_some_and(written)
    }

    /// The watch has shown `session`.
    pub(super) fn saw(&self, session: &KeptSession) {
        let mut all = self.lock();
        if let Some(uid) = &session.meta().uid
            && all.get(uid).is_some_and(|written| !is_later(written.version, session))
        {
            all.remove(uid);
        }
    }

    /// The session `uid` is gone.
    pub(super) fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// Everything is shown.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    /// Everything is shown but what was written of the sessions `uids`.
    pub(super) fn retain(&self, uids: &HashSet<String>) {
        self.lock().retain(|uid, _| uids.contains(uid));
    }
}

/// Versions of one custom resource are numbers that grow, promised since Kubernetes 1.35 and so with etcd ever before:
/// <https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions>.
fn version(session: &impl Resource) -> Option<u64> {
    session.meta().resource_version.as_ref()?.parse().ok()
}

/// Whether the version `written` is later than what is shown.
fn is_later(written: u64, shown: &KeptSession) -> bool {
    version(shown).is_some_and(|shown| shown < written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    fn at(version: &str) -> UploadSession {
        let mut session = fixtures::session("");
        session.metadata.resource_version = Some(version.into());
        session
    }

    fn shown(version: &str) -> KeptSession {
        fixtures::kept(&at(version))
    }

    fn newest(writes: &Writes, shown: &KeptSession) -> Option<String> {
        writes.since(shown).and_then(|session| session.unwrap().metadata.resource_version)
    }

    #[test]
    fn a_write_counts_until_the_watch_shows_it() {
        let writes = Writes::default();
        writes.note(&at("10"), &shown("9"));
        assert_eq!(newest(&writes, &shown("9")).as_deref(), Some("10"));
        writes.saw(&shown("9"));
        assert_eq!(newest(&writes, &shown("9")).as_deref(), Some("10"), "somebody else's earlier write was shown");
        assert_eq!(newest(&writes, &shown("11")), None);
        writes.saw(&shown("10"));
        assert!(writes.lock().is_empty());
    }

    #[test]
    fn a_write_that_the_watch_has_shown_already_takes_no_room() {
        let writes = Writes::default();
        writes.note(&at("10"), &shown("10"));
        assert!(writes.lock().is_empty());
    }

    #[test]
    fn a_session_of_the_same_name_is_another_one() {
        let writes = Writes::default();
        let mut another = at("9");
        another.metadata.uid = Some("another".into());
        writes.note(&at("10"), &fixtures::kept(&another));
        assert!(writes.lock().is_empty());
        writes.note(&at("10"), &shown("9"));
        assert_eq!(newest(&writes, &fixtures::kept(&another)), None);
    }

    #[test]
    fn sessions_that_are_gone_leave_nothing_behind() {
        let writes = Writes::default();
        writes.note(&at("10"), &shown("9"));
        writes.forget(&at("9").uid().unwrap());
        assert!(writes.lock().is_empty());
        writes.note(&at("10"), &shown("9"));
        writes.retain(&HashSet::new());
        assert!(writes.lock().is_empty());
    }
}
