//! What a request asks for. (pure)

use http::{HeaderMap, Method, Uri};
use percent_encoding::percent_decode_str;

use crate::{
    authorize::ACCOUNT,
    refusal::{self, Refusal},
};

/// Most characters of a blob's name.
const LONGEST_NAME: usize = 1024;

/// The operations of the REST API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names are the documentation's")]
pub enum Operation {
    CreateContainer,
    GetContainerProperties,
    DeleteContainer,
    ListBlobs,
    PutBlob,
    PutBlock,
    PutBlockList,
    GetBlockList,
    GetBlob,
    GetBlobProperties,
    DeleteBlob,
    SetBlobTags,
    GetBlobTags,
}

impl Operation {
    /// True if the request has a body that the operation is about.
    pub(crate) fn has_body(self) -> bool {
        matches!(self, Self::PutBlob | Self::PutBlock | Self::PutBlockList | Self::SetBlobTags)
    }
}

/// A request after its path and query were understood.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) operation: Operation,
    pub(crate) container: String,
    /// Empty for operations on the container.
    pub(crate) blob: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
}

impl Call {
    pub(crate) fn parse(method: &Method, uri: &Uri, headers: HeaderMap) -> Result<Self, Refusal> {
        let path = uri.path().strip_prefix('/').and_then(|path| path.strip_prefix(ACCOUNT)).and_then(|path| path.strip_prefix('/'));
        let path = path.ok_or(refusal::INVALID_URI)?;
        let (container, blob) = path.split_once('/').unwrap_or((path, ""));
        let (container, blob) = (decode(container)?, decode(blob)?);
        let query = parse_query(uri.query().unwrap_or_default())?;
        let operation = operation(method, &query, !blob.is_empty())?;
        check_names(&container, &blob)?;
        Ok(Self { operation, container, blob, query, headers })
    }

    /// A parameter of the query.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// A header as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Parameters with their names in lower case, both percent-decoded.
pub(crate) fn parse_query(query: &str) -> Result<Vec<(String, String)>, Refusal> {
    Ok(parse_pairs(query)?.into_iter().map(|(name, value)| (name.to_lowercase(), value)).collect())
}

/// Names and values, percent-decoded. A plus sign is itself.
pub(crate) fn parse_pairs(text: &str) -> Result<Vec<(String, String)>, Refusal> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok((decode(name)?, decode(value)?))
    });
    pairs.collect()
}

fn decode(text: &str) -> Result<String, Refusal> {
    percent_decode_str(text).decode_utf8().map(std::borrow::Cow::into_owned).map_err(|_| refusal::INVALID_URI)
}

fn operation(method: &Method, query: &[(String, String)], on_blob: bool) -> Result<Operation, Refusal> {
    let value = |name: &str| query.iter().find(|(other, _)| other == name).map_or("", |(_, value)| value.as_str());
    let operation = match (method.as_str(), on_blob, value("restype"), value("comp")) {
        ("PUT", false, "container", "") => Operation::CreateContainer,
        ("GET" | "HEAD", false, "container", "") => Operation::GetContainerProperties,
        ("DELETE", false, "container", "") => Operation::DeleteContainer,
        ("GET", false, "container", "list") => Operation::ListBlobs,
        ("PUT", true, "", "") => Operation::PutBlob,
        ("PUT", true, "", "block") => Operation::PutBlock,
        ("PUT", true, "", "blocklist") => Operation::PutBlockList,
        ("GET", true, "", "blocklist") => Operation::GetBlockList,
        ("GET", true, "", "") => Operation::GetBlob,
        ("HEAD", true, "", "") => Operation::GetBlobProperties,
        ("DELETE", true, "", "") => Operation::DeleteBlob,
        ("PUT", true, "", "tags") => Operation::SetBlobTags,
        ("GET", true, "", "tags") => Operation::GetBlobTags,
        _ => return Err(refusal::UNSUPPORTED),
    };
    Ok(operation)
}

/// <https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata>
fn check_names(container: &str, blob: &str) -> Result<(), Refusal> {
    let plain = container.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let hyphens = container.starts_with('-') || container.ends_with('-') || container.contains("--");
    if !plain || hyphens || !(3..=63).contains(&container.len()) {
        return Err(refusal::INVALID_RESOURCE_NAME);
    }
    if blob.chars().count() > LONGEST_NAME { Err(refusal::INVALID_URI) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::unwrap_in_result, reason = "the refusal is what a test looks at")]
    fn parse(method: &str, path: &str) -> Result<Call, Refusal> {
        let uri = format!("/devstoreaccount1/{path}").parse().unwrap();
        Call::parse(&Method::from_bytes(method.as_bytes()).unwrap(), &uri, HeaderMap::new())
    }

    #[test]
    fn names_and_parameters_are_decoded_and_a_plus_sign_is_itself() {
        let call = parse("PUT", "data/a%20b%2Fc+d/%C3%BC?comp=block&blockid=AA%2B%3D").unwrap();
        assert_eq!((call.operation, call.container.as_str(), call.blob.as_str()), (Operation::PutBlock, "data", "a b/c+d/ü"));
        assert_eq!(call.parameter("blockid"), Some("AA+="));
    }

    #[test]
    fn what_is_no_operation_or_no_name_is_refused() {
        assert_eq!(parse("POST", "data/a").unwrap_err(), refusal::UNSUPPORTED);
        assert_eq!(parse("PUT", "data/a?comp=lease").unwrap_err(), refusal::UNSUPPORTED);
        for container in ["ab", "Data", "a--b", "-ab", "a_b"] {
            assert_eq!(parse("PUT", &format!("{container}/a")).unwrap_err(), refusal::INVALID_RESOURCE_NAME, "{container}");
        }
        assert_eq!(parse("PUT", &format!("data/{}", "a".repeat(1025))).unwrap_err(), refusal::INVALID_URI);
        let elsewhere = "/other/data/a".parse().unwrap();
        assert_eq!(Call::parse(&Method::GET, &elsewhere, HeaderMap::new()).unwrap_err(), refusal::INVALID_URI);
    }
}
