//! The uploader pods of the cluster: what the watch has shown, and what was created since.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
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
};

/// The watch shows a created pod within this time, or it is asked for again.
const PATIENCE: Duration = Duration::from_secs(30);
/// A creation without an answer is carried out within this time or never: the API server gives up after a minute.
const IN_DOUBT_FOR: Duration = Duration::from_mins(2);

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

/// A pod that is about to be, or was just, created. It holds its folders until the watch or a later listing shows what came of it.
#[derive(Debug)]
struct Fresh {
    occupant: Occupant,
    making: Making,
    /// Until when a pod may appear whose creation had no answer.
    in_doubt_until: Option<Timestamp>,
    /// UID of the pod that the watch showed before the answer to its creation came.
    shown: Option<String>,
    /// Whether it was created before the listing that is under way began.
    settled: bool,
}

/// How far a creation is.
#[derive(Debug)]
enum Making {
    /// A pass is at it, and whether it has asked for the pod by now.
    UnderWay { asked: bool },
    /// The API server has made it, and when.
    Made(Arc<Pod>, Timestamp),
    /// No pass is at it any more, and it is not known whether there is a pod.
    InDoubt,
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
        let created = self.lock().fresh.get(uid).and_then(|fresh| match &fresh.making {
            Making::Made(pod, since) if *since + PATIENCE > now => Some(Arc::clone(pod)),
            _ => None,
        });
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
        fresh.retain(|_, entry| entry.holds(now));
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
        let in_doubt_until = fresh.get(&me.uid).and_then(|earlier| earlier.in_doubt_until);
        fresh.insert(
            me.uid.clone(),
            Fresh { occupant, making: Making::UnderWay { asked: false }, in_doubt_until, shown: None, settled: false },
        );
        Ok(())
    }

    /// The reserved pod of session `uid` was created. The watch may have been faster than the answer, and knows better then.
    pub fn created(&self, uid: &str, pod: &Pod, now: Timestamp) {
        let fresh = &mut self.lock().fresh;
        let Some(entry) = fresh.get_mut(uid) else { return };
        if entry.shown.is_some() && entry.shown == pod.uid() {
            fresh.remove(uid);
        } else {
            entry.making = Making::Made(Arc::new(slim(pod.clone())), now);
        }
    }

    /// From now on the API server may make the reserved pod of session `uid`.
    pub fn asked(&self, uid: &str) {
        if let Some(entry) = self.lock().fresh.get_mut(uid) {
            entry.making = Making::UnderWay { asked: true };
        }
    }

    /// A pass that was to create the reserved pod of session `uid` has failed. Unless the API server has `refused` the pod, one that was
    /// asked for may appear all the same; that of an earlier attempt may in any case.
    pub fn not_created(&self, uid: &str, refused: bool, now: Timestamp) {
        let fresh = &mut self.lock().fresh;
        let Some(entry) = fresh.get_mut(uid) else { return };
        if matches!(entry.making, Making::UnderWay { asked: true }) && !refused {
            entry.in_doubt_until = Some(now + IN_DOUBT_FOR);
        }
        entry.making = Making::InDoubt;
        if entry.shown.is_some() || !entry.holds(now) {
            fresh.remove(uid);
        }
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

impl Fresh {
    fn holds(&self, now: Timestamp) -> bool {
        match self.making {
            Making::UnderWay { .. } | Making::Made(..) => true,
            Making::InDoubt => self.in_doubt_until.is_some_and(|until| now < until),
        }
    }
}

impl Claims {
    /// What was created before a listing begins is in it, or gone.
    fn begin_listing(&mut self) {
        self.listed.clear();
        for fresh in self.fresh.values_mut() {
            fresh.settled = matches!(fresh.making, Making::Made(..));
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
            match &fresh.making {
                Making::Made(created, _) if created.uid() != pod.uid() => {}
                Making::UnderWay { .. } => fresh.shown = pod.uid(),
                Making::Made(..) | Making::InDoubt => drop(self.fresh.remove(&occupant.session_uid)),
            }
        }
        if has_succeeded(pod, &occupant.session_uid) {
            self.occupied.remove(&key(pod));
        } else {
            self.occupied.insert(key(pod), occupant);
        }
    }

    fn lost(&mut self, pod: &Pod) {
        self.occupied.remove(&key(pod));
        let is_it = |fresh: &Fresh| matches!(&fresh.making, Making::Made(created, _) if created.uid() == pod.uid());
        self.fresh.retain(|_, fresh| !is_it(fresh));
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
