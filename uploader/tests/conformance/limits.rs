//! The two limits on the number of blocks, on the project's own server: Azurite would take an hour.

use blobferry_uploader::{
    blob::{BlobError, BlobStore as _, Properties},
    formats::BlockId,
};

use crate::{
    backend::Backend as _,
    server::{CONTAINER, Server},
    suite::{ABSENT, assert_class, body, crc64, id, name, stage},
};

async fn with_blocks(count: u32) -> (Server, Vec<BlockId>) {
    let server = Server::start().await;
    let ids: Vec<_> = (0..count).map(|index| id(index, "x")).collect();
    for id in &ids {
        server.server.plant_block(CONTAINER, name("a").as_str(), &id.to_bytes(), body("x"));
    }
    (server, ids)
}

#[tokio::test]
async fn fifty_thousand_blocks_are_committed_and_one_more_is_not() {
    let (server, ids) = with_blocks(50_001).await;
    let (store, name) = (server.store(), name("a"));
    let refused = store.commit(&name, &ids, ABSENT, &Properties::default()).await;
    assert!(matches!(&refused, Err(BlobError::Rejected { code, .. }) if code == "BlockListTooLong"), "{refused:?}");
    store.commit(&name, &ids[..50_000], ABSENT, &Properties::default()).await.unwrap();
    assert_eq!(server.read(&name).await.unwrap().len(), 50_000);
}

#[tokio::test]
async fn hundred_thousand_uncommitted_blocks_stand_in_the_way_of_another_and_not_of_themselves() {
    let (server, _) = with_blocks(100_000).await;
    let (store, name) = (server.store(), name("a"));
    let another = id(100_000, "x");
    let refused = store.put_block(&name, &another, body("x"), crc64(b"x")).await;
    assert_class(refused, &BlobError::ForeignBlocks { message: String::new() });
    stage(store, &name, 99_999, "x").await;
}
