//! The reports of all uploaders of a cluster together: the operator publishes an interval, and uploaders keep to it.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    time::{Duration, Instant},
};

use blobferry_operator::decisions::status::report_interval;
use blobferry_uploader::report::{Change, Pace};

/// All sessions together write at most so many a second.
const LIMIT: f64 = 50.0;
/// What chance may add within one minute.
const CHANCE: f64 = 1.08;
const MINUTE: usize = 60;
/// After the last session has come.
const WATCHED_FOR: Duration = Duration::from_mins(30);

/// What the session of a number has to tell at any time.
type Tells = fn(usize) -> Change;

/// Numbers from 0 to 1, always the same ones.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f64::from(u32::try_from(self.0 >> 32).unwrap_or_default()) / f64::from(u32::MAX)
    }
}

/// Reports in the busiest minute when `sessions` come, one every `apart`, and each has its `change` to tell. The first report
/// of each is not counted: it belongs to its start, like the operator's writes.
fn busiest_minute(sessions: usize, apart: Duration, change: Tells) -> usize {
    let (start, mut random) = (Instant::now(), Random(1));
    let mut paces: Vec<Pace> = Vec::new();
    let mut due = BinaryHeap::new();
    let mut minutes: Vec<usize> = Vec::new();
    let mut report = |number: usize, now: Instant, paces: &mut Vec<Pace>| {
        let interval = Duration::from_secs(report_interval(paces.len()).into());
        paces[number].sent(change(number), Some(interval), now, random.next());
        Reverse((paces[number].due(change(number), now, now).max(now), number))
    };
    let end = start + apart * u32::try_from(sessions).unwrap_or_default() + WATCHED_FOR;
    let mut comes = start;
    loop {
        let next = due.peek().map_or(end, |Reverse((due, _))| *due);
        if paces.len() < sessions && comes <= next {
            paces.push(Pace::default());
            let number = paces.len() - 1;
            due.push(report(number, comes, &mut paces));
            comes += apart;
            continue;
        }
        if next >= end {
            return minutes.into_iter().max().unwrap_or_default();
        }
        let Some(Reverse((now, number))) = due.pop() else { return 0 };
        let minute = usize::try_from(now.duration_since(start).as_secs()).unwrap_or_default() / MINUTE;
        minutes.resize(minutes.len().max(minute + 1), 0);
        minutes[minute] += 1;
        due.push(report(number, now, &mut paces));
    }
}

#[test]
fn uploaders_together_keep_to_the_limit_also_while_sessions_come() {
    let changes: [(&str, Tells); 3] = [
        ("busy", |_| Change::Counters),
        ("idle", |_| Change::Nothing),
        ("half busy", |number| if number % 2 == 0 { Change::Counters } else { Change::Nothing }),
    ];
    for sessions in [250, 1000, 16_384] {
        for apart in [20, 100, 1000].map(Duration::from_millis) {
            for (name, change) in changes {
                let busiest = busiest_minute(sessions, apart, change);
                #[allow(clippy::cast_precision_loss, reason = "the numbers are small")]
                let rate = busiest as f64 / MINUTE as f64;
                assert!(rate <= LIMIT * CHANCE, "{sessions} {name} sessions, one every {apart:?}: {rate} reports a second");
            }
        }
    }
}

/// Reports in each second after all of them, at rest until then, have something to tell at one moment, and again whenever they have told
/// it.
fn seconds_of_an_outage(sessions: usize, lasts: Duration) -> Vec<usize> {
    let (start, mut random) = (Instant::now(), Random(1));
    let interval = Duration::from_secs(report_interval(sessions).into());
    let outage = start + Duration::from_hours(1);
    let mut paces = vec![Pace::default(); sessions];
    let mut due = BinaryHeap::new();
    for (number, pace) in paces.iter_mut().enumerate() {
        pace.sent(Change::Nothing, Some(interval), start + interval.mul_f64(random.next()), random.next());
        due.push(Reverse((pace.due(Change::State, outage, outage).max(outage), number)));
    }
    let mut seconds = Vec::new();
    while let Some(Reverse((now, number))) = due.pop().filter(|Reverse((now, _))| *now < outage + lasts) {
        let second = usize::try_from(now.duration_since(outage).as_secs()).unwrap_or_default();
        seconds.resize(seconds.len().max(second + 1), 0);
        seconds[second] += 1;
        paces[number].sent(Change::State, Some(interval), now, random.next());
        due.push(Reverse((paces[number].due(Change::State, now, now).max(now), number)));
    }
    seconds
}

#[test]
fn what_all_uploaders_find_at_one_moment_is_told_within_a_bound_and_comes_to_the_limit_again() {
    const MINUTES: usize = 30;
    for sessions in [100, 250, 1000, 4000, 16_384] {
        let seconds = seconds_of_an_outage(sessions, Duration::from_mins(30));
        let most = seconds.iter().max().copied().unwrap_or_default();
        assert!(most <= 750, "{sessions} sessions: {most} reports in one second");
        // Three of each go out before its share allows them.
        let (total, beyond) = (seconds.iter().sum::<usize>(), 3 * sessions);
        #[allow(clippy::cast_precision_loss, reason = "the numbers are small")]
        let rate = total.saturating_sub(beyond) as f64 / (MINUTES * MINUTE) as f64;
        // One that flaps all the time has two in an interval.
        assert!(rate <= 2.0 * LIMIT, "{sessions} sessions: {rate} reports a second");
    }
}
