//! What deleted sessions may have left behind, and what else has to be swept.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use blobferry_crds::DeletionPolicy;
use tokio::{sync::Notify, time::Instant};

use super::sessions::KeptSession;

/// A call that nobody waits for any more may still be carried out within this time: the API server gives up by then.
const LATE: Duration = Duration::from_mins(1);

/// What a pass has to look at.
#[derive(Debug, Default)]
pub struct Leftovers {
    dirty: Mutex<Dirty>,
    /// What has to be looked at once more, and when.
    late: Mutex<Vec<(Instant, Dirty)>>,
    /// What failed in the last pass: it was told, and is not told again.
    failing: Mutex<BTreeSet<String>>,
    notify: Notify,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Dirty {
    /// Every namespace that has rights.
    pub(crate) all_namespaces: bool,
    /// Volumes, and pods without an owner.
    pub(crate) children: bool,
    /// Namespaces that may have lost their last session, or an account.
    pub(crate) namespaces: BTreeSet<String>,
}

impl Leftovers {
    /// Everything has to be looked at.
    pub fn mark_everything(&self) {
        self.mark(|dirty| dirty.add(Dirty { all_namespaces: true, children: true, namespaces: BTreeSet::new() }));
    }

    /// `session` was deleted.
    pub fn mark_deleted(&self, session: &KeptSession) {
        self.mark(|dirty| dirty.add(Dirty::left_by(session)));
    }

    /// `session` was deleted, and a call of its last pass may still be carried out.
    pub fn mark_deleted_late(&self, session: &KeptSession) {
        self.late.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now() + LATE, Dirty::left_by(session)));
    }

    /// A pod without an owner is there, and no session of it.
    pub fn mark_children(&self) {
        self.mark(|dirty| dirty.children = true);
    }

    fn mark(&self, change: impl FnOnce(&mut Dirty)) {
        change(&mut self.dirty.lock().unwrap_or_else(PoisonError::into_inner));
        self.notify.notify_one();
    }

    pub(crate) fn take(&self) -> Dirty {
        let mut dirty = std::mem::take(&mut *self.dirty.lock().unwrap_or_else(PoisonError::into_inner));
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, left) in late.extract_if(.., |(due, _)| *due <= Instant::now()) {
            dirty.add(left);
        }
        dirty
    }

    /// Ends when something is marked, or after `pause`.
    pub(crate) async fn marked(&self, pause: Duration) {
        let _ = tokio::time::timeout(pause, self.notify.notified()).await;
    }

    /// What fails `now`; which of that did not fail before.
    pub(crate) fn fails(&self, now: BTreeSet<String>) -> BTreeSet<String> {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let news = now.difference(&failing).cloned().collect();
        *failing = now;
        news
    }

    /// What could not be finished waits until the next pass.
    pub(crate) fn give_back(&self, dirty: Dirty) {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner).add(dirty);
    }
}

impl Dirty {
    /// What `session` leaves behind.
    fn left_by(session: &KeptSession) -> Self {
        let spec = session.unpack().ok().map(|session| session.spec);
        Self {
            all_namespaces: false,
            children: spec.is_none_or(|spec| spec.source.nfs.is_some() || spec.deletion_policy != DeletionPolicy::Stop),
            namespaces: [session.place().namespace().to_owned()].into(),
        }
    }

    fn add(&mut self, other: Self) {
        self.all_namespaces |= other.all_namespaces;
        self.children |= other.children;
        self.namespaces.extend(other.namespaces);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[tokio::test(start_paused = true)]
    async fn what_may_still_arrive_is_looked_for_once_more_after_a_while() {
        let leftovers = Leftovers::default();
        leftovers.mark_deleted_late(&fixtures::kept(&fixtures::nfs_session()));
        assert_eq!(leftovers.take(), Dirty::default());
        tokio::time::advance(LATE).await;
        let left = Dirty { all_namespaces: false, children: true, namespaces: BTreeSet::from(["cameras".to_owned()]) };
        assert_eq!((leftovers.take(), leftovers.take()), (left, Dirty::default()));
    }
}
