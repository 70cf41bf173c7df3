//! Signs requests with an account key:
//! <https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key>.

use std::{collections::BTreeMap, fmt::Write as _};

use azure_core::{
    credentials::Secret,
    hmac::hmac_sha256,
    http::{Request, headers::HeaderName},
    time::{OffsetDateTime, to_rfc7231},
};

/// Standard headers in the order of the string to sign. `Date` stays empty because `x-ms-date` is always sent.
const SIGNED: [&str; 11] = [
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
];

/// An account's name and key.
#[derive(Debug)]
pub(super) struct SharedKey {
    account: String,
    key: Secret,
}

impl SharedKey {
    /// The key is base64; the error does not repeat it.
    pub(super) fn new(account: String, key: Secret) -> Result<Self, String> {
        match hmac_sha256("", &key) {
            Ok(_) => Ok(Self { account, key }),
            Err(_) => Err("the account key is not base64: copy it again, whole".to_owned()),
        }
    }

    /// Dates and signs the request. No header may change afterwards.
    pub(super) fn sign(&self, request: &mut Request) -> azure_core::Result<()> {
        request.insert_header("x-ms-date", to_rfc7231(&OffsetDateTime::now_utc()));
        let signature = hmac_sha256(&string_to_sign(&self.account, request), &self.key)?;
        request.insert_header("authorization", format!("SharedKey {}:{signature}", self.account));
        Ok(())
    }
}

fn string_to_sign(account: &str, request: &Request) -> String {
    let mut text = format!("{}\n", request.method().as_str());
    for name in SIGNED {
        text.push_str(&standard_header(name, request));
        text.push('\n');
    }
    text.push_str(&canonical_headers(request));
    text.push_str(&canonical_resource(account, request));
    text
}

fn standard_header(name: &'static str, request: &Request) -> String {
    if name == "content-length" {
        // The client sends it for every body; zero counts as absent since version 2015-02-21.
        let length = request.body().len().unwrap_or_default();
        return if length == 0 { String::new() } else { length.to_string() };
    }
    request.headers().get_optional_string(&HeaderName::from_static(name)).unwrap_or_default()
}

fn canonical_headers(request: &Request) -> String {
    let headers = request.headers().iter().filter(|(name, _)| name.as_str().starts_with("x-ms-"));
    let mut headers: Vec<_> = headers.map(|(name, value)| (name.as_str(), value.as_str().trim())).collect();
    headers.sort_by_key(|(name, _)| (sort_key(name), *name));
    headers.iter().fold(String::new(), |text, (name, value)| text + name + ":" + value + "\n")
}

/// The service sorts by the rules of a language, not by bytes: hyphens do not count, an underscore is before digits, digits are
/// before letters.
fn sort_key(name: &str) -> Vec<u8> {
    name.bytes().filter(|byte| *byte != b'-').map(|byte| if byte == b'_' { 0 } else { byte }).collect()
}

fn canonical_resource(account: &str, request: &Request) -> String {
    let mut parameters = BTreeMap::<String, Vec<String>>::new();
    for (name, value) in request.url().query_pairs() {
        parameters.entry(name.to_lowercase()).or_default().push(value.into_owned());
    }
    let mut text = format!("/{account}{}", request.url().path());
    for (name, mut values) in parameters {
        values.sort();
        // Writing to a string cannot fail.
        let _ = write!(text, "\n{name}:{}", values.join(","));
    }
    text
}

#[cfg(test)]
mod tests {
    use azure_core::http::{Method, Url};

    use super::*;

    fn request(method: Method, url: &str, headers: &[(&'static str, &'static str)]) -> Request {
        let mut request = Request::new(Url::parse(url).unwrap(), method);
        for (name, value) in headers {
            request.insert_header(*name, *value);
        }
        request
    }

    /// The example of the REST documentation.
    #[test]
    fn the_documented_request_has_the_documented_string_to_sign() {
        let url = "https://myaccount.blob.core.windows.net/mycontainer?comp=metadata&restype=container&timeout=20";
        let request = request(Method::Get, url, &[("x-ms-version", "2015-02-21"), ("x-ms-date", "Fri, 26 Jun 2015 23:39:12 GMT")]);
        assert_eq!(
            string_to_sign("myaccount", &request),
            "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n\
             /myaccount/mycontainer\ncomp:metadata\nrestype:container\ntimeout:20"
        );
    }

    /// The documentation's example of a list with a parameter that is given several times.
    #[test]
    fn repeated_parameters_are_sorted_and_joined() {
        let url = "https://myaccount.blob.core.windows.net/mycontainer?restype=container&comp=list&include=snapshots\
                   &include=metadata&include=uncommittedblobs";
        assert_eq!(
            canonical_resource("myaccount", &request(Method::Get, url, &[])),
            "/myaccount/mycontainer\ncomp:list\ninclude:metadata,snapshots,uncommittedblobs\nrestype:container"
        );
    }

    #[test]
    fn a_block_is_signed_with_its_length_type_condition_and_decoded_query() {
        let url = "http://127.0.0.1:10000/devstoreaccount1/data/a%20b?comp=block&blockid=AA%2B%2F%3D";
        let mut request = request(Method::Put, url, &[("content-type", "text/plain"), ("if-none-match", "*")]);
        request.set_body(vec![0; 5]);
        assert_eq!(
            string_to_sign("devstoreaccount1", &request),
            "PUT\n\n\n5\n\ntext/plain\n\n\n\n*\n\n\n/devstoreaccount1/devstoreaccount1/data/a%20b\nblockid:AA+/=\ncomp:block"
        );
    }

    #[test]
    fn headers_are_sorted_as_the_service_sorts_them() {
        let names = ["x-ms-meta-ab", "x-ms-meta-a_b", "x-ms-meta-a1", "x-ms-meta-a", "x-ms-version", "x-ms-date"];
        let mut request = request(Method::Put, "https://a/b", &[]);
        for name in names {
            request.insert_header(name, " v ");
        }
        assert_eq!(
            canonical_headers(&request),
            "x-ms-date:v\nx-ms-meta-a:v\nx-ms-meta-a_b:v\nx-ms-meta-a1:v\nx-ms-meta-ab:v\nx-ms-version:v\n"
        );
    }

    #[test]
    fn a_key_that_is_not_base64_is_refused_without_repeating_it() {
        let error = SharedKey::new("a".to_owned(), Secret::new("hunter2!")).unwrap_err();
        assert!(error.contains("not base64") && !error.contains("hunter2"));
    }

    #[test]
    fn a_signed_request_shows_the_account_and_never_the_key() {
        let key = SharedKey::new("truck".to_owned(), Secret::new("aHVudGVyMg==")).unwrap();
        let mut request = request(Method::Get, "https://truck.blob.core.windows.net/data/a", &[]);
        key.sign(&mut request).unwrap();
        let header = request.headers().get_str(&HeaderName::from_static("authorization")).unwrap();
        assert!(header.starts_with("SharedKey truck:"), "{header}");
        assert!(!format!("{request:?} {key:?}").contains("aHVudGVyMg"));
        assert!(!format!("{request:?}").contains("SharedKey"), "the signature is redacted as well");
    }
}
