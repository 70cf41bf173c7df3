//! What every pass shares; nothing is global.

use blobferry_crds::UploadSession;
use jiff::Timestamp;
use kube::{
    Client, Resource,
    runtime::events::{Event, Recorder, Reporter},
};
use tokio::sync::Mutex;
use tracing::warn;

use crate::{
    api, heard::Heard, memory::Memory, metrics::Metrics, pods::Pods, reconcile::apply::Known, rollout::Rollout, sessions::Sessions,
    settings::Settings, shares::Shares, sweep::Sweeper, waiters::Waiters, wake::Wake,
};

/// What every pass shares.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// What the installation allows.
    pub settings: Settings,
    /// Watched sessions.
    pub sessions: Sessions,
    /// Watched pods.
    pub pods: Pods,
    /// What is remembered of each session.
    pub memory: Memory,
    /// When uploaders were heard.
    pub heard: Heard,
    /// Counters.
    pub metrics: Metrics,
    /// What is swept when sessions are gone.
    pub sweeper: Sweeper,
    /// Whose turn it is to get a new image.
    pub rollout: Rollout,
    /// Where claims lead.
    pub shares: Shares,
    /// Sessions that wait for folders.
    pub waiters: Waiters,
    /// Sessions that have to be looked at.
    pub wake: Wake,
    /// Our clock.
    pub clock: fn() -> Timestamp,
    /// Held by whoever makes or removes accounts and bindings, so that the sweep never removes what a pass has just found.
    pub rights: Mutex<Known>,
    recorder: Recorder,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("sessions", &self.sessions).finish_non_exhaustive()
    }
}

impl Context {
    /// A context whose events name the operator's pod `instance`.
    pub fn new(
        client: Client,
        settings: Settings,
        sessions: Sessions,
        pods: Pods,
        instance: Option<String>,
        metrics: Metrics,
    ) -> Self {
        let reporter = Reporter { controller: "blobferry.io/operator".into(), instance };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            settings,
            sessions,
            pods,
            memory: Memory::default(),
            heard: Heard::default(),
            metrics,
            sweeper: Sweeper::default(),
            rollout: Rollout::default(),
            clock: Timestamp::now,
            shares: Shares::default(),
            waiters: Waiters::default(),
            wake: Wake::default(),
            rights: Mutex::default(),
        }
    }

    /// Tells people of `session`, if there is something to tell. An event that cannot be sent is only logged: the conditions say
    /// the same.
    pub async fn tell(&self, session: &UploadSession, event: Option<Event>) {
        if let Some(event) = event {
            self.tell_of(&session.object_ref(&()), event).await;
        }
    }

    /// Tells people of the object `regarding`.
    pub async fn tell_of(&self, regarding: &k8s_openapi::api::core::v1::ObjectReference, event: Event) {
        let reason = event.reason.clone();
        if let Err(error) = api::call("send an event", self.recorder.publish(&event, regarding)).await {
            warn!(%reason, error = &error as &dyn std::error::Error, "people were not told");
        }
    }
}
