//! One history: a seed, a world, its uploaders and producers, and the verdict.

use std::{path::Path, time::Duration};

use blobferry_uploader::{
    args::Mode,
    formats::{MARKERS, Marker},
};
use tokio::{runtime::Builder, task::JoinSet, time::sleep};

use crate::{
    faults::Refusal,
    judge,
    process::uploader,
    producer::producer,
    random::Random,
    server::{Body, Errno, Owner, ROOT, Server},
    settings::{DATE, SESSION, Settings},
    turns,
    world::{Sim, after},
};

/// Milliseconds after the last fault in which a session must have finished.
const PATIENCE: u64 = 40 * 60_000;
/// Milliseconds between two looks whether it has.
const STEP: u64 = 4_000;
/// Steps until the last report must have been made: a process may have been caught by an outage in its start.
const LAST_REPORTS: u64 = 150;

/// What came out.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// What must not have happened.
    pub violation: Option<String>,
    /// What happened, if it was written down.
    pub lines: Vec<String>,
    /// Effects of uploaders.
    pub effects: u64,
    /// Crashes of uploaders.
    pub crashes: u64,
    /// Commits that were applied.
    pub commits: u64,
}

/// The history of `seed`.
pub fn run(seed: u64, logged: bool) -> Verdict {
    let mut random = Random::new(seed);
    let settings = Settings::draw(&mut random);
    run_with(settings, random, logged)
}

/// A history of these settings.
pub fn run_with(settings: Settings, random: Random, logged: bool) -> Verdict {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.unwrap_or_else(|error| unreachable!("a runtime without I/O needs nothing: {error}"));
    runtime.block_on(history(settings, random, logged))
}

async fn history(settings: Settings, mut random: Random, logged: bool) -> Verdict {
    let sim = Sim::new(settings.clone(), random.fork(), logged);
    sim.say("settings", || format!("{settings:?}"));
    lay_out(&sim, &mut random);
    let mut tasks = JoinSet::new();
    for slot in 0..settings.uploaders {
        tasks.spawn(uploader(sim.clone(), slot, random.fork()));
    }
    for number in 0..settings.producers.count {
        tasks.spawn(producer(sim.clone(), random.fork(), settings.producers.clone(), number));
    }
    for _ in 0..settings.outages {
        tasks.spawn(outage(sim.clone(), random.fork(), settings.busy));
    }
    for _ in 0..settings.turns.tokens {
        tasks.spawn(turns::change_token(sim.clone(), random.fork(), settings.busy));
    }
    if let Some((mode, at)) = settings.turns.ending {
        tasks.spawn(turns::end_session(sim.clone(), random.fork(), mode, at));
    }
    if settings.clock_steps {
        tasks.spawn(step_clock(sim.clone(), random.fork(), settings.busy));
    }
    let mut waited = 0;
    while waited < settings.busy && sim.lock().oracle.violation().is_none() {
        sleep(Duration::from_millis(STEP)).await;
        waited += STEP;
    }
    calm_down(&sim);
    finish(&sim).await;
    drop(tasks);
    verdict(&sim)
}

/// The share before anybody comes: folders, another session's file, and a name in our folder that is not ours.
fn lay_out(sim: &Sim, random: &mut Random) {
    let mut world = sim.lock();
    let (incoming, processing) = (world.settings.folders().incoming, world.settings.folders().processing);
    let strangers = [
        Path::new(ROOT).join("incoming/other/a"),
        processing.join(DATE).join("other").join("a"),
        processing.join(DATE).join(SESSION).join("not ours"),
    ];
    let server = &mut world.server;
    for folder in ["incoming", "outside", "incoming/other"] {
        let _ = server.make_folders(&Path::new(ROOT).join(folder), Owner::Stranger);
    }
    if random.chance(700) {
        let _ = server.make_folders(&incoming, Owner::Stranger);
    }
    for path in strangers.iter().filter(|_| random.chance(300)) {
        if let Some(folder) = path.parent() {
            let _ = server.make_folders(folder, Owner::Stranger);
        }
        let _ = server.create(path, Body::File(b"theirs".to_vec()), Owner::Stranger);
    }
    if world.settings.rules.recursive && random.chance(300) {
        lay_out_session_within(&mut world.server, &incoming, &processing);
    }
}

