use blobferry_crds::Check;

use super::*;
use crate::{
    formats::{OrderKey, ProcessId, ProcessingName, blob_name},
    scan::Counts,
    schedule::Claimed,
};

fn blob() -> BlobName {
    blob_name("", "20261121", "s", b"a").unwrap()
}

fn claimed(key: u64) -> ClaimedFile {
    let name = ProcessingName::claimed(b"a", ClaimId::new(OrderKey(key), ProcessId::new(1), 1));
    ClaimedFile { size: 9, ..ClaimedFile::adopted("/p/20261121/s".into(), name, blob()) }
}

fn now() -> Now {
    let incoming = Counts { waiting: 2, waiting_bytes: 20, ignored: 3, oldest: Some(50), ..Counts::default() };
    Now {
        incoming,
        claimed: Claimed { waiting: 1, retrying: 4, bytes: 7, oldest: Some(40), newest: Some(45) },
        set_aside: None,
        oldest_aside: None,
        newest_aside: None,
        held_back: vec![],
        checks: vec![],
    }
}

#[test]
fn seen_files_are_the_sum_of_all_others() {
    let mut ledger = Ledger::default();
    ledger.resume(&Progress { files_uploaded: 10, files_superseded: 1, files_withdrawn: 1, ..Progress::default() });
    let file = claimed(45);
    ledger.started(&file).store(4, Ordering::Relaxed);
    assert_eq!(ledger.started(&file).load(Ordering::Relaxed), 4, "it is the same file");
    let progress = ledger.progress(&now());
    assert_eq!(progress.files_seen, 10 + 1 + 1 + 3 + 1 + 4 + 3);
    assert_eq!((progress.files_waiting, progress.files_failing, progress.bytes_total, progress.bytes_uploaded), (3, 4, 36, 0));
    assert_eq!(ledger.bytes_under_way(), 4);
}

#[test]
fn safe_through_is_the_last_scan_or_the_oldest_file_and_nothing_before_all_is_known() {
    let mut ledger = Ledger { last_scan: Some(100), ..Ledger::default() };
    assert_eq!(ledger.progress(&now()).safe_through, None, "not adopted yet");
    ledger.pass_begins();
    ledger.pass_ends();
    assert_eq!(ledger.progress(&now()).safe_through, time(40));
    assert_eq!(ledger.progress(&Now::default()).safe_through, time(100));
    for (type_, hides_files) in [("source", true), ("destination", false)] {
        let failing = Check { type_: type_.into(), ok: false, reason: "Broken".into(), message: String::new() };
        assert_eq!(ledger.progress(&Now { checks: vec![failing], ..Now::default() }).caught_up, !hides_files);
    }
    assert!(ledger.progress(&Now::default()).caught_up);
    ledger.doubts.add(70);
    assert_eq!(ledger.progress(&Now::default()).safe_through, time(70));
    assert!(!ledger.progress(&Now::default()).caught_up);
    let unknown = Now { incoming: Counts { unknown: true, waiting: 1, ..Counts::default() }, ..Now::default() };
    assert_eq!(ledger.progress(&unknown).safe_through, None);
    assert!(!ledger.progress(&unknown).caught_up);
}

#[test]
fn what_an_earlier_process_was_busy_with_waits_until_it_is_known_again() {
    let held = vec![problem("a", "StillGrowing", "it is new")];
    let oldest_waiting_since = time(40);
    let mut ledger = Ledger::default();
    ledger.resume(&Progress {
        files_seen: 10,
        files_uploaded: 1,
        files_waiting: 2,
        files_active: 3,
        files_retrying: 4,
        files_failing: 4,
        held_back: held,
        oldest_waiting_since,
        ..Progress::default()
    });
    let shown = ledger.before_recovery(Vec::new()).unwrap();
    assert_eq!((shown.files_seen, shown.files_waiting, shown.files_active, shown.files_retrying), (10, 9, 0, 0));
    assert_eq!((shown.files_failing, shown.held_back, shown.oldest_waiting_since), (0, vec![], None));
}

#[test]
fn nothing_is_called_safe_while_a_file_waits_from_before_the_clock_was_set_back() {
    let mut ledger = Ledger { last_scan: Some(100), ..Ledger::default() };
    ledger.pass_begins();
    ledger.pass_ends();
    let hour = 3_600_000_000_000;
    let waiting = Now { incoming: Counts { oldest: Some(hour), newest: Some(hour), ..Counts::default() }, ..Now::default() };
    for (server_now, safe) in [(100, None), (hour - 1, time(100))] {
        ledger.saw_server_time(server_now);
        assert_eq!(ledger.progress(&waiting).safe_through, safe);
        assert_eq!(ledger.progress(&Now::default()).safe_through, time(100));
    }
}

#[test]
fn files_of_earlier_processes_are_counted_once_whenever_the_old_counts_are_read() {
    let old = Progress { files_uploaded: 7, counted_through: Timestamp::from_nanosecond(100).ok(), ..Progress::default() };
    for early in [true, false] {
        let mut ledger = Ledger::default();
        if early {
            ledger.resume(&old);
        }
        for (key, ctime) in [(1, 100), (2, 101)] {
            ledger.found_completed(&ClaimId::new(OrderKey(key), ProcessId::new(1), 1), 1, ctime);
        }
        ledger.found_all();
        ledger.saw_server_time(200);
        if !early {
            ledger.resume(&old);
        }
        assert_eq!(ledger.progress(&Now::default()).files_uploaded, 8);
        assert_eq!(ledger.counted_through(), Some(101));
    }
}

#[test]
fn oldest_file_that_is_tried_again_is_shown_first() {
    let mut ledger = Ledger::default();
    for (name, since) in [("a", 30), ("b", 10), ("c", 20)] {
        let blob = blob_name("", "20261121", "s", name.as_bytes()).unwrap();
        ledger.failures.add(&ClaimedFile { blob, since, ..claimed(45) }, "Unreachable", name, None);
    }
    let shown: Vec<_> = ledger.failures.failing().map(|problem| problem.message.as_str()).collect();
    assert_eq!(shown, ["b", "c", "a"]);
}

#[test]
fn error_is_gone_when_its_cause_is() {
    let mut ledger = Ledger::default();
    ledger.failures.add(&claimed(45), "Rejected", "too large", None);
    let check = Check { type_: "destination".into(), ok: false, reason: "Unreachable".into(), message: "no route".into() };
    let down = Now { checks: vec![check], ..Now::default() };
    assert_eq!(ledger.progress(&down).last_error.as_deref(), Some("no route"));
    assert_eq!(ledger.progress(&Now::default()).last_error.as_deref(), Some("a: too large"));
    ledger.completed(ClaimId::new(OrderKey(1), ProcessId::new(1), 1), &blob(), 1, 0, Some(2));
    assert_eq!(ledger.progress(&Now::default()).last_error, None);
}
