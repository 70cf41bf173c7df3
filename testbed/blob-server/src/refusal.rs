//! The service's errors: status, code and words as documented.
//!
//! <https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes> and
//! <https://learn.microsoft.com/rest/api/storageservices/common-rest-api-error-codes>

use std::time::Duration;

/// Why a request is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// The service's code, as in `x-ms-error-code`.
    pub code: &'static str,
    /// The service's words.
    pub message: &'static str,
    /// When the client may come again.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    const fn new(status: u16, code: &'static str, message: &'static str) -> Self {
        Self { status, code, message, retry_after: None }
    }

    /// The body of the reply.
    pub(crate) fn to_xml(&self, request: u64) -> String {
        format!(
            "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{}</Code><Message>{}\nRequestId:{request}</Message></Error>",
            self.code, self.message
        )
    }
}

pub(crate) const AUTHENTICATION_FAILED: Refusal = Refusal::new(
    403,
    "AuthenticationFailed",
    "Server failed to authenticate the request. Make sure the value of Authorization header is formed correctly including the signature.",
);
pub(crate) const AUTHORIZATION_FAILURE: Refusal =
    Refusal::new(403, "AuthorizationFailure", "This request is not authorized to perform this operation.");
pub(crate) const NO_AUTHENTICATION: Refusal = Refusal::new(
    401,
    "NoAuthenticationInformation",
    "Server failed to authenticate the request. Please refer to the information in the www-authenticate header.",
);
pub(crate) const BLOB_ALREADY_EXISTS: Refusal = Refusal::new(409, "BlobAlreadyExists", "The specified blob already exists.");
pub(crate) const BLOB_NOT_FOUND: Refusal = Refusal::new(404, "BlobNotFound", "The specified blob does not exist.");
pub(crate) const BLOCK_COUNT_EXCEEDS_LIMIT: Refusal =
    Refusal::new(409, "BlockCountExceedsLimit", "The uncommitted block count cannot exceed the maximum limit of 100,000 blocks.");
pub(crate) const BLOCK_LIST_TOO_LONG: Refusal =
    Refusal::new(400, "BlockListTooLong", "The block list may not contain more than 50,000 blocks.");
pub(crate) const CONDITION_NOT_MET: Refusal =
    Refusal::new(412, "ConditionNotMet", "The condition specified using HTTP conditional header(s) is not met.");
pub(crate) const CONTAINER_ALREADY_EXISTS: Refusal =
    Refusal::new(409, "ContainerAlreadyExists", "The specified container already exists.");
pub(crate) const CONTAINER_NOT_FOUND: Refusal = Refusal::new(404, "ContainerNotFound", "The specified container does not exist.");
pub(crate) const CRC64_MISMATCH: Refusal = Refusal::new(
    400,
    "Crc64Mismatch",
    "The CRC64 value specified in the request did not match with the CRC64 value calculated by the server.",
);
pub(crate) const INVALID_BLOB_OR_BLOCK: Refusal =
    Refusal::new(400, "InvalidBlobOrBlock", "The specified blob or block content is invalid.");
pub(crate) const INVALID_BLOB_TYPE: Refusal = Refusal::new(409, "InvalidBlobType", "The blob type is invalid for this operation.");
pub(crate) const INVALID_BLOCK_ID: Refusal =
    Refusal::new(400, "InvalidBlockId", "The specified block ID is invalid. The block ID must be Base64-encoded.");
pub(crate) const INVALID_BLOCK_LIST: Refusal = Refusal::new(400, "InvalidBlockList", "The specified block list is invalid.");
pub(crate) const INVALID_HEADER_VALUE: Refusal =
    Refusal::new(400, "InvalidHeaderValue", "The value for one of the HTTP headers is not in the correct format.");
pub(crate) const INVALID_METADATA: Refusal =
    Refusal::new(400, "InvalidMetadata", "The metadata specified is invalid. It has characters that are not permitted.");
pub(crate) const INVALID_QUERY: Refusal = Refusal::new(
    400,
    "InvalidQueryParameterValue",
    "Value for one of the query parameters specified in the request URI is invalid.",
);
pub(crate) const INVALID_RESOURCE_NAME: Refusal =
    Refusal::new(400, "InvalidResourceName", "The specified resource name contains invalid characters.");
pub(crate) const INVALID_URI: Refusal =
    Refusal::new(400, "InvalidUri", "The requested URI does not represent any resource on the server.");
pub(crate) const INVALID_XML: Refusal = Refusal::new(400, "InvalidXmlDocument", "XML specified is not syntactically valid.");
pub(crate) const METADATA_TOO_LARGE: Refusal =
    Refusal::new(400, "MetadataTooLarge", "The size of the specified metadata exceeds the maximum size permitted.");
pub(crate) const MISSING_CONTENT_LENGTH: Refusal =
    Refusal::new(411, "MissingContentLengthHeader", "The Content-Length header was not specified.");
pub(crate) const NOT_KEPT: Refusal =
    Refusal::new(500, "InternalError", "This server was told to keep checksums only, so it cannot give the content.");
pub(crate) const REQUEST_BODY_TOO_LARGE: Refusal =
    Refusal::new(413, "RequestBodyTooLarge", "The request body is too large and exceeds the maximum permissible limit.");
pub(crate) const TAGS_TOO_LARGE: Refusal =
    Refusal::new(400, "TagsTooLarge", "The tags specified exceed the maximum permissible limit.");
pub(crate) const TOO_MANY_BYTES_KEPT: Refusal =
    Refusal::new(503, "ServerBusy", "This server holds as many bytes as it was allowed to.");
pub(crate) const UNSUPPORTED: Refusal =
    Refusal::new(405, "UnsupportedHttpVerb", "The resource doesn't support the specified HTTP verb.");

/// 503, 429 or 500 without being done.
pub(crate) const fn busy(status: u16, retry_after: Option<Duration>) -> Refusal {
    let (code, message) = match status {
        500 => ("OperationTimedOut", "The operation could not be completed within the specified time."),
        429 => ("TooManyRequests", "Too many requests."),
        _ => ("ServerBusy", "The server is busy."),
    };
    Refusal { status, code, message, retry_after }
}

/// Any status and code.
pub(crate) const fn with(status: u16, code: &'static str) -> Refusal {
    Refusal::new(status, code, "A test asked for this.")
}
