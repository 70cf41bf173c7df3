//! Real kills: uploaders die at any instant while producers drop files and the service fails, and the oracle watches.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, bail};
use blobferry_blob_server::{AccountKey, BlobServer, Event, KEY, Keep, Settings, Version};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::{
    CONTAINER, DATE,
    contents::Fingerprint,
    lane::Shared,
    ledger::{Sums, Violation},
    pods::{Habit, Pod},
    producer::Producer,
};

/// The pods of each lane.
const LANES: [&[Habit]; 4] = [&[Habit::Dies], &[Habit::Dies], &[Habit::Dies, Habit::Dies], &[Habit::Vanishes, Habit::Sleeps]];
/// Part of all requests that meet a fault.
const FAULTS: f64 = 0.06;
/// Time between two drops of a lane, on average.
const PAUSE: Duration = Duration::from_millis(350);
/// Time between two looks for files that were deleted too early.
const WATCH: Duration = Duration::from_millis(250);
/// Requests are remembered for so long.
const MEMORY: Duration = Duration::from_mins(15);

/// How a run is done.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) program: PathBuf,
    pub(crate) folder: PathBuf,
    pub(crate) rounds: usize,
    pub(crate) seed: u64,
}

/// What all threads of a run share.
struct Run {
    lanes: Vec<Shared>,
    rounds: AtomicUsize,
    over: AtomicBool,
    /// The first that went wrong, with the lane it happened in.
    wrong: Mutex<Option<(usize, Violation)>>,
}

/// What came out of a run without a violation.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) kills: usize,
    pub(crate) sums: Sums,
    pub(crate) requests: u64,
    pub(crate) faults: u64,
    pub(crate) took: Duration,
}

impl Run {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn take_round(&self) -> bool {
        self.rounds.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |rounds| rounds.checked_sub(1)).is_ok()
    }

    fn report(&self, lane: usize, result: Result<(), Violation>) {
        if let Err(violation) = result {
            self.wrong.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((lane, violation));
            self.over.store(true, Ordering::Relaxed);
        }
    }

    fn observe(&self, event: Event<'_>) {
        let (Event::Arrived(record) | Event::Applied(record, _)) = event;
        let Some((lane, name)) = self.lane_of(&record.blob) else { return };
        let shared = &self.lanes[lane];
        match event {
            Event::Arrived(_) => shared.requests.fetch_add(1, Ordering::Relaxed),
            Event::Applied(_, None) => return,
            Event::Applied(_, Some(version)) => {
                self.report(lane, shared.ledger().commit(name, fingerprint(version)));
                shared.writes.fetch_add(1, Ordering::Relaxed)
            }
        };
    }

    fn lane_of<'a>(&self, blob: &'a str) -> Option<(usize, &'a str)> {
        let (session, name) = blob.strip_prefix(DATE)?.strip_prefix('/')?.split_once('/')?;
        Some((self.lanes.iter().position(|lane| lane.session == session)?, name))
    }
}

fn fingerprint(version: &Version) -> Fingerprint {
    Fingerprint { size: version.size, sha256: version.sha256.unwrap_or_default() }
}

