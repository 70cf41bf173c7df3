//! What the uploader relies on, over any blob store.

use std::{collections::BTreeMap, mem::discriminant};

use blobferry_crds::AccessTier;
use blobferry_uploader::{
    blob::{BlobError, BlobStore, BlockListKind, Condition, ETag, ListedBlock, Properties},
    formats::{BlobName, BlockId, BlockPlanHash, ClaimId, OrderKey, ProcessId, SourceId, blob_name},
    share::Identity,
};
use bytes::Bytes;

use crate::backend::Backend;

pub(crate) const ABSENT: &Condition = &Condition::Absent;

pub(crate) fn name(file: &str) -> BlobName {
    blob_name("site 3/raw", "20261121", "truck-7", file.as_bytes()).unwrap()
}

pub(crate) fn crc64(bytes: &[u8]) -> u64 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes)
}

pub(crate) fn body(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// The id of the block with these bytes at a place.
pub(crate) fn id(index: u32, text: &str) -> BlockId {
    let claim = ClaimId::new(OrderKey(1), ProcessId::new(2), 3);
    let identity = Identity { inode: 1, size: 2, mtime: 3, ctime: 4 };
    let hash = BlockPlanHash::new(&SourceId::new(uuid::Uuid::nil(), "truck-7"), &claim, &identity, 4);
    BlockId { hash, index, length: u32::try_from(text.len()).unwrap(), crc64: crc64(text.as_bytes()) }
}

fn listed(index: u32, text: &str) -> ListedBlock {
    ListedBlock { id: id(index, text).to_bytes().to_vec(), size: text.len() as u64 }
}

fn metadata(pairs: &[(&str, &str)]) -> Properties {
    let metadata = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Properties { metadata, ..Properties::default() }
}

pub(crate) async fn stage(store: &impl BlobStore, name: &BlobName, index: u32, text: &str) {
    store.put_block(name, &id(index, text), body(text), crc64(text.as_bytes())).await.unwrap();
}

pub(crate) async fn put(store: &impl BlobStore, name: &BlobName, text: &str, condition: &Condition) -> Result<ETag, BlobError> {
    store.put_blob(name, body(text), crc64(text.as_bytes()), condition, &Properties::default()).await
}

pub(crate) async fn commit(
    store: &impl BlobStore,
    name: &BlobName,
    blocks: &[BlockId],
    condition: &Condition,
) -> Result<ETag, BlobError> {
    store.commit(name, blocks, condition, &Properties::default()).await
}

async fn uncommitted(store: &impl BlobStore, name: &BlobName) -> Vec<ListedBlock> {
    let mut blocks = store.blocks(name, BlockListKind::Uncommitted).await.unwrap();
    blocks.sort_by(|a, b| a.id.cmp(&b.id));
    blocks
}

async fn committed(store: &impl BlobStore, name: &BlobName) -> Vec<ListedBlock> {
    store.blocks(name, BlockListKind::Committed).await.unwrap()
}

#[track_caller]
pub(crate) fn assert_class<T: std::fmt::Debug>(result: Result<T, BlobError>, class: &BlobError) {
    let error = result.expect_err("the service took it");
    assert_eq!(discriminant(&error), discriminant(class), "{error:?}");
}

fn conflict() -> BlobError {
    BlobError::Conflict { message: String::new() }
}

fn blocks_missing() -> BlobError {
    BlobError::BlocksMissing { message: String::new() }
}

fn corrupted() -> BlobError {
    BlobError::Corrupted { message: String::new() }
}

pub(crate) async fn a_name_that_nobody_wrote_has_neither_blob_nor_blocks<B: Backend>() {
    let backend = B::start().await;
    let store = backend.store();
    assert_eq!(store.look(&name("a")).await.unwrap(), None);
    assert_eq!(uncommitted(store, &name("a")).await, []);
    assert_eq!(committed(store, &name("a")).await, []);
}

pub(crate) async fn a_blob_put_whole_has_its_bytes_and_metadata_and_no_blocks<B: Backend>() {
    let backend = B::start().await;
    let (store, name) = (backend.store(), name("a"));
    let properties = metadata(&[("blobferry_claim", "b10"), ("blobferry_source", "x/y"), ("a1", "1"), ("a_b", "2"), ("ab", "3")]);
    let etag = store.put_blob(&name, body("whole"), crc64(b"whole"), ABSENT, &properties).await.unwrap();
    let found = store.look(&name).await.unwrap().unwrap();
    assert_eq!((found.etag, found.size, found.metadata), (etag, 5, properties.metadata));
    assert_eq!(committed(store, &name).await, []);
    assert_eq!(backend.read(&name).await.unwrap(), "whole");
}

pub(crate) async fn an_empty_blob_can_be_put_whole<B: Backend>() {
    let backend = B::start().await;
    let (store, name) = (backend.store(), name("a"));
    put(store, &name, "", ABSENT).await.unwrap();
    assert_eq!(store.look(&name).await.unwrap().unwrap().size, 0);
    assert_eq!(backend.read(&name).await.unwrap(), "");
}

pub(crate) async fn a_wrong_checksum_is_refused_and_leaves_nothing<B: Backend>() {
    let backend = B::start().await;
    let (store, name) = (backend.store(), name("a"));
    assert_class(store.put_block(&name, &id(0, "one"), body("one"), 1).await, &corrupted());
    assert_class(store.put_blob(&name, body("one"), 1, ABSENT, &Properties::default()).await, &corrupted());
    assert_eq!(uncommitted(store, &name).await, []);
    assert_eq!(store.look(&name).await.unwrap(), None);
}

pub(crate) async fn blocks_are_uncommitted_and_invisible_until_the_commit<B: Backend>() {
    let backend = B::start().await;
    let (store, name) = (backend.store(), name("a"));
    stage(store, &name, 0, "one ").await;
    stage(store, &name, 1, "two").await;
    assert_eq!(uncommitted(store, &name).await, [listed(0, "one "), listed(1, "two")]);
    assert_eq!(committed(store, &name).await, []);
    assert_eq!(store.look(&name).await.unwrap(), None);
    let etag = commit(store, &name, &[id(0, "one "), id(1, "two")], ABSENT).await.unwrap();
    assert_eq!(uncommitted(store, &name).await, []);
    assert_eq!(committed(store, &name).await, [listed(0, "one "), listed(1, "two")]);
    let found = store.look(&name).await.unwrap().unwrap();
    assert_eq!((found.etag, found.size, found.metadata), (etag, 7, BTreeMap::new()));
    assert_eq!(backend.read(&name).await.unwrap(), "one two");
}

pub(crate) async fn blocks_are_committed_in_the_order_of_the_commit<B: Backend>() {
    let backend = B::start().await;
    let (store, name) = (backend.store(), name("a"));
    for index in 0..5 {
        stage(store, &name, index, &format!("{index}")).await;
    }
    let order = [3, 0, 4, 2, 1];
    let ids: Vec<_> = order.iter().map(|index| id(*index, &format!("{index}"))).collect();
    commit(store, &name, &ids, ABSENT).await.unwrap();
    assert_eq!(committed(store, &name).await, order.map(|index| listed(index, &format!("{index}"))));
    assert_eq!(backend.read(&name).await.unwrap(), "30421");
}

pub(crate) async fn a_block_sent_again_replaces_itself<B: Backend>() {
    let backend = B::start().await;
    let (store, name) = (backend.store(), name("a"));
    stage(store, &name, 0, "one").await;
    stage(store, &name, 0, "one").await;
    assert_eq!(uncommitted(store, &name).await, [listed(0, "one")]);
}

pub(crate) async fn a_commit_drops_the_blocks_that_it_does_not_name<B: Backend>() {
    let backend = B::start().await;
    let (store, name) = (backend.store(), name("a"));
    stage(store, &name, 0, "one").await;
    stage(store, &name, 1, "two").await;
    let etag = commit(store, &name, &[id(0, "one")], ABSENT).await.unwrap();
    assert_eq!(uncommitted(store, &name).await, []);
    assert_class(commit(store, &name, &[id(1, "two")], &Condition::Matches(etag)).await, &blocks_missing());
}

pub(crate) async fn a_blob_put_whole_drops_uncommitted_blocks<B: Backend>() {
    let backend = B::start().await;
    let (store, name) = (backend.store(), name("a"));
    let first = put(store, &name, "first", ABSENT).await.unwrap();
    stage(store, &name, 0, "one").await;
    let second = put(store, &name, "second", &Condition::Matches(first)).await.unwrap();
    if B::PUT_BLOB_LEAVES_UNCOMMITTED_BLOCKS {
        assert_eq!(uncommitted(store, &name).await, [listed(0, "one")]);
        return;
    }
    assert_eq!(uncommitted(store, &name).await, []);
    assert_class(commit(store, &name, &[id(0, "one")], &Condition::Matches(second)).await, &blocks_missing());
}

pub(crate) async fn a_commit_of_an_unknown_block_changes_nothing<B: Backend>() {
    let backend = B::start().await;
    let (store, name) = (backend.store(), name("a"));
    stage(store, &name, 0, "one").await;
    assert_class(commit(store, &name, &[id(0, "one"), id(1, "two")], ABSENT).await, &blocks_missing());
    assert_eq!(store.look(&name).await.unwrap(), None);
    assert_eq!(uncommitted(store, &name).await, [listed(0, "one")]);
    assert_class(commit(store, &self::name("b"), &[id(0, "one")], ABSENT).await, &blocks_missing());
}

pub(crate) async fn committed_blocks_cannot_be_committed_again_as_uncommitted<B: Backend>() {
    let backend = B::start().await;
    let (store, name) = (backend.store(), name("a"));
    stage(store, &name, 0, "one").await;
    let etag = commit(store, &name, &[id(0, "one")], ABSENT).await.unwrap();
    assert_class(commit(store, &name, &[id(0, "one")], &Condition::Matches(etag.clone())).await, &blocks_missing());
    assert_eq!(store.look(&name).await.unwrap().unwrap().etag, etag);
}

pub(crate) async fn staging_does_not_touch_the_blob<B: Backend>() {
    let backend = B::start().await;
    let (store, name) = (backend.store(), name("a"));
    put(store, &name, "whole", ABSENT).await.unwrap();
    let before = store.look(&name).await.unwrap();
    stage(store, &name, 0, "one").await;
    assert_eq!(store.look(&name).await.unwrap(), before);
    assert_eq!(backend.read(&name).await.unwrap(), "whole");
    assert_eq!(uncommitted(store, &name).await, [listed(0, "one")]);
}

pub(crate) async fn a_write_that_needs_absence_is_refused_where_a_blob_is<B: Backend>() {
    let backend = B::start().await;
    let (store, name) = (backend.store(), name("a"));
    put(store, &name, "whole", ABSENT).await.unwrap();
    assert_class(put(store, &name, "other", ABSENT).await, &conflict());
    stage(store, &name, 0, "one").await;
    assert_class(commit(store, &name, &[id(0, "one")], ABSENT).await, &conflict());
    assert_eq!(backend.read(&name).await.unwrap(), "whole");
    assert_eq!(uncommitted(store, &name).await, [listed(0, "one")]);
}

pub(crate) async fn uncommitted_blocks_alone_count_as_absence<B: Backend>() {
    let backend = B::start().await;
    let (store, name) = (backend.store(), name("a"));
    stage(store, &name, 0, "one").await;
    let whole = put(store, &name, "whole", ABSENT).await;
    if B::PUT_BLOB_TAKES_UNCOMMITTED_BLOCKS_FOR_A_BLOB {
        assert_class(whole, &conflict());
    } else {
        whole.unwrap();
        assert_eq!(backend.read(&name).await.unwrap(), "whole");
    }
}

pub(crate) async fn a_write_that_needs_a_version_is_refused_where_another_or_none_is<B: Backend>() {
    let backend = B::start().await;
    let (store, name) = (backend.store(), name("a"));
    let first = Condition::Matches(put(store, &name, "first", ABSENT).await.unwrap());
    let second = Condition::Matches(put(store, &name, "second", &first).await.unwrap());
    assert_class(put(store, &name, "third", &first).await, &conflict());
    stage(store, &name, 0, "third").await;
    assert_class(commit(store, &name, &[id(0, "third")], &first).await, &conflict());
    assert_eq!(backend.read(&name).await.unwrap(), "second");
    commit(store, &name, &[id(0, "third")], &second).await.unwrap();
    assert_eq!(backend.read(&name).await.unwrap(), "third");
    assert_class(put(store, &self::name("b"), "x", &first).await, &conflict());
    stage(store, &self::name("c"), 0, "x").await;
    assert_class(commit(store, &self::name("c"), &[id(0, "x")], &first).await, &conflict());
}

pub(crate) async fn a_new_version_has_a_new_tag_and_only_its_own_metadata<B: Backend>() {
    let backend = B::start().await;
    let (store, name) = (backend.store(), name("a"));
    let first = store.put_blob(&name, body("x"), crc64(b"x"), ABSENT, &metadata(&[("old", "1"), ("both", "1")])).await.unwrap();
    stage(store, &name, 0, "x").await;
    let properties = metadata(&[("Both", "2"), ("New", "2")]);
    let second = store.commit(&name, &[id(0, "x")], &Condition::Matches(first.clone()), &properties).await.unwrap();
    assert_ne!(first, second);
    let found = store.look(&name).await.unwrap().unwrap();
    assert_eq!((found.etag, found.metadata), (second, metadata(&[("both", "2"), ("new", "2")]).metadata));
}

pub(crate) async fn of_two_writes_that_need_absence_one_wins<B: Backend>() {
    let backend = B::start().await;
    let store = backend.store();
    for round in 0..5 {
        let name = name(&format!("a{round}"));
        let (left, right) = tokio::join!(put(store, &name, "left", ABSENT), put(store, &name, "right", ABSENT));
        let winner = if left.is_ok() { "left" } else { "right" };
        assert!(left.is_ok() != right.is_ok(), "{left:?} {right:?}");
        assert_eq!(backend.read(&name).await.unwrap(), winner);
        assert_class(left.and(right), &conflict());
    }
}

pub(crate) async fn of_two_commits_that_need_one_version_one_wins<B: Backend>() {
    let backend = B::start().await;
    let (store, name) = (backend.store(), name("a"));
    let seen = Condition::Matches(put(store, &name, "whole", ABSENT).await.unwrap());
    stage(store, &name, 0, "left").await;
    stage(store, &name, 1, "right").await;
    let (left_id, right_id) = ([id(0, "left")], [id(1, "right")]);
    let (left, right) = tokio::join!(commit(store, &name, &left_id, &seen), commit(store, &name, &right_id, &seen));
    let winner = if left.is_ok() { "left" } else { "right" };
    assert!(left.is_ok() != right.is_ok(), "{left:?} {right:?}");
    assert_eq!(backend.read(&name).await.unwrap(), winner);
}

pub(crate) async fn blocks_with_ids_of_another_length_stand_in_the_way<B: Backend>() {
    let backend = B::start().await;
    let (store, name) = (backend.store(), name("a"));
    backend.plant_block(&name, b"short").await;
    assert_eq!(uncommitted(store, &name).await, [ListedBlock { id: b"short".to_vec(), size: 7 }]);
    let sent = store.put_block(&name, &id(0, "one"), body("one"), crc64(b"one")).await;
    assert_class(sent, &BlobError::ForeignBlocks { message: String::new() });
}

pub(crate) async fn every_odd_name_is_stored_as_it_is<B: Backend>() {
    let backend = B::start().await;
    let store = backend.store();
    let before = name("x").as_str().chars().count() - 1;
    let longest = "ü".repeat(1024 - before);
    let deepest = ["d"; 250].join("/");
    let odd = [
        " leading and trailing ",
        "%",
        "100%",
        "%20",
        "%2F",
        "%41",
        "a+b",
        "a&b=c",
        "a?b",
        "a#b",
        "a=b;c,d",
        "\"quoted\"",
        "it's",
        "[1]",
        "{2}",
        "a|b",
        "a^b",
        "`",
        "~",
        "!@$*():",
        "<x>",
        "ü",
        "日本語",
        "🚚",
        "e\u{301}",
        "\u{a0}",
        "...a",
        "a..b",
        ".hidden",
        "comp=block",
        "a;b",
        "CASE",
        "case",
        "folder/with/file",
        &longest,
        &deepest,
    ];
    for file in odd {
        put(store, &name(file), file, ABSENT).await.unwrap_or_else(|error| panic!("{file}: {error}"));
    }
    let mut expected: Vec<_> = odd.iter().map(|file| name(file).as_str().to_owned()).collect();
    expected.sort();
    let mut found = backend.list().await;
    found.sort();
    assert_eq!(found, expected);
    for file in odd {
        assert_eq!(backend.read(&name(file)).await.unwrap(), file);
        let blob = store.look(&name(file)).await.unwrap().unwrap();
        stage(store, &name(file), 0, "again").await;
        commit(store, &name(file), &[id(0, "again")], &Condition::Matches(blob.etag)).await.unwrap();
    }
}

pub(crate) async fn a_container_is_made_once_and_missed_before<B: Backend>() {
    let backend = B::start_without_container().await;
    let (store, name) = (backend.store(), name("a"));
    let missing = BlobError::ContainerMissing { message: String::new() };
    assert_class(store.look(&name).await, &missing);
    assert_class(store.blocks(&name, BlockListKind::Committed).await, &missing);
    assert_class(store.put_block(&name, &id(0, "x"), body("x"), crc64(b"x")).await, &missing);
    assert_class(put(store, &name, "x", ABSENT).await, &missing);
    assert_class(commit(store, &name, &[id(0, "x")], ABSENT).await, &missing);
    store.prepare().await.unwrap();
    store.prepare().await.unwrap();
    put(store, &name, "x", ABSENT).await.unwrap();
}

pub(crate) async fn tier_type_and_tags_are_those_of_the_write<B: Backend>() {
    let backend = B::start().await;
    let store = backend.store();
    let properties = Properties {
        access_tier: Some(AccessTier::Cool),
        content_type: Some("video/mp4".to_owned()),
        tags: [("project".to_owned(), "north face".to_owned()), ("a/b".to_owned(), "1+1=2".to_owned())].into(),
        ..metadata(&[("site", "3")])
    };
    let (whole, blocks) = (name("whole"), name("blocks"));
    store.put_blob(&whole, body("x"), crc64(b"x"), ABSENT, &properties).await.unwrap();
    stage(store, &blocks, 0, "one").await;
    store.commit(&blocks, &[id(0, "one")], ABSENT, &properties).await.unwrap();
    for name in [whole, blocks] {
        let given = backend.given(&name).await;
        assert_eq!(
            (given.access_tier, given.content_type, given.tags),
            ("Cool".to_owned(), "video/mp4".to_owned(), properties.tags.clone())
        );
        assert_eq!(store.look(&name).await.unwrap().unwrap().metadata, properties.metadata);
    }
}
