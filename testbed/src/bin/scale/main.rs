//! How the operator bears many sessions, on a control plane without nodes: this program plays every kubelet and every uploader. It fails
//! if a goal is missed.

mod cluster;
mod players;
mod processes;

use std::{
    io::{self, Write as _},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use clap::Parser;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use cluster::{create, firsts, others, prepare, until_running};
use players::{Born, Uploaders, run_pods};
use processes::{ControlPlane, Operator, Sample};

const AT_ONCE: usize = 16;
const PATIENCE: Duration = Duration::from_mins(30);
/// Arrivals that are measured: so many, this far apart.
const ARRIVALS: usize = 300;
const APART: Duration = Duration::from_millis(200);
/// The most that all uploaders together may report: 50 times a second.
const REPORTS: usize = 3000;
const REPORT_APART: Duration = Duration::from_millis(20);

/// Measures the operator with many sessions.
#[derive(Debug, Parser)]
struct Arguments {
    /// Sessions that run
    #[arg(long, default_value_t = 1000)]
    size: usize,
    /// Minutes in which nothing happens; the operator looks at an idle session every 11
    #[arg(long, default_value_t = 1)]
    idle: u32,
    /// The operator's program
    #[arg(long)]
    operator: PathBuf,
    /// Kubeconfig of the control plane
    #[arg(long, env = "BLOBFERRY_BED_KUBECONFIG")]
    kubeconfig: PathBuf,
    /// Folder of the control plane's bed
    #[arg(long, env = "BED_DIR")]
    bed: PathBuf,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config =
        Config::from_custom_kubeconfig(Kubeconfig::read_from(&arguments.kubeconfig)?, &KubeConfigOptions::default()).await?;
    let client = Client::try_from(config)?;
    prepare(&client, arguments.size + ARRIVALS).await?;
    let (born, uploaders) = (Born::default(), Uploaders::default());
    tokio::spawn(run_pods(client.clone(), born.clone(), uploaders.clone()));
    tokio::spawn(uploaders.clone().beat(client.clone()));
    let mut operator = Operator::start(&arguments)?;
    operator.until_ready().await?;
    let mut goals = Goals::default();
    say(&format!("{} sessions", arguments.size));
    starts(&client, &operator, &mut goals, arguments.size).await?;
    idles(&client, &operator, &uploaders, &mut goals, &arguments).await?;
    arrivals(&client, &born, &mut goals, arguments.size).await?;
    restarts(&mut operator, &mut goals, &arguments).await?;
    goals.are_met()
}

/// Sessions as fast as they come.
async fn starts(client: &Client, operator: &Operator, goals: &mut Goals, size: usize) -> Result<()> {
    let before = operator.until_quiet().await?;
    create(client, firsts(size), None).await?;
    until_running(client, firsts(size).count()).await?;
    let shared = operator.until_quiet().await?;
    row("requests, first session of a namespace", requests(&before, &shared, firsts(size).count()).1);
    let started = Instant::now();
    create(client, others(size), None).await?;
    until_running(client, size).await?;
    let took = started.elapsed();
    let after = operator.until_quiet().await?;
    row("create to running, all", format!("{:.0} s", took.as_secs_f64()));
    let (each, methods) = requests(&shared, &after, others(size).count());
    row("requests per session", methods);
    goals.at_most("requests per session", each, 5.0);
    row("processor per session", format!("{:.1} ms", 1000.0 * (after.processor - shared.processor) / count(others(size).count())));
    memory("resident memory", &after, goals, size);
    Ok(())
}

/// Requests of each of `sessions`, all and in words.
fn requests(before: &Sample, after: &Sample, sessions: usize) -> (f64, String) {
    let each = |number: f64| number / count(sessions);
    let by_method = after.requests.iter().map(|(method, number)| {
        let number = each(number - before.requests.get(method).copied().unwrap_or_default());
        format!("{method} {number:.2}")
    });
    let all = each(after.all_requests() - before.all_requests());
    (all, format!("{all:.2} ({})", by_method.collect::<Vec<_>>().join(", ")))
}

fn memory(what: &str, sample: &Sample, goals: &mut Goals, size: usize) {
    row(what, format!("{:.1} MB, at most {:.1} MB", sample.resident, sample.peak));
    goals.at_most(what, sample.resident, if size <= 1000 { 20.0 } else { 60.0 });
}

/// Nothing happens but what uploaders report.
async fn idles(
    client: &Client,
    operator: &Operator,
    uploaders: &Uploaders,
    goals: &mut Goals,
    arguments: &Arguments,
) -> Result<()> {
    let control_plane = ControlPlane::of_bed(&arguments.bed)?;
    let minute = Duration::from_mins(1);
    for (what, reports, lasts) in [("idle", 0, minute * arguments.idle), ("50 reports a second", REPORTS, minute)] {
        let (before, used) = (operator.sample().await?, control_plane.used()?);
        let begun = Instant::now();
        let end = tokio::time::sleep(lasts);
        uploaders.report_in_turn(client, arguments.size, reports, REPORT_APART).await?;
        end.await;
        let (after, using, seconds) = (operator.sample().await?, control_plane.used()?, begun.elapsed().as_secs_f64());
        let percent = |before: f64, after: f64| format!("{:.1} %", 100.0 * (after - before) / seconds);
        let calls = after.all_requests() - before.all_requests();
        // The operator has no Lease here; with one it writes it once in eight seconds.
        row(&format!("{what}: requests per hour, Lease aside"), format!("{:.0}", calls * 3600.0 / seconds));
        goals.at_most(&format!("{what}: requests"), calls, 0.0);
        row(&format!("{what}: processor"), percent(before.processor, after.processor));
        let etcd = format!("{} + {}", percent(used.0, using.0), percent(used.1, using.1));
        row(&format!("{what}: processor of API server + etcd"), etcd);
        row(&format!("{what}: growth of etcd's database"), format!("{:.1} MB", count(usize::try_from(using.2 - used.2)?) / 1e6));
    }
    Ok(())
}

/// Sessions that come one by one beside those that run.
async fn arrivals(client: &Client, born: &Born, goals: &mut Goals, size: usize) -> Result<()> {
    let sent = create(client, size..size + ARRIVALS, Some(APART)).await?;
    until_running(client, size + ARRIVALS).await?;
    let mut waits = born.waits(&sent)?;
    waits.sort();
    let at = |share: usize| waits.get(waits.len() * share / 100).copied().unwrap_or_default();
    row("applied to pod made, 5 a second", format!("p50 {} ms, p99 {} ms", at(50).as_millis(), at(99).as_millis()));
    if size <= 1000 {
        goals.at_most("p99 from applied to pod made in ms", 1000.0 * at(99).as_secs_f64(), 300.0);
    }
    Ok(())
}

/// The operator is killed, and another one starts.
async fn restarts(operator: &mut Operator, goals: &mut Goals, arguments: &Arguments) -> Result<()> {
    operator.kill()?;
    let started = Instant::now();
    *operator = Operator::start(arguments)?;
    operator.until_ready().await?;
    row("restart until ready", format!("{:.1} s", started.elapsed().as_secs_f64()));
    let after = operator.until_quiet().await?;
    row("requests of a restart, per session", requests(&Sample::default(), &after, arguments.size + ARRIVALS).1);
    memory("resident memory after a restart", &after, goals, arguments.size);
    operator.kill()
}

/// What should be, and is not.
#[derive(Default)]
struct Goals {
    missed: Vec<String>,
}

impl Goals {
    fn at_most(&mut self, what: &str, found: f64, most: f64) {
        // As precise as what is printed.
        if found > most + 0.05 {
            self.missed.push(format!("{what}: {found:.1}, at most {most} was the goal"));
        }
    }

    fn are_met(&self) -> Result<()> {
        ensure!(self.missed.is_empty(), "missed: {}", self.missed.join("; "));
        Ok(())
    }
}

fn row(what: &str, figure: impl std::fmt::Display) {
    say(&format!("  {what:50} {figure}"));
}

fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}
