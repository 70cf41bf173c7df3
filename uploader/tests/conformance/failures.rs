//! What a caller does next after each way in which a request can fail, from the wire through the SDK to the error's class.

use std::{mem::discriminant, time::Duration};

use blobferry_blob_server::{Fault, Operation};
use blobferry_uploader::blob::{BlobError, BlobStore as _};

use crate::{
    backend::Backend as _,
    server::{CONTAINER, Server},
    suite::{ABSENT, body, crc64, id, name, put},
};

fn classes() -> [BlobError; 10] {
    let message = String::new;
    [
        BlobError::Transient { message: message(), retry_after: None },
        BlobError::Denied { message: message() },
        BlobError::Conflict { message: message() },
        BlobError::BlocksMissing { message: message() },
        BlobError::ForeignBlocks { message: message() },
        BlobError::Protected { code: message(), message: message() },
        BlobError::Corrupted { message: message() },
        BlobError::ContainerMissing { message: message() },
        BlobError::Unsupported { code: message(), message: message() },
        BlobError::Rejected { code: message(), message: message() },
    ]
}

/// Each code as the service documents it, with the class it has to become.
#[tokio::test]
async fn every_refusal_becomes_what_the_caller_does_next() {
    let [transient, denied, conflict, missing, foreign, protected, corrupted, container, unsupported, rejected] = classes();
    let server = Server::start().await;
    for (fault, class) in [
        (Fault::Busy(503, None), &transient),
        (Fault::Busy(500, None), &transient),
        (Fault::Busy(429, None), &transient),
        (Fault::Refuse(409, "BlobImmutableDueToLegalHold"), &protected),
        (Fault::Refuse(400, "UnsupportedHeader"), &unsupported),
        (Fault::Forbidden, &denied),
        (Fault::Refuse(401, "NoAuthenticationInformation"), &denied),
        (Fault::Refuse(403, "AuthorizationPermissionMismatch"), &denied),
        (Fault::Refuse(409, "BlobAlreadyExists"), &conflict),
        (Fault::Refuse(412, "ConditionNotMet"), &conflict),
        (Fault::Refuse(400, "InvalidBlockList"), &missing),
        (Fault::Refuse(400, "InvalidBlobOrBlock"), &foreign),
        (Fault::Refuse(409, "BlockCountExceedsLimit"), &foreign),
        (Fault::Refuse(409, "BlobArchived"), &protected),
        (Fault::Refuse(409, "BlobImmutableDueToPolicy"), &protected),
        (Fault::Refuse(412, "LeaseIdMissing"), &protected),
        (Fault::FlipBit(2), &corrupted),
        (Fault::Refuse(404, "ContainerNotFound"), &container),
        (Fault::Refuse(409, "ContainerBeingDeleted"), &container),
        (Fault::Refuse(413, "RequestBodyTooLarge"), &rejected),
        (Fault::Refuse(400, "MetadataTooLarge"), &rejected),
    ] {
        server.server.faults().script(Operation::PutBlob, 1, fault);
        let error = put(server.store(), &name("a"), "text", ABSENT).await.unwrap_err();
        assert_eq!(discriminant(&error), discriminant(class), "{fault:?} became {error:?}");
        assert_eq!(server.server.current(CONTAINER, name("a").as_str()).map(|version| version.size), None, "{fault:?}");
    }
}

#[tokio::test]
async fn wait_that_the_service_asks_for_arrives() {
    let server = Server::start().await;
    let wait = Some(Duration::from_secs(7));
    server.server.faults().script(Operation::PutBlock, 1, Fault::Busy(503, wait));
    let result = server.store().put_block(&name("a"), &id(0, "x"), body("x"), crc64(b"x")).await;
    assert!(matches!(result, Err(BlobError::Transient { retry_after, .. }) if retry_after == wait), "{result:?}");
}

#[tokio::test]
async fn reply_that_does_not_come_leaves_open_whether_the_write_took_place() {
    for (fault, took_place) in
        [(Fault::LoseReply, true), (Fault::CutReply, true), (Fault::FailAfter, true), (Fault::CutBody(1), false)]
    {
        let server = Server::start().await;
        server.server.faults().script(Operation::PutBlob, 1, fault);
        let result = put(server.store(), &name("a"), "text", ABSENT).await;
        assert!(matches!(result, Err(BlobError::Transient { .. })), "{fault:?}: {result:?}");
        assert_eq!(server.store().look(&name("a")).await.unwrap().is_some(), took_place, "{fault:?}");
    }
}

/// No call repeats a request by itself, so that no retry multiplies another.
#[tokio::test]
async fn failed_call_is_one_request() {
    let server = Server::start().await;
    for fault in [Fault::Busy(503, None), Fault::Busy(429, None), Fault::LoseReply] {
        let before = server.server.totals().count();
        server.server.faults().script(Operation::GetBlobProperties, 1, fault);
        server.store().look(&name("a")).await.unwrap_err();
        assert_eq!(server.server.totals().count(), before + 1, "{fault:?}");
    }
}
