//! What every pass shares; nothing is global.

use blobferry_crds::UploadSession;
use jiff::Timestamp;
use kube::{Client, Resource, runtime::events::Event};

use crate::{
    events::Events,
    metrics::Metrics,
    settings::Settings,
    state::{
        leftovers::Leftovers, memory::Memory, pods::Pods, rights::Rights, rollout::Rollout, sessions::Sessions, shares::Shares,
        waiters::Waiters, wake::Wake,
    },
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
    /// Counters.
    pub metrics: Metrics,
    /// What is swept when sessions are gone.
    pub leftovers: Leftovers,
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
    /// What is known of the accounts and bindings of uploaders.
    pub rights: Rights,
    /// What people are told.
    pub events: Events,
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
        Self {
            events: Events::new(client.clone(), instance),
            client,
            settings,
            sessions,
            pods,
            memory: Memory::default(),
            metrics,
            leftovers: Leftovers::default(),
            rollout: Rollout::default(),
            clock: Timestamp::now,
            shares: Shares::default(),
            waiters: Waiters::default(),
            wake: Wake::default(),
            rights: Rights::default(),
        }
    }

    /// Waits until the watches have shown everything once; false if they never will.
    pub async fn wait_until_ready(&self) -> bool {
        self.sessions.first_listing().completes().await && self.pods.first_listing().completes().await
    }

    /// Whether the watches have shown everything once.
    pub fn is_ready(&self) -> bool {
        self.sessions.first_listing().is_complete() && self.pods.first_listing().is_complete()
    }

    /// Tells people of `session`.
    pub async fn tell(&self, session: &UploadSession, event: Event) {
        self.events.tell(&session.object_ref(&()), event, (self.clock)()).await;
    }
}
