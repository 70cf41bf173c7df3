//! What the service's refusals mean for the caller.
//!
//! Codes: <https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes> and
//! <https://learn.microsoft.com/rest/api/storageservices/common-rest-api-error-codes>.

use std::{error::Error as _, time::Duration};

use azure_core::{
    error::ErrorKind,
    http::{
        RawResponse,
        headers::{HeaderName, RETRY_AFTER},
    },
    time::{OffsetDateTime, parse_rfc7231},
};

use super::denied;
use crate::blob::BlobError;

/// What was asked of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Look,
    PutBlock,
    PutBlob,
    Commit,
    Blocks,
    CreateContainer,
}

impl Operation {
    /// As in "the credential may not ...".
    pub(super) fn verb(self) -> &'static str {
        match self {
            Self::Look => "read a blob's properties",
            Self::PutBlock => "send a block",
            Self::PutBlob => "write a blob",
            Self::Commit => "commit a blob",
            Self::Blocks => "list a blob's blocks",
            Self::CreateContainer => "make the container",
        }
    }
}

/// An answer other than success.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusal {
    pub(super) status: u16,
    /// The service's code, `CamelCase`; absent if something else than the service answered.
    pub(super) code: Option<String>,
    /// The service's own words, one line.
    pub(super) detail: Option<String>,
    pub(super) retry_after: Option<Duration>,
    /// By how many seconds this machine's clock is ahead of the service's.
    pub(super) ahead: Option<i64>,
}

/// What a refusal means.
pub(super) fn classify(refusal: &Refusal, operation: Operation) -> BlobError {
    let message = describe(refusal, operation);
    let code = refusal.code.as_deref().unwrap_or_default();
    match (refusal.status, code) {
        (408 | 429 | 500.., _) | (_, "AccountBeingCreated" | "PendingCopyOperation") => {
            BlobError::Transient { message, retry_after: refusal.retry_after }
        }
        (401 | 403, _) | (_, "InvalidAuthenticationInfo" | "PublicAccessNotPermitted") => {
            BlobError::Denied { message: denied::explain(refusal, operation) }
        }
        (_, "Crc64Mismatch" | "Md5Mismatch") => BlobError::Corrupted { message },
        (_, "InvalidBlockList") => BlobError::BlocksMissing { message },
        (_, "InvalidBlobOrBlock" | "InvalidBlockId" | "BlockCountExceedsLimit") => BlobError::ForeignBlocks { message },
        (_, code) if is_protection(code) => BlobError::Protected { code: code.to_owned(), message },
        (404 | 409, "ContainerNotFound" | "ContainerBeingDeleted" | "ContainerDisabled" | "ResourceNotFound") => {
            BlobError::ContainerMissing { message }
        }
        (_, code) if is_beyond_the_account(code) => BlobError::Unsupported { code: code.to_owned(), message },
        (409 | 412, "" | "BlobAlreadyExists" | "ContainerAlreadyExists" | "ConditionNotMet" | "TargetConditionNotMet")
        | (404, "BlobNotFound") => BlobError::Conflict { message },
        // Whatever else stands in the way does not go away by another look: a legal hold, a blob with a customer's key, ...
        (409 | 412, code) => BlobError::Protected { code: code.to_owned(), message },
        (400 | 413 | 414 | 431, "") => BlobError::Rejected { code: "BadRequest".to_owned(), message },
        // Nothing of the service answers without a code: a proxy, a gateway, a wrong host.
        (_, "") => BlobError::Transient { message, retry_after: refusal.retry_after },
        (_, code) => BlobError::Rejected { code: code.to_owned(), message },
    }
}

/// What the session asks for with every file (`accessTier`, `tags`) this kind of account does not have.
fn is_beyond_the_account(code: &str) -> bool {
    ["FeatureNotYetSupported", "FeatureNotSupported", "BlobApiNotYetSupported"].iter().any(|start| code.starts_with(start))
        || matches!(code, "UnsupportedHeader" | "BlobAccessTierNotSupportedForAccountType" | "BlobTagsNotSupportedForAccountType")
}

fn is_protection(code: &str) -> bool {
    code.starts_with("Lease")
        || matches!(
            code,
            "BlobArchived" | "BlobBeingRehydrated" | "BlobImmutableDueToPolicy" | "InvalidBlobType" | "SnapshotsPresent"
        )
}

