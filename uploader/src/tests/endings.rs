//! Runs that end by themselves: drain, release and the idle timeout.

use std::{fs, time::Duration};

use blobferry_crds::names::TerminationResult;
use tokio::time::Instant;

use super::{
    Bench,
    bench::{QUIET, blob},
};
use crate::{
    args::Mode,
    blob::{BlobError, memory::Operation},
    ending::conclusion,
    ends::End,
    scan::{self, Periods},
    share::{Share, ShareError},
};

fn transient() -> BlobError {
    BlobError::Transient { message: "the network is down".into(), retry_after: None }
}

/// A session that claimed these files, one after the other, and could not send them; then another process in that mode.
async fn claimed(mode: Mode, contents: &[&[u8]]) -> Bench {
    let mut bench = Bench::new().await;
    let hidden = bench.incoming("../hidden");
    fs::create_dir(&hidden).unwrap();
    let folder = bench.session.claims_today();
    for content in contents {
        bench.store.fail_before(Operation::PutBlob, 1, transient());
        bench.drop_file("a", content);
        bench.settle().await;
        let name = bench.processing_path(&bench.processing()[0]);
        // The next process must not know of it.
        fs::rename(&name, hidden.join(name.file_name().unwrap())).unwrap();
        bench.restart().await;
    }
    for entry in fs::read_dir(&hidden).unwrap() {
        let name = entry.unwrap().file_name();
        fs::rename(hidden.join(&name), folder.join(&name)).unwrap();
    }
    assert_eq!(bench.states(), vec!["claimed"; contents.len()]);
    bench.rules.mode = mode;
    bench.restart().await;
    bench
}

/// The conclusion, if it comes after two more passes of the collector.
async fn concluded(bench: &mut Bench) -> Option<(TerminationResult, String)> {
    let session = std::sync::Arc::clone(&bench.session);
    let passes = async {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(2)).await;
            if bench.session.rules.mode == Mode::Watch {
                scan::pass(&bench.session).await.unwrap();
            }
            bench.collector.pass(&bench.session).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    };
    tokio::select! {
        biased;
        conclusion = conclusion(&session) => Some((conclusion.result, conclusion.message)),
        () = passes => None,
    }
}

#[tokio::test(start_paused = true)]
async fn drain_uploads_what_is_claimed_takes_nothing_else_and_ends() {
    let mut bench = claimed(Mode::Drain, &[b"content"]).await;
    bench.drop_file("new", b"later");
    assert_eq!(concluded(&mut bench).await, None);
    bench.work().await;
    bench.later(QUIET).await;
    assert_eq!(bench.content("a"), Some(b"content".to_vec()));
    let (result, message) = concluded(&mut bench).await.unwrap();
    assert_eq!(result, TerminationResult::Drained);
    assert!(message.starts_with("all claimed files are uploaded: 1 files so far"), "{message}");
    assert!(bench.incoming("new").exists());
}

