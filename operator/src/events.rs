//! (I/O) Events of Kubernetes: what people are told in the moment it happens.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1 as k8s},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
    runtime::events::{Event, EventType},
};
use serde_json::json;
use tracing::{info, warn};

use crate::api::{self, CallError};

const CONTROLLER: &str = "blobferry.io/operator";
/// What is told again in the same words within this time of the last is counted, as Kubernetes' own components do.
const REPEATED_WITHIN: Duration = Duration::from_mins(6);
/// As many are remembered, of all sessions together: a share that comes and goes is told of each session on it.
const REMEMBERED: usize = 10_000;

/// Tells people of objects. The recorder of `kube` would count what is told in other words under the first ones, and would send nothing
/// while an event that somebody has deleted repeats itself.
pub struct Events {
    client: Client,
    /// Who tells.
    instance: String,
    told: Mutex<HashMap<Words, Told>>,
}

/// The hash of all that tells one event from another.
type Words = u64;

/// When people were told, and how often.
#[derive(Clone, Copy)]
struct Told {
    first: Timestamp,
    count: i32,
    last: Timestamp,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("instance", &self.instance).finish_non_exhaustive()
    }
}

impl Events {
    /// Events by the pod `instance`.
    pub fn new(client: Client, instance: Option<String>) -> Self {
        Self { client, instance: instance.unwrap_or_else(|| CONTROLLER.to_owned()), told: Mutex::default() }
    }

    /// Tells people of the object `regarding` at `now`. An event that cannot be sent is only logged: the conditions say the same. A
    /// namespace that is being deleted takes none.
    pub async fn tell(&self, regarding: &ObjectReference, event: Event, now: Timestamp) {
        match self.send(regarding, &event, now).await {
            Err(error) if error.is_of_ending_namespace() => {
                let note = event.note.unwrap_or_default();
                info!(reason = event.reason, note, "people were not told: the namespace ends, and takes no events");
            }
            Err(error) => warn!(reason = event.reason, error = &error as &dyn std::error::Error, "people were not told"),
            Ok(()) => {}
        }
    }

