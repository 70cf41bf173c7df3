//! When uploaders die and when they stand still.
//!
//! An effect is a call that may change something outside the process. Effects are numbered through a history, so that a crash can be
//! put before or after each of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::{random::Random, settings::Settings, world::Sim};

/// Before or after an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Nothing happened yet.
    Before,
    /// It happened, and nobody lived to hear of it.
    After,
}

/// A place in a history.
pub type Point = (u64, Side);

/// The plan of deaths.
#[derive(Debug)]
pub struct Crashes {
    planned: BTreeSet<Point>,
    stalls: BTreeMap<u64, u64>,
    random: Random,
    /// Of ten thousand effects.
    crash: u64,
    pause: u64,
    /// How many effects there were.
    pub effects: u64,
    /// How many crashes there were.
    pub crashed: u64,
}

impl Crashes {
    /// What the settings plan.
    pub fn new(settings: &Settings, random: Random) -> Self {
        let planned = settings.crashes.iter().copied().collect();
        let stalls = settings.stalls.iter().copied().collect();
        Self { planned, stalls, random, crash: settings.crash_rate, pause: settings.pause_rate, effects: 0, crashed: 0 }
    }

    /// Nobody dies by chance any more.
    pub fn end(&mut self) {
        (self.crash, self.pause) = (0, 0);
    }

    fn is_due(&mut self, effect: u64, side: Side) -> bool {
        let due = self.planned.remove(&(effect, side)) || (self.crash > 0 && self.random.below(20_000) < self.crash);
        self.crashed += u64::from(due);
        due
    }

    fn pause(&mut self, effect: u64) -> Option<u64> {
        let by_chance = (self.pause > 0 && self.random.below(10_000) < self.pause).then(|| {
            let most = *self.random.pick(&[1_000, 20_000, 60_000, 300_000]);
            self.random.between(100, most)
        });
        self.stalls.remove(&effect).or(by_chance)
    }
}

/// One process, from its start to its death.
#[derive(Debug)]
pub struct Life {
    /// Its number in the history.
    pub number: u32,
    /// Which uploader's it is.
    pub slot: usize,
    /// What it is called in the history.
    pub name: String,
    dead: AtomicBool,
    paused_until: Mutex<Option<Instant>>,
    death: Notify,
}

impl Life {
    /// A process that has done nothing yet.
    pub fn new(number: u32, slot: usize) -> Self {
        let name = format!("up{slot}/{number}");
        Self { number, slot, name, dead: AtomicBool::new(false), paused_until: Mutex::new(None), death: Notify::new() }
    }

    /// Resolves when it has died.
    pub async fn ended(&self) {
        self.death.notified().await;
    }

    /// True after its death.
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    /// Ends it now: no task of it does anything any more.
    pub fn kill(&self) {
        self.dead.store(true, Ordering::Relaxed);
        self.death.notify_one();
    }

    fn pause(&self, until: Option<Instant>) -> Option<Instant> {
        let mut paused = self.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
        if until.is_some() {
            *paused = until;
        }
        *paused
    }

    /// Goes on when the process may: never after its death, and not while it stands still.
    pub async fn turn(&self) {
        loop {
            if self.is_dead() {
                pending::<()>().await;
            }
            match self.pause(None).filter(|until| *until > Instant::now()) {
                Some(until) => sleep_until(until).await,
                None => return,
            }
        }
    }

    /// The process's turn to cause an effect, which may be its last moment; returns the effect's number.
    pub async fn before(&self, sim: &Sim) -> u64 {
        self.turn().await;
        let (effect, dies, pause) = {
            let mut world = sim.lock();
            world.crashes.effects += 1;
            let effect = world.crashes.effects;
            (effect, world.crashes.is_due(effect, Side::Before), world.crashes.pause(effect))
        };
        if dies {
            self.die(sim, "before").await;
        }
        if let Some(milliseconds) = pause {
            sim.say(&self.name, || format!("stands still for {milliseconds} ms"));
            self.pause(Some(crate::world::after(milliseconds)));
            self.turn().await;
        }
        effect
    }

    /// The effect was applied.
    pub async fn after(&self, sim: &Sim, effect: u64) {
        let dies = sim.lock().crashes.is_due(effect, Side::After);
        if dies {
            self.die(sim, "after").await;
        }
    }

    async fn die(&self, sim: &Sim, when: &str) {
        sim.say(&self.name, || format!("dies {when} the effect"));
        self.kill();
        pending::<()>().await;
    }
}
