//! (I/O) Events of Kubernetes: what people are told in the moment it happens.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
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
/// What repeats itself quickly does so within as many; anything else is told anew.
const REMEMBERED: usize = 100;

/// Tells people of objects. The recorder of `kube` would count what is told in other words under the first ones, and would send nothing
/// while an event that somebody has deleted repeats itself.
pub struct Events {
    client: Client,
    /// Who tells.
    instance: String,
    told: Mutex<VecDeque<Told>>,
}

/// What people were told.
struct Told {
    words: String,
    /// Name of the event.
    name: String,
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
        if let Some((name, count)) = self.repeated(&words, now) {
            let series = k8s::EventSeries { count, last_observed_time: MicroTime(now) };
            // The reason is there, and changes nothing; who reads what was sent knows what it is about.
            let again = json!({"reason": event.reason, "series": series});
            let (params, patch) = (PatchParams::default(), Patch::Merge(&again));
            match api::call(format!("count Event {name}"), events.patch(&name, &params, &patch)).await {
                Err(error) if error.is_not_found() => {}
                answer => return answer.map(|_| self.remember(words, name, count, now)),
            }
        }
        let object = self.object(regarding, event, now);
        let name = object.metadata.name.clone().unwrap_or_default();
        api::call(format!("create Event {name}"), events.create(&PostParams::default(), &object)).await?;
        self.remember(words, name, 1, now);
        Ok(())
    }

    /// Name of the event that has told this not long ago, and how often it will have been told.
    fn repeated(&self, words: &str, now: Timestamp) -> Option<(String, i32)> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let told = told.iter().find(|told| told.words == words && now < told.last + REPEATED_WITHIN)?;
        Some((told.name.clone(), told.count.saturating_add(1)))
    }

    fn remember(&self, words: String, name: String, count: i32, now: Timestamp) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|told| told.words != words);
        if told.len() == REMEMBERED {
            told.pop_front();
        }
        told.push_back(Told { words, name, count, last: now });
    }

    fn object(&self, regarding: &ObjectReference, event: &Event, now: Timestamp) -> k8s::Event {
        let name = format!("{}.{:x}", regarding.name.as_deref().unwrap_or_default(), now.as_nanosecond());
        k8s::Event {
            metadata: ObjectMeta { namespace: regarding.namespace.clone(), name: Some(name), ..ObjectMeta::default() },
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

/// All that tells one event from another.
fn words(regarding: &ObjectReference, event: &Event) -> String {
    let uid = regarding.uid.as_deref().unwrap_or_default();
    format!("{uid} {} {} {}", event.action, event.reason, event.note.as_deref().unwrap_or_default())
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
        for number in 0..=REMEMBERED {
            tell(&cluster, &format!("cannot list {number}"), 1000).await;
        }
        assert_eq!(cluster.context.events.told.lock().unwrap().len(), REMEMBERED);
        assert_eq!(tell(&cluster, "cannot list 0", 1001).await, ["POST  null"]);
        assert_eq!(tell(&cluster, "cannot list 2", 1001).await, ["PATCH /truck-7.e8d4a51000 2"]);
    }
}
