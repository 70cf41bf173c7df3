//! The sessions of the cluster: what the watch has shown, and what we have written since.

mod kept;
mod writes;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use blobferry_crds::{Phase, UploadSession};
use kube::{
    Resource, ResourceExt,
    core::error_boundary::InvalidObject,
    runtime::reflector::{ObjectRef, Store},
};

use crate::{first_listing::FirstListing, reconcile::area::Claimant, shares::Shares};
pub use kept::{Guarded, KeptSession};
use writes::Writes;

/// The sessions of the cluster.
#[derive(Clone)]
pub struct Sessions {
    shown: Store<KeptSession>,
    first: FirstListing,
    writes: Arc<Writes>,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sessions({})", self.count())
    }
}

impl Sessions {
    /// The sessions that `watched` shows.
    pub fn new(watched: Store<KeptSession>) -> Self {
        Self { shown: watched, first: FirstListing::default(), writes: Arc::default() }
    }

    /// Waits until the watch has shown everything once.
    pub async fn wait_until_ready(&self) -> bool {
        self.first.shown_by(&self.shown).await
    }

    /// Whether `session`, which the watch brings, is one that it has not shown yet, or has changed in what a pass looks at.
    pub fn is_news(&self, session: &KeptSession) -> bool {
        let shown = self.find(&session.namespace().unwrap_or_default(), &session.name_any());
        shown.is_none_or(|shown| shown.meta().uid != session.meta().uid || shown.waking() != session.waking())
    }

    /// What wakes the reconciler, of each session that is shown, by its UID.
    pub fn waking(&self) -> HashMap<String, u64> {
        self.all().filter_map(|session| Some((session.uid()?, session.waking()))).collect()
    }

    /// The sessions that are new, or changed in what a pass looks at, since `waking` was all.
    pub fn news_since(&self, waking: &HashMap<String, u64>) -> Vec<ObjectRef<KeptSession>> {
        let is_known = |session: &KeptSession| waking.get(&session.uid().unwrap_or_default()) == Some(&session.waking());
        self.all().filter(|session| !is_known(session)).map(|session| session.place()).collect()
    }

    /// The watch has shown `session`.
    pub fn saw(&self, session: &KeptSession) {
        self.writes.saw(session);
    }

    /// A new listing has begun: it will show everything that was written before.
    pub fn listing_begins(&self) {
        self.writes.clear();
    }

    /// A new listing is complete: of what was written meanwhile it has shown some.
    pub fn listing_ends(&self) {
        let ahead = self.all().filter(|session| self.writes.are_ahead_of(session)).filter_map(|session| session.uid()).collect();
        self.writes.retain(&ahead);
    }

    /// The session `uid` is gone.
    pub fn forget(&self, uid: &str) {
        self.writes.forget(uid);
    }

    /// A write was answered with `session`.
    pub fn wrote(&self, session: &UploadSession) {
        if let Some(shown) = self.find(&session.namespace().unwrap_or_default(), &session.name_any()) {
            self.writes.note(session, &shown);
        }
    }

    /// The newest state of `shown` that is known.
    pub fn newest(&self, shown: &KeptSession) -> Result<UploadSession, Box<InvalidObject>> {
        self.writes.since(shown).unwrap_or_else(|| shown.unpack())
    }

    /// Number of sessions.
    pub fn count(&self) -> usize {
        self.shown.len()
    }

    fn all(&self) -> impl Iterator<Item = Arc<KeptSession>> {
        self.shown.state().into_iter()
    }

    /// The session as it is shown.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<KeptSession>> {
        self.shown.get(&ObjectRef::new(name).within(namespace))
    }

    /// UIDs of all sessions, readable or not.
    pub fn uids(&self) -> HashSet<String> {
        self.all().filter_map(|session| session.uid()).collect()
    }

    /// Whether there is a session with `uid`, readable or not.
    pub fn has(&self, namespace: &str, name: &str, uid: &str) -> bool {
        self.find(namespace, name).is_some_and(|session| session.meta().uid.as_deref() == Some(uid))
    }

    /// Whether passes see to the pod of the session with `uid`: it is there, can be read and is not let go.
    pub fn see_to_pod(&self, namespace: &str, name: &str, uid: &str) -> bool {
        let session = self.find(namespace, name).filter(|session| session.meta().uid.as_deref() == Some(uid));
        session.is_some_and(|session| session.sees_to_pod())
    }

    /// Whether a session is known to have no file to upload.
    pub fn is_idle(&self, namespace: &str, name: &str) -> bool {
        self.find(namespace, name).is_some_and(|session| session.is_idle())
    }

    /// Whether `namespace` has a session, readable or not.
    pub fn exist_in(&self, namespace: &str) -> bool {
        self.shown.find(|session| session.meta().namespace.as_deref() == Some(namespace)).is_some()
    }

    /// The accounts that sessions of `namespace` name.
    pub fn accounts(&self, namespace: &str) -> BTreeSet<String> {
        self.all()
            .filter(|session| session.meta().namespace.as_deref() == Some(namespace))
            .filter_map(|session| session.account().map(str::to_owned))
            .collect()
    }

    /// Sessions that may want the folders of `me`: allowed, and with something to do there.
    pub fn claimants(&self, me: &Claimant, shares: &Shares) -> Vec<Claimant> {
        self.all().filter_map(|session| session.claimant_of(&me.area, shares)).collect()
    }

    /// Sessions by phase, for metrics; `None` counts those that cannot be read or have none yet.
    pub fn phases(&self) -> Vec<Option<Phase>> {
        self.all().map(|session| session.phase()).collect()
    }
}