#[tokio::test(start_paused = true)]
async fn release_gives_claimed_files_back_and_ends() {
    let mut bench = claimed(Mode::Release, &[b"content"]).await;
    bench.work().await;
    assert_eq!(fs::read(bench.incoming("a")).unwrap(), b"content");
    assert!(bench.states().is_empty());
    assert_eq!(bench.store.names(), []);
    assert_eq!(concluded(&mut bench).await.unwrap().0, TerminationResult::Released);
    let progress = bench.progress();
    assert_eq!((progress.files_seen, progress.files_withdrawn), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn file_that_is_in_its_blob_is_completed_and_not_given_back() {
    let mut bench = Bench::new().await;
    bench.store.lose_reply(Operation::PutBlob, 1);
    bench.drop_file("a", b"content");
    bench.settle().await;
    bench.rules.mode = Mode::Release;
    bench.restart().await;
    bench.work().await;
    bench.later(std::time::Duration::from_secs(1)).await;
    assert_eq!(bench.states(), ["completed"]);
    assert!(!bench.incoming("a").exists());
    assert_eq!(concluded(&mut bench).await.unwrap().0, TerminationResult::Released);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_given_back_while_nobody_can_look() {
    let mut bench = claimed(Mode::Release, &[b"content"]).await;
    bench.store.fail_before(Operation::Look, 1, transient());
    bench.work().await;
    assert_eq!(bench.states(), ["claimed"]);
    assert_eq!(concluded(&mut bench).await, None);
    bench.later(Duration::from_secs(2)).await;
    assert!(bench.incoming("a").exists());
}

#[tokio::test(start_paused = true)]
async fn newer_file_in_the_incoming_folder_is_not_replaced() {
    let mut bench = claimed(Mode::Release, &[b"content"]).await;
    bench.drop_file("a", b"newer");
    bench.work().await;
    assert_eq!(fs::read(bench.incoming("a")).unwrap(), b"newer");
    assert_eq!(bench.states(), ["claimed"]);
    let (result, message) = concluded(&mut bench).await.unwrap();
    assert_eq!(result, TerminationResult::Released);
    assert!(message.contains("1 that cannot be taken or given back, among them a (LaterFile)"), "{message}");
    assert_eq!(bench.progress().files_seen, 1);
}

#[tokio::test(start_paused = true)]
async fn of_two_claimed_generations_the_later_one_goes_back_and_the_earlier_one_stays() {
    let mut bench = claimed(Mode::Release, &[b"earlier", b"later"]).await;
    bench.work().await;
    assert_eq!(fs::read(bench.incoming("a")).unwrap(), b"later");
    let names = bench.processing();
    assert_eq!(names.len(), 1);
    assert_eq!(fs::read(bench.processing_path(&names[0])).unwrap(), b"earlier");
    // A later session uploads the one and knows the other for superseded.
    bench.rules.mode = Mode::Watch;
    bench.restart().await;
    bench.settle().await;
    for _ in 0..4 {
        bench.later(QUIET).await;
    }
    assert_eq!(bench.versions("a").last(), Some(&b"later".to_vec()));
}

#[tokio::test(start_paused = true)]
async fn overtaken_file_is_kept_as_superseded() {
    let mut bench = claimed(Mode::Release, &[b"earlier"]).await;
    let earlier = bench.processing_path(&bench.processing()[0]);
    let hidden = bench.incoming("../away");
    fs::rename(&earlier, &hidden).unwrap();
    bench.rules.mode = Mode::Watch;
    bench.restart().await;
    bench.drop_file("a", b"later");
    bench.settle().await;
    fs::rename(&hidden, &earlier).unwrap();
    bench.rules.mode = Mode::Release;
    bench.restart().await;
    bench.work().await;
    bench.later(std::time::Duration::from_secs(1)).await;
    assert_eq!(bench.states(), ["superseded", "completed"]);
    assert!(!bench.incoming("a").exists());
}

#[tokio::test(start_paused = true)]
async fn crash_between_link_and_unlink_leaves_one_name_after_the_next_start() {
    for mode in [Mode::Watch, Mode::Drain, Mode::Release] {
        let mut bench = claimed(mode, &[b"content"]).await;
        let name = bench.processing_path(&bench.processing()[0]);
        fs::hard_link(&name, bench.incoming("a")).unwrap();
        bench.restart().await;
        assert!(bench.states().is_empty(), "{mode}");
        assert_eq!(fs::read(bench.incoming("a")).unwrap(), b"content");
        assert_eq!(bench.store.names(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn hard_link_of_somebody_else_is_no_release() {
    let mut bench = claimed(Mode::Watch, &[b"content"]).await;
    let name = bench.processing_path(&bench.processing()[0]);
    fs::hard_link(&name, bench.incoming("b.tmp")).unwrap();
    bench.restart().await;
    bench.work().await;
    bench.later(QUIET).await;
    assert_eq!(bench.content("a"), Some(b"content".to_vec()));
}

#[tokio::test(start_paused = true)]
async fn link_whose_reply_was_lost_is_found_to_be_done() -> Result<(), ShareError> {
    let mut bench = claimed(Mode::Release, &[b"content"]).await;
    let name = bench.processing_path(&bench.processing()[0]);
    // As after the first of two requests of one link: the second one finds the name.
    bench.session.share.link(&name, &bench.incoming("a")).await?;
    bench.work().await;
    assert!(bench.states().is_empty());
    assert_eq!(fs::read(bench.incoming("a")).unwrap(), b"content");
    assert_eq!(bench.progress().files_withdrawn, 1);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn blob_of_another_source_does_not_keep_a_file_from_going_back() {
    let mut bench = claimed(Mode::Release, &[b"content"]).await;
    bench.store.write_as_another(&blob("a"), "theirs".into(), &std::collections::BTreeMap::new());
    bench.work().await;
    assert!(bench.incoming("a").exists());
    assert_eq!(bench.content("a"), Some(b"theirs".to_vec()));
}

#[tokio::test(start_paused = true)]
async fn idle_session_is_completed_and_names_what_is_left() {
    let mut bench = Bench::new().await;
    bench.live.send_modify(|live| live.idle_timeout = Some(Duration::from_secs(3)));
    bench.drop_file("a", b"content");
    bench.drop_file("b.tmp", b"1");
    bench.drop_file("c\\d", b"1");
    assert_eq!(concluded(&mut bench).await, None, "a file waits");
    bench.settle().await;
    let (result, message) = concluded(&mut bench).await.unwrap();
    assert_eq!(result, TerminationResult::Completed);
    assert!(message.contains("1 ignored, 1 that cannot be taken"), "{message}");
    assert!(message.contains("c\\d (BadName)"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn session_with_a_file_that_is_retried_is_not_completed() {
    let mut bench = Bench::new().await;
    bench.live.send_modify(|live| live.idle_timeout = Some(Duration::from_secs(1)));
    bench.store.fail_before(Operation::PutBlob, 1, transient());
    bench.drop_file("a", b"content");
    bench.settle().await;
    assert_eq!(concluded(&mut bench).await, None);
}

#[tokio::test(start_paused = true)]
async fn process_that_stood_still_waits_its_idle_time_anew() {
    const HALF: Duration = Duration::from_secs(30);
    let bench = Bench::new().await;
    bench.live.send_modify(|live| live.idle_timeout = Some(HALF * 2));
    bench.session.books().ends.works(End::Source, "scan");
    let session = std::sync::Arc::clone(&bench.session);
    let ending = tokio::spawn(async move { conclusion(&session).await });
    tokio::time::sleep(HALF).await;
    // In one jump: nobody looks meanwhile.
    tokio::time::advance(HALF * 2).await;
    for expected in [false, false, true] {
        {
            let mut books = bench.session.books();
            books.scan_begins(Periods::new(QUIET, None), Instant::now());
            books.scanned(0);
        }
        tokio::time::sleep(HALF + QUIET).await;
        assert_eq!(ending.is_finished(), expected);
    }
}
