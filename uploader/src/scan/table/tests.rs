use super::{
    candidate::{EMPTY_QUIET, HELD_LOOK},
    *,
};

const QUIET: Duration = Duration::from_secs(5);
const PERIODS: Periods = Periods { quiet: QUIET, held: HELD_LOOK };
const SCANNED: i128 = 100;

fn table() -> Table {
    Table::new(Filter::new(&[], &["*.tmp".to_owned()]).unwrap(), false)
}

fn file(size: u64, ctime: i128) -> Attributes {
    Attributes { kind: Kind::File, identity: Identity { inode: 1, size, mtime: 0, ctime }, links: 1 }
}

/// One scan that sees `name` with `attributes` at `now`.
fn scan(table: &mut Table, name: &[u8], attributes: &Attributes, now: Instant) {
    table.begin_scan(PERIODS);
    if table.observe(name, Kind::File, now) {
        table.sample(name, attributes, now);
    }
    table.end_scan(SCANNED);
}

#[tokio::test(start_paused = true)]
async fn listed_name_that_does_not_answer_is_in_doubt_since_the_scan_before_it_came_and_gone_when_no_listing_shows_it() {
    let (mut table, start) = (table(), Instant::now());
    table.begin_scan(PERIODS);
    assert!(table.end_scan(10).is_empty());
    for started in [20, 30] {
        table.begin_scan(PERIODS);
        assert!(table.observe(b"a", Kind::File, start), "it is looked at in each scan");
        table.absent(b"a");
        assert!(table.end_scan(started).is_empty());
    }
    assert_eq!(table.summary().counts, Counts { unsure_since: Some(10), ..Counts::default() });
    table.begin_scan(PERIODS);
    assert_eq!(table.end_scan(40), [Gone { since: 10, was_seen: false }], "another uploader may have claimed it");
    assert_eq!(table.summary().counts, Counts::default());
}

#[test]
fn names_that_a_scan_left_out_wait_until_the_next_one_is_complete() {
    let mut table = table();
    table.begin_scan(PERIODS);
    table.leave_out();
    table.end_scan(SCANNED);
    for interrupted in [true, true, false] {
        table.begin_scan(PERIODS);
        table.summary = None;
        assert_eq!((table.summary().counts.waiting, table.summary().counts.unknown), (1, true), "nobody has looked yet");
        if !interrupted {
            table.end_scan(SCANNED);
        }
    }
    assert_eq!(table.summary().counts, Counts::default());
}

#[tokio::test(start_paused = true)]
async fn name_that_is_being_claimed_is_not_gone_however_many_scans_miss_it() {
    let (mut table, start) = (table(), Instant::now());
    scan(&mut table, b"a", &file(1, 7), start);
    table.queued(b"a");
    table.claiming(b"a");
    for _ in 0..3 {
        table.begin_scan(PERIODS);
        assert!(table.end_scan(SCANNED).is_empty());
        assert_eq!(table.summary().counts.waiting, 1);
    }
    assert!(!table.claimed(b"a"));
    assert_eq!(table.summary().counts, Counts::default());
}

#[tokio::test(start_paused = true)]
async fn file_whose_name_another_one_took_is_told_and_one_that_changed_is_not() {
    let (mut table, start) = (table(), Instant::now());
    scan(&mut table, b"a", &file(1, 7), start);
    assert_eq!(table.sample(b"a", &file(2, 8), start), None);
    let other = Attributes { identity: Identity { inode: 2, ..file(2, 9).identity }, ..file(2, 9) };
    assert_eq!(table.sample(b"a", &other, start), Some(8));
    assert_eq!(table.sample(b"a", &Attributes { kind: Kind::Special, ..other }, start), Some(9));
}

#[tokio::test(start_paused = true)]
async fn file_whose_attributes_alone_change_has_waited_since_before() {
    let (mut table, start) = (table(), Instant::now());
    scan(&mut table, b"a", &file(1, 7), start);
    table.sample(b"a", &file(1, 9), start);
    assert_eq!(table.names[b"a".as_slice()].since(), 7);
    let counts = table.summary().counts;
    assert_eq!((counts.oldest, counts.newest), (Some(7), Some(7)), "nothing is safe beyond it");
    table.sample(b"a", &file(2, 11), start);
    assert_eq!(table.names[b"a".as_slice()].since(), 11, "its content is another");
}

#[tokio::test(start_paused = true)]
async fn file_that_answers_after_the_name_was_absent_may_not_be_the_one_that_was_listed() {
    let (mut table, start) = (table(), Instant::now());
    table.begin_scan(PERIODS);
    table.end_scan(10);
    table.begin_scan(PERIODS);
    assert!(table.observe(b"a", Kind::File, start));
    table.absent(b"a");
    table.end_scan(20);
    assert_eq!(table.sample(b"a", &file(1, 25), start), Some(10));
    assert_eq!(table.sample(b"a", &file(1, 25), start), None);
}

