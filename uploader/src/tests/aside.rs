//! Files that fail for their own sake.

use std::{fs, time::Duration};

use super::{
    Bench,
    bench::{QUIET, rules},
};
use crate::{
    blob::{BlobError, memory::Operation},
    formats::FailedReason,
    session::Rules,
};

fn refused() -> BlobError {
    BlobError::Rejected { code: "InvalidInput".into(), message: "the service does not take it".into() }
}

async fn bench_with(max_attempts: u32) -> Bench {
    Bench::with(Rules { max_attempts, ..rules() }).await
}

/// A file that is set aside after two refusals.
async fn set_aside() -> Bench {
    let mut bench = bench_with(2).await;
    bench.store.fail_before(Operation::PutBlob, 1, refused());
    bench.store.fail_before(Operation::PutBlob, 2, refused());
    bench.drop_file("a", b"content");
    bench.settle().await;
    bench.later(Duration::from_secs(2)).await;
    bench
}

fn reason(bench: &Bench) -> FailedReason {
    let names = bench.processing();
    let path = names.iter().find(|name| name.state == crate::formats::State::FailedReason).unwrap();
    serde_json::from_slice(&fs::read(bench.processing_path(path)).unwrap()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn file_that_fails_too_often_is_set_aside_with_its_reason() {
    let mut bench = set_aside().await;
    assert_eq!(bench.states(), ["failed", "reason"]);
    let reason = reason(&bench);
    assert_eq!((reason.reason.as_str(), reason.attempts), ("InvalidInput", 2));
    bench.session.saw_server_time(bench.session.server_now() + 3_600_000_000_000);
    crate::scan::pass(&bench.session).await.unwrap();
    bench.collector.pass(&bench.session).await.unwrap();
    let progress = bench.progress();
    assert_eq!((progress.files_seen, progress.files_failed, progress.files_failing, progress.files_retrying), (1, 1, 1, 0));
    assert_eq!(progress.held_back[0].reason, "SetAside");
    assert!(progress.held_back[0].message.contains("the service does not take it"));
    assert!(!progress.caught_up, "its bytes are only on the share");
    let safe = progress.safe_through.unwrap().0.as_nanosecond();
    assert!(safe < bench.session.server_now(), "its time holds back what is safe");
}

#[tokio::test(start_paused = true)]
async fn counts_of_files_that_are_aside_survive_a_restart_and_follow_the_share() {
    let mut bench = set_aside().await;
    bench.restart().await;
    assert_eq!(bench.progress().files_failed, 1);
    assert_eq!(bench.progress().held_back[0].name, "a");
    for name in bench.processing() {
        fs::remove_file(bench.processing_path(&name)).unwrap();
    }
    bench.collector.pass(&bench.session).await.unwrap();
    assert_eq!(bench.progress().files_seen, 0);
    assert!(bench.progress().held_back.is_empty());
}

#[tokio::test(start_paused = true)]
async fn file_whose_reason_is_gone_is_tried_again() {
    let mut bench = set_aside().await;
    bench.collector.pass(&bench.session).await.unwrap();
    assert_eq!(bench.states(), ["failed", "reason"], "it stays as long as it says why");
    let names = bench.processing();
    let reason = names.iter().find(|name| name.state == crate::formats::State::FailedReason).unwrap();
    fs::remove_file(bench.processing_path(reason)).unwrap();
    bench.collector.pass(&bench.session).await.unwrap();
    assert_eq!(bench.states(), ["claimed"]);
    bench.later(QUIET).await;
    assert_eq!(bench.states(), ["completed"]);
}

#[tokio::test(start_paused = true)]
async fn failures_of_service_network_and_credential_do_not_count() {
    let mut bench = bench_with(1).await;
    bench.drop_file("a", b"content");
    let failures = [
        BlobError::Transient { message: "the network is down".into(), retry_after: None },
        BlobError::Denied { message: "no right".into() },
        BlobError::Protected { code: "BlobArchived".into(), message: "it is archived".into() },
        BlobError::ForeignBlocks { message: "InvalidBlobOrBlock".into() },
        BlobError::ContainerMissing { message: "no container".into() },
    ];
    for (nth, error) in failures.into_iter().enumerate() {
        bench.store.fail_before(Operation::PutBlob, nth + 1, error);
    }
    bench.settle().await;
    for _ in 0..5 {
        assert_eq!(bench.states(), ["claimed"]);
        bench.later(Duration::from_mins(1)).await;
    }
    assert_eq!(bench.states(), ["completed"]);
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_a_file_is_tried_for_ever() {
    let mut bench = bench_with(0).await;
    for nth in 1..=20 {
        bench.store.fail_before(Operation::PutBlob, nth, refused());
    }
    bench.drop_file("a", b"content");
    bench.settle().await;
    for _ in 0..19 {
        bench.later(Duration::from_mins(1)).await;
        assert_eq!(bench.states(), ["claimed"]);
    }
    bench.later(Duration::from_mins(1)).await;
    assert_eq!(bench.states(), ["completed"]);
}

#[tokio::test(start_paused = true)]
async fn file_whose_commit_took_place_is_completed_and_not_set_aside() {
    let mut bench = bench_with(1).await;
    bench.store.fail_after(Operation::PutBlob, 1, refused());
    bench.drop_file("a", b"content");
    bench.settle().await;
    assert_eq!(bench.states(), ["claimed"]);
    bench.later(Duration::from_secs(2)).await;
    assert_eq!(bench.states(), ["completed"]);
    assert_eq!(bench.versions("a"), [b"content".to_vec()]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_set_aside_while_nobody_can_look() {
    let mut bench = bench_with(1).await;
    bench.store.fail_before(Operation::PutBlob, 1, refused());
    bench.store.fail_before(Operation::Look, 1, BlobError::Transient { message: "down".into(), retry_after: None });
    bench.drop_file("a", b"content");
    bench.settle().await;
    assert_eq!(bench.states(), ["claimed"]);
}

#[tokio::test(start_paused = true)]
async fn file_that_is_aside_does_not_hold_up_the_next_of_its_name() {
    let mut bench = set_aside().await;
    bench.drop_file("a", b"later");
    bench.settle().await;
    assert_eq!(bench.states(), ["failed", "reason", "completed"]);
    // Taken back, it must not go over the later one.
    bench.live.send_modify(|live| live.run_token = Some("again".into()));
    bench.collector.pass(&bench.session).await.unwrap();
    bench.work().await;
    bench.later(QUIET).await;
    assert_eq!(bench.states(), ["superseded", "completed"]);
    assert_eq!(bench.content("a"), Some(b"later".to_vec()));
}

#[tokio::test(start_paused = true)]
async fn new_run_token_takes_a_file_back_and_the_same_one_does_not() {
    let mut bench = set_aside().await;
    for (token, expected) in [(None, "failed"), (Some("monday"), "completed")] {
        bench.live.send_modify(|live| live.run_token = token.map(str::to_owned));
        bench.collector.pass(&bench.session).await.unwrap();
        bench.work().await;
        bench.later(QUIET).await;
        assert_eq!(bench.states()[0], expected);
    }
    assert_eq!(bench.states(), ["completed"], "the reason is gone");
    let progress = bench.progress();
    assert_eq!((progress.files_seen, progress.files_failed, progress.files_uploaded), (1, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn file_that_fails_again_under_a_token_waits_for_another_token() {
    let mut bench = set_aside().await;
    bench.live.send_modify(|live| live.run_token = Some("monday".into()));
    for nth in 1..=2 {
        bench.store.fail_before(Operation::PutBlob, nth, refused());
    }
    bench.collector.pass(&bench.session).await.unwrap();
    bench.work().await;
    bench.later(QUIET).await;
    bench.later(Duration::from_mins(1)).await;
    assert_eq!(bench.states(), ["failed", "reason"]);
    assert_eq!(reason(&bench).run_token.as_deref(), Some("monday"));
    // Also after a restart, which knows the token from its environment.
    bench.restart().await;
    bench.work().await;
    assert_eq!(bench.states(), ["failed", "reason"]);
}

#[tokio::test(start_paused = true)]
async fn crash_between_reason_and_rename_leaves_a_claimed_file_and_no_reason_in_the_end() {
    let mut bench = set_aside().await;
    let failed = bench.processing().into_iter().find(|name| name.state == crate::formats::State::Failed).unwrap();
    let claimed = failed.with(crate::formats::State::Claimed);
    fs::rename(bench.processing_path(&failed), bench.processing_path(&claimed)).unwrap();
    bench.restart().await;
    assert_eq!(bench.states(), ["claimed", "reason"]);
    bench.work().await;
    bench.later(QUIET).await;
    assert_eq!(bench.states(), ["completed", "reason"]);
    bench.collector.pass(&bench.session).await.unwrap();
    assert_eq!(bench.states(), ["completed"]);
    assert_eq!(bench.progress().files_failed, 0);
}
