//! Pods that are about to be, or were just, created. Each holds its folders until the watch or a later listing shows what came of it:
//! a session must not see its folders free in the moment between another session's creation of a pod and its appearance in the watch.
//! (pure)

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::Timestamp;

use crate::decisions::{
    area::{Claimant, Occupant},
    pod_state::UploaderPod,
};

/// The watch shows a created pod within this time, or it is asked for again.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// A creation without an answer is carried out within this time or never: the API server gives up after a minute.
pub const IN_DOUBT_FOR: Duration = Duration::from_mins(2);

/// The reservations, by UID of the session.
#[derive(Debug, Default)]
pub struct Reservations(HashMap<String, Fresh>);

#[derive(Debug)]
struct Fresh {
    claimant: Claimant,
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
    Made(Arc<UploaderPod>, Timestamp),
    /// No pass is at it any more, and it is not known whether there is a pod.
    InDoubt,
}

impl Fresh {
    fn occupant(&self) -> Occupant<'_> {
        let Claimant { uid, namespace, name, area, .. } = &self.claimant;
        Occupant { session_uid: uid, namespace, session: name, area, gone_by: None }
    }

    fn holds(&self, now: Timestamp) -> bool {
        match self.making {
            Making::UnderWay { .. } | Making::Made(..) => true,
            Making::InDoubt => self.in_doubt_until.is_some_and(|until| now < until),
        }
    }
}

impl Reservations {
    /// The pod that was made for session `uid` a moment ago.
    pub fn made(&self, uid: &str, now: Timestamp) -> Option<Arc<UploaderPod>> {
        match &self.0.get(uid)?.making {
            Making::Made(pod, since) if *since + PATIENCE > now => Some(Arc::clone(pod)),
            _ => None,
        }
    }

    /// Who holds folders. Those of which nothing can come any more are forgotten.
    pub fn occupants(&mut self, now: Timestamp) -> impl Iterator<Item = Occupant<'_>> {
        self.0.retain(|_, fresh| fresh.holds(now));
        self.0.values().map(Fresh::occupant)
    }

    /// Reserves the folders of `me` for a pod that a pass is going to create.
    pub fn reserve(&mut self, me: &Claimant) {
        let in_doubt_until = self.0.get(&me.uid).and_then(|earlier| earlier.in_doubt_until);
        let making = Making::UnderWay { asked: false };
        self.0.insert(me.uid.clone(), Fresh { claimant: me.clone(), making, in_doubt_until, shown: None, settled: false });
    }

    /// From now on the API server may make the pod of session `uid`.
    pub fn asked(&mut self, uid: &str) {
        if let Some(fresh) = self.0.get_mut(uid) {
            fresh.making = Making::UnderWay { asked: true };
        }
    }

    /// The pod of session `uid` was created. The watch may have been faster than the answer, and knows better then.
    pub fn created(&mut self, uid: &str, pod: UploaderPod, now: Timestamp) {
        let Some(fresh) = self.0.get_mut(uid) else { return };
        if fresh.shown.as_ref() == Some(&pod.uid) {
            self.0.remove(uid);
        } else {
            fresh.making = Making::Made(Arc::new(pod), now);
        }
    }

    /// A pass that was to create the pod of session `uid` has failed. Unless the API server has `refused` the pod, one that was asked for
    /// may appear all the same; that of an earlier attempt may in any case.
    pub fn not_created(&mut self, uid: &str, refused: bool, now: Timestamp) {
        let Some(fresh) = self.0.get_mut(uid) else { return };
        if matches!(fresh.making, Making::UnderWay { asked: true }) && !refused {
            fresh.in_doubt_until = Some(now + IN_DOUBT_FOR);
        }
        fresh.making = Making::InDoubt;
        if fresh.shown.is_some() || !fresh.holds(now) {
            self.0.remove(uid);
        }
    }

    /// The watch shows a pod.
    pub fn saw(&mut self, pod: &UploaderPod) {
        let Some(fresh) = self.0.get_mut(&pod.session_uid) else { return };
        match &fresh.making {
            Making::Made(created, _) if created.uid != pod.uid => {}
            Making::UnderWay { .. } => fresh.shown = Some(pod.uid.clone()),
            Making::Made(..) | Making::InDoubt => drop(self.0.remove(&pod.session_uid)),
        }
    }

    /// The watch shows that a pod is gone.
    pub fn lost(&mut self, pod: &UploaderPod) {
        let is_it = |fresh: &Fresh| matches!(&fresh.making, Making::Made(created, _) if created.uid == pod.uid);
        self.0.retain(|_, fresh| !is_it(fresh));
    }

    /// What was created before a listing begins is in it, or gone.
    pub fn listing_begins(&mut self) {
        for fresh in self.0.values_mut() {
            fresh.settled = matches!(fresh.making, Making::Made(..));
        }
    }

    /// The listing has ended: pods that were made before it and not shown by it.
    pub fn listing_ends(&mut self) -> impl Iterator<Item = Arc<UploaderPod>> {
        self.0.extract_if(|_, fresh| fresh.settled).filter_map(|(_, fresh)| match fresh.making {
            Making::Made(pod, _) => Some(pod),
            Making::UnderWay { .. } | Making::InDoubt => None,
        })
    }
}
