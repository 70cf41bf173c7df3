//! Is the request signed with the account's key?
//!
//! <https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key>

use std::time::{Duration, SystemTime};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, Method, Uri};
use sha2::Sha256;

use crate::{
    call::parse_query,
    refusal::{self, Refusal},
};

/// The emulators' published account, the only one here.
pub const ACCOUNT: &str = "devstoreaccount1";
/// Its published key.
pub const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
/// How far the date of a request may be from the service's clock.
const CLOCK_SKEW: Duration = Duration::from_mins(15);
/// Standard headers in the order of the string to sign.
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

/// A key of the account.
#[derive(Clone)]
pub struct AccountKey(Vec<u8>);

impl std::fmt::Debug for AccountKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AccountKey(not shown)")
    }
}

impl AccountKey {
    /// Reads a key in base64.
    ///
    /// # Errors
    ///
    /// When it is not base64.
    pub fn new(encoded: &str) -> Result<Self, base64::DecodeError> {
        BASE64_STANDARD.decode(encoded).map(Self)
    }

    /// Checks the signature and the date of a request.
    pub(crate) fn verify(&self, method: &Method, uri: &Uri, headers: &HeaderMap, now: SystemTime) -> Result<(), Refusal> {
        let given = text(headers, "authorization").ok_or(refusal::NO_AUTHENTICATION)?;
        let signature = given.strip_prefix("SharedKey ").and_then(|rest| rest.strip_prefix(ACCOUNT)?.strip_prefix(':'));
        let signature = signature.and_then(|signature| BASE64_STANDARD.decode(signature).ok());
        let signature = signature.ok_or(refusal::AUTHENTICATION_FAILED)?;
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).map_err(|_| refusal::AUTHENTICATION_FAILED)?;
        mac.update(string_to_sign(method, uri, headers)?.as_bytes());
        mac.verify_slice(&signature).map_err(|_| refusal::AUTHENTICATION_FAILED)?;
        check_date(headers, now)
    }
}

fn check_date(headers: &HeaderMap, now: SystemTime) -> Result<(), Refusal> {
    let date = text(headers, "x-ms-date").or_else(|| text(headers, "date")).and_then(|date| httpdate::parse_http_date(date).ok());
    let date = date.ok_or(refusal::AUTHENTICATION_FAILED)?;
    let skew = now.duration_since(date).or_else(|_| date.duration_since(now)).unwrap_or_default();
    if skew > CLOCK_SKEW { Err(refusal::AUTHENTICATION_FAILED) } else { Ok(()) }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn string_to_sign(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<String, Refusal> {
    let standard = SIGNED.map(|name| match (name, text(headers, name).unwrap_or_default()) {
        ("content-length", "0") => "",
        ("date", _) if headers.contains_key("x-ms-date") => "",
        (_, value) => value,
    });
    Ok(format!("{method}\n{}\n{}{}", standard.join("\n"), canonical_headers(headers), canonical_resource(uri)?))
}

fn canonical_headers(headers: &HeaderMap) -> String {
    let mut lines: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap_or_default().trim()))
        .filter(|(name, _)| name.starts_with("x-ms-"))
        .collect();
    lines.sort_by_key(|(name, _)| sort_key(name));
    lines.iter().fold(String::new(), |text, (name, value)| text + name + ":" + value + "\n")
}

/// The service sorts by the rules of a language: hyphens do not count, an underscore comes before digits, digits before letters.
fn sort_key(name: &str) -> (Vec<u8>, &str) {
    (name.bytes().filter(|byte| *byte != b'-').map(|byte| if byte == b'_' { 0 } else { byte }).collect(), name)
}

fn canonical_resource(uri: &Uri) -> Result<String, Refusal> {
    let mut parameters = parse_query(uri.query().unwrap_or_default())?;
    parameters.sort();
    let mut resource = format!("/{ACCOUNT}{}", uri.path());
    let mut previous = None;
    for (name, value) in parameters {
        resource = match previous {
            Some(previous) if previous == name => resource + "," + &value,
            _ => resource + "\n" + &name + ":" + &value,
        };
        previous = Some(name);
    }
    Ok(resource)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Fri, 26 Jun 2015 23:39:12 GMT";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn key() -> AccountKey {
        AccountKey::new(KEY).unwrap()
    }

    fn signed(method: &Method, uri: &Uri, mut headers: HeaderMap) -> HeaderMap {
        let mut mac = Hmac::<Sha256>::new_from_slice(&key().0).unwrap();
        mac.update(string_to_sign(method, uri, &headers).unwrap().as_bytes());
        let signature = BASE64_STANDARD.encode(mac.finalize().into_bytes());
        headers.insert("authorization", format!("SharedKey {ACCOUNT}:{signature}").parse().unwrap());
        headers
    }

    /// The documentation's example of a list, with the emulator's account in the path a second time.
    #[test]
    fn the_documented_request_has_the_documented_string_to_sign() {
        let uri =
            "/devstoreaccount1/mycontainer?restype=container&comp=list&include=snapshots&include=metadata&include=uncommittedblobs";
        let headers = headers(&[("x-ms-version", "2015-02-21"), ("x-ms-date", DATE), ("content-length", "0")]);
        assert_eq!(
            string_to_sign(&Method::GET, &uri.parse().unwrap(), &headers).unwrap(),
            "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n\
             /devstoreaccount1/devstoreaccount1/mycontainer\ncomp:list\ninclude:metadata,snapshots,uncommittedblobs\nrestype:container"
        );
    }

    #[test]
    fn only_what_was_signed_with_the_key_in_the_last_quarter_of_an_hour_is_taken() {
        let uri: Uri = "/devstoreaccount1/data/a?comp=block&blockid=AA%3D%3D".parse().unwrap();
        let now = httpdate::parse_http_date(DATE).unwrap();
        let good = signed(&Method::PUT, &uri, headers(&[("x-ms-date", DATE), ("content-length", "5"), ("x-ms-meta-a", "1")]));
        let verify = |method, uri: &Uri, headers: &HeaderMap, now| key().verify(&method, uri, headers, now);
        assert_eq!(verify(Method::PUT, &uri, &good, now + Duration::from_mins(14)), Ok(()));
        let failed = Err(refusal::AUTHENTICATION_FAILED);
        assert_eq!(verify(Method::PUT, &uri, &good, now + Duration::from_mins(16)), failed);
        assert_eq!(verify(Method::GET, &uri, &good, now), failed);
        assert_eq!(
            verify(Method::PUT, &"/devstoreaccount1/data/b?comp=block&blockid=AA%3D%3D".parse().unwrap(), &good, now),
            failed
        );
        for (name, value) in [("content-length", "6"), ("x-ms-meta-a", "2"), ("authorization", "SharedKey devstoreaccount1:AAAA")] {
            let mut changed = good.clone();
            changed.insert(name, value.parse().unwrap());
            assert_eq!(verify(Method::PUT, &uri, &changed, now), failed, "{name}");
        }
        let unsigned = headers(&[("x-ms-date", DATE)]);
        assert_eq!(verify(Method::PUT, &uri, &unsigned, now), Err(refusal::NO_AUTHENTICATION));
    }
}
