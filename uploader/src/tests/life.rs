//! What happens to a file when nothing goes wrong.

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt, sync::Arc, time::Duration};

use blobferry_crds::AccessTier;

use super::{
    Bench,
    bench::{QUIET, blob, rules},
};
use crate::{
    blob::{
        BlobError, Properties,
        memory::{
            Container,
            Operation::{Blocks, Commit, Look, Prepare, PutBlob, PutBlock},
        },
    },
    ends::End,
    formats::BlobOrigin,
    run::destination_loop,
    session::Rules,
    work::FILES,
};

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|index| u8::try_from(index * 7 % 251).unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn files_of_all_sizes_and_names_become_blobs_with_their_bytes() {
    let mut bench = Bench::new().await;
    let sizes = [0, 1, 4096, 100 << 10, (100 << 10) + 1, (64 << 10) * 3, 1_000_003];
    let names = ["a.dat", "with space", "x.completed", "-dash", "50%", "a#b?c&d", "ünïcødé"];
    for (name, size) in names.iter().zip(sizes) {
        bench.drop_file(name, &bytes(size));
    }
    bench.settle().await;
    for _ in 0..12 {
        bench.settle().await;
    }
    for (name, size) in names.iter().zip(sizes) {
        assert_eq!(bench.content(name), Some(bytes(size)), "{name}");
    }
    assert_eq!(bench.states(), ["completed"; 7]);
    let progress = bench.progress();
    assert_eq!((progress.files_seen, progress.files_uploaded), (7, 7));
    assert_eq!(progress.bytes_uploaded, sizes.iter().map(|size| *size as u64).sum::<u64>());
    assert_eq!(progress.bytes_total, progress.bytes_uploaded);
    assert!(progress.caught_up);
}

#[tokio::test(start_paused = true)]
async fn fresh_small_file_costs_one_request() {
    let mut bench = Bench::new().await;
    bench.drop_file("a", b"content");
    bench.settle().await;
    let calls: Vec<usize> =
        [PutBlob, Look, PutBlock, Commit, Blocks].iter().map(|operation| bench.store.calls(*operation)).collect();
    assert_eq!(calls, [1, 0, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn blobs_of_all_sizes_get_what_the_session_gives_and_our_metadata() {
    let properties = Properties {
        metadata: [("site".to_owned(), "3".to_owned())].into(),
        tags: [("project".to_owned(), "north".to_owned())].into(),
        access_tier: Some(AccessTier::Cool),
        content_type: Some("video/mp4".to_owned()),
    };
    let mut bench = Bench::with(Rules { properties: properties.clone(), ..rules() }).await;
    bench.drop_file("small", b"content");
    bench.drop_file("large", &bytes(200_000));
    bench.settle().await;
    assert_eq!(bench.states(), ["completed"; 2]);
    for name in ["small", "large"] {
        let given = bench.store.versions(&blob(name)).pop().unwrap().properties;
        assert_eq!(
            (given.access_tier, &given.content_type, &given.tags),
            (properties.access_tier, &properties.content_type, &properties.tags)
        );
        assert_eq!(given.metadata["site"], "3");
        assert!(BlobOrigin::parse(&given.metadata).is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn ignored_files_and_folders_stay_and_are_counted() {
    let mut bench = Bench::new().await;
    bench.drop_file("a.tmp", b"1");
    fs::create_dir(bench.incoming("folder")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", bench.incoming("link")).unwrap();
    bench.settle().await;
    assert_eq!(bench.progress().files_ignored, 3);
    assert!(bench.progress().caught_up);
    assert!(bench.store.names().is_empty());
}

#[tokio::test(start_paused = true)]
async fn reused_name_replaces_the_blob_with_the_later_file() {
    let mut bench = Bench::new().await;
    for content in [&b"first"[..], b"second", &bytes(200_000)] {
        bench.drop_file("a", content);
        bench.settle().await;
    }
    assert_eq!(bench.versions("a"), [b"first".to_vec(), b"second".to_vec(), bytes(200_000)]);
    assert_eq!(bench.states(), ["completed"; 3]);
}

#[tokio::test(start_paused = true)]
async fn growing_file_is_not_taken() {
    let mut bench = Bench::new().await;
    for round in 1..5 {
        bench.drop_file("a", &bytes(round));
        crate::scan::pass(&bench.session).await.unwrap();
        bench.later(QUIET).await;
    }
    assert!(bench.incoming("a").exists());
    assert_eq!(bench.progress().held_back[0].reason, "StillGrowing");
}

#[tokio::test(start_paused = true)]
async fn name_that_cannot_be_a_blob_stays_and_says_why() {
    let mut bench = Bench::new().await;
    bench.drop_file("a\\b", b"1");
    bench.drop_file(&"n".repeat(250), b"1");
    let not_unicode = bench.incoming("").join(OsStr::from_bytes(b"a\xff\xfe"));
    fs::write(&not_unicode, b"1").unwrap();
    bench.settle().await;
    let mut reasons: Vec<_> = bench.progress().held_back.iter().map(|held| held.reason.clone()).collect();
    reasons.dedup();
    assert_eq!(reasons, ["BadName"]);
    assert!(bench.progress().held_back.iter().any(|held| held.message == "the name is not UTF-8: rename the file"));
    assert_eq!(bench.progress().files_waiting, 3);
    assert!(!bench.progress().caught_up);
    assert_eq!(fs::read(not_unicode).unwrap(), b"1");
}

#[tokio::test(start_paused = true)]
async fn container_that_nothing_is_sent_to_is_looked_at_now_and_then() {
    let mut bench = Bench::new().await;
    bench.session.books().ends.works(End::Destination, FILES);
    let looking = tokio::spawn(destination_loop(Arc::clone(&bench.session)));
    for (minutes, looks) in [(9, 0), (2, 1), (10, 2)] {
        tokio::time::sleep(Duration::from_mins(minutes)).await;
        assert_eq!(bench.store.calls(Look), looks);
    }
    let session = Arc::clone(&bench.session);
    let is_ok = || session.books().ends.is_ok(End::Destination);
    bench.store.fail_before(Look, 1, BlobError::Transient { message: "no route".into(), retry_after: None });
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert!(is_ok(), "one answer may get lost");
    bench.store.set_container(Container::Absent);
    tokio::time::sleep(Duration::from_mins(11)).await;
    assert!(!is_ok(), "nobody would know before the next file comes");
    assert_eq!(bench.store.calls(Prepare), 0, "it is made when a file needs it");
    bench.drop_file("a", b"1");
    bench.settle().await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(bench.store.calls(Prepare) > 0 && is_ok());
    looking.abort();
}
