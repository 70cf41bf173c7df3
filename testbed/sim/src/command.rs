//! What the program does: it searches for a history that breaks the invariant, or shows one.

use std::time::{Duration, Instant};

use clap::Parser;

use crate::{
    exploration::{Explored, SESSIONS},
    history, random,
};

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
    /// Crashes at every place of the canonical sessions, and at every pair of places.
    #[arg(long)]
    crashes: bool,
    /// Stops after so many violations.
    #[arg(long, default_value_t = 1)]
    violations: u64,
}

#[allow(clippy::print_stdout, reason = "this is what the program is for")]
/// Does what the options say; an error is a violation.
pub fn run(options: &Options) -> anyhow::Result<()> {
    if let Some(seed) = options.seed {
        let verdict = history::run(seed, true);
        for line in &verdict.lines {
            println!("{line}");
        }
        println!("seed {seed}: {}", verdict.violation.as_deref().unwrap_or("no violation"));
        anyhow::ensure!(verdict.violation.is_none(), "the invariant is broken");
        return Ok(());
    }
    if options.crashes {
        return explore();
    }
    let first = options.first.unwrap_or_else(random::fresh_seed);
    search(first, options.histories, options.violations)
}

#[allow(clippy::print_stdout, reason = "this is what the program is for")]
fn search(first: u64, histories: u64, most: u64) -> anyhow::Result<()> {
    let (started, mut shown) = (Instant::now(), Instant::now());
    let (mut violations, mut effects, mut crashes, mut commits) = (0, 0, 0, 0);
    let mut done = 0_u32;
    for seed in (0..histories).map(|number| first.wrapping_add(number)) {
        let verdict = history::run(seed, false);
        done += 1;
        (effects, crashes, commits) = (effects + verdict.effects, crashes + verdict.crashes, commits + verdict.commits);
        if let Some(violation) = verdict.violation {
            println!("seed {seed}: {violation}");
            violations += 1;
            if violations >= most {
                break;
            }
        }
        if shown.elapsed() > Duration::from_secs(30) {
            shown = Instant::now();
            println!("{done} histories, {violations} violations");
        }
    }
    let minutes = started.elapsed().as_secs_f64() / 60.0;
    let rate = f64::from(done) / minutes;
    println!(
        "{done} histories from seed {first} ({effects} effects, {crashes} crashes, {commits} commits) in {:.0} s, {rate:.0} a minute: {violations} violations",
        minutes * 60.0
    );
    anyhow::ensure!(violations == 0, "the invariant is broken: `make sim SEED=...` shows how");
    Ok(())
}

#[allow(clippy::print_stdout, reason = "this is what the program is for")]
fn explore() -> anyhow::Result<()> {
    let (started, mut singles, mut pairs) = (Instant::now(), 0, 0);
    for session in SESSIONS {
        let Explored { singles: ones, pairs: twos, violation } = session.explore(true);
        println!("{session:?}: {ones} places, {twos} pairs of places, {}", violation.as_deref().unwrap_or("no violation"));
        anyhow::ensure!(violation.is_none(), "the invariant is broken");
        (singles, pairs) = (singles + ones, pairs + twos);
    }
    println!("{singles} places and {pairs} pairs in {:.0} s: no violation", started.elapsed().as_secs_f64());
    Ok(())
}
