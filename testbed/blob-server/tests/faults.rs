//! Each fault, seen by a client.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use blobferry_blob_server::{AccountKey, BlobServer, Event, Fault, KEY, Operation, Settings};
use reqwest::{Client, Method, Response, StatusCode};

struct Bed {
    server: BlobServer,
    client: Client,
}

fn client() -> Client {
    // Another test may have installed it before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().tls_certs_only([]).build().unwrap()
}

async fn bed() -> Bed {
    let server = BlobServer::start(Settings::default()).await.unwrap();
    let bed = Bed { server, client: client() };
    bed.send(Method::PUT, "?restype=container", "").await.unwrap();
    bed
}

impl Bed {
    async fn send(&self, method: Method, path: &str, body: &'static str) -> reqwest::Result<Response> {
        let url = format!("{}/data{path}", self.server.account_url());
        let request = self.client.request(method, url).header("x-ms-version", "2021-12-02").header("x-ms-blob-type", "BlockBlob");
        request.header("x-ms-content-crc64", "iJh5CoYUi64=").header("content-length", body.len()).body(body).send().await
    }

    /// The bytes of the published example of the checksum.
    async fn put(&self) -> reqwest::Result<Response> {
        self.send(Method::PUT, "/a", "123456789").await
    }

    fn versions(&self) -> usize {
        self.server.versions("data", "a").len()
    }

    async fn meets(fault: Fault) -> (Self, reqwest::Result<Response>) {
        let bed = bed().await;
        bed.server.faults().script(Operation::PutBlob, 1, fault);
        let result = bed.put().await;
        (bed, result)
    }
}

async fn until(what: impl Fn() -> bool) {
    for _ in 0..1000 {
        if what() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it does not happen");
}

#[tokio::test]
async fn without_a_fault_a_blob_is_written_and_read() {
    let bed = bed().await;
    assert_eq!(bed.put().await.unwrap().status(), StatusCode::CREATED);
    assert_eq!(bed.send(Method::GET, "/a", "").await.unwrap().text().await.unwrap(), "123456789");
    assert_eq!(bed.server.totals().requests[&Operation::PutBlob], 1);
    let written = bed.server.records(|record| record.wrote.is_some());
    assert!(written[0].to_string().ends_with("PutBlob a 9 bytes made ae8b14860a799888 of 9 bytes -> 201"), "{}", written[0]);
}

#[tokio::test]
async fn refusals_are_answered_and_nothing_is_done() {
    for (fault, status, code) in [
        (Fault::Busy(503, Some(Duration::from_secs(7))), 503, "ServerBusy"),
        (Fault::Busy(429, None), 429, "TooManyRequests"),
        (Fault::Forbidden, 403, "AuthorizationFailure"),
        (Fault::FlipBit(3), 400, "Crc64Mismatch"),
    ] {
        let (bed, result) = Bed::meets(fault).await;
        let response = result.unwrap();
        assert_eq!((response.status().as_u16(), &response.headers()["x-ms-error-code"]), (status, &code.parse().unwrap()));
        assert_eq!(response.headers().get("retry-after").is_some(), status == 503);
        assert!(response.text().await.unwrap().contains(&format!("<Code>{code}</Code>")));
        assert_eq!(bed.versions(), 0);
    }
}

#[tokio::test]
async fn lost_replies_are_lost_after_the_write() {
    for fault in [Fault::LoseReply, Fault::CutReply] {
        let (bed, result) = Bed::meets(fault).await;
        let text = match result {
            Ok(response) => response.text().await,
            Err(error) => Err(error),
        };
        text.unwrap_err();
        assert_eq!(bed.versions(), 1, "{fault:?}");
    }
    let (bed, result) = Bed::meets(Fault::FailAfter).await;
    assert_eq!((result.unwrap().status().as_u16(), bed.versions()), (500, 1));
}

#[tokio::test]
async fn reply_to_a_look_is_whole_or_absent() {
    let bed = bed().await;
    bed.put().await.unwrap();
    bed.server.faults().script(Operation::GetBlobProperties, 1, Fault::CutReply);
    bed.send(Method::HEAD, "/a", "").await.unwrap_err();
    assert_eq!(bed.send(Method::HEAD, "/a", "").await.unwrap().headers()["content-length"], "9");
}

#[tokio::test]
async fn request_that_is_cut_in_its_body_is_not_done() {
    let (bed, result) = Bed::meets(Fault::CutBody(3)).await;
    result.unwrap_err();
    assert_eq!(bed.versions(), 0);
}

#[tokio::test]
async fn late_request_is_done_after_its_client_gave_up() {
    let (bed, result) = Bed::meets(Fault::Late(Duration::from_millis(50))).await;
    result.unwrap_err();
    until(|| bed.versions() == 1).await;
}

#[tokio::test]
async fn request_may_arrive_twice() {
    let (bed, result) = Bed::meets(Fault::Again(Duration::from_millis(50))).await;
    assert_eq!(result.unwrap().status(), StatusCode::CREATED);
    until(|| bed.versions() == 2).await;
}

#[tokio::test]
async fn slow_requests_are_done() {
    for fault in [Fault::Slow(Duration::from_millis(20)), Fault::SlowReply(Duration::from_millis(20))] {
        let (bed, result) = Bed::meets(fault).await;
        assert_eq!((result.unwrap().status(), bed.versions()), (StatusCode::CREATED, 1));
    }
}

#[tokio::test]
async fn request_without_a_signature_is_refused_where_they_are_verified() {
    let settings = Settings { key: Some(AccountKey::new(KEY).unwrap()), ..Settings::default() };
    let server = BlobServer::start(settings).await.unwrap();
    let bed = Bed { server, client: client() };
    assert_eq!(bed.put().await.unwrap().status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn observer_sees_requests_arrive_and_versions_appear() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&seen);
    let observer = move |event: Event<'_>| {
        let text = match event {
            Event::Arrived(record) => format!("{:?}", record.operation.unwrap()),
            Event::Applied(_, version) => format!("{:?}", version.map(|version| version.size)),
        };
        told.lock().unwrap().push(text);
    };
    let settings = Settings { observer: Some(Arc::new(observer)), ..Settings::default() };
    let server = BlobServer::start(settings).await.unwrap();
    let bed = Bed { server, client: client() };
    bed.send(Method::PUT, "?restype=container", "").await.unwrap();
    bed.put().await.unwrap();
    assert_eq!(*seen.lock().unwrap(), ["CreateContainer", "None", "PutBlob", "Some(9)"]);
}
