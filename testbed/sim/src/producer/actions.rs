//! The things that a producer does at one instant.

use std::path::{Path, PathBuf};

use blobferry_uploader::share::join;

use super::{Known, changed, describe, set_mtime, write, write_slowly};
use crate::{
    random::Random,
    server::{Body, Node, Owner, ROOT},
    settings::Producers,
    store::disturb,
    world::{Sim, World},
};

/// Does one thing.
pub(super) fn act(sim: &Sim, random: &mut Random, plan: &Producers, known: &mut Known, number: u64) {
    let name = random.pick(&plan.names).clone();
    let recursive = sim.lock().settings.rules.recursive;
    let folders = sim.lock().settings.folders();
    let path = join(&folders.incoming, &name);
    if random.chance(plan.disturb)
        && let Ok(blob) = folders.blob(&folders.date, &name)
    {
        let content = random.chance(400).then_some(&b"somebody else's"[..]);
        return disturb(sim, &blob, content);
    }
    if plan.odd_names && random.chance(400) {
        return odd(&mut sim.lock(), random, &folders.incoming);
    }
    if let (true, Some(folder)) = (recursive, path.parent()) {
        let _ = sim.lock().server.make_folders(folder, Owner::Stranger);
        if plan.misbehave && random.chance(150) {
            return move_folder(&mut sim.lock(), random, &folders.incoming);
        }
    }
    if !plan.misbehave {
        return drop_whole(&mut sim.lock(), random, plan, known, &path, number);
    }
    match random.below(20) {
        0..5 => drop_whole(&mut sim.lock(), random, plan, known, &path, number),
        5..9 => {
            let node = start(&mut sim.lock(), random, plan, &path);
            if let Some(node) = node {
                known.0.push(node);
                tokio::spawn(write_slowly(sim.clone(), random.fork(), node, plan.largest));
            }
        }
        9 => remove(&mut sim.lock(), &path),
        10 => {
            let to = join(&folders.incoming, random.pick::<Vec<u8>>(&plan.names));
            move_to(&mut sim.lock(), &path, &to);
        }
        11 => link(&mut sim.lock(), random, &path, number),
        _ => meddle(&mut sim.lock(), random, known, &path),
    }
}

fn outside(random: &mut Random, number: u64) -> PathBuf {
    PathBuf::from(ROOT).join("outside").join(format!("{number}-{:x}", random.bits()))
}

fn content(random: &mut Random, plan: &Producers) -> Vec<u8> {
    let length = if plan.misbehave && random.chance(30) { 0 } else { random.between(plan.least, plan.largest) };
    random.bytes(length)
}

fn create(world: &mut World, path: &Path, content: Vec<u8>) -> Option<Node> {
    let node = world.server.create(path, Body::File(content), Owner::Producer).ok()?;
    changed(world, node, &format!("makes {} as", path.display()));
    world.oracle.named(node, path);
    Some(node)
}

fn arrived(world: &mut World, node: Node, path: &Path) {
    let World { oracle, server, log, .. } = world;
    oracle.arrived(server, node, path);
    log.say("producer", || describe(server, node, &format!("names {}:", path.display())));
}

/// A whole file at once: made in place, over what is there, or elsewhere and then renamed.
fn drop_whole(world: &mut World, random: &mut Random, plan: &Producers, known: &mut Known, path: &Path, number: u64) {
    let bytes = content(random, plan);
    if let (Ok(node), true) = (world.server.lookup(path), random.chance(400)) {
        if matches!(world.server.inode(node).body, Body::File(_)) {
            world.server.truncate(node, 0);
            changed(world, node, "cuts");
            write(world, node, false, &bytes, random);
        }
        return;
    }
    let temporary = outside(random, number);
    let Some(node) = create(world, &temporary, bytes) else { return };
    known.0.push(node);
    if random.chance(200) {
        set_mtime(world, node, random);
    }
    if world.server.rename(&temporary, path).is_ok() {
        arrived(world, node, path);
    }
}

/// A file that is opened to be written slowly, empty or with all its bytes reserved.
fn start(world: &mut World, random: &mut Random, plan: &Producers, path: &Path) -> Option<Node> {
    if let Ok(node) = world.server.lookup(path) {
        return matches!(world.server.inode(node).body, Body::File(_)).then_some(node);
    }
    let reserved = if random.chance(300) { random.between(1, plan.largest) } else { 0 };
    create(world, path, vec![0; usize::try_from(reserved).unwrap_or(0)])
}

