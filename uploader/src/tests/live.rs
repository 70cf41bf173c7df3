//! Settings that change while the session runs.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::Bench;
use crate::{run::rest, scan, work};

const HOUR: Duration = Duration::from_hours(1);

#[tokio::test(start_paused = true)]
async fn quiet_period_of_now_decides_when_a_file_is_taken() {
    let mut bench = Bench::new().await;
    bench.live.send_modify(|live| live.min_file_age = HOUR);
    bench.drop_file("a", b"content");
    bench.settle().await;
    assert_eq!(bench.progress().held_back[0].reason, "TooYoung");
    bench.live.send_modify(|live| live.min_file_age = Duration::from_secs(1));
    bench.settle().await;
    assert_eq!(bench.states(), ["completed"]);
}

#[tokio::test(start_paused = true)]
async fn completed_files_are_kept_for_as_long_as_the_settings_of_now_say() {
    let mut bench = Bench::new().await;
    bench.live.send_modify(|live| live.keep_completed_for = Duration::MAX);
    bench.drop_file("a", b"content");
    bench.settle().await;
    bench.collector.pass(&bench.session).await.unwrap();
    tokio::time::advance(HOUR).await;
    bench.session.saw_server_time(bench.session.server_now() + 3_600_000_000_000);
    assert_eq!(bench.collector.pass(&bench.session).await.unwrap().deleted, 0);
    bench.live.send_modify(|live| live.keep_completed_for = Duration::ZERO);
    assert_eq!(bench.collector.pass(&bench.session).await.unwrap().deleted, 1);
}

#[tokio::test(start_paused = true)]
async fn pause_that_has_begun_is_cut_short_by_a_shorter_one_and_made_longer_by_a_longer_one() {
    let bench = Bench::new().await;
    for (seconds, expected) in [(1, 60), (600, 600)] {
        bench.live.send_modify(|live| live.poll_interval = Duration::from_mins(2));
        let start = Instant::now();
        let change = async {
            tokio::time::sleep(Duration::from_mins(1)).await;
            bench.live.send_modify(|live| live.poll_interval = Duration::from_secs(seconds));
        };
        tokio::join!(rest(&bench.session, start, |live| live.poll_interval), change);
        assert_eq!(start.elapsed(), Duration::from_secs(expected));
    }
}

#[tokio::test]
async fn worker_above_the_number_of_now_takes_nothing_until_there_may_be_more() {
    let mut bench = Bench::new().await;
    bench.live.send_modify(|live| {
        live.workers = 1;
        live.min_file_age = Duration::ZERO;
    });
    bench.drop_file("a", b"content");
    scan::pass(&bench.session).await.unwrap();
    scan::pass(&bench.session).await.unwrap();
    let second = tokio::spawn(work::worker(Arc::clone(&bench.session), 1));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(bench.incoming("a").exists(), "a second worker worked");
    bench.live.send_modify(|live| live.workers = 2);
    while bench.states() != ["completed"] {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bench.live.send_modify(|live| live.workers = 1);
    bench.drop_file("b", b"content");
    scan::pass(&bench.session).await.unwrap();
    scan::pass(&bench.session).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(bench.incoming("b").exists(), "a worker too many went on");
    second.abort();
    bench.work().await;
    assert_eq!(bench.states(), ["completed", "completed"]);
}
