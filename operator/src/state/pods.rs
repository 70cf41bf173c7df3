//! The uploader pods of the cluster: what the watch has shown, and what was created since.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use kube::runtime::watcher::Event;

use super::{
    first_listing::{FirstListing, Listed},
    reservations::Reservations,
};
use crate::{
    decisions::{
        area::{Area, Claimant, Rival, map::AreaMap, rival},
        pod_state::{Origin, UploaderPod},
    },
    place::Place,
};

/// The watched pods and those that the watch has not shown yet: one is reserved, under one lock with the look at all others, before it
/// is created.
#[derive(Debug)]
pub struct Pods {
    seen: Mutex<Seen>,
    first: FirstListing,
}

#[derive(Debug, Default)]
struct Seen {
    shown: AreaMap<Place, UploaderPod>,
    /// Pods that a new listing has shown so far.
    listed: HashSet<Place>,
    reserved: Reservations,
    /// Where pods work of which it was found out after they were made, by UID of the pod.
    located: HashMap<String, Area>,
}

/// What the watch has brought.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// A pod that is new, or not as it was.
    Changed(Arc<UploaderPod>),
    /// A pod that is gone.
    Gone(Arc<UploaderPod>),
}

impl Pods {
    /// Without any pod, until the watch that holds the other half shows some.
    pub fn new() -> (Self, Listed) {
        let (first, listed) = FirstListing::new();
        (Self { seen: Mutex::default(), first }, listed)
    }

    /// Whether the watch has shown everything once.
    pub fn first_listing(&self) -> &FirstListing {
        &self.first
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pods that the watch shows and that are `wanted`.
    pub fn shown(&self, wanted: impl Fn(&UploaderPod) -> bool) -> Vec<Arc<UploaderPod>> {
        self.lock().shown.values().filter(|pod| wanted(pod)).cloned().collect()
    }

    /// The pod with `name` in `namespace` as far as is known; the newer one if the watch lags behind a creation for session `uid`.
    pub fn find(&self, namespace: &str, name: &str, uid: &str, now: Timestamp) -> Option<Arc<UploaderPod>> {
        let seen = self.lock();
        let made = seen.reserved.made(uid, now);
        made.or_else(|| seen.shown.get(&Place::new(namespace, name)).cloned())
    }

    /// It was found out that `pod` works in `area`.
    pub fn locate(&self, pod: &UploaderPod, area: Area) {
        let seen = &mut *self.lock();
        if let Some(shown) = seen.shown.get(&place(pod)).filter(|shown| shown.uid == pod.uid).cloned() {
            seen.located.insert(pod.uid.clone(), area);
            seen.saw(UploaderPod::clone(&shown));
        }
    }

    /// Reserves the folders of `me` for a pod that is going to be created, unless somebody else holds them: another pod, or one of
    /// `others`, the sessions that want to run.
    pub fn reserve(&self, me: &Claimant, others: impl IntoIterator<Item = Claimant>, now: Timestamp) -> Result<(), Rival> {
        let Seen { shown, reserved, .. } = &mut *self.lock();
        let occupants = shown.overlapping(&me.area).into_iter().filter_map(|pod| pod.occupant());
        if let Some(rival) = rival(me, occupants.chain(reserved.occupants(now)), others) {
            return Err(rival);
        }
        reserved.reserve(me);
        Ok(())
    }

    /// The reserved pod of session `uid` was created.
    pub fn created(&self, uid: &str, pod: UploaderPod, now: Timestamp) {
        self.lock().reserved.created(uid, pod, now);
    }

    /// From now on the API server may make the reserved pod of session `uid`.
    pub fn asked(&self, uid: &str) {
        self.lock().reserved.asked(uid);
    }

    /// A pass that was to create the reserved pod of session `uid` has failed, because the API server has `refused` it or for another reason.
    pub fn not_created(&self, uid: &str, refused: bool, now: Timestamp) {
        self.lock().reserved.not_created(uid, refused, now);
    }

    /// The watch has shown something; from then on it knows better. Pods that went while it was broken are missing when a new listing ends.
    pub fn note(&self, event: Event<UploaderPod>) -> Vec<News> {
        let seen = &mut *self.lock();
        match event {
            Event::Init => {
                seen.begin_listing();
                Vec::new()
            }
            Event::InitApply(pod) => {
                seen.listed.insert(place(&pod));
                seen.saw(pod).into_iter().collect()
            }
            Event::InitDone => seen.end_listing(),
            Event::Apply(pod) => seen.saw(pod).into_iter().collect(),
            Event::Delete(pod) => vec![seen.lost(pod)],
        }
    }
}

impl Seen {
    fn begin_listing(&mut self) {
        self.listed.clear();
        self.reserved.listing_begins();
    }

