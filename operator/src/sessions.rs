//! The sessions of the cluster: what the watch has shown, and what we have written since.

mod entry;
mod kept;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use blobferry_crds::{Phase, UploadSession};
use kube::core::error_boundary::InvalidObject;

use crate::{
    first_listing::{FirstListing, Listed},
    place::Place,
    reconcile::area::Claimant,
    shares::Shares,
};
use entry::Entry;
pub use kept::{Guarded, KeptSession};

/// The sessions of the cluster.
#[derive(Clone)]
pub struct Sessions {
    seen: Arc<Mutex<Seen>>,
    first: FirstListing,
}

#[derive(Default)]
struct Seen {
    all: HashMap<Place, Entry>,
    /// Sessions that a new listing has shown so far.
    listing: HashSet<Place>,
    /// What listings have shown newly that were not complete yet.
    news: HashSet<Place>,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sessions({})", self.count())
    }
}

impl Sessions {
    /// Without any session, until the watch that holds the other half shows some.
    pub fn new() -> (Self, Listed) {
        let (first, listed) = FirstListing::new();
        (Self { seen: Arc::default(), first }, listed)
    }

    /// Whether the watch has shown everything once.
    pub fn first_listing(&self) -> &FirstListing {
        &self.first
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The watch shows `session`; its place, if it is one that was not shown yet, or has changed in what a pass looks at.
    pub fn saw(&self, session: KeptSession) -> Option<Place> {
        let place = session.place().clone();
        self.lock().show(session).then_some(place)
    }

    /// The watch shows that the session at `place` is gone.
    pub fn lost(&self, place: &Place) {
        self.lock().all.remove(place);
    }

    /// A new listing has begun.
    pub fn listing_begins(&self) {
        let seen = &mut *self.lock();
        seen.listing.clear();
        seen.all.values_mut().for_each(Entry::listing_begins);
    }

    /// The listing that is under way shows `session`.
    pub fn listing_shows(&self, session: KeptSession) {
        let seen = &mut *self.lock();
        let place = session.place().clone();
        seen.listing.insert(place.clone());
        if seen.show(session) {
            seen.news.insert(place);
        }
    }

    /// The listing is complete: sessions that it did not show are gone. The places of those that are news: not before this is it known
    /// who else wants their folders.
    pub fn listing_ends(&self) -> Vec<Place> {
        let seen = &mut *self.lock();
        let listed = std::mem::take(&mut seen.listing);
        seen.all.retain(|place, _| listed.contains(place));
        seen.all.values_mut().for_each(Entry::listing_ends);
        std::mem::take(&mut seen.news).into_iter().filter(|place| listed.contains(place)).collect()
    }

    /// A write to the session at `place` met a conflict, so that what was written before is not the newest state.
    pub fn conflicted(&self, place: &Place) {
        if let Some(entry) = self.lock().all.get_mut(place) {
            entry.conflicted();
        }
    }

    /// A write was answered with `session`.
    pub fn wrote(&self, session: &UploadSession) {
        if let Some(entry) = self.lock().all.get_mut(&Place::of(session)) {
            entry.wrote(session);
        }
    }

    /// The newest state of `shown` that is known.
    pub fn newest(&self, shown: &KeptSession) -> Result<UploadSession, Box<InvalidObject>> {
        let written = self.lock().all.get(shown.place()).and_then(|entry| entry.since(shown));
        written.unwrap_or_else(|| shown.unpack())
    }

    /// Number of sessions.
    pub fn count(&self) -> usize {
        self.lock().all.len()
    }

    /// What `of` says of each session that it says something of.
    fn collect<T, C: FromIterator<T>>(&self, of: impl Fn(&KeptSession) -> Option<T>) -> C {
        self.lock().all.values().filter_map(|entry| of(entry.shown())).collect()
    }

    /// The session as it is shown.
    pub fn find(&self, place: &Place) -> Option<Arc<KeptSession>> {
        self.lock().all.get(place).map(|entry| Arc::clone(entry.shown()))
    }

    fn of_uid(&self, place: &Place, uid: &str) -> Option<Arc<KeptSession>> {
        self.find(place).filter(|session| session.uid() == uid)
    }

    /// UIDs of all sessions, readable or not.
    pub fn uids(&self) -> HashSet<String> {
        self.collect(|session| Some(session.uid().to_owned()))
    }

    /// Whether there is a session with `uid` at `place`, readable or not.
    pub fn has(&self, place: &Place, uid: &str) -> bool {
        self.of_uid(place, uid).is_some()
    }

    /// Whether passes see to the pod of the session with `uid` at `place`: it is there, can be read and is not let go.
    pub fn see_to_pod(&self, place: &Place, uid: &str) -> bool {
        self.of_uid(place, uid).is_some_and(|session| session.sees_to_pod())
    }

    /// Whether `namespace` has a session, readable or not.
    pub fn exist_in(&self, namespace: &str) -> bool {
        self.lock().all.keys().any(|place| place.namespace() == namespace)
    }

    /// The accounts that sessions of `namespace` name.
    pub fn accounts(&self, namespace: &str) -> BTreeSet<String> {
        self.collect(|session| session.account().filter(|_| session.place().namespace() == namespace).map(str::to_owned))
    }

    /// Sessions that may want the folders of `me`: allowed, and with something to do there.
    pub fn claimants(&self, me: &Claimant, shares: &Shares) -> Vec<Claimant> {
        self.collect(|session| session.claimant_of(&me.area, shares))
    }

    /// Sessions by phase, for metrics; `None` counts those that cannot be read or have none yet.
    pub fn phases(&self) -> Vec<Option<Phase>> {
        self.collect(|session| Some(session.phase()))
    }
}

impl Seen {
    /// Keeps `session`; whether it is news. One that is older than what was shown is, because a backup may have been restored.
    fn show(&mut self, session: KeptSession) -> bool {
        let Some(entry) = self.all.get_mut(session.place()) else {
            self.all.insert(session.place().clone(), Entry::new(session));
            return true;
        };
        let shown = entry.shown();
        let is_news = shown.uid() != session.uid() || shown.waking() != session.waking() || session.version() < shown.version();
        entry.show(session);
        is_news
    }
}
