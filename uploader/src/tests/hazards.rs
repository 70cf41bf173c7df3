//! Histories that would lose, double or mix bytes if a rule were missing.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::{FileExt, PermissionsExt},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use blobferry_crds::AccessTier;

use super::{
    Bench,
    bench::{QUIET, blob, rules},
};
use crate::{
    blob::{BlobError, Properties, memory::Operation},
    file::ClaimedFile,
    formats::{ProcessId, ProcessingName},
    scan::StableFile,
    session::Rules,
    share::Share,
    transfer::{Setback, attempt},
};

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
        bench.later(Duration::from_secs(1)).await;
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
async fn refusal_in_the_middle_of_a_file_costs_no_block_that_the_service_has() {
    let denied = || BlobError::Denied { message: "no right".into() };
    for (operation, at, sent) in [(Operation::PutBlock, 3, 6), (Operation::Commit, 1, 5)] {
        let mut bench = Bench::new().await;
        bench.drop_file("a", &large(0));
        bench.store.fail_before(operation, at, denied());
        bench.settle().await;
        assert_eq!(bench.progress().recent_failures[0].reason, "Denied");
        bench.later(Duration::from_secs(2)).await;
        assert_eq!(bench.states(), ["completed"]);
        assert_eq!(bench.store.calls(Operation::PutBlock), sent, "{operation:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn file_that_was_written_to_after_its_claim_is_resumed_like_any_other() {
    let mut bench = Bench::new().await;
    bench.drop_file("a", &large(0));
    bench.store.fail_before(Operation::Look, 1, transient());
    bench.settle().await;
    let claimed = bench.processing()[0].clone();
    fs::write(bench.processing_path(&claimed), large(9)).unwrap();
    bench.store.fail_before(Operation::Commit, 1, transient());
    for _ in 0..2 {
        bench.later(QUIET).await;
    }
    assert_eq!((bench.store.calls(Operation::Commit), bench.content("a")), (1, None));
    let sent = bench.store.calls(Operation::PutBlock);
    bench.restart().await;
    bench.work().await;
    assert_eq!(bench.processing(), [claimed], "a takeover renames nothing");
    bench.later(QUIET).await;
    assert_eq!((bench.content("a"), bench.store.calls(Operation::PutBlock)), (Some(large(9)), sent));
}

#[tokio::test(start_paused = true)]
async fn blocks_of_another_state_of_the_file_are_reused_only_where_the_content_is_the_same() {
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
    assert_eq!(bench.store.calls(Operation::PutBlock), 6);
    assert_eq!(bench.progress().bytes_resumed, 300_000 - 65_536, "each block but the one that was written to");
}

#[tokio::test(start_paused = true)]
async fn change_of_attributes_alone_costs_no_second_sending_after_a_crash_either() {
    let mut bench = Bench::new().await;
    bench.drop_file("a", &large(0));
    bench.store.fail_before(Operation::Commit, 1, transient());
    bench.settle().await;
    let claimed = bench.processing_path(&bench.processing()[0]);
    fs::set_permissions(claimed, fs::Permissions::from_mode(0o600)).unwrap();
    bench.restart().await;
    bench.work().await;
    bench.later(QUIET).await;
    assert_eq!(bench.versions("a"), [large(0)]);
    assert_eq!(bench.store.calls(Operation::PutBlock), 5);
}

#[tokio::test(start_paused = true)]
async fn block_that_fails_costs_none_of_those_that_are_under_way() {
    let mut bench = Bench::new().await;
    bench.store.set_hook(|_| Box::pin(tokio::time::sleep(Duration::from_millis(2))));
    bench.store.fail_before(Operation::PutBlock, 1, BlobError::Denied { message: "no right".into() });
    bench.drop_file("a", &large(0));
    bench.settle().await;
    assert_eq!(bench.store.calls(Operation::PutBlock), 4, "they go on, and none is begun");
    bench.later(Duration::from_secs(2)).await;
    assert_eq!((bench.content("a"), bench.store.calls(Operation::PutBlock)), (Some(large(0)), 6));
}

#[tokio::test(start_paused = true)]
async fn archived_blobs_are_proven_by_their_metadata_because_their_blocks_are_not_told() {
    for lost in [false, true] {
        let properties = Properties { access_tier: Some(AccessTier::Archive), ..Properties::default() };
        let mut bench = Bench::with(Rules { properties, ..rules() }).await;
        let files = [("large", large(0)), ("small", b"small".to_vec())];
        for (name, content) in &files {
            bench.drop_file(name, content);
        }
        if lost {
            bench.store.lose_reply(Operation::Commit, 1);
            bench.store.lose_reply(Operation::PutBlob, 1);
        }
        bench.settle().await;
        bench.later(Duration::from_secs(2)).await;
        assert_eq!(bench.states(), ["completed", "completed"]);
        for (name, content) in files {
            assert_eq!(bench.versions(name), [content]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn file_that_took_the_name_before_the_rename_is_a_later_one_although_it_has_the_number_of_the_earlier() {
    let mut bench = Bench::new().await;
    bench.drop_file("a", b"earlier");
    bench.settle().await;
    // Sampled, opened, and gone before the rename; the later file got its inode number.
    let mut claim = bench.processing()[0].claim;
    claim.process = ProcessId::new(0);
    let path = bench.processing_path(&ProcessingName::claimed(b"a", claim));
    fs::write(&path, b"gone").unwrap();
    let opened = bench.session.share.open(&path).await.unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, b"later").unwrap();
    let sample = bench.session.share.attributes(&path).await.unwrap().identity;
    let stable = StableFile { name: b"a".as_slice().into(), sample, since: sample.ctime };
    let folder = path.parent().unwrap().to_owned();
    let mut file = ClaimedFile::claimed(folder, ProcessingName::claimed(b"a", claim), blob("a"), &stable);
    let outcome = attempt(&bench.session, &mut file, Some(opened), &AtomicU64::new(0)).await;
    assert!(matches!(outcome, Err(Setback::NotQuiet(_))), "{outcome:?}");
    assert!(file.name.claim.key > claim.key);
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
async fn bytes_that_come_late_do_not_wait_until_the_file_is_not_kept_any_longer() {
    for late_after_the_first_look in [false, true] {
        let mut bench = Bench::new().await;
        bench.live.send_modify(|live| live.keep_completed_for = Duration::from_hours(24));
        bench.drop_file("a", b"first");
        bench.settle().await;
        let completed = bench.processing_path(&bench.processing()[0]);
        if late_after_the_first_look {
            bench.collector.pass(&bench.session).await.unwrap();
        }
        fs::write(&completed, b"late write-back").unwrap();
        for _ in 0..2 {
            bench.collector.pass(&bench.session).await.unwrap();
            tokio::time::advance(Duration::from_mins(1)).await;
            bench.session.saw_server_time(bench.session.server_now() + 60_000_000_000);
        }
        bench.collector.pass(&bench.session).await.unwrap();
        bench.work().await;
        bench.later(QUIET).await;
        assert_eq!(bench.versions("a"), [b"first".to_vec(), b"late write-back".to_vec()], "{late_after_the_first_look}");
    }
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
async fn blob_that_cannot_be_written_keeps_its_file_waiting_with_the_reason_and_no_other() {
    for code in ["BlobArchived", "BlobImmutableDueToPolicy", "LeaseIdMissing"] {
        let mut bench = Bench::with(Rules { max_attempts: 1, ..rules() }).await;
        for (name, content) in [("small", b"1".to_vec()), ("large", large(0))] {
            bench.store.protect(&blob(name), Some(code));
            bench.drop_file(name, &content);
        }
        bench.drop_file("other", b"1");
        bench.settle().await;
        bench.later(Duration::from_mins(1)).await;
        assert_eq!(bench.states(), ["claimed", "completed", "claimed"], "{code}");
        let progress = bench.progress();
        assert!(progress.held_back.iter().all(|held| held.reason == code), "{:?}", progress.held_back);
        assert_eq!((progress.held_back.len(), progress.files_retrying, progress.files_failed), (2, 2, 0));
        for name in ["small", "large"] {
            bench.store.protect(&blob(name), None);
        }
        for _ in 0..3 {
            bench.later(Duration::from_mins(1)).await;
        }
        assert_eq!(bench.states(), ["completed"; 3], "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn uncommitted_blocks_of_others_keep_a_file_waiting_until_they_are_gone() {
    let mut bench = Bench::with(Rules { max_attempts: 1, ..rules() }).await;
    bench.store.plant_block(&blob("a"), b"short id", "theirs".into());
    bench.drop_file("a", &large(0));
    bench.drop_file("b", &large(1));
    bench.settle().await;
    bench.later(Duration::from_mins(1)).await;
    assert_eq!(bench.states(), ["claimed", "completed"]);
    assert_eq!(bench.progress().held_back[0].reason, "ForeignBlocks");
    bench.store.expire_blocks(&blob("a"));
    bench.later(Duration::from_mins(1)).await;
    assert_eq!(bench.content("a"), Some(large(0)));
}

#[tokio::test(start_paused = true)]
async fn file_whose_blocks_are_larger_than_the_memory_is_refused_and_does_not_wait_for_ever() {
    let mut bench = Bench::with(Rules { memory_limit: 32 << 10, single_put_size: 0, ..rules() }).await;
    bench.drop_file("a", &large(0));
    bench.drop_file("small", b"");
    bench.settle().await;
    assert_eq!(bench.progress().recent_failures[0].reason, "BlocksTooLarge");
}

#[tokio::test]
async fn memory_stays_below_its_limit_whatever_is_sent_at_a_time() {
    const LIMIT: u64 = 512 << 10;
    let bench = Bench::with(Rules { memory_limit: LIMIT, concurrency: 8, ..rules() }).await;
    bench.live.send_modify(|live| live.min_file_age = Duration::ZERO);
    let most = Arc::new(AtomicU64::new(0));
    let (buffers, seen) = (bench.session.buffers.clone(), Arc::clone(&most));
    bench.store.set_hook(move |_| {
        seen.fetch_max(buffers.allocated(), Ordering::Relaxed);
        Box::pin(tokio::time::sleep(Duration::from_millis(2)))
    });
    let sizes = [1, 4096, 70_000, 100 << 10, 300_000, 65_537, 1_000_000, 102_401];
    for (number, size) in (0_u32..).zip(sizes.iter().cycle().take(40)) {
        bench.drop_file(&number.to_string(), &vec![7; *size]);
    }
    for _ in 0..2 {
        crate::scan::pass(&bench.session).await.unwrap();
    }
    let workers: Vec<_> = (0..4).map(|number| tokio::spawn(crate::work::worker(Arc::clone(&bench.session), number))).collect();
    while bench.states() != ["completed"; 40] {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    workers.iter().for_each(tokio::task::JoinHandle::abort);
    let most = most.load(Ordering::Relaxed);
    assert!(most <= LIMIT, "{most} bytes");
    assert!(most > LIMIT / 2, "only {most} bytes were used at a time: this shows nothing");
}

#[tokio::test(start_paused = true)]
async fn local_disk_that_cannot_be_used_is_named_and_files_are_streamed() {
    let mut bench = Bench::new().await;
    let root = bench.incoming("not-a-folder.tmp");
    fs::write(&root, b"").unwrap();
    bench.stage = Some(root);
    bench.restart().await;
    bench.drop_file("a", &large(0));
    bench.settle().await;
    crate::run::look_at_stage(&bench.session);
    assert_eq!(bench.content("a"), Some(large(0)));
    let progress = bench.progress();
    let check = progress.checks.iter().find(|check| check.type_ == "staging").unwrap();
    assert_eq!((check.ok, check.reason.as_str()), (false, "StagingFailed"));
    assert!(progress.last_error.unwrap().ends_with("files are streamed from the share"));
    bench.stage = None;
    bench.restart().await;
    crate::run::look_at_stage(&bench.session);
    assert!(bench.progress().checks.iter().all(|check| check.type_ != "staging"));
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
async fn later_file_that_a_dead_uploader_caught_under_the_key_of_an_earlier_one_is_uploaded_after_it() {
    let mut bench = Bench::new().await;
    bench.drop_file("a", b"earlier");
    bench.settle().await;
    // Another uploader sampled the same file, was paused, and renamed what had the name then. Its id is lower than any.
    let completed = bench.processing()[0].clone();
    let mut caught = completed.claim;
    caught.process = ProcessId::new(0);
    fs::write(bench.processing_path(&ProcessingName::claimed(b"a", caught)), b"later").unwrap();
    bench.restart().await;
    bench.work().await;
    for _ in 0..2 {
        bench.later(QUIET).await;
    }
    assert_eq!(bench.versions("a"), [b"earlier".to_vec(), b"later".to_vec()]);
    assert_eq!(bench.states(), ["completed", "completed"]);
}

#[tokio::test(start_paused = true)]
async fn late_write_that_is_older_than_the_next_file_of_the_name_does_not_replace_it() {
    let mut bench = Bench::new().await;
    bench.drop_file("a", b"first");
    bench.settle().await;
    let next_tick = || std::thread::sleep(Duration::from_millis(20));
    next_tick();
    fs::write(bench.processing_path(&bench.processing()[0]), b"late write-back").unwrap();
    next_tick();
    bench.drop_file("a", b"second");
    bench.settle().await;
    bench.collector.pass(&bench.session).await.unwrap();
    tokio::time::advance(Duration::from_secs(700)).await;
    bench.session.saw_server_time(i128::from(u64::MAX));
    bench.collector.pass(&bench.session).await.unwrap();
    for _ in 0..3 {
        bench.later(QUIET).await;
    }
    assert_eq!(bench.versions("a"), [b"first".to_vec(), b"second".to_vec()]);
    assert_eq!(bench.states(), ["superseded"]);
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
