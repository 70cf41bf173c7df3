//! What is known of the account and the binding that the uploaders of each namespace share.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::{Instant, timeout_at};

/// The rights of each namespace that has sessions.
#[derive(Debug, Default)]
pub struct Rights(Mutex<HashMap<String, Arc<OfNamespace>>>);

/// The rights of a namespace.
#[derive(Debug, Default)]
pub struct OfNamespace {
    /// What was found in order. Held by whoever makes or removes the account and the binding, so that the sweep never removes what a
    /// pass has just found.
    found: tokio::sync::Mutex<Option<Found>>,
    /// When that was taken last.
    taken: Mutex<Option<Instant>>,
    /// Whether it may have changed since somebody looked.
    is_doubted: AtomicBool,
}

/// What was found in order.
#[derive(Debug)]
pub struct Found {
    /// The accounts that the binding named.
    pub accounts: BTreeSet<String>,
    /// When all is looked at again.
    pub doubted: Timestamp,
}

/// How long a pass may be at the rights of a namespace before others wait for it no more: neither the sweep, which sees to all namespaces,
/// nor the other sessions of this one, which may need no rights.
const PATIENCE: Duration = Duration::from_secs(2);

impl Rights {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Arc<OfNamespace>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rights of `namespace`.
    pub fn of(&self, namespace: &str) -> Arc<OfNamespace> {
        Arc::clone(self.all().entry(namespace.to_owned()).or_default())
    }

    /// Nothing of `namespace` has to be remembered, unless somebody is at its rights.
    pub fn forget(&self, namespace: &str) {
        let mut all = self.all();
        if all.get(namespace).is_some_and(|rights| Arc::strong_count(rights) == 1) {
            all.remove(namespace);
        }
    }
}

impl OfNamespace {
    fn taken(&self) -> MutexGuard<'_, Option<Instant>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was found may have changed.
    pub fn doubt(&self) {
        self.is_doubted.store(true, Ordering::SeqCst);
    }

    /// Whether what was found may have changed, for whoever looks now.
    pub fn take_doubt(&self) -> bool {
        self.is_doubted.swap(false, Ordering::SeqCst)
    }

    async fn take(&self) -> tokio::sync::MutexGuard<'_, Option<Found>> {
        let found = self.found.lock().await;
        *self.taken() = Some(Instant::now());
        found
    }

    /// What was found, once nobody else is at it; none if somebody is at it for long.
    pub async fn take_soon(&self) -> Option<tokio::sync::MutexGuard<'_, Option<Found>>> {
        let taken = *self.taken();
        match taken.filter(|_| self.found.try_lock().is_err()) {
            Some(taken) => timeout_at(taken + PATIENCE, self.take()).await.ok(),
            None => Some(self.take().await),
        }
    }
}
