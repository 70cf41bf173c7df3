use std::mem::discriminant;

use super::*;
use crate::{
    blob::{
        BlobStore,
        memory::{MemoryStore, Operation},
    },
    formats::{BlockPlanHash, ClaimId, OrderKey, ProcessId, SourceId, blob_name},
    share::Identity,
};

fn name() -> BlobName {
    blob_name("", "20261121", "s", b"a").unwrap()
}

fn ids(count: u32) -> Vec<BlockId> {
    let claim = ClaimId::new(OrderKey(1), ProcessId::new(2), 3);
    let identity = Identity { inode: 1, size: 2, mtime: 3, ctime: 4 };
    let hash = BlockPlanHash::new(&SourceId::new(uuid::Uuid::nil(), "s"), &claim, &identity, 4);
    (0..count).map(|index| BlockId { hash, index, length: 1, crc64: 0 }).collect()
}

fn crc64(bytes: &[u8]) -> u64 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes)
}

async fn put(store: &MemoryStore, text: &'static str) -> Result<ETag, BlobError> {
    let body = Bytes::from_static(text.as_bytes());
    store.put_blob(&name(), body, crc64(text.as_bytes()), &Condition::Absent, &Properties::default()).await
}

async fn stage(store: &MemoryStore, id: &BlockId) -> Result<(), BlobError> {
    store.put_block(&name(), id, Bytes::from_static(b"x"), crc64(b"x")).await
}

#[tokio::test]
async fn a_lost_reply_leaves_the_blob_and_a_failure_before_does_not() {
    let store = MemoryStore::new();
    store.fail_before(Operation::PutBlob, 1, BlobError::Denied { message: "no".to_owned() });
    store.lose_reply(Operation::PutBlob, 2);
    assert!(matches!(put(&store, "one").await, Err(BlobError::Denied { .. })));
    assert_eq!(store.content(&name()), None);
    assert!(matches!(put(&store, "two").await, Err(BlobError::Transient { .. })));
    assert_eq!(store.content(&name()).unwrap(), "two");
    assert_eq!(store.calls(Operation::PutBlob), 2);
}

#[tokio::test]
async fn a_delayed_request_is_applied_under_the_rules_of_its_arrival() {
    let store = MemoryStore::new();
    store.delay_request(Operation::PutBlob, 1);
    assert!(matches!(put(&store, "late").await, Err(BlobError::Transient { .. })));
    put(&store.another_client(), "other").await.unwrap();
    store.deliver_late_requests();
    assert_eq!(store.versions(&name()).iter().map(Version::bytes).collect::<Vec<_>>(), ["other"]);
}

#[tokio::test]
async fn a_protected_blob_is_not_written() {
    let store = MemoryStore::new();
    store.protect(&name(), Some("BlobArchived"));
    assert!(matches!(put(&store, "x").await, Err(BlobError::Protected { code, .. }) if code == "BlobArchived"));
    store.protect(&name(), None);
    put(&store, "x").await.unwrap();
}

#[tokio::test]
async fn a_commit_has_fifty_thousand_blocks_at_most_and_a_name_a_hundred_thousand_uncommitted_ones() {
    let store = MemoryStore::new();
    let ids = ids(100_001);
    for id in &ids[..100_000] {
        stage(&store, id).await.unwrap();
    }
    let full = BlobError::ForeignBlocks { message: String::new() };
    assert_eq!(discriminant(&stage(&store, &ids[100_000]).await.unwrap_err()), discriminant(&full));
    stage(&store, &ids[0]).await.unwrap();
    let commit = async |count| store.commit(&name(), &ids[..count], &Condition::Absent, &Properties::default()).await;
    assert!(matches!(commit(50_001).await, Err(BlobError::Rejected { code, .. }) if code == "BlockListTooLong"));
    commit(50_000).await.unwrap();
    assert_eq!(store.content(&name()).unwrap().len(), 50_000);
}

#[tokio::test]
async fn every_version_is_kept_with_its_bytes_also_after_a_deletion() {
    let store = MemoryStore::new();
    put(&store, "ours").await.unwrap();
    store.write_as_another(&name(), Bytes::from_static(b"theirs"), &BTreeMap::new());
    store.delete_as_another(&name());
    assert_eq!(store.look(&name()).await.unwrap(), None);
    assert_eq!(store.versions(&name()).iter().map(Version::bytes).collect::<Vec<_>>(), ["ours", "theirs"]);
    assert!(store.names().is_empty());
}