    fn end_listing(&mut self) -> Vec<News> {
        let listed = std::mem::take(&mut self.listed);
        let gone = self.shown.retain(|place| listed.contains(place));
        let there: HashSet<&str> = self.shown.values().map(|pod| pod.uid.as_str()).collect();
        self.located.retain(|uid, _| there.contains(uid.as_str()));
        gone.into_iter().chain(self.reserved.listing_ends()).map(News::Gone).collect()
    }

    fn saw(&mut self, mut pod: UploaderPod) -> Option<News> {
        if let Some(area) = self.located.get(&pod.uid) {
            pod.area = Some(area.clone());
        }
        if pod.origin != Origin::Foreign {
            self.reserved.saw(&pod);
        }
        let (place, pod) = (place(&pod), Arc::new(pod));
        let before = self.shown.insert(place, &pod);
        (before.as_ref() != Some(&pod)).then_some(News::Changed(pod))
    }

    fn lost(&mut self, mut pod: UploaderPod) -> News {
        self.reserved.lost(&pod);
        if let Some(area) = self.located.remove(&pod.uid) {
            pod.area = Some(area);
        }
        self.shown.remove(&place(&pod));
        News::Gone(Arc::new(pod))
    }
}

fn place(pod: &UploaderPod) -> Place {
    Place::new(&pod.namespace, &pod.name)
}

#[cfg(test)]
mod tests {
    use blobferry_crds::names;
    use serde_json::json;

    use std::time::Duration;

    use super::*;
    use crate::{
        decisions::export::Export,
        fixtures::claimant,
        state::reservations::{IN_DOUBT_FOR, PATIENCE},
    };