    async fn send(&self, regarding: &ObjectReference, event: &Event, now: Timestamp) -> Result<(), CallError> {
        let events: Api<k8s::Event> = api::namespaced(&self.client, regarding.namespace.as_deref().unwrap_or("default"));
        let words = words(regarding, event);
        if let Some(Told { first, count, .. }) = self.repeated(words, now) {
            let name = name(regarding, first);
            let series = k8s::EventSeries { count, last_observed_time: MicroTime(now) };
            // The reason is there, and changes nothing; who reads what was sent knows what it is about.
            let again = json!({"reason": event.reason, "series": series});
            let (params, patch) = (PatchParams::default(), Patch::Merge(&again));
            match api::call(format!("count Event {name}"), events.patch(&name, &params, &patch)).await {
                Err(error) if error.is_not_found() => {}
                answer => return answer.map(|_| self.remember(words, Told { first, count, last: now })),
            }
        }
        let object = self.object(regarding, event, now);
        let name = object.metadata.name.clone().unwrap_or_default();
        api::call(format!("create Event {name}"), events.create(&PostParams::default(), &object)).await?;
        self.remember(words, Told { first: now, count: 1, last: now });
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Words, Told>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was told not long ago, told once more.
    fn repeated(&self, words: Words, now: Timestamp) -> Option<Told> {
        let told = self.lock().get(&words).filter(|told| told.is_recent(now)).copied()?;
        Some(Told { count: told.count.saturating_add(1), ..told })
    }

    /// Remembers it unless too much else is to be remembered.
    fn remember(&self, words: Words, told: Told) {
        let mut all = self.lock();
        if all.len() >= REMEMBERED {
            all.retain(|_, other| other.is_recent(told.last));
        }
        if all.len() < REMEMBERED || all.contains_key(&words) {
            all.insert(words, told);
        }
    }

    fn object(&self, regarding: &ObjectReference, event: &Event, now: Timestamp) -> k8s::Event {
        k8s::Event {
            metadata: ObjectMeta {
                namespace: regarding.namespace.clone(),
                name: Some(name(regarding, now)),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(now)),
            regarding: Some(regarding.clone()),
            type_: Some(if event.type_ == EventType::Warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(event.reason.clone()),
            note: event.note.clone(),
            action: Some(event.action.clone()),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            ..k8s::Event::default()
        }
    }
}

impl Told {
    fn is_recent(&self, now: Timestamp) -> bool {
        now < self.last + REPEATED_WITHIN
    }
}

/// Of the event that people were told at `time` for the first time.
fn name(regarding: &ObjectReference, time: Timestamp) -> String {
    format!("{}.{:x}", regarding.name.as_deref().unwrap_or_default(), time.as_nanosecond())
}

fn words(regarding: &ObjectReference, event: &Event) -> Words {
    let mut hasher = DefaultHasher::new();
    (&regarding.uid, &event.action, &event.reason, &event.note).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use kube::Resource;

    use super::*;
    use crate::{
        fixtures,
        mock_api::{Cluster, status},
    };

    const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/cameras/events";

    async fn tell(cluster: &Cluster, note: &str, second: i64) -> Vec<String> {
        let event = Event {
            type_: EventType::Warning,
            reason: "ShareFailed".into(),
            note: Some(note.into()),
            action: "Report".into(),
            secondary: None,
        };
        let now = Timestamp::from_second(second).unwrap();
        cluster.context.events.tell(&fixtures::session("").object_ref(&()), event, now).await;
        let calls = cluster.calls_and_events().into_iter();
        calls.map(|call| format!("{} {}", call.line.replace(EVENTS, ""), call.body["series"]["count"])).collect()
    }

    #[tokio::test]
    async fn words_that_come_again_soon_are_counted_and_others_are_told() {
        let cluster = Cluster::new(fixtures::settings());
        assert_eq!(tell(&cluster, "cannot list", 1000).await, ["POST  null"]);
        assert_eq!(tell(&cluster, "cannot list", 1100).await, ["PATCH /truck-7.e8d4a51000 2"]);
        assert_eq!(tell(&cluster, "cannot write", 1200).await, ["POST  null"]);
        assert_eq!(tell(&cluster, "cannot list", 1300).await, ["PATCH /truck-7.e8d4a51000 3"]);
        assert_eq!(tell(&cluster, "cannot list", 1661).await, ["POST  null"]);
    }

    #[tokio::test]
    async fn event_that_somebody_has_deleted_is_told_anew() {
        let cluster = Cluster::new(fixtures::settings());
        tell(&cluster, "cannot list", 1000).await;
        cluster.answers(&format!("PATCH {EVENTS}/truck-7.e8d4a51000"), 404, status(404, "NotFound", "gone"));
        assert_eq!(tell(&cluster, "cannot list", 1100).await, ["PATCH /truck-7.e8d4a51000 2", "POST  null"]);
    }

    #[tokio::test]
    async fn only_as_many_are_remembered() {
        let cluster = Cluster::new(fixtures::settings());
        let (events, earlier) = (&cluster.context.events, Timestamp::from_second(1000).unwrap());
        for words in 0..REMEMBERED as Words {
            events.remember(words, Told { first: earlier, count: 1, last: earlier });
        }
        for second in [1001, 1002] {
            assert_eq!(tell(&cluster, "cannot list", second).await, ["POST  null"]);
        }
        events.remember(7, Told { first: earlier, count: 2, last: earlier });
        assert_eq!(events.repeated(7, earlier).map(|told| told.count), Some(3));
        assert_eq!(tell(&cluster, "cannot list", 1360).await, ["POST  null"], "those of a while ago make room");
        assert_eq!(tell(&cluster, "cannot list", 1361).await, ["PATCH /truck-7.13ca6512000 2"]);
        assert_eq!(events.lock().len(), 1);
    }
}
