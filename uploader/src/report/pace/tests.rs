use blobferry_crds::{ActiveFile, Check};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;

const MIDDLE: f64 = 0.5;

fn report(change: impl FnOnce(&mut Report)) -> Report {
    let mut report = Report::default();
    change(&mut report);
    report
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A pace that sent its first two reports at the returned time.
fn started(interval: u64) -> (Pace, Instant) {
    let (mut pace, now) = (Pace::default(), Instant::now());
    for _ in 0..2 {
        pace.sent(Change::Nothing, Some(seconds(interval)), now, MIDDLE);
    }
    (pace, now)
}

#[test]
fn the_second_report_follows_the_first_soon() {
    let (mut pace, now) = (Pace::default(), Instant::now());
    for wait in [21, 300] {
        pace.sent(Change::Nothing, Some(seconds(21)), now, MIDDLE);
        assert_eq!(pace.due(Change::Nothing, now, now), now + seconds(wait));
    }
}

#[test]
fn what_a_person_or_the_operator_waits_for_is_a_change_of_state() {
    let check = || Check { type_: "source".into(), ok: false, reason: "Missing".into(), message: String::new() };
    let changes: [Report; 4] = [
        report(|report| report.progress.checks.push(check())),
        report(|report| report.progress.caught_up = true),
        report(|report| report.progress.last_error = Some("x".into())),
        report(|report| report.progress.files_failing = 1),
    ];
    for changed in &changes {
        assert_eq!(Change::between(&Report::default(), changed), Change::State);
        assert_eq!(Change::between(changed, &Report::default()), Change::State);
    }
}

#[test]
fn counters_and_what_is_being_done_are_counters() {
    let busy = report(|report| report.progress.files_active = 1);
    let changes: [fn(&mut Report); 6] = [
        |report| report.progress.files_active = 2,
        |report| report.progress.files_counted_beyond = 1,
        |report| report.progress.bytes_uploaded = 1,
        |report| report.progress.files_waiting = 1,
        |report| report.activity.rate = "1.0 MB/s".into(),
        |report| report.activity.active_files.push(ActiveFile { name: "a".into(), bytes_sent: 0, size: 1 }),
    ];
    for change in changes {
        let mut new = busy.clone();
        change(&mut new);
        assert_eq!(Change::between(&busy, &new), Change::Counters);
    }
    assert_eq!(Change::between(&busy, &busy), Change::Counters, "it is at work, and not silent");
}

#[test]
fn times_and_free_space_alone_are_no_change() {
    let changed = report(|report| {
        let now = Time(jiff::Timestamp::now());
        report.progress.safe_through = Some(now.clone());
        report.progress.counted_through = Some(now.0);
        report.progress.share_free_bytes = Some(1);
        report.activity.last_scan_time = Some(now);
    });
    assert_eq!(Change::between(&Report::default(), &changed), Change::Nothing);
}

#[test]
fn the_first_report_is_due_at_once() {
    let now = Instant::now();
    assert_eq!(Pace::default().due(Change::Nothing, now, now), now);
}

#[test]
fn a_change_of_state_after_a_quiet_time_is_due_at_once() {
    let (pace, start) = started(5);
    let later = start + seconds(20);
    assert!(pace.due(Change::State, later, later) <= later);
    let (pace, start) = started(64);
    assert!(pace.due(Change::Counters, start + seconds(20), start + seconds(20)) > start + seconds(20));
}

#[test]
fn a_change_of_state_of_many_sessions_is_spread_over_a_tenth_of_their_interval() {
    let (mut pace, start) = started(5);
    for (random, after) in [(0.0, 0.0), (0.5, 9.75), (1.0, 19.5)] {
        pace.sent(Change::Nothing, Some(seconds(200)), start, random);
        let since = start + seconds(100);
        for now in [since, since + seconds(3)] {
            let wait = pace.due(Change::State, since, now).duration_since(since).as_secs_f64();
            assert!((wait - after).abs() < 0.01, "{wait} instead of {after}");
        }
    }
}

#[test]
fn changes_of_state_are_smoothed_to_one_per_five_seconds_or_more_if_sessions_are_many() {
    for (interval, wait) in [(5, 5.0), (64, 10.9)] {
        let (pace, start) = started(interval);
        let due = pace.due(Change::State, start, start).duration_since(start).as_secs_f64();
        assert!((due - wait).abs() < 0.01, "{due}");
    }
}

#[test]
fn counters_are_due_at_the_interval_and_an_idle_session_every_five_minutes() {
    let (pace, start) = started(64);
    assert_eq!(pace.due(Change::Counters, start, start), start + seconds(64));
    assert_eq!(pace.due(Change::Nothing, start, start), start + seconds(300));
}

#[test]
fn jitter_spreads_reports_by_a_tenth_and_never_delays_an_idle_one() {
    let (mut pace, start) = started(100);
    for (random, counters, idle) in [(0.0, 90.0, 270.0), (0.5, 100.0, 300.0), (1.0, 110.0, 270.0)] {
        pace.sent(Change::Counters, None, start, random);
        assert_waits(&pace, start, counters, idle);
    }
}

#[test]
fn first_report_at_a_longer_interval_is_spread_by_half() {
    for (random, counters, idle) in [(0.0, 50.0, 150.0), (1.0, 150.0, 150.0)] {
        let (mut pace, start) = started(50);
        pace.sent(Change::Counters, Some(seconds(100)), start, random);
        assert_waits(&pace, start, counters, idle);
        pace.sent(Change::Counters, Some(seconds(100)), start, MIDDLE);
        assert_waits(&pace, start, 100.0, 300.0);
    }
}

fn assert_waits(pace: &Pace, start: Instant, counters: f64, idle: f64) {
    let wait = |change| pace.due(change, start, start).duration_since(start).as_secs_f64();
    assert!((wait(Change::Counters) - counters).abs() < 0.01);
    assert!((wait(Change::Nothing) - idle).abs() < 0.01);
}

#[test]
fn an_interval_below_five_seconds_is_not_believed() {
    let (pace, start) = started(0);
    assert_eq!(pace.due(Change::Counters, start, start), start + seconds(5));
}

/// 10,000 sessions share 50 writes a second, so each may write every 200 s, also if its state changes all the time.
#[test]
fn a_session_that_flaps_for_hours_keeps_to_its_share() {
    let (mut pace, start) = started(200);
    let (mut now, mut reports, mut early) = (start, 0, 0);
    while now < start + Duration::from_hours(10) {
        let due = pace.due(Change::State, now, now).max(now);
        early += u32::from(due < now + seconds(30));
        now = due;
        pace.sent(Change::State, None, now, MIDDLE);
        reports += 1;
    }
    assert!(reports <= 2 * 36_000 / 200, "{reports}");
    assert!(early >= 3, "{early}");
}

#[test]
fn at_the_smallest_interval_every_change_of_state_goes_out_every_five_seconds() {
    let (mut pace, start) = started(5);
    let mut now = start;
    for _ in 0..20 {
        assert_eq!(pace.due(Change::State, now, now), now + seconds(5));
        now += seconds(5);
        pace.sent(Change::State, None, now, MIDDLE);
    }
}

#[test]
fn failures_wait_longer_and_longer_up_to_a_minute() {
    let (mut pace, now) = started(5);
    let mut waits = Vec::new();
    for _ in 0..40 {
        pace.failed(now, MIDDLE);
        waits.push(pace.due(Change::State, now, now).duration_since(now).as_secs());
    }
    assert_eq!(waits[..7], [1, 2, 4, 8, 16, 32, 60]);
    assert_eq!(waits[39], 60);
    pace.sent(Change::State, None, now, MIDDLE);
    assert_eq!((pace.failures(), pace.due(Change::State, now, now)), (0, now + seconds(5)));
}
