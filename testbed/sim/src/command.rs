//! What the program does: it searches for a history that breaks the invariant, shows one, or puts crashes at every place.

use std::time::{Duration, Instant};

use clap::Parser;

use crate::{
    exploration::{Depth, Explored, SESSIONS},
    history, random,
    seeds::failed_once,
};

/// Time between two lines that say how far the search is.
const PROGRESS: Duration = Duration::from_secs(30);

/// Searches for a history that breaks the uploader's invariant.
#[derive(Debug, Parser)]
pub struct Options {
    /// How many histories.
    #[arg(long, default_value_t = 20_000)]
    histories: u64,
    /// The first seed; a new one each time if it is left out.
    #[arg(long)]
    first: Option<u64>,
    /// Shows the history of one seed.
    #[arg(long, conflicts_with_all = ["histories", "first"])]
    seed: Option<u64>,
    /// Runs every seed that ever failed, crashes once at every place of the canonical sessions, and then searches.
    #[arg(long)]
    known: bool,
    /// Crashes at every place of the canonical sessions, and at every pair of places, instead of a search.
    #[arg(long)]
    pairs: bool,
    /// Stops after so many violations.
    #[arg(long, default_value_t = 1)]
    violations: u64,
}

/// Does what the options say; an error is a violation.
pub fn run(options: &Options) -> anyhow::Result<()> {
    if let Some(seed) = options.seed {
        return show(seed);
    }
    if options.pairs {
        return explore(Depth::Pairs);
    }
    let first = options.first.unwrap_or_else(random::fresh_seed);
    if options.known {
        return check(first, options);
    }
    search(first, options.histories, options.violations)
}

/// What every test run does.
#[allow(clippy::print_stdout, reason = "this is what the program is for")]
fn check(first: u64, options: &Options) -> anyhow::Result<()> {
    let seeds = repeat()?;
    explore(Depth::Singles)?;
    search(first, options.histories, options.violations)?;
    println!("{} passed, 0 failed", seeds + SESSIONS.len() + 1);
    Ok(())
}

#[allow(clippy::print_stdout, reason = "this is what the program is for")]
fn show(seed: u64) -> anyhow::Result<()> {
    let verdict = history::run(seed, true);
    for line in &verdict.lines {
        println!("{line}");
    }
    println!("seed {seed}: {}", verdict.violation.as_deref().unwrap_or("no violation"));
    anyhow::ensure!(verdict.violation.is_none(), "the invariant is broken");
    Ok(())
}

/// What was searched so far.
#[derive(Debug, Default)]
struct Tally {
    histories: u32,
    effects: u64,
    crashes: u64,
    commits: u64,
    violations: u64,
}

#[allow(clippy::print_stdout, reason = "this is what the program is for")]
fn search(first: u64, histories: u64, most: u64) -> anyhow::Result<()> {
    let (started, mut shown, mut tally) = (Instant::now(), Instant::now(), Tally::default());
    println!("{histories} histories from seed {first} on");
    for seed in (0..histories).map(|number| first.wrapping_add(number)) {
        tally.add(seed, &history::run(seed, false));
        if tally.violations >= most {
            break;
        }
        if shown.elapsed() > PROGRESS {
            shown = Instant::now();
            println!("{}", tally.text(first, started));
        }
    }
    println!("{}", tally.text(first, started));
    anyhow::ensure!(tally.violations == 0, "the invariant is broken: `make sim SEED=...` shows how");
    Ok(())
}

impl Tally {
    #[allow(clippy::print_stdout, reason = "this is what the program is for")]
    fn add(&mut self, seed: u64, verdict: &history::Verdict) {
        self.histories += 1;
        self.effects += verdict.effects;
        self.crashes += verdict.crashes;
        self.commits += verdict.commits;
        if let Some(violation) = &verdict.violation {
            println!("seed {seed}: {violation}");
            self.violations += 1;
        }
    }

    fn text(&self, first: u64, started: Instant) -> String {
        let Self { histories, effects, crashes, commits, violations } = self;
        let seconds = started.elapsed().as_secs_f64();
        let rate = f64::from(*histories) / seconds * 60.0;
        format!(
            "{histories} histories from seed {first} ({effects} effects, {crashes} crashes, {commits} commits) in {seconds:.0} s, \
             {rate:.0} a minute: {violations} violations"
        )
    }
}

/// Runs every seed that ever failed.
#[allow(clippy::print_stdout, reason = "this is what the program is for")]
fn repeat() -> anyhow::Result<usize> {
    let mut repeated = 0;
    for seed in failed_once() {
        let violation = history::run(seed, false).violation;
        anyhow::ensure!(violation.is_none(), "seed {seed}: {}", violation.unwrap_or_default());
        repeated += 1;
    }
    println!("{repeated} seeds that failed once: no violation");
    Ok(repeated)
}

#[allow(clippy::print_stdout, reason = "this is what the program is for")]
fn explore(depth: Depth) -> anyhow::Result<()> {
    let (started, mut singles, mut pairs, mut stalls) = (Instant::now(), 0, 0, 0);
    for session in SESSIONS {
        let Explored { singles: ones, pairs: twos, stalls: still, violation } = session.explore(depth);
        let found = violation.as_deref().unwrap_or("no violation");
        println!("{session:?}: {ones} places, {twos} pairs of places, {still} times standing still, {found}");
        anyhow::ensure!(violation.is_none(), "the invariant is broken");
        (singles, pairs, stalls) = (singles + ones, pairs + twos, stalls + still);
    }
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "crashes at {singles} places and {pairs} pairs of places, {stalls} times standing still, in {seconds:.0} s: no violation"
    );
    Ok(())
}
