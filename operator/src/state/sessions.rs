//! The sessions of the cluster: what the watch has shown, and what we have written since.

mod entry;
mod kept;
mod namespaces;
mod store;

use std::{
    collections::{BTreeSet, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use blobferry_crds::{Phase, UploadSession};
use kube::core::error_boundary::InvalidObject;

use super::{
    first_listing::{FirstListing, Listed},
    shares::Shares,
};
use crate::{
    decisions::area::{Claimant, ShareKey, index::InArea},
    place::Place,
};
use entry::Entry;
pub use kept::KeptSession;
use store::Store;

/// The sessions of the cluster.
#[derive(Clone)]
pub struct Sessions {
    seen: Arc<Mutex<Seen>>,
    first: FirstListing,
}

#[derive(Default)]
struct Seen {
    sessions: Store,
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
        self.lock().sessions.remove(place);
    }

    /// A new listing has begun.
    pub fn listing_begins(&self) {
        let seen = &mut *self.lock();
        seen.listing.clear();
        seen.sessions.update_all(Entry::listing_begins);
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
        seen.sessions.retain(&listed);
        seen.sessions.update_all(Entry::listing_ends);
        std::mem::take(&mut seen.news).into_iter().filter(|place| listed.contains(place)).collect()
    }

    /// A write to the session at `place` met a conflict, so that what was written before is not the newest state.
    pub fn conflicted(&self, place: &Place) {
        self.lock().sessions.update(place, Entry::conflicted);
    }

    /// A write was answered with `session`.
    pub fn wrote(&self, session: &UploadSession) {
        self.lock().sessions.update(&Place::of(session), |entry| entry.wrote(session));
    }

    /// The newest state of `shown` that is known.
    pub fn newest(&self, shown: &KeptSession) -> Result<UploadSession, Box<InvalidObject>> {
        let written = self.lock().sessions.get(shown.place()).and_then(|entry| entry.since(shown));
        written.unwrap_or_else(|| shown.unpack())
    }

    /// Number of sessions.
    pub fn count(&self) -> usize {
        self.lock().sessions.all().len()
    }

    /// What `of` says of each session that it says something of.
    fn collect<T, C: FromIterator<T>>(&self, of: impl Fn(&KeptSession) -> Option<T>) -> C {
        self.lock().sessions.all().filter_map(|entry| of(entry.shown())).collect()
    }

    /// The sessions that the watch shows and that are `wanted`.
    pub fn shown(&self, wanted: impl Fn(&KeptSession) -> bool) -> Vec<Arc<KeptSession>> {
        self.lock().sessions.all().map(Entry::shown).filter(|session| wanted(session)).cloned().collect()
    }

    /// The session as it is shown.
    pub fn find(&self, place: &Place) -> Option<Arc<KeptSession>> {
        self.lock().sessions.get(place).map(|entry| Arc::clone(entry.shown()))
    }

    /// The session with `uid` at `place`, readable or not.
    pub fn of_uid(&self, place: &Place, uid: &str) -> Option<Arc<KeptSession>> {
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
        self.lock().sessions.namespaces().has(namespace)
    }

    /// Whether some sessions of `namespace` cannot be read: nobody knows which accounts they name.
    pub fn has_unreadable(&self, namespace: &str) -> bool {
        self.lock().sessions.namespaces().has_unreadable(namespace)
    }

    /// The accounts that sessions of `namespace` name.
    pub fn accounts(&self, namespace: &str) -> BTreeSet<String> {
        self.lock().sessions.namespaces().accounts(namespace)
    }

    /// Sessions that may want the folders of `me`: allowed, and with something to do there.
    pub fn claimants(&self, me: &Claimant, shares: &Shares) -> Vec<Claimant> {
        let near = shares.near(&me.area);
        let sessions = &self.lock().sessions;
        let met = near.iter().flat_map(|(share, root)| sessions.by_area().meeting(share, root, &me.area));
        met.filter_map(|session| session.claimant_of(&me.area, shares)).collect()
    }

    /// The claims of the sessions that want a pod and whose UIDs are `wanted`, each with its namespace.
    pub fn volume_claims(&self, wanted: impl Fn(&str) -> bool) -> BTreeSet<(String, String)> {
        self.collect(|session| match &session.area()?.share {
            ShareKey::Claim(namespace, claim) if wanted(session.uid()) => Some((namespace.clone(), claim.clone())),
            _ => None,
        })
    }

    /// Whether sessions that may run are on this claim.
    pub fn are_on(&self, namespace: &str, claim: &str) -> bool {
        self.lock().sessions.by_area().has(&ShareKey::Claim(namespace.to_owned(), claim.to_owned()))
    }

    /// Sessions by phase, for metrics; `None` counts those that cannot be read or have none yet.
    pub fn phases(&self) -> Vec<Option<Phase>> {
        self.collect(|session| Some(session.phase()))
    }
}

impl Seen {
    /// Keeps `session`; whether it is news. One that is older than what was shown is, because a backup may have been restored.
    fn show(&mut self, session: KeptSession) -> bool {
        let (uid, waking, version) = (session.uid().to_owned(), session.waking(), session.version());
        let before = self.sessions.show(session);
        before.is_none_or(|before| before.uid() != uid || before.waking() != waking || version < before.version())
    }
}

#[cfg(test)]
mod tests {
    use kube::core::DeserializeGuard;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;
    use crate::{
        decisions::{area::Area, export::Export},
        fixtures,
    };

    const NAMESPACES: [&str; 2] = ["cameras", "cameras-2"];

    /// One of few, so that many meet.
    fn any<'a>(random: &mut StdRng, choices: &[&'a str]) -> &'a str {
        choices[random.random_range(0..choices.len())]
    }

    fn any_place(random: &mut StdRng) -> Place {
        Place::new(any(random, &NAMESPACES), any(random, &["a", "b", "c", "d", "e", "f"]))
    }

    /// A session that may be at `place`, as a person may have written it.
    fn any_session(random: &mut StdRng, place: &Place) -> KeptSession {
        let incoming = any(random, &["in", "in/a", "in/b", ".p/a", "."]);
        let processing = any(random, &[".p", ".p/a", "in", "in/a/b"]);
        let claim = any(random, &["share", "share-2", ""]);
        let mut session = fixtures::session(&format!(
            "{{sessionName: {}, source: {{incomingDir: {incoming}, processingDir: {processing}}}, suspend: {}}}",
            any(random, &["a", "b"]),
            random.random_bool(0.1),
        ));
        let inline = fixtures::nfs_session().spec.source;
        match &mut session.spec.source.persistent_volume_claim {
            Some(of_session) if !claim.is_empty() => of_session.claim_name = claim.into(),
            of_session => (*of_session, session.spec.source.nfs) = (None, inline.nfs),
        }
        session.spec.pod.service_account_name = Some(any(random, &["", "one", "two"]).to_owned()).filter(|name| !name.is_empty());
        session.metadata.namespace = Some(place.namespace().into());
        session.metadata.name = Some(place.name().into());
        session.metadata.uid = Some(format!("{place} {}", random.random_range(0..2)));
        if random.random_bool(0.1) {
            let unreadable = InvalidObject { error: "no spec".into(), metadata: session.metadata };
            return KeptSession::of(DeserializeGuard(Err(unreadable)), &fixtures::settings());
        }
        fixtures::kept(&session)
    }

    fn any_export(random: &mut StdRng) -> Export {
        let path = any(random, &["/srv", "/srv/drop", "/srv/drop/cameras", "/srv/drop/cameras/in", "/srv/other"]);
        Export { server: any(random, &["nas.example.com", "other.example.com"]).into(), path: path.into() }
    }

    /// Some session's wish, whose claim may be known to lead somewhere.
    fn any_wish(random: &mut StdRng) -> Claimant {
        let place = any_place(random);
        loop {
            let Some(mut area) = any_session(random, &place).area().cloned() else { continue };
            if random.random_bool(0.5) {
                area = Area::clone(&area).on(&any_export(random));
            }
            return Claimant { area, ..fixtures::claimant() };
        }
    }

    /// Something that the watch may show next.
    fn step(sessions: &Sessions, random: &mut StdRng) {
        let place = any_place(random);
        match random.random_range(0..20) {
            0 => {
                sessions.listing_begins();
                for place in (0..8).map(|_| any_place(random)).collect::<Vec<_>>() {
                    sessions.listing_shows(any_session(random, &place));
                }
                sessions.listing_ends();
            }
            1..5 => sessions.lost(&place),
            _ => drop(sessions.saw(any_session(random, &place))),
        }
    }

    fn sorted(mut claimants: Vec<Claimant>) -> Vec<Claimant> {
        claimants.sort_by(|one, two| one.uid.cmp(&two.uid));
        claimants
    }

    #[test]
    fn what_is_found_without_a_look_at_each_session_is_what_a_look_at_each_finds() {
        for seed in 0..20 {
            let random = &mut StdRng::seed_from_u64(seed);
            let ((sessions, _listed), shares) = (Sessions::new(), Shares::default());
            for number in 0..200 {
                step(&sessions, random);
                if random.random_bool(0.1) {
                    shares.learn(any(random, &NAMESPACES), any(random, &["share", "share-2"]), any_export(random));
                }
                let me = any_wish(random);
                let met = sessions.collect(|session| session.claimant_of(&me.area, &shares));
                assert_eq!(sorted(sessions.claimants(&me, &shares)), sorted(met), "seed {seed}, step {number}: {me:?}");
                for namespace in NAMESPACES {
                    let there: Vec<_> = sessions.collect(|session| {
                        (session.place().namespace() == namespace).then(|| session.account().map(str::to_owned))
                    });
                    assert_eq!(sessions.exist_in(namespace), !there.is_empty(), "seed {seed}, step {number}");
                    let unreadable: Vec<()> = sessions
                        .collect(|session| (session.place().namespace() == namespace && session.is_unreadable()).then_some(()));
                    assert_eq!(sessions.has_unreadable(namespace), !unreadable.is_empty(), "seed {seed}, step {number}");
                    assert_eq!(sessions.accounts(namespace), there.into_iter().flatten().collect(), "seed {seed}, step {number}");
                }
            }
        }
    }
}
