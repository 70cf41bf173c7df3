//! What goes over the wire, seen by a server that answers what it is told.

use std::sync::Mutex;

use azure_core::credentials::Secret;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream},
    net::TcpListener,
};

use super::*;

/// A request line and the headers, in lower case but for the line.
type Seen = Arc<Mutex<Vec<(String, HashMap<String, String>)>>>;

/// A server that answers every request alike, and what it saw.
async fn server(reply: &'static str) -> (AzureStore, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let account_url = AccountUrl::parse(&format!("http://{}/devstoreaccount1", listener.local_addr().unwrap())).unwrap();
    let seen = Seen::default();
    let log = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(answer(BufStream::new(socket), reply, Arc::clone(&log)));
        }
    });
    let credential = CredentialSource::SasToken(Secret::new("sv=1&sig=hunter2"));
    let settings = AzureSettings { account_url, container: "data".to_owned(), prefix: String::new(), credential };
    (AzureStore::new(settings).unwrap(), seen)
}

async fn answer(mut socket: BufStream<tokio::net::TcpStream>, reply: &str, log: Seen) {
    loop {
        let (mut line, mut headers) = (String::new(), HashMap::new());
        if socket.read_line(&mut line).await.unwrap_or(0) == 0 {
            return;
        }
        loop {
            let mut header = String::new();
            socket.read_line(&mut header).await.unwrap();
            let Some((name, value)) = header.trim().split_once(": ") else { break };
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        socket.read_exact(&mut body).await.unwrap();
        headers.insert(BODY.to_owned(), String::from_utf8_lossy(&body).into_owned());
        log.lock().unwrap().push((line.trim().to_owned(), headers));
        socket.write_all(reply.as_bytes()).await.unwrap();
        socket.flush().await.unwrap();
    }
}

/// Under which the body of a request is kept beside its headers.
const BODY: &str = "(body)";
const BUSY: &str = "HTTP/1.1 503 Busy\r\nx-ms-error-code: ServerBusy\r\nRetry-After: 9\r\nContent-Length: 0\r\n\r\n";
const CREATED: &str = "HTTP/1.1 201 Created\r\nETag: \"0x1\"\r\nContent-Length: 0\r\n\r\n";

fn name() -> BlobName {
    blob_name("", "20261121", "s", b"a b+c.dat").unwrap()
}

fn id() -> BlockId {
    BlockId::parse(&[[1_u8; 32].as_slice(), &[0; 16]].concat()).unwrap()
}

async fn every_call(store: &AzureStore) -> Vec<BlobError> {
    let (body, properties) = (Bytes::from_static(b"123456789"), Properties::default());
    vec![
        store.look(&name()).await.unwrap_err(),
        store.put_block(&name(), &id(), body.clone(), 1).await.unwrap_err(),
        store.put_blob(&name(), body, 1, &Condition::Absent, &properties).await.unwrap_err(),
        store.commit(&name(), &[id()], &Condition::Absent, &properties).await.unwrap_err(),
        store.blocks(&name(), BlockListKind::Committed).await.unwrap_err(),
        store.prepare().await.unwrap_err(),
    ]
}

#[tokio::test]
async fn every_call_is_one_request_also_when_the_service_is_busy() {
    let (store, seen) = server(BUSY).await;
    let errors = every_call(&store).await;
    for error in &errors {
        let BlobError::Transient { message, retry_after } = error else { panic!("{error:?}") };
        assert_eq!(retry_after.map(|wait| wait.as_secs()), Some(9), "{message}");
        assert!(message.contains("503 ServerBusy") && !message.contains("hunter2"), "{message}");
    }
    assert_eq!(seen.lock().unwrap().len(), errors.len());
}

#[tokio::test]
async fn a_whole_blob_is_sent_with_checksum_condition_and_metadata() {
    let (store, seen) = server(CREATED).await;
    let properties = Properties {
        metadata: [("blobferry_claim".to_owned(), "b1".to_owned())].into(),
        tags: [("a/b".to_owned(), "1+1=2 x".to_owned())].into(),
        access_tier: Some(blobferry_crds::AccessTier::Cold),
        content_type: Some("video/mp4".to_owned()),
    };
    let body = Bytes::from_static(b"123456789");
    let crc64 = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, &body);
    let etag = store.put_blob(&name(), body, crc64, &Condition::Absent, &properties).await.unwrap();
    assert_eq!(etag, ETag("\"0x1\"".to_owned()));
    let (line, headers) = seen.lock().unwrap().remove(0);
    assert_eq!(line, "PUT /devstoreaccount1/data/20261121/s/a%20b%2Bc.dat?sv=1&sig=hunter2 HTTP/1.1");
    for (header, value) in [
        ("x-ms-blob-type", "BlockBlob"),
        ("x-ms-content-crc64", "iJh5CoYUi64="),
        ("if-none-match", "*"),
        ("x-ms-meta-blobferry_claim", "b1"),
        ("x-ms-tags", "a%2Fb=1%2B1%3D2%20x"),
        ("x-ms-access-tier", "Cold"),
        ("x-ms-blob-content-type", "video/mp4"),
        ("content-length", "9"),
    ] {
        assert_eq!(headers.get(header).map(String::as_str), Some(value), "{header}");
    }
    assert!(!headers.contains_key("transfer-encoding") && !headers.contains_key("accept-encoding"), "{headers:?}");
}

