//! What people and the operator do to the session: a new `runToken`, its end, and another session of its name.

use std::{sync::Arc, time::Duration};

use blobferry_uploader::args::Mode;
use tokio::time::sleep;

use crate::{
    api::Spec,
    crash::Life,
    random::Random,
    world::{Sim, World},
};

/// Longest time, in milliseconds, until somebody reacts to the end of a run.
const REACTION: u64 = 20_000;
/// Longest time, in milliseconds, for which a pod outlives its session, on a node that was lost.
const ZOMBIE: u64 = 120_000;

/// Gives the session another `runToken`.
pub async fn change_token(sim: Sim, mut random: Random, busy: u64) {
    sleep(Duration::from_millis(random.below(busy))).await;
    new_token(&mut sim.lock());
}

/// Asks for another run: files that were set aside are taken back, and a session that was completed starts again.
pub fn new_token(world: &mut World) {
    world.oracle.may_take_back = true;
    let number = world.random.below(1 << 30);
    world.log.say("person", || format!("gives the runToken {number}"));
    let spec = &mut world.api.spec;
    spec.token = Some(number.to_string());
    spec.completed &= spec.mode != Mode::Watch;
}

/// Deletes the session: its pods go, but for one on a node that was lost, and one of the other mode comes.
pub async fn end_session(sim: Sim, mut random: Random, mode: Mode, at: u64) {
    sleep(Duration::from_millis(at)).await;
    let mut world = sim.lock();
    world.log.say("person", || format!("deletes the session: {mode}"));
    (world.api.spec.mode, world.api.spec.completed) = (mode, false);
    for life in std::mem::take(&mut world.lives) {
        if life.slot == 0 || random.chance(700) {
            life.kill();
        } else {
            world.lives.push(life);
        }
    }
}

/// A run has concluded: the operator removes a session that was drained or released, and another of its name comes; one that was
/// completed waits for a new `runToken`.
pub fn concluded(sim: &Sim, spec: &Spec) {
    let mut world = sim.lock();
    let now = &world.api.spec;
    if now.completed || (now.object, now.mode) != (spec.object, spec.mode) {
        return;
    }
    let (reaction, zombie) = (world.random.below(REACTION), world.random.below(ZOMBIE));
    world.api.spec.completed = true;
    let (sim, spec) = (sim.clone(), spec.clone());
    tokio::spawn(async move {
        sleep(Duration::from_millis(reaction)).await;
        if spec.mode == Mode::Watch {
            return new_token(&mut sim.lock());
        }
        let others = next_session(&mut sim.lock());
        sleep(Duration::from_millis(zombie)).await;
        for life in others {
            life.kill();
        }
    });
}

/// Another session of the name; returns the processes that are left of the one before.
fn next_session(world: &mut World) -> Vec<Arc<Life>> {
    world.log.say("person", || "makes a session of the same name".into());
    world.api.progress = None;
    let Spec { object, idle, .. } = world.api.spec;
    world.api.spec = Spec { object: object + 1, mode: Mode::Watch, completed: false, token: None, idle };
    std::mem::take(&mut world.lives)
}
