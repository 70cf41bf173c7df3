//! The short search of `make test`: the first seeds, every seed that ever failed, and every crash of the canonical sessions.

use blobferry_sim::{
    command::{self, Options},
    exploration::SESSIONS,
    history,
};
use clap::Parser;

/// Histories of the short search; new seeds are for `make sim`.
const HISTORIES: u64 = 300;

#[test]
fn history_of_a_seed_is_the_same_each_time() {
    for seed in 1..=12 {
        let (first, second) = (history::run(seed, true), history::run(seed, true));
        let differs = first.lines.iter().zip(&second.lines).position(|(first, second)| first != second);
        assert_eq!(differs.map(|line| (&first.lines[line], &second.lines[line])), None, "seed {seed}");
        assert_eq!(first.lines.len(), second.lines.len(), "seed {seed}");
    }
}

#[test]
fn seeds_that_failed_once_fail_no_more() {
    let seeds = include_str!("../seeds.txt").lines().filter(|line| !line.starts_with('#'));
    for seed in seeds.filter_map(|line| line.split_whitespace().next()) {
        let verdict = history::run(seed.parse().unwrap(), false);
        assert_eq!(verdict.violation, None, "make sim SEED={seed}");
    }
}

#[test]
fn histories_of_the_first_seeds_keep_the_invariant() {
    for seed in 1..=HISTORIES {
        let verdict = history::run(seed, false);
        assert_eq!(verdict.violation, None, "make sim SEED={seed}");
    }
}

#[test]
#[ignore = "takes minutes on a loaded machine: make sim runs it, with pairs"]
fn crash_at_every_place_keeps_the_invariant() {
    for session in SESSIONS {
        let explored = session.explore(false);
        assert_eq!(explored.violation, None);
        println!("{session:?}: {} crashes", explored.singles);
    }
}

#[test]
fn every_mutant_still_applies() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../mutants");
    let status = std::process::Command::new(script).arg("--check").status().unwrap();
    assert!(status.success(), "{script} --check");
}

#[test]
#[ignore = "for a search without the program: SIM='--histories 100' cargo test ... -- --ignored command"]
fn command_of_the_environment_succeeds() {
    let arguments = std::env::var("SIM").unwrap();
    command::run(&Options::parse_from(std::iter::once("sim").chain(arguments.split_whitespace()))).unwrap();
}