fn remove(world: &mut World, path: &Path) {
    if world.server.remove(path).is_ok() {
        world.log.say("producer", || format!("removes {}", path.display()));
    }
}

fn move_to(world: &mut World, from: &Path, to: &Path) {
    if let Ok(renamed) = world.server.rename(from, to) {
        arrived(world, renamed.node, to);
    }
}

/// Gives a folder another name, with all that is in it, or removes it if it is empty.
fn move_folder(world: &mut World, random: &mut Random, incoming: &Path) {
    let [from, to] = [(); 2].map(|()| incoming.join(random.pick(&["d", "g", "d/e"])));
    if random.chance(300) {
        let removed = world.server.remove_folder(&from);
        return world.log.say("producer", || format!("removes the folder {}: {removed:?}", from.display()));
    }
    let is_folder = world.server.lookup(&from).is_ok_and(|node| matches!(world.server.inode(node).body, Body::Folder(_)));
    if !is_folder || to.starts_with(&from) || world.server.rename(&from, &to).is_err() {
        return;
    }
    world.log.say("producer", || format!("renames the folder {} to {}", from.display(), to.display()));
    let clock = world.server.clock.now();
    for (names, node) in world.server.files_below(&to) {
        let path = names.iter().fold(to.clone(), |path, name| join(&path, name));
        let World { oracle, server, .. } = &mut *world;
        oracle.came_with_folder(server, node, &path, clock);
    }
}

fn link(world: &mut World, random: &mut Random, path: &Path, number: u64) {
    let to = outside(random, number);
    if world.server.lookup(path).is_ok_and(|node| matches!(world.server.inode(node).body, Body::File(_))) {
        let linked = world.server.link(path, &to);
        if let Ok(node) = linked {
            let World { oracle, server, .. } = &mut *world;
            oracle.touched(server, node);
        }
        world.log.say("producer", || format!("links {} to {}: {linked:?}", path.display(), to.display()));
    }
}

/// Touches a file by its name, or one that it still has open, wherever that is now.
fn meddle(world: &mut World, random: &mut Random, known: &Known, path: &Path) {
    let by_name = world.server.lookup(path).ok().filter(|_| random.chance(400));
    let node = by_name.or_else(|| (!known.0.is_empty()).then(|| *random.pick(&known.0)));
    let Some(node) = node.filter(|node| matches!(world.server.inode(*node).body, Body::File(_))) else { return };
    if world.server.inode(node).links == 0 {
        return;
    }
    match random.below(6) {
        0 => set_mtime(world, node, random),
        1 => {
            let readable = random.chance(700) || world.calm;
            world.server.chmod(node, readable);
            let World { oracle, server, log, .. } = world;
            oracle.touched(server, node);
            log.say("producer", || describe(server, node, "chmods"));
        }
        2 => {
            let length = random.between(1, 8);
            let bytes = random.bytes(length);
            write(world, node, false, &bytes, random);
        }
        3 => {
            let size = world.server.content(node).len() as u64;
            world.server.truncate(node, usize::try_from(random.below(size + 1)).unwrap_or(0));
            changed(world, node, "cuts");
        }
        _ => {
            let length = random.between(1, 8);
            let bytes = random.bytes(length);
            write(world, node, true, &bytes, random);
        }
    }
}

/// Names and things that are no files for us.
fn odd(world: &mut World, random: &mut Random, incoming: &Path) {
    let claim = "b10000000000000000000000000000b";
    let names: [Vec<u8>; 10] = [
        vec![b'n'; 255],
        vec![b'n'; 190],
        b"\xff\xfe".to_vec(),
        b"back\\slash".to_vec(),
        b"dot.".to_vec(),
        b"ignored.tmp".to_vec(),
        format!("a.{claim}").into_bytes(),
        format!("a.{claim}.failed").into_bytes(),
        format!("a.{claim}.0123456789abcdef.completed").into_bytes(),
        b".nfs0001".to_vec(),
    ];
    let path = join(incoming, random.pick::<Vec<u8>>(&names));
    match random.below(4) {
        0 => {
            let special = random.below(1_000);
            let _ = world.server.create(&join(incoming, format!("s{special}").as_bytes()), Body::Special, Owner::Stranger);
        }
        1 => {
            let folder = join(incoming, b"folder");
            let _ = world.server.make_folders(&folder, Owner::Stranger);
            create(world, &folder.join("inside"), vec![1]);
        }
        _ => {
            create(world, &path, b"odd".to_vec());
        }
    }
}
