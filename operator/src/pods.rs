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

use crate::reconcile::area::{Area, Claimant, Occupant, Rival, rival};

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
    /// Held by the one that waits for the first listing.
    waits_first: tokio::sync::Mutex<()>,
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
    since: Timestamp,
}

impl Pods {
    /// The pods that `watched` shows.
    pub fn new(watched: Store<Pod>) -> Self {
        Self { watched, claims: Mutex::default(), waits_first: tokio::sync::Mutex::default() }
    }

    /// Waits until the watch has shown everything once. Only one at a time asks the store, which wakes nobody but the last that asked.
    pub async fn wait_until_ready(&self) -> bool {
        let _alone = self.waits_first.lock().await;
        self.watched.wait_until_ready().await.is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, Claims> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pod with `name` in `namespace` as far as is known; the newer one if the watch lags behind a creation for session `uid`.
    pub fn find(&self, namespace: &str, name: &str, uid: &str) -> Option<Arc<Pod>> {
        let created = self.lock().fresh.get(uid).and_then(|fresh| fresh.pod.clone());
        created.or_else(|| self.watched.get(&ObjectRef::new(name).within(namespace)))
    }

    /// Reserves the folders of `me` for a pod that is going to be created, unless somebody else holds them: another pod, or one of
    /// `others`, the sessions that want to run.
    pub fn reserve(&self, me: &Claimant, others: impl IntoIterator<Item = Claimant>, now: Timestamp) -> Result<(), Rival> {
        let Claims { occupied, fresh, .. } = &mut *self.lock();
        fresh.retain(|_, entry| entry.since + PATIENCE > now);
        let occupants = occupied.values().chain(fresh.values().map(|entry| &entry.occupant));
        if let Some(rival) = rival(me, occupants, others) {
            return Err(rival);
        }
        let occupant = Occupant {
            session_uid: me.uid.clone(),
            namespace: me.namespace.clone(),
            session: me.name.clone(),
            area: me.area.clone(),
        };
        fresh.insert(me.uid.clone(), Fresh { occupant, pod: None, since: now });
        Ok(())
    }

    /// The reserved pod of session `uid` was created.
    pub fn created(&self, uid: &str, pod: &Pod) {
        if let Some(entry) = self.lock().fresh.get_mut(uid) {
            entry.pod = Some(Arc::new(slim(pod.clone())));
        }
    }

    /// The reserved pod of session `uid` was not created.
    pub fn released(&self, uid: &str) {
        self.lock().fresh.remove(uid);
    }

    /// The watch has shown something; from then on it knows better.
    pub fn note(&self, event: &Event<Pod>) {
        let claims = &mut *self.lock();
        match event {
            Event::Init => claims.listed.clear(),
            Event::InitApply(pod) => {
                claims.listed.insert(key(pod));
                claims.saw(pod);
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut claims.listed);
                claims.occupied.retain(|key, _| listed.contains(key));
            }
            Event::Apply(pod) => claims.saw(pod),
            Event::Delete(pod) => {
                claims.saw(pod);
                claims.occupied.remove(&key(pod));
            }
        }
    }
}

impl Claims {
    fn saw(&mut self, pod: &Pod) {
        let Some(occupant) = occupant(pod) else { return };
        let created = self.fresh.get(&occupant.session_uid).and_then(|fresh| fresh.pod.as_ref());
        if created.is_some_and(|created| created.uid() == pod.uid()) {
            self.fresh.remove(&occupant.session_uid);
        }
        self.occupied.insert(key(pod), occupant);
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
    let area: Area = serde_json::from_str(pod.annotations().get(names::AREA_ANNOTATION)?).ok()?;
    Some(Occupant {
        session_uid: pod.labels().get(names::SESSION_UID_LABEL)?.clone(),
        namespace: pod.namespace()?,
        session: pod.labels().get(names::SESSION_LABEL)?.clone(),
        area,
    })
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;
    use kube::runtime::reflector;

    use super::*;

    #[tokio::test]
    async fn everyone_who_waits_for_the_first_listing_is_woken() {
        let (watched, mut writer) = reflector::store();
        let pods = Arc::new(Pods::new(watched));
        let tasks: Vec<_> = (0..3)
            .map(|_| {
                let pods = Arc::clone(&pods);
                tokio::spawn(async move { pods.wait_until_ready().await })
            })
            .collect();
        tokio::task::yield_now().await;
        writer.apply_watcher_event(&Event::Init);
        writer.apply_watcher_event(&Event::InitDone);
        let all = tokio::time::timeout(Duration::from_mins(1), join_all(tasks)).await.unwrap();
        assert!(all.into_iter().all(Result::unwrap));
    }
}
