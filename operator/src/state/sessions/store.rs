//! All sessions, so kept that those with something in common are found without a look at each.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{entry::Entry, kept::KeptSession, namespaces::Namespaces};
use crate::{decisions::area::index::Index, place::Place};

/// All sessions.
#[derive(Default)]
pub(super) struct Store {
    entries: HashMap<Place, Entry>,
    by_area: Index<KeptSession>,
    namespaces: Namespaces,
}

impl Store {
    /// The session at `place`.
    pub(super) fn get(&self, place: &Place) -> Option<&Entry> {
        self.entries.get(place)
    }

    /// All of them.
    pub(super) fn all(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.entries.values()
    }

    /// What wants folders, in the order of those.
    pub(super) fn by_area(&self) -> &Index<KeptSession> {
        &self.by_area
    }

    /// The namespaces that have sessions.
    pub(super) fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    /// Changes what was written of the session at `place`.
    pub(super) fn update(&mut self, place: &Place, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.entries.get_mut(place) {
            change(entry);
        }
    }

    /// Changes what was written of each session.
    pub(super) fn update_all(&mut self, change: impl FnMut(&mut Entry)) {
        self.entries.values_mut().for_each(change);
    }

    /// The watch shows `session`; what it has shown of it before.
    pub(super) fn show(&mut self, session: KeptSession) -> Option<Arc<KeptSession>> {
        let Some(entry) = self.entries.get_mut(session.place()) else {
            let entry = Entry::new(session);
            self.by_area.add(entry.shown());
            self.namespaces.add(entry.shown());
            self.entries.insert(entry.shown().place().clone(), entry);
            return None;
        };
        let before = Arc::clone(entry.shown());
        entry.show(session);
        self.by_area.replace(&before, entry.shown());
        if (entry.shown().account(), entry.shown().is_unreadable()) != (before.account(), before.is_unreadable()) {
            self.namespaces.add(entry.shown());
            self.namespaces.remove(&before);
        }
        Some(before)
    }

    /// The session at `place` is gone.
    pub(super) fn remove(&mut self, place: &Place) {
        if let Some(entry) = self.entries.remove(place) {
            self.by_area.remove(entry.shown());
            self.namespaces.remove(entry.shown());
        }
    }

    /// All sessions that are not among `listed` are gone.
    pub(super) fn retain(&mut self, listed: &HashSet<Place>) {
        for place in self.entries.keys().filter(|place| !listed.contains(place)).cloned().collect::<Vec<_>>() {
            self.remove(&place);
        }
    }
}
