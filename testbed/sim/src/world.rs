//! Everything that outlives an uploader: the server, the container, the API server, and the oracle that watches them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use blobferry_uploader::blob::memory::MemoryStore;
use tokio::time::Instant;

use crate::{
    api::Api,
    crash::{Crashes, Life},
    faults::Faults,
    log::Log,
    oracle::Oracle,
    random::Random,
    server::{Clock, Node, Server},
    settings::Settings,
};

/// One world.
#[derive(Debug)]
pub struct World {
    /// Chance.
    pub random: Random,
    /// The NFS server.
    pub server: Server,
    /// The container.
    pub store: MemoryStore,
    /// The API server.
    pub api: Api,
    /// What goes wrong.
    pub faults: Faults,
    /// When uploaders die.
    pub crashes: Crashes,
    /// The processes that run.
    pub lives: Vec<Arc<Life>>,
    /// Whether everybody behaves from now on.
    pub calm: bool,
    /// What must hold.
    pub oracle: Oracle,
    /// What happened.
    pub log: Log,
    /// What it is made of.
    pub settings: Settings,
}

impl World {
    /// Process `life` looks at a file, by name or by descriptor.
    pub fn looked(&mut self, life: u32, node: Node) {
        let Self { server, oracle, .. } = self;
        oracle.looked(server, life, node);
    }

    /// Somebody lets the uploader read all files.
    pub fn make_readable(&mut self) {
        let Self { server, oracle, .. } = self;
        for node in server.unreadable() {
            server.chmod(node, true);
            oracle.touched(server, node);
        }
    }
}

/// A handle on a world.
#[derive(Clone, Debug)]
pub struct Sim(Arc<Mutex<World>>);

impl Sim {
    /// A new world. Must be called on a runtime whose time is paused.
    pub fn new(settings: Settings, mut random: Random, logged: bool) -> Self {
        let clock = Clock::new(settings.clock_granularity, settings.clock_offset);
        let world = World {
            server: Server::new(clock, settings.inode_numbers_are_reused),
            store: MemoryStore::new(),
            api: Api::new(settings.turns.idle),
            faults: settings.faults.clone(),
            crashes: Crashes::new(&settings, random.fork()),
            lives: Vec::new(),
            calm: false,
            oracle: Oracle::new(&settings),
            log: Log::new(logged),
            random,
            settings,
        };
        Self(Arc::new(Mutex::new(world)))
    }

    /// The world, for a moment: never held across an await.
    pub fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line to the history.
    pub fn say(&self, who: &str, what: impl FnOnce() -> String) {
        self.lock().log.say(who, what);
    }
}

/// Milliseconds from now.
pub fn after(milliseconds: u64) -> Instant {
    Instant::now() + std::time::Duration::from_millis(milliseconds)
}
