//! The sessions of the cluster, as the watch shows them.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use blobferry_crds::UploadSession;
use kube::{
    Resource, ResourceExt,
    core::DeserializeGuard,
    runtime::reflector::{ObjectRef, Store},
};

use crate::{
    first_listing::FirstListing,
    reconcile::{
        area::{Claimant, ShareKey},
        ending::{is_let_go, may_hold_folders},
        validate::{Share, ValidSession, validate},
    },
    settings::Settings,
    shares::Shares,
};

/// A session, or the reason why it could not be read.
pub type Guarded = DeserializeGuard<UploadSession>;

/// The watched sessions.
#[derive(Clone)]
pub struct Sessions(Store<Guarded>, FirstListing);

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sessions({})", self.0.len())
    }
}

impl Sessions {
    /// The sessions that `watched` shows.
    pub fn new(watched: Store<Guarded>) -> Self {
        Self(watched, FirstListing::default())
    }

    /// Waits until the watch has shown everything once.
    pub async fn wait_until_ready(&self) -> bool {
        self.1.shown_by(&self.0).await
    }

    /// Number of sessions.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    fn all(&self) -> impl Iterator<Item = Arc<Guarded>> {
        self.0.state().into_iter()
    }

    /// UIDs of all sessions, readable or not.
    pub fn uids(&self) -> HashSet<String> {
        self.all().filter_map(|session| session.uid()).collect()
    }

    /// The newest state of a session that can be read.
    pub fn find(&self, namespace: &str, name: &str) -> Option<UploadSession> {
        self.0.get(&ObjectRef::new(name).within(namespace)).and_then(|guarded| guarded.0.clone().ok())
    }

    /// Whether there is a session with `uid`, readable or not.
    pub fn has(&self, namespace: &str, name: &str, uid: &str) -> bool {
        self.0.get(&ObjectRef::new(name).within(namespace)).is_some_and(|session| session.meta().uid.as_deref() == Some(uid))
    }

    /// Whether passes see to the pod of the session with `uid`: it is there, can be read and is not let go.
    pub fn see_to_pod(&self, namespace: &str, name: &str, uid: &str) -> bool {
        let session =
            self.0.get(&ObjectRef::new(name).within(namespace)).filter(|session| session.meta().uid.as_deref() == Some(uid));
        session.is_some_and(|session| session.0.as_ref().is_ok_and(|session| !is_let_go(session)))
    }

    /// Whether a session is known to have no file to upload.
    pub fn is_idle(&self, namespace: &str, name: &str) -> bool {
        let session = self.0.get(&ObjectRef::new(name).within(namespace));
        let status = session.as_ref().and_then(|guarded| guarded.0.as_ref().ok()?.status.as_ref());
        let progress = status.and_then(|status| status.progress.as_ref());
        progress.is_some_and(|progress| progress.files_active + progress.files_waiting + progress.files_retrying == 0)
    }

    /// Whether `namespace` has a session, readable or not.
    pub fn exist_in(&self, namespace: &str) -> bool {
        self.0.find(|session| session.meta().namespace.as_deref() == Some(namespace)).is_some()
    }

    /// The accounts that sessions of `namespace` name.
    pub fn accounts(&self, namespace: &str) -> BTreeSet<String> {
        self.all()
            .filter(|session| session.meta().namespace.as_deref() == Some(namespace))
            .filter_map(|session| session.0.as_ref().ok().and_then(|session| session.spec.pod.service_account_name.clone()))
            .collect()
    }

    /// Sessions that may want the folders of `me`: on its share, allowed and with something to do there.
    pub fn claimants(&self, me: &Claimant, settings: &Settings, shares: &Shares) -> Vec<Claimant> {
        self.all()
            .filter_map(|session| {
                let session = session.0.as_ref().ok()?;
                let wanted = may_hold_folders(session) && is_on(session, &me.area.share, shares);
                wanted.then(|| validate(session, settings).ok()).flatten()
            })
            .map(|session| located(session, shares).claimant())
            .collect()
    }

    /// Sessions by phase, for metrics; `None` counts those that cannot be read or have none yet.
    pub fn phases(&self) -> Vec<Option<blobferry_crds::Phase>> {
        self.all().map(|session| session.0.as_ref().ok().and_then(|session| session.status.as_ref()?.phase)).collect()
    }
}

/// Whether `session` names the share; cheap, because it is asked of every session of the cluster.
fn is_on(session: &UploadSession, share: &ShareKey, shares: &Shares) -> bool {
    let source = &session.spec.source;
    let namespace = session.metadata.namespace.as_deref().unwrap_or_default();
    match (share, &source.persistent_volume_claim, &source.nfs) {
        (ShareKey::Claim(within, name), Some(claim), _) => namespace == within && claim.claim_name == *name,
        (ShareKey::Server(server), Some(claim), _) => {
            shares.known(namespace, &claim.claim_name).is_some_and(|export| export.server == *server)
        }
        (ShareKey::Server(server), None, Some(nfs)) => nfs.server.eq_ignore_ascii_case(server),
        _ => false,
    }
}

/// `session` with the export of its claim, as far as it is known.
fn located(mut session: ValidSession, shares: &Shares) -> ValidSession {
    if let Share::Claim(claim) = &session.share {
        session.export = shares.known(&session.namespace, claim);
    }
    session
}
