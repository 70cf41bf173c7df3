//! Producers: people's programs on other clients, which know nothing of uploaders and keep no rule.

mod actions;

use std::time::Duration;

use tokio::time::sleep;

use crate::{
    judge,
    random::Random,
    server::{Node, Server},
    settings::{Afterwards, Producers},
    world::{Sim, World},
};

/// Files that producers still have open or linked somewhere, newest last.
#[derive(Clone, Debug, Default)]
struct Known(Vec<Node>);

/// One producer.
pub async fn producer(sim: Sim, mut random: Random, plan: Producers, number: u64) {
    let mut known = Known::default();
    // The uploader makes the folder when it starts.
    sleep(Duration::from_secs(1)).await;
    for _ in 0..random.between(1, plan.actions) {
        sleep(pause(&mut random, plan.gap)).await;
        actions::act(&sim, &mut random, &plan, &mut known, number);
        if plan.afterwards == Afterwards::Late
            && let Some(node) = known.0.last()
        {
            tokio::spawn(write_late(sim.clone(), random.fork(), *node));
        }
    }
}

/// Two writes through a handle that stays open: around the claim, and after the commit.
async fn write_late(sim: Sim, mut random: Random, node: Node) {
    for seconds in [3, 20] {
        sleep(Duration::from_millis(seconds * 1000 + random.below(2_000))).await;
        let bytes = random.bytes(3);
        write(&mut sim.lock(), node, true, &bytes, &mut random);
    }
}

/// Mostly short pauses, now and then two things at one instant.
fn pause(random: &mut Random, most: u64) -> Duration {
    let most = *random.pick(&[0, 10, most / 10, most, most]);
    Duration::from_millis(random.between(0, most))
}

/// Writes to claimed files and sets their mtimes back, as `touch -r` does: nothing shows it but their ctimes.
pub fn rewrite_claimed(world: &mut World) {
    for node in judge::claimed(world) {
        let mtime = world.server.inode(node).mtime;
        let byte = world.server.content(node).first().map_or(0, |byte| !byte);
        if world.server.write(node, 0, &[byte]) {
            world.server.set_mtime(node, Some(mtime));
            changed(world, node, "writes and sets the mtime back of");
        }
    }
}

/// Writes a file piece by piece, with pauses that may be longer than any quiet period, whatever becomes of its name meanwhile.
async fn write_slowly(sim: Sim, mut random: Random, node: Node, largest: u64) {
    let quiet = sim.lock().settings.quiet;
    let pieces = random.between(1, 4);
    for _ in 0..pieces {
        let most = *random.pick(&[20, 1_000, 2 * u64::try_from(quiet.as_millis()).unwrap_or(0)]);
        sleep(Duration::from_millis(random.between(0, most))).await;
        let length = random.between(1, 1 + largest / pieces);
        let bytes = random.bytes(length);
        let in_place = random.chance(400);
        write(&mut sim.lock(), node, in_place, &bytes, &mut random);
    }
    if random.chance(300) {
        set_mtime(&mut sim.lock(), node, &mut random);
    }
}

/// Writes somewhere into a file or at its end.
fn write(world: &mut World, node: Node, in_place: bool, bytes: &[u8], random: &mut Random) {
    let size = world.server.content(node).len();
    let offset = if in_place { usize::try_from(random.below(size as u64)).unwrap_or(0) } else { size };
    let end = if in_place { size.max(offset + 1) } else { size + bytes.len() };
    let bytes = &bytes[..bytes.len().min(end - offset)];
    if world.server.write(node, offset, bytes) {
        changed(world, node, "writes");
    }
}

/// What `cp -p`, `touch -d` and a wrong clock do to an mtime.
fn set_mtime(world: &mut World, node: Node, random: &mut Random) {
    let now = world.server.clock.now();
    let hours = i128::from(random.between(1, 48)) * 3_600_000_000_000;
    let mtime = *random.pick(&[None, Some(now - hours), Some(now - hours), Some(now + hours), Some(now + 30_000_000_000)]);
    if world.server.inode(node).links > 0 {
        world.server.set_mtime(node, mtime);
        changed(world, node, "sets the mtime of");
    }
}

fn changed(world: &mut World, node: Node, what: &str) {
    let World { oracle, server, log, .. } = world;
    oracle.changed(server, node);
    log.say("producer", || describe(server, node, what));
}

fn describe(server: &Server, node: Node, what: &str) -> String {
    let inode = server.inode(node);
    let start = server.content(node).iter().take(8).fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    let size = server.content(node).len();
    format!(
        "{what} file {} (inode {}, {size} bytes {start:x}.., mtime {}, ctime {})",
        node.0, inode.number, inode.mtime, inode.ctime
    )
}
