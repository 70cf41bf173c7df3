//! One uploader after another on one node: the loops of production, started as the program starts them, until they die.

use std::{future::pending, path::Path, sync::Arc, time::Duration};

use blobferry_crds::Progress;
use blobferry_uploader::{
    args::Mode,
    blob::BlobStore,
    books::{Books, SharedBooks},
    collect::Collector,
    ending,
    formats::{Marker, ProcessId},
    live::Live,
    metrics::Metrics,
    publish::Publisher,
    report::Report,
    run,
    scan::{Filter, Table},
    schedule::Schedule,
    session::{Edges, Parts, Rules, Session},
    start::check_share,
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    api::Spec,
    crash::Life,
    producer::rewrite_claimed,
    random::Random,
    server::ROOT,
    settings::{Afterwards, Restart, Settings},
    share::{Client, SimShare},
    stage::SimStage,
    store::SimStore,
    turns,
    world::{Sim, World},
};

/// The simulated edges.
#[derive(Debug)]
pub struct Simulated;

impl Edges for Simulated {
    type Share = SimShare;
    type Store = SimStore;
    type Stage = SimStage;
}

/// Names that every session leaves alone.
pub const IGNORED: &str = "*.tmp";

const TRY_AGAIN: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_secs(1);
const OLD_COUNTERS: Duration = Duration::from_secs(30);

