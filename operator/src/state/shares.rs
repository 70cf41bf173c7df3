//! Which export of which file server a claim leads to, as far as the API tells.
//!
//! Two claims, also of two namespaces, may lead to one export; sessions on both meet each other's files. What the API cannot tell (a
//! server with two names, other kinds of volumes) the uploaders find out by a marker on the share.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;

use crate::decisions::{
    area::{Area, ShareKey},
    export::Export,
};

/// A bound claim cannot be bound anew, and one that a pod uses cannot be made again. That it was although its sessions want pods is noticed
/// after this time.
const BELIEVED_FOR: Duration = Duration::from_mins(10);

/// What is known of bound claims, by namespace and name: where a claim leads for as long as a session may run on it, because nobody
/// asks again while its uploader does.
#[derive(Debug, Default)]
pub struct Shares(Mutex<HashMap<(String, String), Known>>);

#[derive(Clone, Debug)]
struct Known {
    /// None for a volume of another kind, and while it is open.
    export: Option<Export>,
    /// Whether nobody could tell yet: it was not bound when it was asked about, or no answer came.
    is_open: bool,
    /// When it is asked again before it counts for a new pod.
    doubted: Timestamp,
}

impl Shares {
    fn lock(&self) -> MutexGuard<'_, HashMap<(String, String), Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The export that a claim is known to lead to.
    pub fn export_of(&self, namespace: &str, claim: &str) -> Option<Export> {
        self.lock().get(&(namespace.to_owned(), claim.to_owned())).and_then(|known| known.export.clone())
    }

    /// Whether it is known what a claim leads to, an export or a volume of another kind.
    pub fn is_known(&self, namespace: &str, claim: &str) -> bool {
        self.lock().get(&(namespace.to_owned(), claim.to_owned())).is_some_and(|known| !known.is_open)
    }

    /// Whether a claim was asked about, and nobody could tell yet.
    pub fn is_open(&self, namespace: &str, claim: &str) -> bool {
        self.lock().get(&(namespace.to_owned(), claim.to_owned())).is_some_and(|known| known.is_open)
    }

    /// Nobody can tell yet where a claim leads. What was known before counts until then.
    pub fn leave_open(&self, namespace: &str, claim: &str) {
        let open = Known { export: None, is_open: true, doubted: Timestamp::MIN };
        self.lock().entry((namespace.to_owned(), claim.to_owned())).or_insert(open);
    }

    /// The shares on which something may meet `area`, each with the folder of the server that is its root: its own, and the claims that are
    /// known to lead there.
    pub fn near(&self, area: &Area) -> Vec<(ShareKey, String)> {
        let all = self.lock();
        let claims = all.iter().filter_map(|((namespace, claim), known)| {
            let export = known.export.as_ref()?;
            let is_there =
                matches!(&area.share, ShareKey::Server(server) if *server == export.server) && area.is_near(&export.path);
            is_there.then(|| (ShareKey::Claim(namespace.clone(), claim.clone()), export.path.clone()))
        });
        claims.chain([(area.share.clone(), String::new())]).collect()
    }

    /// A claim led to `export` when a pod was made, if nothing newer is known.
    pub fn learn(&self, namespace: &str, claim: &str, export: Export) {
        if !self.is_known(namespace, claim) {
            let known = Known { export: Some(export), is_open: false, doubted: Timestamp::MIN };
            self.lock().insert((namespace.to_owned(), claim.to_owned()), known);
        }
    }

    /// A claim may have been made again, and lead elsewhere.
    pub fn doubt(&self, namespace: &str, claim: &str) {
        if let Some(known) = self.lock().get_mut(&(namespace.to_owned(), claim.to_owned())) {
            known.doubted = Timestamp::MIN;
        }
    }

    /// A claim does not matter any more.
    pub fn forget(&self, namespace: &str, claim: &str) {
        self.lock().remove(&(namespace.to_owned(), claim.to_owned()));
    }

    /// The claims of which something is known, each with its namespace.
    pub fn volume_claims(&self) -> Vec<(String, String)> {
        self.lock().keys().cloned().collect()
    }

    /// What a claim leads to, an export or a volume of another kind, if that was found a short while ago.
    pub fn believed(&self, namespace: &str, claim: &str, now: Timestamp) -> Option<Option<Export>> {
        let all = self.lock();
        let known = all.get(&(namespace.to_owned(), claim.to_owned())).filter(|known| now < known.doubted)?;
        Some(known.export.clone())
    }

    /// A claim leads to `export`, or to a volume of another kind.
    pub fn found(&self, namespace: &str, claim: &str, export: Option<Export>, now: Timestamp) {
        self.lock().insert((namespace.to_owned(), claim.to_owned()), Known { export, is_open: false, doubted: now + BELIEVED_FOR });
    }
}