/// Action, status, code and the service's words. Its words on a 401 or 403 may hold a signature: see [`denied::explain`].
fn describe(refusal: &Refusal, operation: Operation) -> String {
    let Refusal { status, code, detail, .. } = refusal;
    let code = code.as_deref().unwrap_or("without the service's code: is a proxy in between, or the account URL wrong?");
    let detail = detail.as_deref().map(|detail| format!(": {detail}")).unwrap_or_default();
    format!("could not {}: {status} {code}{detail}", operation.verb())
}

/// What an error of the SDK means.
pub(super) fn from_sdk(error: &azure_core::Error, operation: Operation) -> BlobError {
    if let Some(carried) = carried(error) {
        return carried.clone();
    }
    match error.kind() {
        ErrorKind::HttpResponse { status, error_code, raw_response } => {
            let refusal = Refusal {
                status: (*status).into(),
                code: error_code.clone(),
                detail: raw_response.as_deref().and_then(detail),
                retry_after: raw_response.as_deref().and_then(retry_after),
                ahead: raw_response.as_deref().and_then(ahead),
            };
            classify(&refusal, operation)
        }
        ErrorKind::Credential => BlobError::Denied { message: format!("could not {}: {error}", operation.verb()) },
        _ => {
            let message = format!("could not {}: the reply cannot be read: {error}", operation.verb());
            BlobError::Transient { message, retry_after: None }
        }
    }
}

/// Whether the service says that there is no such blob.
pub(super) fn is_absent(error: &azure_core::Error) -> bool {
    matches!(error.kind(), ErrorKind::HttpResponse { error_code: Some(code), .. } if code == "BlobNotFound")
}

/// Wraps an error of ours for the way through the SDK.
pub(super) fn carry(kind: ErrorKind, error: BlobError) -> azure_core::Error {
    let message = error.to_string();
    azure_core::Error::with_error(kind, error, message)
}

/// The error of ours inside one of the SDK.
pub(super) fn carried(error: &azure_core::Error) -> Option<&BlobError> {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(ours) = inner.downcast_ref() {
            return Some(ours);
        }
        source = inner.source();
    }
    None
}

/// First line of `<Message>`; the lines after it are a request id and the time.
fn detail(response: &RawResponse) -> Option<String> {
    let body = std::str::from_utf8(response.body()).ok()?;
    let (_, rest) = body.split_once("<Message>")?;
    let (text, _) = rest.split_once("</Message>")?;
    let line: String = text.lines().next()?.trim().chars().take(200).collect();
    (!line.is_empty()).then_some(line)
}

/// `x-ms-retry-after-ms`, or `Retry-After` in seconds or as a time.
fn retry_after(response: &RawResponse) -> Option<Duration> {
    let header = |name: &HeaderName| response.headers().get_optional_str(name).map(str::trim);
    let number = |name: &HeaderName| header(name)?.parse::<u64>().ok();
    let milliseconds = number(&HeaderName::from_static("x-ms-retry-after-ms")).map(Duration::from_millis);
    let seconds = milliseconds.or_else(|| number(&RETRY_AFTER).map(Duration::from_secs));
    let until = || Duration::try_from(parse_rfc7231(header(&RETRY_AFTER)?).ok()? - OffsetDateTime::now_utc()).ok();
    seconds.or_else(until)
}

/// By how many seconds our clock is ahead of the one that answered.
fn ahead(response: &RawResponse) -> Option<i64> {
    let theirs = parse_rfc7231(response.headers().get_optional_str(&HeaderName::from_static("date"))?).ok()?;
    Some((OffsetDateTime::now_utc() - theirs).whole_seconds())
}

#[cfg(test)]
mod tests {
    use std::mem::discriminant;

    use azure_core::http::headers::Headers;

    use super::*;

    fn sorted(status: u16, code: &str, operation: Operation) -> BlobError {
        let code = (!code.is_empty()).then(|| code.to_owned());
        classify(&Refusal { status, code, retry_after: Some(Duration::from_secs(7)), ..Refusal::default() }, operation)
    }

