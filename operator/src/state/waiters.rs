//! Sessions that wait for folders, woken when a pod or a session leaves them.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    decisions::area::{Area, Claimant, map::AreaMap},
    place::Place,
};

/// Waiting sessions, by the UID of the session's object.
#[derive(Debug, Default)]
pub struct Waiters(Mutex<AreaMap<String, Claimant>>);

impl Waiters {
    fn lock(&self) -> MutexGuard<'_, AreaMap<String, Claimant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session waits.
    pub fn wait(&self, session: Claimant) {
        self.lock().insert(session.uid.clone(), &Arc::new(session));
    }

    /// The session `uid` does not wait any more.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// Only sessions with `uids` may still wait.
    pub fn retain(&self, uids: &HashSet<String>) {
        self.lock().retain(|uid| uids.contains(uid));
    }

    /// Those that wait for folders in `area`.
    pub fn of(&self, area: &Area) -> Vec<Place> {
        let waiting = self.lock();
        let concerned = waiting.overlapping(area).into_iter();
        concerned.map(|session| Place::new(&session.namespace, &session.name)).collect()
    }
}
