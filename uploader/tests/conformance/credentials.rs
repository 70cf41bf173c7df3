//! Credentials against a service that verifies them.

use azure_core::credentials::Secret;
use blobferry_uploader::{
    azure::CredentialSource,
    blob::{BlobError, BlobStore, BlockListKind, Condition, Properties},
    formats::{BlockId, blob_name},
};
use bytes::Bytes;

use crate::{
    azurite::{ACCOUNT, Azurite, KEY, Sas, account_sas},
    backend::Backend as _,
};

const WRONG_KEY: &str = "d3Jvbmcga2V5";

async fn write(store: &impl BlobStore) -> Result<(), BlobError> {
    let name = blob_name("", "20261121", "s", b"a").unwrap();
    store.put_blob(&name, Bytes::new(), 0, &Condition::Absent, &Properties::default()).await.map(|_| ())
}

fn sas(permissions: &str, types: &str) -> CredentialSource {
    CredentialSource::SasToken(Secret::new(account_sas(permissions, types)))
}

#[tokio::test]
#[ignore = "needs Azurite: set BLOBFERRY_AZURITE to its azurite-blob program"]
async fn each_kind_of_credential_is_taken() {
    let string = format!("AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint=http://elsewhere.invalid/{ACCOUNT}");
    for credential in [
        CredentialSource::ConnectionString(Secret::new(string)),
        CredentialSource::ConnectionString(Secret::new("UseDevelopmentStorage=true")),
        CredentialSource::AccountKey { account: Some(ACCOUNT.to_owned()), key: Secret::new(KEY) },
        sas("rwc", "co"),
    ] {
        let azurite = Azurite::start_without_container().await;
        let store = azurite.store_with(credential.clone());
        store.prepare().await.unwrap_or_else(|error| panic!("{credential:?}: {error}"));
        write(&store).await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs Azurite: set BLOBFERRY_AZURITE to its azurite-blob program"]
async fn a_wrong_key_is_denied_and_heals_when_its_secret_is_mended() {
    let azurite = Azurite::start_without_container().await;
    let folder = tempfile::tempdir().unwrap();
    let store = azurite.store_with(CredentialSource::Folder(folder.path().to_owned()));
    let error = store.prepare().await.unwrap_err();
    assert!(matches!(&error, BlobError::Denied { message } if message.contains("set connectionString")), "{error:?}");
    std::fs::write(folder.path().join("accountKey"), WRONG_KEY).unwrap();
    store.refresh().await;
    let error = store.prepare().await.unwrap_err();
    assert!(matches!(&error, BlobError::Denied { message } if message.contains("check the key")), "{error:?}");
    assert!(!error.to_string().contains(WRONG_KEY));
    std::fs::write(folder.path().join("accountKey"), KEY).unwrap();
    store.refresh().await;
    store.prepare().await.unwrap();
    write(&store).await.unwrap();
}

#[tokio::test]
#[ignore = "needs Azurite: set BLOBFERRY_AZURITE to its azurite-blob program"]
async fn a_token_without_the_right_to_read_is_denied_at_the_start() {
    let azurite = Azurite::start().await;
    let error = azurite.store_with(sas("wc", "co")).prepare().await.unwrap_err();
    assert!(matches!(&error, BlobError::Denied { message } if message.contains("read a blob's properties")), "{error:?}");
    assert!(error.to_string().contains("sp=r"), "{error}");
}

#[tokio::test]
#[ignore = "needs Azurite: set BLOBFERRY_AZURITE to its azurite-blob program"]
async fn a_container_that_may_not_be_made_is_enough_if_it_exists() {
    let azurite = Azurite::start_without_container().await;
    let store = azurite.store_with(sas("rwc", "o"));
    let error = store.prepare().await.unwrap_err();
    let expected =
        format!("the container {} does not exist: make it, or let the uploader make it: not allowed to make", azurite.container());
    assert!(matches!(&error, BlobError::ContainerMissing { message } if message.starts_with(&expected)), "{error:?}");
    assert!(!error.to_string().contains("sig="));
    azurite.store().prepare().await.unwrap();
    store.prepare().await.unwrap();
    write(&store).await.unwrap();
}

#[tokio::test]
#[ignore = "needs Azurite: set BLOBFERRY_AZURITE to its azurite-blob program"]
async fn a_token_without_the_right_to_write_is_denied_when_it_writes() {
    let azurite = Azurite::start().await;
    let store = azurite.store_with(sas("r", "co"));
    store.prepare().await.unwrap();
    let error = write(&store).await.unwrap_err();
    assert!(matches!(&error, BlobError::Denied { message } if message.contains("sp=rw")), "{error:?}");
}

#[tokio::test]
#[ignore = "needs Azurite: set BLOBFERRY_AZURITE to its azurite-blob program"]
async fn reading_and_writing_blobs_is_all_that_is_needed_in_a_container_that_exists() {
    let azurite = Azurite::start().await;
    let of_container = Sas::default().of_container(azurite.container());
    for token in [account_sas("rw", "o"), of_container] {
        let store = azurite.store_with(CredentialSource::SasToken(Secret::new(token)));
        store.prepare().await.unwrap();
        let name = blob_name("", "20261121", "s", b"blocks").unwrap();
        let id = BlockId::parse(&[[1_u8; 32].as_slice(), &[0; 16]].concat()).unwrap();
        let body = Bytes::from_static(b"x");
        let crc64 = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, &body);
        store.put_block(&name, &id, body, crc64).await.unwrap();
        let condition = store.look(&name).await.unwrap().map_or(Condition::Absent, |found| Condition::Matches(found.etag));
        store.commit(&name, &[id], &condition, &Properties::default()).await.unwrap();
        assert_eq!(store.blocks(&name, BlockListKind::Committed).await.unwrap().len(), 1);
        let other = blob_name("", "20261121", uuid::Uuid::new_v4().to_string().as_str(), b"whole").unwrap();
        store.put_blob(&other, Bytes::new(), 0, &Condition::Absent, &Properties::default()).await.unwrap();
        store.put_blob(&other, Bytes::new(), 0, &Condition::Absent, &Properties::default()).await.unwrap_err();
    }
}

#[tokio::test]
#[ignore = "needs Azurite: set BLOBFERRY_AZURITE to its azurite-blob program"]
async fn a_service_sas_without_the_right_to_read_is_denied_at_the_start() {
    let azurite = Azurite::start().await;
    let token = Sas { permissions: "w", ..Sas::default() }.of_container(azurite.container());
    let error = azurite.store_with(CredentialSource::SasToken(Secret::new(token))).prepare().await.unwrap_err();
    assert!(matches!(&error, BlobError::Denied { message } if message.contains("sp=r")), "{error:?}");
}
