use std::fs::File;

use super::*;

fn state(text: &str) -> Fingerprint {
    Fingerprint::of(text.as_bytes())
}

fn descriptor() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}

/// Two generations of `a`, the second of which grew.
fn ledger() -> Ledger {
    let mut ledger = Ledger::default();
    for (id, text) in [(1, "one"), (2, "tw"), (2, "two")] {
        ledger.announce("a", id, state(text));
    }
    for id in [1, 2] {
        ledger.made("a", id, descriptor());
    }
    ledger
}

#[track_caller]
fn assert_violation<T: std::fmt::Debug>(result: Result<T, Violation>, what: &str) {
    let violation = result.unwrap_err();
    assert!(violation.what.contains(what), "{violation:?}");
}

#[test]
fn each_state_in_order_and_once_is_right() {
    let mut ledger = ledger();
    for text in ["one", "tw", "two"] {
        ledger.commit("a", state(text)).unwrap();
    }
    assert_eq!(ledger.check_end(|_| None).unwrap(), Sums { generations: 2, committed: 3, ..Sums::default() });
}

#[test]
fn mixed_content_and_unknown_names_are_seen() {
    assert_violation(ledger().commit("a", state("onetw")), "no state of any generation");
    assert_violation(ledger().commit("b", state("one")), "nobody dropped");
}

#[test]
fn second_commit_and_step_back_are_seen() {
    let mut ledger = ledger();
    ledger.commit("a", state("tw")).unwrap();
    assert_violation(ledger.commit("a", state("tw")), "once more");
    assert_violation(ledger.commit("a", state("one")), "over a later one");
}

#[test]
fn commit_of_what_was_taken_back_is_seen() {
    let mut ledger = ledger();
    ledger.withdraw("a", 1);
    assert_violation(ledger.commit("a", state("one")), "took it back");
}

#[test]
fn deletion_before_the_last_commit_is_seen() {
    let mut ledger = ledger();
    ledger.check_deletions_by(|_| 1).unwrap();
    ledger.commit("a", state("one")).unwrap();
    ledger.commit("a", state("tw")).unwrap();
    assert_violation(ledger.check_deletions_by(|_| 0), "generation 2 was deleted before");
    ledger.commit("a", state("two")).unwrap();
    ledger.check_deletions_by(|_| 0).unwrap();
}

#[test]
fn empty_contents_are_committed_as_often_as_they_were_dropped() {
    let mut ledger = Ledger::default();
    for id in [1, 2] {
        ledger.announce("a", id, state(""));
    }
    ledger.commit("a", state("")).unwrap();
    ledger.commit("a", state("")).unwrap();
    assert_violation(ledger.commit("a", state("")), "committed");
}

#[test]
fn at_the_end_nothing_is_lost_or_left() {
    let mut ledger = ledger();
    let at = |path: &str, text: &str| (path.to_owned(), state(text));
    assert_violation(ledger.check_end(|_| None), "generation 1 is lost");
    assert_violation(ledger.check_end(|_| Some(at("incoming/a", "one"))), "still incoming/a");
    assert_violation(ledger.check_end(|_| Some(at("a.superseded", "one"))), "superseded by nothing");
    ledger.commit("a", state("two")).unwrap();
    assert_violation(ledger.check_end(|_| Some(at("a.superseded", "on"))), "other bytes");
    let sums = ledger.check_end(|_| Some(at("a.superseded", "one"))).unwrap();
    assert_eq!(sums, Sums { generations: 2, committed: 1, superseded: 1, withdrawn: 0 });
}