#[tokio::test(start_paused = true)]
async fn file_that_changed_before_its_claim_has_waited_since_its_sample() {
    let (mut table, start) = (table(), Instant::now());
    scan(&mut table, b"a", &file(1, 7), start);
    table.watch_again(b"a");
    for gone in [None, Some(Gone { since: 7, was_seen: false })] {
        table.begin_scan(PERIODS);
        assert_eq!(table.end_scan(SCANNED).pop(), gone);
    }
}

#[tokio::test(start_paused = true)]
async fn file_is_stable_after_two_equal_looks_and_the_quiet_period() {
    let (mut table, start) = (table(), Instant::now());
    scan(&mut table, b"a", &file(1, 1), start);
    assert!(table.stable().is_empty(), "one look is not enough");
    scan(&mut table, b"a", &file(1, 1), start + Duration::from_secs(2));
    assert!(table.stable().is_empty(), "too young");
    scan(&mut table, b"a", &file(1, 1), start + QUIET);
    assert_eq!(table.stable().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn change_seen_at_the_last_look_starts_the_quiet_period_again() {
    let (mut table, start) = (table(), Instant::now());
    scan(&mut table, b"a", &file(1, 1), start);
    scan(&mut table, b"a", &file(1, 1), start + Duration::from_secs(2));
    scan(&mut table, b"a", &file(2, 2), start + QUIET);
    assert!(table.stable().is_empty());
    scan(&mut table, b"a", &file(2, 2), start + QUIET * 2);
    assert_eq!(table.stable()[0].sample.size, 2);
}

#[tokio::test(start_paused = true)]
async fn empty_file_waits_a_minute() {
    let (mut table, start) = (table(), Instant::now());
    for seconds in [0, 2, 59] {
        scan(&mut table, b"a", &file(0, 1), start + Duration::from_secs(seconds));
        assert!(table.stable().is_empty());
    }
    scan(&mut table, b"a", &file(0, 1), start + EMPTY_QUIET);
    assert_eq!(table.stable().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn name_missed_by_one_scan_stays_and_by_two_is_withdrawn() {
    let (mut table, start) = (table(), Instant::now());
    scan(&mut table, b"a", &file(1, 1), start);
    table.begin_scan(PERIODS);
    assert!(table.end_scan(SCANNED).is_empty());
    table.begin_scan(PERIODS);
    assert_eq!(table.end_scan(SCANNED).len(), 1);
    assert_eq!(table.summary().counts, Counts::default());
}

#[tokio::test(start_paused = true)]
async fn known_quiet_names_are_not_looked_at() {
    let (mut table, start) = (table(), Instant::now());
    scan(&mut table, b"a", &file(1, 1), start);
    scan(&mut table, b"a", &file(1, 1), start + QUIET);
    table.queued(b"a");
    table.begin_scan(PERIODS);
    assert!(!table.observe(b"a", Kind::File, start + QUIET * 9));
    assert!(!table.observe(b"x.tmp", Kind::File, start));
    assert!(!table.observe(b"x.tmp", Kind::File, start + QUIET));
}

#[tokio::test(start_paused = true)]
async fn stable_file_that_waits_for_room_is_not_looked_at_again_and_nothing_holds_it_back() {
    let (mut table, start) = (table(), Instant::now());
    scan(&mut table, b"a", &file(1, 1), start);
    scan(&mut table, b"a", &file(1, 1), start + QUIET);
    table.begin_scan(PERIODS);
    assert!(!table.observe(b"a", Kind::File, start + QUIET * 9));
    assert_eq!((table.stable().len(), table.summary().held_back.len()), (1, 0));
    table.begin_scan(Periods { quiet: QUIET * 2, ..PERIODS });
    assert!(table.observe(b"a", Kind::File, start + QUIET * 2), "the quiet period was made longer");
    assert_eq!((table.stable().len(), table.summary().counts.waiting), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn held_file_is_tried_again_after_a_minute_and_a_link_that_became_a_file_at_once() {
    let (mut table, start) = (table(), Instant::now());
    scan(&mut table, b"a", &file(1, 1), start);
    scan(&mut table, b"a", &file(1, 1), start + QUIET);
    table.hold(b"a", Held::lasting("Unreadable", String::new()));
    scan(&mut table, b"a", &file(1, 1), start + QUIET * 2);
    assert!(table.stable().is_empty());
    scan(&mut table, b"a", &file(1, 1), start + QUIET + HELD_LOOK);
    assert_eq!(table.stable().len(), 1);
    table.begin_scan(PERIODS);
    assert!(!table.observe(b"link", Kind::Special, start));
    assert!(table.observe(b"link", Kind::File, start));
}

#[tokio::test(start_paused = true)]
async fn name_of_unknown_kind_is_looked_at_again_now_and_then_because_a_file_may_have_taken_it() {
    let (mut table, start) = (table(), Instant::now());
    let link = Attributes { kind: Kind::Special, ..file(1, 1) };
    let observe = |table: &mut Table, now| {
        table.begin_scan(PERIODS);
        table.observe(b"a", Kind::Unknown, now)
    };
    assert!(observe(&mut table, start));
    table.sample(b"a", &link, start);
    assert!(!observe(&mut table, start + QUIET));
    assert_eq!(table.summary().counts.ignored, 1);
    assert!(observe(&mut table, start + HELD_LOOK));
    table.sample(b"a", &link, start + HELD_LOOK);
    assert!(!observe(&mut table, start + HELD_LOOK + QUIET));
    assert!(observe(&mut table, start + HELD_LOOK * 2));
    table.sample(b"a", &file(1, 1), start + HELD_LOOK * 2);
    assert_eq!(table.summary().counts.waiting, 1);
}

#[tokio::test(start_paused = true)]
async fn folder_of_unknown_kind_is_looked_at_when_folders_are_entered_whatever_files_are_taken() {
    let filter = || Filter::new(&[".bin".to_owned()], &["*.tmp".to_owned()]).unwrap();
    let start = Instant::now();
    for (recursive, name, expected) in [(true, "folder", true), (true, "x.tmp", false), (false, "folder", false)] {
        let mut table = Table::new(filter(), recursive);
        table.begin_scan(PERIODS);
        assert_eq!(table.observe(name.as_bytes(), Kind::Unknown, start), expected, "{name}");
        if expected {
            table.sample(name.as_bytes(), &file(1, 1), start);
            assert_eq!(table.summary().counts, Counts { ignored: 1, ..Counts::default() }, "it was a file and is not wanted");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn bad_name_is_not_looked_at_again() {
    let (mut table, start) = (table(), Instant::now());
    scan(&mut table, b"a", &file(1, 1), start);
    table.hold(b"a", Held::bad_name("shorten it".into()));
    table.begin_scan(PERIODS);
    assert!(!table.observe(b"a", Kind::File, start + HELD_LOOK * 9));
    assert_eq!(table.summary().counts.held, 1);
}

#[tokio::test(start_paused = true)]
async fn file_of_which_the_share_said_nothing_is_shown_looked_at_again_at_once_and_not_left_for_a_person() {
    let (mut table, start) = (table(), Instant::now());
    scan(&mut table, b"a", &file(1, 1), start);
    table.hold(b"a", Held::unanswered("Unreadable", "input/output error".into()));
    assert_eq!(table.summary().held_back[0].1.reason, "Unreadable");
    assert_eq!((table.summary().counts.waiting, table.summary().counts.held), (1, 0));
    table.begin_scan(PERIODS);
    assert!(table.observe(b"a", Kind::File, start));
}

#[tokio::test(start_paused = true)]
async fn links_and_ignored_names_are_counted_as_ignored() {
    let (mut table, start) = (table(), Instant::now());
    table.begin_scan(PERIODS);
    assert!(!table.observe(b"link", Kind::Special, start));
    assert!(!table.observe(b"x.tmp", Kind::File, start));
    assert!(table.observe(b"a", Kind::Unknown, start));
    table.sample(b"a", &Attributes { kind: Kind::Special, ..file(1, 1) }, start);
    assert_eq!(table.summary().counts, Counts { ignored: 3, ..Counts::default() });
}

#[tokio::test(start_paused = true)]
async fn folder_that_is_closed_is_shown_and_its_files_are_not_taken_for_withdrawn() {
    let (mut table, start) = (table(), Instant::now());
    scan(&mut table, b"a/x", &file(1, 1), start);
    for _ in 0..3 {
        table.begin_scan(PERIODS);
        table.close(b"a", Held::lasting("Unreadable", String::new()));
        assert!(table.end_scan(SCANNED).is_empty());
    }
    let counts = table.summary().counts;
    assert_eq!((counts.waiting, counts.held, counts.unknown), (2, 1, true));
    for gone in [vec![], vec![(1, true), (i128::MIN, false)]] {
        table.begin_scan(PERIODS);
        let mut found = table.end_scan(SCANNED);
        found.sort_by_key(|gone| !gone.was_seen);
        assert_eq!(found.iter().map(|gone| (gone.since, gone.was_seen)).collect::<Vec<_>>(), gone);
    }
}

#[tokio::test(start_paused = true)]
async fn file_that_is_held_back_is_looked_at_before_an_idle_session_may_end() {
    let (mut table, start) = (table(), Instant::now());
    scan(&mut table, b"a", &file(1, 1), start);
    table.hold(b"a", Held::lasting("Unreadable", String::new()));
    let idle = Duration::from_secs(20);
    for (periods, due) in [(Periods::new(QUIET, None), false), (Periods::new(QUIET, Some(idle)), true)] {
        table.begin_scan(periods);
        assert_eq!(table.observe(b"a", Kind::File, start + idle / 2), due);
    }
    assert_eq!(Periods::new(QUIET, Some(Duration::from_hours(1))), PERIODS);
}
