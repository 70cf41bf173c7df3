//! The uploader pods of the cluster: what the watch has shown, and what was created since.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use blobferry_crds::names;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::{
    ResourceExt,
    runtime::{
        reflector::{ObjectRef, Store},
        watcher::Event,
    },
};

use crate::{
    first_listing::FirstListing,
    reconcile::{
        area::{Claimant, Occupant, Rival, rival},
        pod_state::{UploaderPod, area_of, has_succeeded},
    },
};

/// The watch shows a created pod within this time, or the entry is wrong.
const PATIENCE: Duration = Duration::from_secs(30);

/// The watched pods and those that the watch has not shown yet.
///
/// A session must not see its folders free in the moment between another session's creation of a pod and its appearance in the
/// watch; so a pod is reserved, under one lock with the look at all others, before it is created.
#[derive(Debug)]
pub struct Pods {
    watched: Store<Pod>,
    claims: Mutex<Claims>,
    first_listing: FirstListing,
}

#[derive(Debug, Default)]
struct Claims {
    /// Folders of watched pods, by namespace and name.
    occupied: HashMap<Key, Occupant>,
    /// Pods that a new listing has shown so far.
    listed: HashSet<Key>,
    /// By UID of the session.
    fresh: HashMap<String, Fresh>,
}

type Key = (String, String);

/// A pod that is about to be, or was just, created.
#[derive(Debug)]
struct Fresh {
    occupant: Occupant,
    pod: Option<Arc<Pod>>,
    /// UID of the pod that the watch showed before the answer to its creation came.
    shown: Option<String>,
    since: Timestamp,
    /// Whether it was created before the listing that is under way began.
    settled: bool,
}

impl Pods {
    /// The pods that `watched` shows.
    pub fn new(watched: Store<Pod>) -> Self {
        Self { watched, claims: Mutex::default(), first_listing: FirstListing::default() }
    }

    /// Waits until the watch has shown everything once.
    pub async fn wait_until_ready(&self) -> bool {
        self.first_listing.shown_by(&self.watched).await
    }

    /// All pods that the watch shows.
    pub fn watched(&self) -> Vec<Arc<Pod>> {
        self.watched.state()
    }

    fn lock(&self) -> MutexGuard<'_, Claims> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pod with `name` in `namespace` as far as is known; the newer one if the watch lags behind a creation for session `uid`.
    pub fn find(&self, namespace: &str, name: &str, uid: &str, now: Timestamp) -> Option<Arc<Pod>> {
        let created = self.lock().fresh.get(uid).filter(|fresh| fresh.counts(now)).and_then(|fresh| fresh.pod.clone());
        created.or_else(|| self.watched.get(&ObjectRef::new(name).within(namespace)))
    }

    /// All uploaders that the watch shows, each with the name of its session.
    pub fn uploaders(&self) -> Vec<(UploaderPod, String)> {
        let ours = |pod: Arc<Pod>| {
            let (uid, session) = (pod.labels().get(names::SESSION_UID_LABEL)?, pod.labels().get(names::SESSION_LABEL)?);
            Some((UploaderPod::read(&pod, uid), session.clone()))
        };
        self.watched.state().into_iter().filter_map(ours).collect()
    }

    /// Reserves the folders of `me` for a pod that is going to be created, unless somebody else holds them: another pod, or one of
    /// `others`, the sessions that want to run.
    pub fn reserve(&self, me: &Claimant, others: impl IntoIterator<Item = Claimant>, now: Timestamp) -> Result<(), Rival> {
        let Claims { occupied, fresh, .. } = &mut *self.lock();
        fresh.retain(|_, entry| entry.counts(now));
        let occupants = occupied.values().chain(fresh.values().map(|entry| &entry.occupant));
        if let Some(rival) = rival(me, occupants, others) {
            return Err(rival);
        }
        let occupant = Occupant {
            session_uid: me.uid.clone(),
            namespace: me.namespace.clone(),
            session: me.name.clone(),
            area: me.area.clone(),
            gone_by: None,
        };
        fresh.insert(me.uid.clone(), Fresh { occupant, pod: None, shown: None, since: now, settled: false });
        Ok(())
    }

    /// The reserved pod of session `uid` was created. The watch may have been faster than the answer, and knows better then.
    pub fn created(&self, uid: &str, pod: &Pod) {
        let fresh = &mut self.lock().fresh;
        let Some(entry) = fresh.get_mut(uid) else { return };
        if entry.shown.is_some() && entry.shown == pod.uid() {
            fresh.remove(uid);
        } else {
            entry.pod = Some(Arc::new(slim(pod.clone())));
        }
    }

    /// The reserved pod of session `uid` was not created.
    pub fn released(&self, uid: &str) {
        self.lock().fresh.remove(uid);
    }

    /// The watch has shown something; from then on it knows better. Returns whose pods are gone although it showed no deletion, because
    /// it was broken then.
    pub fn note(&self, event: &Event<Pod>) -> Vec<Occupant> {
        let claims = &mut *self.lock();
        match event {
            Event::Init => claims.begin_listing(),
            Event::InitApply(pod) => {
                claims.listed.insert(key(pod));
                claims.saw(pod);
            }
            Event::InitDone => return claims.end_listing(),
            Event::Apply(pod) => claims.saw(pod),
            Event::Delete(pod) => {
                claims.saw(pod);
                claims.occupied.remove(&key(pod));
            }
        }
        Vec::new()
    }
}

impl Fresh {
    fn counts(&self, now: Timestamp) -> bool {
        self.since + PATIENCE > now
    }
}

impl Claims {
    /// What was created before a listing begins is in it, or gone.
    fn begin_listing(&mut self) {
        self.listed.clear();
        for fresh in self.fresh.values_mut() {
            fresh.settled = fresh.pod.is_some();
        }
    }

