//! What holds of the simulation itself, and the seeds that ever failed. `make sim` and `make test` search, with an optimised program.

use blobferry_sim::{history, seeds::failed_once};

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
    for seed in failed_once() {
        assert_eq!(history::run(seed, false).violation, None, "make sim SEED={seed}");
    }
}

#[test]
fn every_mutant_still_applies() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../mutants");
    let status = std::process::Command::new(script).arg("--check").status().unwrap();
    assert!(status.success(), "{script} --check");
}
