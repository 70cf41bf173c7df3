use std::sync::atomic::AtomicU64;

use blobferry_crds::Check;

use super::*;
use crate::{
    formats::{OrderKey, ProcessId, blob_name},
    scan::Counts,
    schedule::Claimed,
};

fn blob() -> BlobName {
    blob_name("", "20261121", "s", b"a").unwrap()
}

fn now() -> Now {
    let incoming = Counts { waiting: 2, waiting_bytes: 20, ignored: 3, oldest_ctime: Some(50), ..Counts::default() };
    Now {
        incoming,
        claimed: Claimed { waiting: 1, retrying: 4, bytes: 7, oldest: Some(40) },
        set_aside: None,
        oldest_aside: None,
        held_back: vec![],
        checks: vec![],
    }
}

#[test]
fn seen_files_are_the_sum_of_all_others() {
    let mut ledger = Ledger::default();
    ledger.resume(&Progress { files_uploaded: 10, files_superseded: 1, files_withdrawn: 1, ..Progress::default() });
    ledger.started(
        &blob(),
        Active {
            claim: ClaimId::new(OrderKey(1), ProcessId::new(1), 1),
            name: "a".into(),
            size: 9,
            since: 45,
            sent: Arc::new(AtomicU64::new(4)),
        },
    );
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
fn error_is_gone_when_its_cause_is() {
    let mut ledger = Ledger::default();
    ledger.failures.add(&blob(), "a", "Rejected", "too large", None);
    let check = Check { type_: "destination".into(), ok: false, reason: "Unreachable".into(), message: "no route".into() };
    let down = Now { checks: vec![check], ..Now::default() };
    assert_eq!(ledger.progress(&down).last_error.as_deref(), Some("no route"));
    assert_eq!(ledger.progress(&Now::default()).last_error.as_deref(), Some("a: too large"));
    ledger.completed(ClaimId::new(OrderKey(1), ProcessId::new(1), 1), &blob(), 1, 0, Some(2));
    assert_eq!(ledger.progress(&Now::default()).last_error, None);
}
