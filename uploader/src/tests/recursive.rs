//! Files in folders below the session's.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Bench,
    bench::{QUIET, rules},
};
use crate::{
    args::Mode,
    blob::{BlobError, memory::Operation},
    formats::{MARKERS, Marker, OrderKey, ProcessingName},
    session::Rules,
    share::{Identity, join},
};

async fn bench() -> Bench {
    Bench::with(Rules { recursive: true, ..rules() }).await
}

fn drop_file(bench: &Bench, name: &str, content: &[u8]) {
    fs::create_dir_all(bench.incoming(name).parent().unwrap()).unwrap();
    bench.drop_file(name, content);
}

/// Paths of all files below a folder, sorted.
fn files(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(here) = pending.pop() {
        for entry in fs::read_dir(here).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else {
                all.push(path.strip_prefix(folder).unwrap().display().to_string());
            }
        }
    }
    all.sort();
    all
}

fn claimed(bench: &Bench) -> Vec<String> {
    files(&bench.session.claims_today())
}

#[tokio::test(start_paused = true)]
async fn files_in_folders_become_blobs_with_their_path() {
    let mut bench = bench().await;
    let names = ["top", "a/one", "a/b/c/two", "a b/ü%"];
    for name in names {
        drop_file(&bench, name, name.as_bytes());
    }
    bench.settle().await;
    for name in names {
        assert_eq!(bench.content(name), Some(name.as_bytes().to_vec()), "{name}");
    }
    // A scan after the last claim says that nothing came meanwhile.
    bench.settle().await;
    assert!(claimed(&bench).iter().all(|name| name.ends_with(".completed")));
    assert!(claimed(&bench)[1].starts_with("a/b/c/two."), "{:?}", claimed(&bench));
    assert!(bench.incoming("a/b/c").is_dir(), "a producer's folder was removed");
    let progress = bench.progress();
    assert_eq!((progress.files_seen, progress.files_uploaded, progress.files_ignored), (4, 4, 0));
    assert!(progress.caught_up);
}

