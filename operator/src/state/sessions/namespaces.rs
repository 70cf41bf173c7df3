//! The namespaces that have sessions, and the accounts that those name.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::kept::KeptSession;

/// By name.
#[derive(Debug, Default)]
pub(super) struct Namespaces(HashMap<Box<str>, Namespace>);

#[derive(Debug, Default)]
struct Namespace {
    sessions: usize,
    /// How many of them cannot be read.
    unreadable: usize,
    /// How many sessions name each account.
    accounts: BTreeMap<Box<str>, usize>,
}

impl Namespaces {
    /// `session` is there.
    pub(super) fn add(&mut self, session: &KeptSession) {
        let namespace = self.0.entry(session.place().namespace().into()).or_default();
        namespace.sessions += 1;
        namespace.unreadable += usize::from(session.is_unreadable());
        if let Some(account) = session.account() {
            *namespace.accounts.entry(account.into()).or_default() += 1;
        }
    }

    /// `session`, which was there, is not any more.
    pub(super) fn remove(&mut self, session: &KeptSession) {
        let name = session.place().namespace();
        let Some(namespace) = self.0.get_mut(name) else { return };
        namespace.sessions -= 1;
        namespace.unreadable -= usize::from(session.is_unreadable());
        if let Some(account) = session.account()
            && let Some(sessions) = namespace.accounts.get_mut(account)
        {
            *sessions -= 1;
            if *sessions == 0 {
                namespace.accounts.remove(account);
            }
        }
        if namespace.sessions == 0 {
            self.0.remove(name);
        }
    }

    /// Whether the namespace `name` has a session.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Whether some sessions of the namespace `name` cannot be read: nobody knows which accounts they name.
    pub(super) fn has_unreadable(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|namespace| namespace.unreadable > 0)
    }

    /// The accounts that sessions of the namespace `name` name.
    pub(super) fn accounts(&self, name: &str) -> BTreeSet<String> {
        self.0.get(name).into_iter().flat_map(|namespace| namespace.accounts.keys()).map(ToString::to_string).collect()
    }
}