    fn end_listing(&mut self) -> Vec<Occupant> {
        let listed = std::mem::take(&mut self.listed);
        let gone = self.occupied.extract_if(|key, _| !listed.contains(key)).map(|(_, occupant)| occupant);
        let never_shown = self.fresh.extract_if(|_, fresh| fresh.settled).map(|(_, fresh)| fresh.occupant);
        gone.chain(never_shown).collect()
    }

    fn saw(&mut self, pod: &Pod) {
        let Some(occupant) = occupant(pod) else { return };
        if let Some(fresh) = self.fresh.get_mut(&occupant.session_uid) {
            match &fresh.pod {
                Some(created) if created.uid() == pod.uid() => drop(self.fresh.remove(&occupant.session_uid)),
                Some(_) => {}
                None => fresh.shown = pod.uid(),
            }
        }
        if has_succeeded(pod, &occupant.session_uid) {
            self.occupied.remove(&key(pod));
        } else {
            self.occupied.insert(key(pod), occupant);
        }
    }
}

fn key(pod: &Pod) -> Key {
    (pod.namespace().unwrap_or_default(), pod.name_any())
}

/// `pod` without what nobody asks for, so that thousands of them fit into memory.
pub fn slim(mut pod: Pod) -> Pod {
    pod.metadata.managed_fields = None;
    pod.spec = pod.spec.map(|spec| PodSpec { node_name: spec.node_name, ..PodSpec::default() });
    pod
}

fn occupant(pod: &Pod) -> Option<Occupant> {
    Some(Occupant {
        session_uid: pod.labels().get(names::SESSION_UID_LABEL)?.clone(),
        namespace: pod.namespace()?,
        session: pod.labels().get(names::SESSION_LABEL)?.clone(),
        area: area_of(pod)?,
        gone_by: pod.metadata.deletion_timestamp.as_ref().map(|time| time.0),
    })
}

#[cfg(test)]
mod tests {
    use kube::runtime::reflector;
    use serde_json::json;

    use super::*;
    use crate::reconcile::area::{Area, ShareKey};

    fn pod(area: &Area) -> Pod {
        let annotations = json!({names::AREA_ANNOTATION: serde_json::to_string(area).unwrap()});
        let labels = json!({names::SESSION_UID_LABEL: "session", names::SESSION_LABEL: "truck-7"});
        let metadata =
            json!({"name": "truck-7-uploader", "namespace": "n", "uid": "pod", "labels": labels, "annotations": annotations});
        serde_json::from_value(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata})).unwrap()
    }

    fn claimant() -> Claimant {
        let share = ShareKey::Claim("n".into(), "share".into());
        let area = Area { share, incoming: vec!["incoming".into()], processing: vec![".processing".into()], session: "s".into() };
        Claimant { created: Timestamp::UNIX_EPOCH, uid: "session".into(), namespace: "n".into(), name: "truck-7".into(), area }
    }

    #[test]
    fn pod_that_the_watch_showed_before_the_answer_came_is_as_the_watch_shows_it() {
        let (me, now) = (claimant(), Timestamp::UNIX_EPOCH);
        let pod = pod(&me.area);
        for (watch_first, answer_counts) in [(true, false), (false, true)] {
            let pods = Pods::new(reflector::store().0);
            pods.reserve(&me, [], now).unwrap();
            if watch_first {
                pods.note(&Event::Apply(pod.clone()));
            }
            pods.created("session", &pod);
            assert_eq!(pods.find("n", "truck-7-uploader", "session", now).is_some(), answer_counts, "the store is empty here");
            pods.note(&Event::Apply(pod.clone()));
            assert!(pods.find("n", "truck-7-uploader", "session", now).is_none(), "the answer counts no longer");
        }
    }

    fn sessions(left: &[Occupant]) -> Vec<&str> {
        left.iter().map(|occupant| occupant.session.as_str()).collect()
    }

    #[test]
    fn pod_that_was_made_and_removed_while_the_watch_was_broken_is_gone_with_the_next_listing() {
        let (me, now) = (claimant(), Timestamp::UNIX_EPOCH);
        let pods = Pods::new(reflector::store().0);
        pods.reserve(&me, [], now).unwrap();
        pods.created("session", &pod(&me.area));
        pods.note(&Event::Init);
        let left = pods.note(&Event::InitDone);
        assert!(pods.find("n", "truck-7-uploader", "session", now).is_none());
        assert_eq!(sessions(&left), ["truck-7"]);
    }

    #[test]
    fn pod_whose_creation_is_under_way_when_a_listing_begins_may_be_missing_there() {
        let (me, now) = (claimant(), Timestamp::UNIX_EPOCH);
        let pods = Pods::new(reflector::store().0);
        pods.reserve(&me, [], now).unwrap();
        pods.note(&Event::Init);
        pods.created("session", &pod(&me.area));
        assert!(pods.note(&Event::InitDone).is_empty());
        assert!(pods.find("n", "truck-7-uploader", "session", now).is_some());
        assert!(pods.find("n", "truck-7-uploader", "session", now + PATIENCE).is_none(), "the watch must have shown it by then");
    }

    #[test]
    fn pod_that_a_listing_shows_no_more_has_left_its_folders() {
        let pods = Pods::new(reflector::store().0);
        let pod = pod(&claimant().area);
        for (shown, left) in [(true, vec![]), (false, vec!["truck-7"]), (false, vec![])] {
            pods.note(&Event::Init);
            if shown {
                pods.note(&Event::InitApply(pod.clone()));
            }
            assert_eq!(sessions(&pods.note(&Event::InitDone)), left);
        }
    }
}
