//! Histories that would lose, double or mix bytes if a rule were missing.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::{FileExt, PermissionsExt},
    time::Duration,
};

use super::{
    Bench,
    bench::{QUIET, blob},
};
use crate::blob::{BlobError, memory::Operation};

fn large(seed: u8) -> Vec<u8> {
    (0..300_000_u32).map(|index| u8::try_from(index % 251).unwrap() ^ seed).collect()
}

fn transient() -> BlobError {
    BlobError::Transient { message: "the network is down".into(), retry_after: None }
}

#[tokio::test(start_paused = true)]
async fn lost_reply_of_a_put_is_settled_by_a_look() {
    let mut bench = Bench::new().await;
    bench.store.lose_reply(Operation::PutBlob, 1);
    bench.drop_file("a", b"content");
    bench.settle().await;
    assert_eq!(bench.states(), ["claimed"]);
    assert_eq!(bench.progress().files_failing, 1);
    bench.later(Duration::from_secs(2)).await;
    assert_eq!(bench.states(), ["completed"]);
    assert_eq!(bench.versions("a"), [b"content".to_vec()]);
    assert_eq!(bench.progress().files_failing, 0);
}

#[tokio::test(start_paused = true)]
async fn lost_reply_of_a_commit_is_settled_without_another_commit() {
    let mut bench = Bench::new().await;
    bench.store.lose_reply(Operation::Commit, 1);
    bench.drop_file("a", &large(0));
    bench.settle().await;
    bench.later(Duration::from_secs(2)).await;
    assert_eq!(bench.states(), ["completed"]);
    assert_eq!(bench.store.calls(Operation::Commit), 1);
}

#[tokio::test(start_paused = true)]
async fn crash_between_commit_and_proof_is_recovered_without_another_commit() {
    for content in [b"small".to_vec(), large(0)] {
        let mut bench = Bench::new().await;
        bench.drop_file("a", &content);
        let operation = if content.len() < 100 { Operation::PutBlob } else { Operation::Commit };
        bench.store.lose_reply(operation, 1);
        bench.settle().await;
        bench.restart().await;
        bench.work().await;
        assert_eq!(bench.states(), ["completed"]);
        assert_eq!(bench.versions("a"), [content]);
    }
}

#[tokio::test(start_paused = true)]
async fn blocks_that_the_service_has_are_not_sent_again_after_a_crash() {
    let mut bench = Bench::new().await;
    bench.drop_file("a", &large(0));
    bench.store.fail_before(Operation::Look, 1, transient());
    bench.settle().await;
    // The first look fails before anything is sent; the second attempt sends all and fails at the commit.
    bench.store.fail_before(Operation::Commit, 1, transient());
    bench.later(Duration::from_secs(2)).await;
    assert_eq!(bench.store.calls(Operation::PutBlock), 5);
    bench.restart().await;
    bench.work().await;
    assert_eq!(bench.states(), ["claimed"], "an adopted file must be seen quiet first");
    bench.later(QUIET).await;
    assert_eq!(bench.states(), ["completed"]);
    assert_eq!(bench.store.calls(Operation::PutBlock), 5, "nothing was sent again");
    assert_eq!(bench.progress().bytes_resumed, 300_000);
    assert_eq!(bench.content("a"), Some(large(0)));
}

#[tokio::test(start_paused = true)]
async fn blocks_of_another_state_of_the_file_are_not_reused() {
    let mut bench = Bench::new().await;
    bench.drop_file("a", &large(0));
    bench.store.fail_before(Operation::Commit, 1, transient());
    bench.settle().await;
    let claimed = bench.processing_path(&bench.processing()[0]);
    OpenOptions::new().write(true).open(claimed).unwrap().write_all_at(b"rewritten", 200_000).unwrap();
    bench.restart().await;
    bench.work().await;
    bench.later(QUIET).await;
    let mut expected = large(0);
    expected[200_000..200_009].copy_from_slice(b"rewritten");
    assert_eq!(bench.versions("a"), [expected]);
    assert_eq!(bench.store.calls(Operation::PutBlock), 10);
}

#[tokio::test(start_paused = true)]
async fn file_that_changes_while_it_is_sent_is_not_committed_before_it_is_quiet() {
    let mut bench = Bench::new().await;
    bench.drop_file("a", &large(0));
    bench.store.fail_before(Operation::Commit, 1, transient());
    bench.settle().await;
    let claimed = bench.processing_path(&bench.processing()[0]);
    fs::write(claimed, large(9)).unwrap();
    bench.later(Duration::from_secs(2)).await;
    assert_eq!(bench.content("a"), None);
    bench.later(QUIET).await;
    assert_eq!(bench.versions("a"), [large(9)]);
}