    #[test]
    fn every_code_has_its_class() {
        let message = String::new;
        let transient = BlobError::Transient { message: message(), retry_after: None };
        let denied = BlobError::Denied { message: message() };
        let conflict = BlobError::Conflict { message: message() };
        let missing = BlobError::BlocksMissing { message: message() };
        let foreign = BlobError::ForeignBlocks { message: message() };
        let protected = BlobError::Protected { code: message(), message: message() };
        let corrupted = BlobError::Corrupted { message: message() };
        let container = BlobError::ContainerMissing { message: message() };
        let rejected = BlobError::Rejected { code: message(), message: message() };
        let unsupported = BlobError::Unsupported { code: message(), message: message() };
        for (status, code, expected) in [
            (500, "InternalError", &transient),
            (500, "OperationTimedOut", &transient),
            (503, "ServerBusy", &transient),
            (502, "", &transient),
            (408, "", &transient),
            (429, "", &transient),
            (301, "", &transient),
            (404, "", &transient),
            (409, "AccountBeingCreated", &transient),
            (401, "NoAuthenticationInformation", &denied),
            (401, "", &denied),
            (400, "InvalidAuthenticationInfo", &denied),
            (403, "AuthenticationFailed", &denied),
            (403, "AuthorizationPermissionMismatch", &denied),
            (403, "AuthorizationFailure", &denied),
            (409, "PublicAccessNotPermitted", &denied),
            (409, "BlobAlreadyExists", &conflict),
            (412, "ConditionNotMet", &conflict),
            (412, "TargetConditionNotMet", &conflict),
            (404, "BlobNotFound", &conflict),
            (400, "InvalidBlockList", &missing),
            (400, "InvalidBlobOrBlock", &foreign),
            (400, "InvalidBlockId", &foreign),
            (409, "BlockCountExceedsLimit", &foreign),
            (409, "BlobArchived", &protected),
            (409, "BlobBeingRehydrated", &protected),
            (409, "BlobImmutableDueToPolicy", &protected),
            (412, "LeaseIdMissing", &protected),
            (409, "InvalidBlobType", &protected),
            (409, "BlobImmutableDueToLegalHold", &protected),
            (409, "BlobOperationNotSupported", &protected),
            (409, "BlobUsesCustomerSpecifiedEncryption", &protected),
            (409, "", &conflict),
            (409, "ContainerAlreadyExists", &conflict),
            (400, "UnsupportedHeader", &unsupported),
            (400, "BlobTagsNotSupportedForAccountType", &unsupported),
            (409, "FeatureNotYetSupportedForHierarchicalNamespaceAccounts", &unsupported),
            (409, "BlobApiNotYetSupportedInHierarchicalNamespaceAccounts", &unsupported),
            (400, "Crc64Mismatch", &corrupted),
            (400, "Md5Mismatch", &corrupted),
            (404, "ContainerNotFound", &container),
            (409, "ContainerBeingDeleted", &container),
            (413, "RequestBodyTooLarge", &rejected),
            (400, "BlockListTooLong", &rejected),
            (400, "InvalidMetadata", &rejected),
            (400, "", &rejected),
            (414, "", &rejected),
        ] {
            let found = sorted(status, code, Operation::Commit);
            assert_eq!(discriminant(&found), discriminant(expected), "{status} {code} became {found:?}");
            assert!(found.to_string().contains(code), "{found}");
        }
    }

    #[test]
    fn the_wait_that_the_service_asks_for_is_kept() {
        let error = sorted(503, "ServerBusy", Operation::PutBlock);
        let message = "could not send a block: 503 ServerBusy".to_owned();
        assert_eq!(error, BlobError::Transient { message, retry_after: Some(Duration::from_secs(7)) });
    }

    #[test]
    fn retry_after_is_read_in_seconds_or_milliseconds_or_as_a_time() {
        let after = |name: &'static str, value: &str| {
            let mut headers = Headers::new();
            headers.insert(name, value.to_owned());
            retry_after(&RawResponse::from_bytes(503.into(), headers, ""))
        };
        assert_eq!(after("retry-after", "3"), Some(Duration::from_secs(3)));
        assert_eq!(after("x-ms-retry-after-ms", "250"), Some(Duration::from_millis(250)));
        assert_eq!(after("retry-after", "soon"), None);
        assert_eq!(after("retry-after", "Fri, 21 Nov 2025 10:00:00 GMT"), None);
        let later = azure_core::time::to_rfc7231(&(OffsetDateTime::now_utc() + Duration::from_mins(10)));
        let wait = after("retry-after", &later).unwrap();
        assert!((500..=600).contains(&wait.as_secs()), "{wait:?}");
    }

    #[test]
    fn the_services_words_are_cut_to_their_first_line() {
        let body = "\u{feff}<?xml version=\"1.0\"?><Error><Code>InvalidMetadata</Code><Message>The metadata is wrong.\nRequestId:1\nTime:2</Message></Error>";
        let response = RawResponse::from_bytes(400.into(), Headers::new(), body);
        assert_eq!(detail(&response).as_deref(), Some("The metadata is wrong."));
    }
}
