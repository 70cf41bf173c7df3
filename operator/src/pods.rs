//! The uploader pods of the cluster: what the watch has shown, and what was created since.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use blobferry_crds::names;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodSpec, PodStatus};
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
    reservations::Reservations,
};

/// The watched pods and those that the watch has not shown yet: one is reserved, under one lock with the look at all others, before it
/// is created.
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
    reserved: Reservations,
}

type Key = (String, String);

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
        let made = self.lock().reserved.made(uid, now);
        made.or_else(|| self.watched.get(&ObjectRef::new(name).within(namespace)))
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
        let Claims { occupied, reserved, .. } = &mut *self.lock();
        if let Some(rival) = rival(me, occupied.values().chain(reserved.occupants(now)), others) {
            return Err(rival);
        }
        reserved.reserve(me);
        Ok(())
    }

    /// The reserved pod of session `uid` was created.
    pub fn created(&self, uid: &str, pod: &Pod, now: Timestamp) {
        self.lock().reserved.created(uid, slim(pod.clone()), now);
    }

    /// From now on the API server may make the reserved pod of session `uid`.
    pub fn asked(&self, uid: &str) {
        self.lock().reserved.asked(uid);
    }

    /// A pass that was to create the reserved pod of session `uid` has failed, because the API server has `refused` it or for another reason.
    pub fn not_created(&self, uid: &str, refused: bool, now: Timestamp) {
        self.lock().reserved.not_created(uid, refused, now);
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
            Event::Delete(pod) => claims.lost(pod),
        }
        Vec::new()
    }
}

impl Claims {
    fn begin_listing(&mut self) {
        self.listed.clear();
        self.reserved.listing_begins();
    }

    fn end_listing(&mut self) -> Vec<Occupant> {
        let listed = std::mem::take(&mut self.listed);
        let gone = self.occupied.extract_if(|key, _| !listed.contains(key)).map(|(_, occupant)| occupant);
        gone.chain(self.reserved.listing_ends()).collect()
    }

    fn saw(&mut self, pod: &Pod) {
        let Some(occupant) = occupant(pod) else { return };
        self.reserved.saw(&occupant.session_uid, pod);
        if has_succeeded(pod, &occupant.session_uid) {
            self.occupied.remove(&key(pod));
        } else {
            self.occupied.insert(key(pod), occupant);
        }
    }

    fn lost(&mut self, pod: &Pod) {
        self.occupied.remove(&key(pod));
        self.reserved.lost(pod);
    }
}

fn key(pod: &Pod) -> Key {
    (pod.namespace().unwrap_or_default(), pod.name_any())
}

/// `pod` without what nobody asks for, so that thousands of them fit into memory.
pub fn slim(mut pod: Pod) -> Pod {
    pod.metadata.managed_fields = None;
    pod.spec = pod.spec.map(|spec| PodSpec { node_name: spec.node_name, ..PodSpec::default() });
    pod.status = pod.status.map(slim_status);
    pod
}

fn slim_status(status: PodStatus) -> PodStatus {
    let container = |it: ContainerStatus| ContainerStatus {
        name: it.name,
        ready: it.ready,
        restart_count: it.restart_count,
        state: it.state,
        last_state: it.last_state,
        ..ContainerStatus::default()
    };
    PodStatus {
        phase: status.phase,
        reason: status.reason,
        message: status.message,
        conditions: status.conditions,
        container_statuses: status.container_statuses.map(|all| all.into_iter().map(container).collect()),
        ..PodStatus::default()
    }
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

    use std::time::Duration;

    use super::*;
    use crate::{
        reconcile::area::{Area, ShareKey},
        reservations::{IN_DOUBT_FOR, PATIENCE},
    };

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
            pods.created("session", &pod, now);
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
        pods.created("session", &pod(&me.area), now);
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
        pods.created("session", &pod(&me.area), now);
        assert!(pods.note(&Event::InitDone).is_empty());
        assert!(pods.find("n", "truck-7-uploader", "session", now).is_some());
        assert!(pods.find("n", "truck-7-uploader", "session", now + PATIENCE).is_none(), "the watch must have shown it by then");
    }

    /// Another session for the folders of [`claimant`].
    fn other() -> Claimant {
        Claimant { uid: "other".into(), name: "truck-8".into(), ..claimant() }
    }

    #[test]
    fn folders_are_held_for_as_long_as_a_pass_takes_to_make_the_pod_and_until_the_watch_shows_it() {
        let (me, now) = (claimant(), Timestamp::UNIX_EPOCH);
        let hours_later = now + Duration::from_hours(3);
        let pods = Pods::new(reflector::store().0);
        pods.reserve(&me, [], now).unwrap();
        assert!(pods.reserve(&other(), [], hours_later).is_err(), "the pass is at it");
        pods.created("session", &pod(&me.area), now);
        assert!(pods.reserve(&other(), [], hours_later).is_err(), "the watch has not shown the pod");
        pods.note(&Event::Apply(pod(&me.area)));
        assert!(pods.reserve(&other(), [], hours_later).is_err(), "the pod is there");
        pods.note(&Event::Delete(pod(&me.area)));
        assert!(pods.reserve(&other(), [], hours_later).is_ok());
    }

    #[test]
    fn pod_that_was_asked_for_without_an_answer_holds_its_folders_until_it_cannot_appear_any_more() {
        let (me, now) = (claimant(), Timestamp::UNIX_EPOCH);
        for (asked, refused, holds) in [(true, false, true), (true, true, false), (false, false, false)] {
            let pods = Pods::new(reflector::store().0);
            pods.reserve(&me, [], now).unwrap();
            if asked {
                pods.asked("session");
            }
            pods.not_created("session", refused, now);
            let just_before = now + IN_DOUBT_FOR - Duration::from_secs(1);
            assert_eq!(pods.reserve(&other(), [], just_before).is_err(), holds, "{asked} {refused}");
            assert!(pods.reserve(&other(), [], now + IN_DOUBT_FOR).is_ok() || !holds);
        }
    }

    #[test]
    fn attempt_that_is_refused_says_nothing_of_an_earlier_one_without_an_answer() {
        let (me, now) = (claimant(), Timestamp::UNIX_EPOCH);
        let pods = Pods::new(reflector::store().0);
        for refused in [false, true] {
            pods.reserve(&me, [], now).unwrap();
            pods.asked("session");
            pods.not_created("session", refused, now);
        }
        assert!(pods.reserve(&other(), [], now).is_err());
        assert!(pods.reserve(&other(), [], now + IN_DOUBT_FOR).is_ok());
    }

    #[test]
    fn watch_settles_what_came_of_a_creation_without_an_answer_and_the_end_of_an_earlier_pod_does_not() {
        let (me, now) = (claimant(), Timestamp::UNIX_EPOCH);
        let mut earlier = pod(&me.area);
        earlier.metadata.uid = Some("earlier".into());
        for shown_before in [true, false] {
            let pods = Pods::new(reflector::store().0);
            pods.reserve(&me, [], now).unwrap();
            pods.asked("session");
            pods.note(&Event::Delete(earlier.clone()));
            if shown_before {
                pods.note(&Event::Apply(pod(&me.area)));
            }
            pods.not_created("session", false, now);
            assert!(pods.reserve(&other(), [], now).is_err(), "{shown_before}");
            pods.note(&Event::Apply(pod(&me.area)));
            pods.note(&Event::Delete(pod(&me.area)));
            assert!(pods.reserve(&other(), [], now).is_ok(), "{shown_before}");
        }
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