/// Runs the rounds; a violation is an error with the history of the file concerned.
pub(crate) fn run(plan: &Plan) -> Result<Outcome> {
    raise_limit_of_files();
    let start = Instant::now();
    let sessions = (0..LANES.len()).map(|lane| format!("lane-{lane}"));
    let contents = plan.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let lanes = sessions.zip(0_u64..).map(|(session, lane)| Shared::new(&plan.folder, session, contents ^ (lane << 40)));
    let run = Arc::new(Run {
        lanes: lanes.collect::<Result<_>>()?,
        rounds: AtomicUsize::new(plan.rounds),
        over: AtomicBool::new(false),
        wrong: Mutex::default(),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let server = runtime.block_on(BlobServer::start(settings(&run)?))?;
    server.faults().draw(plan.seed, FAULTS);
    let result = work(plan, &run, &server);
    let totals = server.totals();
    if let Some((lane, violation)) = run.wrong.lock().unwrap_or_else(PoisonError::into_inner).take() {
        bail!("{}", history(plan, &run, &server, lane, &violation));
    }
    let sums = result.with_context(|| format!("seed {}; the folder is kept: {}", plan.seed, plan.folder.display()))?;
    let kills = run.lanes.iter().map(|lane| lane.kills.load(Ordering::Relaxed)).sum();
    Ok(Outcome { kills, sums, requests: totals.count(), faults: totals.faults, took: start.elapsed() })
}

fn settings(run: &Arc<Run>) -> Result<Settings> {
    let watching = Arc::clone(run);
    Ok(Settings {
        keep: Keep::Hashes,
        key: Some(AccountKey::new(KEY).context("the emulators' key is base64")?),
        observer: Some(Arc::new(move |event| watching.observe(event))),
        ..Settings::default()
    })
}

fn work(plan: &Plan, run: &Arc<Run>, server: &BlobServer) -> Result<Sums> {
    let mut random = StdRng::seed_from_u64(plan.seed);
    let mut seed = || StdRng::seed_from_u64(random.random());
    let lanes = run.lanes.iter().map(|lane| Ok((lane, Producer::new(lane, seed())?))).collect::<Result<Vec<_>>>()?;
    std::thread::scope(|scope| {
        let (mut threads, mut producers) = (Vec::new(), Vec::new());
        for (lane, ((shared, producer), habits)) in lanes.into_iter().zip(LANES).enumerate() {
            let is_done = || run.is_over() || run.rounds.load(Ordering::Relaxed) == 0;
            producers.push(scope.spawn(guarded(run, move || producer.work(PAUSE, is_done))));
            for (place, habit) in habits.iter().enumerate() {
                let pod = Pod::new(shared, plan.program.clone(), server.account_url(), place, *habit, seed());
                threads.push(scope.spawn(guarded(run, move || pod.work(|| run.take_round(), || run.is_over()))));
            }
            scope.spawn(move || watch(run, lane));
        }
        let random = seed();
        scope.spawn(move || disturb(run, server, random));
        let ended = join(producers).map(|()| {
            server.faults().clear();
            run.lanes.iter().for_each(|lane| lane.calm.store(true, Ordering::Relaxed));
            come_to_rest(run)
        });
        run.over.store(true, Ordering::Relaxed);
        join(threads)?;
        ended
    })
}

/// A thread that fails ends the run.
fn guarded<'a>(run: &'a Run, work: impl FnOnce() -> Result<()> + Send + 'a) -> impl FnOnce() -> Result<()> + Send + 'a {
    move || {
        let result = work();
        if result.is_err() {
            run.over.store(true, Ordering::Relaxed);
        }
        result
    }
}

fn join(threads: Vec<std::thread::ScopedJoinHandle<'_, Result<()>>>) -> Result<()> {
    // All are waited for, whatever the first one says.
    let results: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a thread panicked"))).collect();
    results.into_iter().collect()
}

fn watch(run: &Run, lane: usize) {
    while !run.is_over() {
        run.report(lane, run.lanes[lane].ledger().check_deletions());
        std::thread::sleep(WATCH);
    }
}

/// Now and then nobody has rights for a while.
fn disturb(run: &Run, server: &BlobServer, mut random: StdRng) {
    let mut next = Instant::now();
    while !run.is_over() {
        if Instant::now() >= next && run.rounds.load(Ordering::Relaxed) > 0 {
            server.faults().forbid_for(Duration::from_millis(random.random_range(100..1500)));
            server.forget_records(MEMORY);
            next = Instant::now() + Duration::from_secs(random.random_range(8..25));
        }
        std::thread::sleep(WATCH);
    }
}

fn come_to_rest(run: &Run) -> Sums {
    let mut all = Sums::default();
    for (lane, shared) in run.lanes.iter().enumerate() {
        match shared.come_to_rest(|| run.is_over()) {
            Ok(sums) => all.add(sums),
            Err(violation) => run.report(lane, Err(violation)),
        }
    }
    all
}

/// What the producers, the oracle and the server know about the file, by time.
fn history(plan: &Plan, run: &Run, server: &BlobServer, lane: usize, violation: &Violation) -> String {
    let shared = &run.lanes[lane];
    let mut lines: Vec<(SystemTime, String)> = shared.ledger().history(&violation.name);
    let blob = format!("{DATE}/{}/{}", shared.session, violation.name);
    lines.extend(server.records(|record| *record.blob == *blob).into_iter().map(|record| (record.at, format!("server: {record}"))));
    lines.sort();
    let lines: String = lines.into_iter().map(|(at, text)| format!("  {} {text}\n", seconds(at))).collect::<Vec<_>>().concat();
    format!(
        "{} of {}: {}\n{lines}seed {}; the folder is kept: {}; blobs are in {CONTAINER}/{DATE}",
        violation.name,
        shared.session,
        violation.what,
        plan.seed,
        plan.folder.display()
    )
}

fn seconds(at: SystemTime) -> String {
    format!("{:.6}", at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64())
}

/// Each file that still exists is held by a descriptor.
fn raise_limit_of_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Makes the folders that a share has.
pub(crate) fn prepare(folder: &Path) -> Result<()> {
    for name in ["incoming", ".processing", "staging"] {
        std::fs::create_dir_all(folder.join(name))?;
    }
    Ok(())
}