/// Another session drains a folder in ours.
fn lay_out_session_within(server: &mut Server, incoming: &Path, processing: &Path) {
    let (folder, markers) = (incoming.join("other"), processing.join(MARKERS));
    let marker = Marker {
        version: 1,
        session_uid: "another".into(),
        incoming_dir: incoming.display().to_string(),
        destination: "container".into(),
    };
    let content = serde_json::to_vec(&marker).unwrap_or_default();
    for folder in [&folder, &markers] {
        let _ = server.make_folders(folder, Owner::Stranger);
    }
    let _ = server.create(&folder.join("a"), Body::File(b"theirs".to_vec()), Owner::Stranger);
    let _ = server.create(&markers.join("other"), Body::File(content), Owner::Stranger);
}

/// An end is in trouble for a while.
async fn outage(sim: Sim, mut random: Random, busy: u64) {
    sleep(Duration::from_millis(random.below(busy))).await;
    let until = after(random.between(500, 60_000));
    let mut world = sim.lock();
    let kind = random.below(9);
    let faults = &mut world.faults;
    match kind {
        0 => faults.share_hangs = Some(until),
        1 => faults.share_refuses = Some((until, Errno::Io)),
        2 => faults.share_refuses = Some((until, Errno::Denied)),
        3 => faults.share_refuses = Some((until, Errno::Full)),
        4 => faults.share_refuses = Some((until, Errno::Stale)),
        5 => faults.blob_refuses = Some((until, Refusal::Denied)),
        6 => faults.blob_refuses = Some((until, Refusal::Busy)),
        7 => faults.blob_refuses = Some((until, Refusal::Unreachable)),
        _ => faults.api_away = Some(until),
    }
    world.log.say("outage", || format!("of kind {kind}"));
}

async fn step_clock(sim: Sim, mut random: Random, busy: u64) {
    sleep(Duration::from_millis(random.below(busy))).await;
    let by = (i128::from(random.below(240_000)) - 120_000) * 1_000_000;
    let mut world = sim.lock();
    world.server.clock.step(by);
    world.oracle.clock_stepped |= by < 0;
    world.log.say("server", || format!("sets its clock by {by} ns"));
}

/// Faults end, and what stands in the way in the container is taken away.
fn calm_down(sim: &Sim) {
    let mut world = sim.lock();
    world.log.say("faults", || "end".into());
    world.faults.end();
    world.crashes.end();
    world.settings.producers.disturb = 0;
    world.calm = true;
    world.make_readable();
    let spec = &mut world.api.spec;
    spec.idle = None;
    spec.completed &= spec.mode != Mode::Watch;
    if world.settings.turns.tokens > 0 {
        turns::new_token(&mut world);
    }
}

/// Waits until the session is done, or for so long that it should have been.
async fn finish(sim: &Sim) {
    let mut waited = 0;
    loop {
        let unfinished = {
            let world = sim.lock();
            if world.oracle.violation().is_some() {
                return;
            }
            judge::unfinished(&world)
        };
        match unfinished {
            None => break,
            Some(what) if waited >= PATIENCE => {
                return sim.lock().oracle.violated(format!("{what} is still there after {} min", PATIENCE / 60_000));
            }
            Some(_) => {}
        }
        if waited % 60_000 == 0 {
            clear_the_way(sim);
        }
        sleep(Duration::from_millis(STEP)).await;
        waited += STEP;
    }
    let mut counted = judge::ledger(&mut sim.lock());
    for _ in 0..LAST_REPORTS {
        if counted.is_ok() {
            return;
        }
        sleep(Duration::from_millis(STEP)).await;
        counted = judge::ledger(&mut sim.lock());
    }
    if let Err(wrong) = counted {
        sim.lock().oracle.violated(wrong);
    }
}

/// Somebody moves blobs of others away from names that files wait for.
fn clear_the_way(sim: &Sim) {
    let names = {
        let world = sim.lock();
        let ours = |name: &&blobferry_uploader::formats::BlobName| {
            world.store.versions(name).last().is_some_and(|version| version.properties.metadata.is_empty())
        };
        world.store.names().iter().filter(ours).cloned().collect::<Vec<_>>()
    };
    for name in names {
        crate::store::disturb(sim, &name, None);
    }
}

fn verdict(sim: &Sim) -> Verdict {
    let mut world = sim.lock();
    Verdict {
        violation: world.oracle.violation().map(str::to_owned),
        lines: world.log.take(),
        effects: world.crashes.effects,
        crashes: world.crashes.crashed,
        commits: world.oracle.commits,
    }
}