#[tokio::test(start_paused = true)]
async fn without_the_setting_folders_are_left_alone() {
    let mut bench = Bench::new().await;
    drop_file(&bench, "a/one", b"1");
    bench.settle().await;
    assert_eq!((bench.progress().files_ignored, bench.store.names().len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn one_name_in_two_folders_is_two_blobs_and_a_reused_one_replaces_its_own() {
    let mut bench = bench().await;
    for (name, content) in [("a/x", "1"), ("b/x", "2")] {
        drop_file(&bench, name, content.as_bytes());
    }
    bench.settle().await;
    drop_file(&bench, "a/x", b"3");
    bench.settle().await;
    assert_eq!(bench.versions("a/x"), [b"1".to_vec(), b"3".to_vec()]);
    assert_eq!(bench.versions("b/x"), [b"2".to_vec()]);
}

#[tokio::test(start_paused = true)]
async fn claimed_files_in_folders_are_recovered_also_when_the_setting_is_gone() {
    let mut bench = bench().await;
    bench.store.fail_before(Operation::PutBlob, 1, BlobError::Transient { message: "down".into(), retry_after: None });
    drop_file(&bench, "a/b/x", b"content");
    bench.settle().await;
    bench.rules.recursive = false;
    bench.restart().await;
    bench.work().await;
    bench.later(QUIET).await;
    assert_eq!(bench.content("a/b/x"), Some(b"content".to_vec()));
    assert!(claimed(&bench)[0].ends_with(".completed"));
}

#[tokio::test(start_paused = true)]
async fn collected_files_leave_no_folders_below_processing() {
    let mut bench = bench().await;
    drop_file(&bench, "a/b/x", b"content");
    bench.settle().await;
    bench.collector.pass(&bench.session).await.unwrap();
    tokio::time::advance(Duration::from_mins(2)).await;
    bench.session.saw_server_time(i128::from(u64::MAX));
    for _ in 0..4 {
        bench.collector.pass(&bench.session).await.unwrap();
    }
    assert_eq!(fs::read_dir(bench.session.claims_today()).unwrap().count(), 0);
    assert!(bench.incoming("a/b").is_dir());
    drop_file(&bench, "a/b/x", b"again");
    bench.settle().await;
    assert_eq!(bench.content("a/b/x"), Some(b"again".to_vec()));
}

#[tokio::test(start_paused = true)]
async fn release_makes_the_folder_again_in_which_the_file_was() {
    let mut bench = bench().await;
    bench.store.fail_before(Operation::PutBlob, 1, BlobError::Transient { message: "down".into(), retry_after: None });
    drop_file(&bench, "a/b/x", b"content");
    bench.settle().await;
    fs::remove_dir_all(bench.incoming("a")).unwrap();
    bench.rules.mode = Mode::Release;
    bench.restart().await;
    bench.work().await;
    assert_eq!(fs::read(bench.incoming("a/b/x")).unwrap(), b"content");
}

#[tokio::test(start_paused = true)]
async fn release_puts_no_file_through_a_link_or_a_file_that_took_its_folders_name() {
    for is_link in [true, false] {
        let mut bench = bench().await;
        bench.store.fail_before(Operation::PutBlob, 1, BlobError::Transient { message: "down".into(), retry_after: None });
        drop_file(&bench, "a/b/x", b"content");
        bench.settle().await;
        fs::remove_dir_all(bench.incoming("a")).unwrap();
        let other = bench.incoming("../other");
        fs::create_dir_all(other.join("b")).unwrap();
        if is_link {
            symlink(&other, bench.incoming("a")).unwrap();
        } else {
            fs::write(bench.incoming("a"), b"1").unwrap();
        }
        bench.rules.mode = Mode::Release;
        bench.restart().await;
        bench.work().await;
        assert_eq!(fs::read_dir(bench.session.claims_today().join("a/b")).unwrap().count(), 1, "it stays claimed");
        assert_eq!(fs::read_dir(other.join("b")).unwrap().count(), 0);
        let held = bench.progress().held_back;
        assert!(held.iter().any(|held| held.message.contains("no folder now")), "{held:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn links_ignored_folders_and_folders_of_other_sessions_are_not_entered_and_the_latter_are_shown() {
    let mut bench = bench().await;
    let outside = bench.incoming("../../outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), b"1").unwrap();
    symlink(&outside, bench.incoming("link")).unwrap();
    drop_file(&bench, "x.tmp/one", b"1");
    drop_file(&bench, "other/two", b"1");
    let marker = Marker {
        version: 1,
        session_uid: "other".into(),
        incoming_dir: bench.session.folders.incoming.display().to_string(),
        destination: "container".into(),
    };
    let markers = bench.session.processing(MARKERS);
    fs::write(markers.join("other"), serde_json::to_vec(&marker).unwrap()).unwrap();
    // A session of the same name elsewhere is no reason.
    drop_file(&bench, "elsewhere/three", b"1");
    fs::write(markers.join("elsewhere"), serde_json::to_vec(&Marker { incoming_dir: "/elsewhere".into(), ..marker }).unwrap())
        .unwrap();
    bench.settle().await;
    let names: Vec<String> = bench.store.names().iter().map(|name| name.file().to_owned()).collect();
    assert_eq!(names, ["elsewhere/three"]);
    let progress = bench.progress();
    assert_eq!(progress.files_ignored, 2, "the link and the ignored folder");
    assert_eq!((progress.held_back[0].name.as_str(), progress.held_back[0].reason.as_str()), ("other", "OtherSession"));
    assert_eq!((progress.caught_up, progress.safe_through), (false, None), "nobody may be caring for what is in it");
    assert!(outside.join("secret").exists() && bench.incoming("other/two").exists());
}

#[tokio::test(start_paused = true)]
async fn folder_that_is_too_deep_or_named_badly_is_shown() {
    let mut bench = bench().await;
    drop_file(&bench, &format!("{}x", "d/".repeat(33)), b"1");
    drop_file(&bench, &format!("{}y", "d/".repeat(32)), b"1");
    drop_file(&bench, "dot./z", b"1");
    bench.settle().await;
    assert_eq!(bench.store.names().len(), 1);
    let progress = bench.progress();
    let held: Vec<_> = progress.held_back.iter().map(|held| held.reason.as_str()).collect();
    assert_eq!(held, ["BadName", "BadName"]);
    assert!(!progress.caught_up);
    assert_eq!(progress.safe_through, None, "what is below is not known");
}

#[tokio::test(start_paused = true)]
async fn folder_that_vanishes_with_its_files_counts_them_as_withdrawn() {
    let mut bench = bench().await;
    bench.live.send_modify(|live| live.min_file_age = Duration::from_hours(1));
    drop_file(&bench, "a/x", b"1");
    drop_file(&bench, "a/y", b"1");
    bench.settle().await;
    fs::remove_dir_all(bench.incoming("a")).unwrap();
    bench.settle().await;
    assert_eq!((bench.progress().files_withdrawn, bench.progress().files_waiting), (2, 0));
}

/// The path of a folder below today's claims whose name is that of a claim of `d`.
fn like_a_claim(bench: &Bench) -> PathBuf {
    let identity = Identity { inode: 1, size: 1, mtime: 1, ctime: 1 };
    let claim = bench.session.claim_id(OrderKey(1), &identity, 1);
    join(&bench.session.claims_today(), &ProcessingName::claimed(b"d", claim).to_bytes())
}

#[tokio::test(start_paused = true)]
async fn folder_that_was_claimed_instead_of_a_file_goes_back_with_all_that_is_in_it() {
    let mut bench = bench().await;
    let claimed = like_a_claim(&bench);
    fs::create_dir_all(&claimed).unwrap();
    fs::write(claimed.join("a"), b"content").unwrap();
    bench.restart().await;
    bench.work().await;
    assert!(bench.incoming("d/a").exists() && !claimed.exists());
    bench.settle().await;
    assert_eq!(bench.content("d/a"), Some(b"content".to_vec()));
}

#[tokio::test(start_paused = true)]
async fn claimed_folder_does_not_go_back_through_a_link_that_took_its_folders_name() {
    let mut bench = bench().await;
    let claimed = bench.session.claims_today().join("above").join(like_a_claim(&bench).file_name().unwrap());
    fs::create_dir_all(&claimed).unwrap();
    fs::write(claimed.join("a"), b"content").unwrap();
    let other = bench.incoming("../other");
    fs::create_dir_all(&other).unwrap();
    symlink(&other, bench.incoming("above")).unwrap();
    bench.restart().await;
    bench.work().await;
    assert!(claimed.join("a").exists(), "it stays claimed");
    assert_eq!(fs::read_dir(&other).unwrap().count(), 0);
    let held = bench.progress().held_back;
    assert!(held.iter().any(|held| held.message.contains("no folder now")), "{held:?}");
}

#[tokio::test(start_paused = true)]
async fn folder_that_its_producer_named_like_a_claim_keeps_the_claims_that_are_in_it() {
    let mut bench = bench().await;
    let folder = like_a_claim(&bench);
    let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
    bench.store.fail_before(Operation::PutBlob, 1, BlobError::Transient { message: "down".into(), retry_after: None });
    drop_file(&bench, &format!("{name}/a"), b"content");
    bench.settle().await;
    assert!(folder.is_dir());
    bench.restart().await;
    bench.work().await;
    bench.later(QUIET).await;
    assert!(folder.is_dir() && !bench.incoming("d").exists());
    assert_eq!(bench.content(&format!("{name}/a")), Some(b"content".to_vec()));
}