    fn pod(area: &Area) -> UploaderPod {
        let annotations = json!({names::AREA_ANNOTATION: serde_json::to_string(area).unwrap()});
        let labels = json!({
            names::MANAGED_BY_LABEL: names::OPERATOR, names::SESSION_UID_LABEL: "session", names::SESSION_LABEL: "truck-7",
        });
        let metadata =
            json!({"name": "truck-7-uploader", "namespace": "n", "uid": "pod", "labels": labels, "annotations": annotations});
        UploaderPod::read(&serde_json::from_value(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata})).unwrap())
    }

    /// As if no watch ever showed them, unless a test says so.
    fn pods() -> Pods {
        Pods::new().0
    }

    #[test]
    fn pod_that_the_watch_showed_before_the_answer_came_is_as_the_watch_shows_it() {
        let (me, now) = (claimant(), Timestamp::UNIX_EPOCH);
        let answer = pod(&me.area);
        let shown = UploaderPod { restarts: 1, ..answer.clone() };
        for watch_first in [true, false] {
            let pods = pods();
            let restarts = || pods.find("n", "truck-7-uploader", "session", now).map(|pod| pod.restarts);
            pods.reserve(&me, [], now).unwrap();
            if watch_first {
                pods.note(Event::Apply(shown.clone()));
            }
            pods.created("session", answer.clone(), now);
            assert_eq!(restarts(), Some(i32::from(watch_first)));
            pods.note(Event::Apply(shown.clone()));
            assert_eq!(restarts(), Some(1), "the answer counts no longer");
        }
    }

    #[test]
    fn pod_leaves_the_folders_where_it_was_found_to_work() {
        let on_export = claimant().area.on(&Export { server: "nas".into(), path: "/srv".into() });
        let pods = pods();
        pods.note(Event::Apply(pod(&claimant().area)));
        pods.locate(&pod(&claimant().area), on_export.clone());
        let left = |news: Vec<News>| match &news[..] {
            [News::Gone(pod)] => pod.area.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(left(pods.note(Event::Delete(pod(&claimant().area)))), Some(on_export.clone()));
        // Another one of the name, of which a new listing tells, works where it says.
        pods.note(Event::Apply(pod(&claimant().area)));
        pods.locate(&pod(&claimant().area), on_export);
        pods.note(Event::Init);
        pods.note(Event::InitApply(UploaderPod { uid: "another".into(), ..pod(&claimant().area) }));
        pods.note(Event::InitDone);
        assert!(pods.lock().located.is_empty());
    }

    fn gone(news: Vec<News>) -> Vec<String> {
        let gone = |news| match news {
            News::Gone(pod) => pod.session.clone(),
            News::Changed(pod) => panic!("{pod:?} is there"),
        };
        news.into_iter().map(gone).collect()
    }

    #[test]
    fn pod_that_was_made_and_removed_while_the_watch_was_broken_is_gone_with_the_next_listing() {
        let (me, now) = (claimant(), Timestamp::UNIX_EPOCH);
        let pods = pods();
        pods.reserve(&me, [], now).unwrap();
        pods.created("session", pod(&me.area), now);
        pods.note(Event::Init);
        let left = pods.note(Event::InitDone);
        assert!(pods.find("n", "truck-7-uploader", "session", now).is_none());
        assert_eq!(gone(left), ["truck-7"]);
    }

    #[test]
    fn pod_whose_creation_is_under_way_when_a_listing_begins_may_be_missing_there() {
        let (me, now) = (claimant(), Timestamp::UNIX_EPOCH);
        let pods = pods();
        pods.reserve(&me, [], now).unwrap();
        pods.note(Event::Init);
        pods.created("session", pod(&me.area), now);
        assert!(pods.note(Event::InitDone).is_empty());
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
        let pods = pods();
        pods.reserve(&me, [], now).unwrap();
        assert!(pods.reserve(&other(), [], hours_later).is_err(), "the pass is at it");
        pods.created("session", pod(&me.area), now);
        assert!(pods.reserve(&other(), [], hours_later).is_err(), "the watch has not shown the pod");
        pods.note(Event::Apply(pod(&me.area)));
        assert!(pods.reserve(&other(), [], hours_later).is_err(), "the pod is there");
        pods.note(Event::Delete(pod(&me.area)));
        assert!(pods.reserve(&other(), [], hours_later).is_ok());
    }

    #[test]
    fn pod_that_was_asked_for_without_an_answer_holds_its_folders_until_it_cannot_appear_any_more() {
        let (me, now) = (claimant(), Timestamp::UNIX_EPOCH);
        for (asked, refused, holds) in [(true, false, true), (true, true, false), (false, false, false)] {
            let pods = pods();
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
        let pods = pods();
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
        earlier.uid = "earlier".into();
        for shown_before in [true, false] {
            let pods = pods();
            pods.reserve(&me, [], now).unwrap();
            pods.asked("session");
            pods.note(Event::Delete(earlier.clone()));
            if shown_before {
                pods.note(Event::Apply(pod(&me.area)));
            }
            pods.not_created("session", false, now);
            assert!(pods.reserve(&other(), [], now).is_err(), "{shown_before}");
            pods.note(Event::Apply(pod(&me.area)));
            pods.note(Event::Delete(pod(&me.area)));
            assert!(pods.reserve(&other(), [], now).is_ok(), "{shown_before}");
        }
    }

    #[test]
    fn only_a_pod_that_is_new_or_not_as_it_was_is_news() {
        let (pods, pod) = (pods(), pod(&claimant().area));
        let later = UploaderPod { restarts: 1, ..pod.clone() };
        for (shown, is_news) in [(&pod, true), (&pod, false), (&later, true)] {
            let news = pods.note(Event::Apply(shown.clone()));
            assert_eq!(news, is_news.then(|| News::Changed(Arc::new(shown.clone()))).into_iter().collect::<Vec<_>>());
        }
        pods.note(Event::Init);
        assert_eq!(pods.note(Event::InitApply(later.clone())), []);
        assert_eq!(pods.note(Event::InitDone), []);
        assert_eq!(pods.note(Event::Delete(later.clone())), [News::Gone(Arc::new(later))]);
    }

    #[test]
    fn pod_of_somebody_else_with_our_labels_settles_no_creation() {
        let (me, now) = (claimant(), Timestamp::UNIX_EPOCH);
        for (origin, settles) in [(Origin::Foreign, false), (Origin::Unowned, true)] {
            let pods = pods();
            pods.reserve(&me, [], now).unwrap();
            pods.asked("session");
            pods.not_created("session", false, now);
            let other = UploaderPod { origin, area: None, ..pod(&me.area) };
            pods.note(Event::Apply(other));
            assert_eq!(pods.reserve(&self::other(), [], now).is_ok(), settles, "{origin:?}");
        }
    }

    #[test]
    fn pod_that_a_listing_shows_no_more_has_left_its_folders() {
        let pods = pods();
        let pod = pod(&claimant().area);
        for (shown, left) in [(true, vec![]), (false, vec!["truck-7"]), (false, vec![])] {
            pods.note(Event::Init);
            if shown {
                pods.note(Event::InitApply(pod.clone()));
            }
            assert_eq!(gone(pods.note(Event::InitDone)), left);
        }
    }
}