#[tokio::test(start_paused = true)]
async fn change_of_attributes_alone_costs_a_read_and_not_a_second_sending() {
    let mut bench = Bench::new().await;
    bench.drop_file("a", &large(0));
    bench.store.fail_before(Operation::Commit, 1, transient());
    bench.settle().await;
    let claimed = bench.processing_path(&bench.processing()[0]);
    fs::set_permissions(claimed, fs::Permissions::from_mode(0o600)).unwrap();
    for _ in 0..3 {
        bench.later(QUIET).await;
    }
    assert_eq!(bench.states(), ["completed"]);
    assert_eq!(bench.store.calls(Operation::PutBlock), 5);
}

#[tokio::test(start_paused = true)]
async fn completed_file_that_changed_becomes_the_next_generation() {
    let mut bench = Bench::new().await;
    bench.drop_file("a", b"first");
    bench.settle().await;
    let completed = bench.processing_path(&bench.processing()[0]);
    fs::write(&completed, b"late write-back").unwrap();
    bench.collector.pass(&bench.session).await.unwrap();
    tokio::time::advance(Duration::from_secs(700)).await;
    bench.session.saw_server_time(i128::from(u64::MAX));
    bench.collector.pass(&bench.session).await.unwrap();
    bench.work().await;
    bench.later(QUIET).await;
    assert_eq!(bench.versions("a"), [b"first".to_vec(), b"late write-back".to_vec()]);
    assert_eq!(bench.states(), ["completed"]);
}

#[tokio::test(start_paused = true)]
async fn unchanged_completed_file_is_deleted_when_its_time_has_come() {
    let mut bench = Bench::new().await;
    bench.drop_file("a", b"first");
    bench.settle().await;
    bench.collector.pass(&bench.session).await.unwrap();
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!(bench.collector.pass(&bench.session).await.unwrap().deleted, 0, "the server's clock has not moved");
    bench.session.saw_server_time(i128::from(u64::MAX));
    assert_eq!(bench.collector.pass(&bench.session).await.unwrap().deleted, 1);
    assert!(bench.states().is_empty());
    assert_eq!(bench.content("a"), Some(b"first".to_vec()));
}

#[tokio::test(start_paused = true)]
async fn blob_of_another_source_is_not_overwritten() {
    let mut bench = Bench::new().await;
    for (name, content) in [("small", b"1".to_vec()), ("large", large(0))] {
        bench.store.write_as_another(&blob(name), "theirs".into(), &std::collections::BTreeMap::new());
        bench.drop_file(name, &content);
    }
    bench.settle().await;
    bench.later(Duration::from_secs(1)).await;
    for name in ["small", "large"] {
        assert_eq!(bench.content(name), Some(b"theirs".to_vec()));
    }
    assert_eq!(bench.states(), ["claimed", "claimed"]);
    assert!(bench.progress().recent_failures.iter().all(|failure| failure.reason == "DestinationOccupied"));
    assert_eq!(bench.store.calls(Operation::PutBlock), 0, "nothing was sent in vain");
    bench.store.delete_as_another(&blob("small"));
    bench.later(Duration::from_mins(1)).await;
    assert_eq!(bench.content("small"), Some(b"1".to_vec()));
}

#[tokio::test(start_paused = true)]
async fn earlier_generation_never_replaces_a_later_one() {
    let mut bench = Bench::new().await;
    bench.store.fail_before(Operation::PutBlob, 1, transient());
    bench.drop_file("a", b"earlier");
    bench.settle().await;
    let earlier = bench.processing_path(&bench.processing()[0]);
    // Another uploader that does not know of the first claim: hide it, and bring it back later.
    let hidden = bench.incoming("../hidden");
    fs::rename(&earlier, &hidden).unwrap();
    bench.restart().await;
    bench.drop_file("a", b"later");
    bench.settle().await;
    fs::rename(&hidden, &earlier).unwrap();
    bench.restart().await;
    bench.work().await;
    bench.later(QUIET).await;
    assert_eq!(bench.versions("a"), [b"later".to_vec()]);
    assert_eq!(bench.states(), ["superseded", "completed"]);
}

#[tokio::test(start_paused = true)]
async fn missing_container_is_a_failure_of_the_destination_and_heals() {
    let mut bench = Bench::new().await;
    bench.store.fail_before(Operation::PutBlob, 1, BlobError::ContainerMissing { message: "no container".into() });
    bench.drop_file("a", b"content");
    bench.settle().await;
    let check = bench.progress().checks.into_iter().find(|check| check.type_ == "destination").unwrap();
    assert_eq!((check.ok, check.reason.as_str()), (false, "ContainerMissing"));
    bench.later(Duration::from_secs(2)).await;
    assert_eq!(bench.states(), ["completed"]);
    assert!(bench.progress().checks.iter().all(|check| check.ok));
}