/// The processes of one uploader, one after another, for as long as the future lives.
pub async fn uploader(sim: Sim, slot: usize, mut random: Random) {
    let (mut client, mut pod) = (Client::default(), format!("pod-{slot}"));
    let restarts = sim.lock().settings.restarts;
    for number in 1_u32.. {
        let spec = turn(&sim, slot).await;
        let life = Arc::new(Life::new(number * 10 + u32::try_from(slot).unwrap_or(0), slot));
        sim.lock().lives.push(Arc::clone(&life));
        let start = Start {
            sim: sim.clone(),
            life: Arc::clone(&life),
            client: client.clone(),
            pod: pod.clone(),
            seed: random.bits(),
            spec,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(start.live(slot == 0));
        life.ended().await;
        drop(tasks);
        {
            let mut world = sim.lock();
            world.lives.retain(|other| !Arc::ptr_eq(other, &life));
            if world.settings.producers.afterwards == Afterwards::Rewritten {
                rewrite_claimed(&mut world);
            }
        }
        sleep(Duration::from_millis(random.between(0, 15_000))).await;
        let drawn = random.chance(500);
        if restarts.map_or(drawn, |restart| restart == Restart::AnotherPod) {
            (client, pod) = (Client::default(), format!("pod-{slot}-{number}"));
        }
    }
}

/// Waits until an uploader may run, and says as what: a session is drained or released by one pod, and a completed one has none.
async fn turn(sim: &Sim, slot: usize) -> Spec {
    loop {
        let spec = sim.lock().api.spec.clone();
        if !spec.completed && (slot == 0 || spec.mode == Mode::Watch) {
            return spec;
        }
        sleep(LOOK).await;
    }
}

/// Follows what the session's object says, as long as it is the same. Nobody is woken, because those who wait are woken in any order.
async fn follow(sim: Sim, object: u32, live: watch::Sender<Live>) {
    loop {
        let spec = sim.lock().api.spec.clone();
        live.send_if_modified(|live| {
            if spec.object == object {
                (live.run_token, live.idle_timeout) = (spec.token, spec.idle);
            }
            false
        });
        sleep(LOOK).await;
    }
}

/// The settings that may change while a process runs.
fn live_settings(settings: &Settings, spec: &Spec) -> Live {
    Live {
        generation: None,
        poll_interval: Duration::from_millis(settings.poll),
        min_file_age: settings.quiet,
        workers: settings.workers,
        bandwidth_limit: None,
        collect_interval: Duration::from_millis(settings.collect),
        keep_completed_for: settings.keep,
        idle_timeout: spec.idle,
        run_token: spec.token.clone(),
    }
}

struct Start {
    sim: Sim,
    life: Arc<Life>,
    client: Client,
    pod: String,
    seed: u64,
    spec: Spec,
}

impl Start {
    async fn live(self, reports_to_api: bool) {
        let settings = self.sim.lock().settings.clone();
        let filter = Filter::new(&[], &[IGNORED.to_owned()]).unwrap_or_else(|_| unreachable!("the glob is good"));
        let books = SharedBooks::new(Books::new(Table::new(filter, settings.rules.recursive), Schedule::new(settings.queue)));
        let (reports, shown) = watch::channel(Report::default());
        let (live, lives) = watch::channel(live_settings(&settings, &self.spec));
        let publisher = Publisher::new(reports, lives.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(judge_reports(self.sim.clone(), Arc::clone(&self.life), shown.clone()));
        if reports_to_api && settings.faults.api.is_there {
            books.lock().ledger.reported_through = Some(i128::MIN);
            let (resumed, mut is_resumed) = watch::channel(false);
            tasks.spawn(report(self.sim.clone(), Arc::clone(&self.life), books.clone(), shown, resumed));
            // As the program does: an API server that is away does not keep files waiting.
            let _ = timeout(OLD_COUNTERS, is_resumed.wait_for(|resumed| *resumed)).await;
        } else {
            books.lock().ledger.resume(&Progress::default());
        }
        let mut collector = Collector::default();
        let session = self.session(books, lives).await;
        tasks.spawn(follow(self.sim.clone(), self.spec.object, live));
        let (uid, since) = (self.spec.uid(), self.sim.lock().oracle.moment());
        let mut running = run::attend(&session, &uid, publisher);
        while run::recover(&session, &mut collector, &uid).await.is_err() {
            sleep(TRY_AGAIN).await;
        }
        run::start(&session, collector, &mut running);
        if self.spec.mode == Mode::Watch && self.spec.idle.is_none() {
            pending::<()>().await;
        }
        let conclusion = ending::conclusion(&session).await;
        // It may stand still before anybody hears of it: what comes then comes too late.
        let concluded = Instant::now();
        self.life.turn().await;
        let stood = concluded.elapsed();
        self.sim.say(&self.life.name, || format!("concludes: {conclusion:?}"));
        crate::judge::concluded(&mut self.sim.lock(), self.spec.mode, since, stood);
        turns::concluded(&self.sim, &self.spec);
        self.life.kill();
        pending::<()>().await;
    }

    /// Checks both ends until they work.
    async fn session(&self, books: SharedBooks, live: watch::Receiver<Live>) -> Arc<Session<Simulated>> {
        let settings = self.sim.lock().settings.clone();
        let folders = settings.folders();
        let process = ProcessId::new(self.seed);
        let share = SimShare::new(self.sim.clone(), Arc::clone(&self.life), self.client.clone());
        let store = SimStore::new(self.sim.clone(), Arc::clone(&self.life));
        let marker = Marker {
            version: 1,
            session_uid: self.spec.uid(),
            incoming_dir: Path::new(ROOT).join("incoming").display().to_string(),
            destination: "container".into(),
        };
        let ground = loop {
            let ground = check_share(&share, &folders, &marker, process).await;
            let prepared = store.prepare().await;
            match (ground, prepared) {
                (Ok(ground), Ok(())) => break ground,
                (ground, prepared) => {
                    self.sim.say(&self.life.name, || format!("cannot start: {ground:?} {prepared:?}"));
                    sleep(TRY_AGAIN).await;
                }
            }
        };
        Arc::new(Session::new(Parts {
            share,
            store,
            stage: SimStage::new(self.sim.clone()),
            folders,
            rules: Rules { mode: self.spec.mode, ..settings.rules },
            live,
            source: ground.source,
            process,
            pod_uid: self.pod.clone(),
            longest_name: ground.longest_name,
            since: ground.since,
            books,
            metrics: Metrics::new(&opentelemetry::global::meter("sim")),
            seed: self.seed,
        }))
    }
}

/// Looks at whatever is published, whether anybody reports it or not.
async fn judge_reports(sim: Sim, life: Arc<Life>, mut reports: watch::Receiver<Report>) {
    while reports.changed().await.is_ok() {
        life.turn().await;
        let report = reports.borrow_and_update().clone();
        crate::judge::report(&mut sim.lock(), &report);
    }
}

/// What the program's reporter does: reads the old counters, then writes each report when its turn has come.
async fn report(sim: Sim, life: Arc<Life>, books: SharedBooks, mut reports: watch::Receiver<Report>, resumed: watch::Sender<bool>) {
    api_answers(&sim, &life).await;
    let (old, interval) = {
        let world = sim.lock();
        (world.api.progress.clone().unwrap_or_default(), world.faults.api.interval)
    };
    books.lock().ledger.resume(&old);
    resumed.send_replace(true);
    while reports.changed().await.is_ok() {
        api_answers(&sim, &life).await;
        let report = reports.borrow_and_update().clone();
        let effect = life.before(&sim).await;
        let taken = {
            let mut world = sim.lock();
            let World { faults, random, api, .. } = &mut *world;
            let arrives = !random.chance(faults.api.error);
            if arrives {
                api.progress = Some(report.progress.clone());
            }
            arrives && !random.chance(faults.api.lost)
        };
        let (files, through) = (report.progress.files_uploaded, report.progress.counted_through);
        sim.say(&life.name, || format!("reports {files} uploaded through {through:?}: {}", if taken { "taken" } else { "failed" }));
        life.after(&sim, effect).await;
        if taken {
            let through = report.progress.counted_through.map(jiff::Timestamp::as_nanosecond);
            books.lock().ledger.reported(through.unwrap_or(i128::MIN));
        } else {
            reports.mark_changed();
        }
        sleep(Duration::from_millis(interval)).await;
    }
}

/// Waits until the API server is there.
async fn api_answers(sim: &Sim, life: &Life) {
    loop {
        life.turn().await;
        let away = sim.lock().faults.api_away.filter(|until| *until > Instant::now());
        match away {
            Some(until) => tokio::time::sleep_until(until).await,
            None => return,
        }
    }
}