#[tokio::test]
async fn a_block_and_a_commit_are_sent_to_their_blob() {
    let (store, seen) = server(CREATED).await;
    store.put_block(&name(), &id(), Bytes::from_static(b"x"), 1).await.unwrap();
    let condition = Condition::Matches(ETag("\"0x7\"".to_owned()));
    store.commit(&name(), &[id()], &condition, &Properties::default()).await.unwrap();
    let seen = seen.lock().unwrap();
    let block = seen[0].0.split('?').collect::<Vec<_>>();
    assert_eq!(block[0], "PUT /devstoreaccount1/data/20261121/s/a%20b%2Bc.dat");
    assert!(block[1].contains("comp=block&") && block[1].contains("blockid=AQEB"), "{}", block[1]);
    assert_eq!(seen[0].1["x-ms-content-crc64"], "AQAAAAAAAAA=");
    assert!(seen[1].0.starts_with("PUT /devstoreaccount1/data/20261121/s/a%20b%2Bc.dat?comp=blocklist&"), "{}", seen[1].0);
    assert_eq!(seen[1].1["if-match"], "\"0x7\"");
    assert!(!seen[1].1.contains_key("x-ms-tags"), "tags need a right of their own");
    // `Latest` would also take blocks that were committed before.
    let committed = &seen[1].1[BODY];
    assert!(committed.contains("<Uncommitted>AQEB") && !committed.contains("<Latest>"), "{committed}");
}

#[tokio::test]
async fn a_refusal_from_another_time_says_that_the_clock_is_off() {
    const REFUSED: &str = "HTTP/1.1 403 Forbidden\r\nx-ms-error-code: AuthenticationFailed\r\nDate: Fri, 21 Nov 2025 10:00:00 GMT\r\n\
                           Content-Length: 0\r\n\r\n";
    let (store, _) = server(REFUSED).await;
    let error = store.look(&name()).await.unwrap_err();
    assert!(matches!(&error, BlobError::Denied { message } if message.contains("min ahead of the service's, set it")), "{error:?}");
}

#[tokio::test]
async fn a_service_that_answers_with_parts_of_the_request_gives_no_secret_away() {
    const ECHO: &str = "HTTP/1.1 400 Bad Request\r\nx-ms-error-code: InvalidQueryParameterValue\r\nContent-Length: 72\r\n\r\n\
                        <Error><Message>Value hunter2 in ?sv=1&sig=hunter2 is invalid.</Message>";
    let (store, _) = server(ECHO).await;
    let error = store.put_block(&name(), &id(), Bytes::from_static(b"x"), 1).await.unwrap_err();
    let message = "could not send a block: 400 InvalidQueryParameterValue: Value (hidden) in ?(hidden) is invalid.".to_owned();
    assert_eq!(error, BlobError::Rejected { code: "InvalidQueryParameterValue".to_owned(), message });
}

#[tokio::test]
async fn a_reply_that_is_not_the_services_is_trouble_and_no_absence() {
    let (store, _) = server("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
    let error = store.look(&name()).await.unwrap_err();
    assert!(matches!(&error, BlobError::Transient { message, .. } if message.contains("is a proxy in between")), "{error:?}");
}

#[test]
fn debug_of_a_store_shows_no_secret() {
    let account_url = AccountUrl::parse("https://truck.blob.core.windows.net").unwrap();
    let credential = CredentialSource::SasToken(Secret::new("sv=1&sig=hunter2"));
    let settings = AzureSettings { account_url, container: "data".to_owned(), prefix: String::new(), credential };
    assert!(!format!("{:?}", AzureStore::new(settings).unwrap()).contains("hunter2"));
}
