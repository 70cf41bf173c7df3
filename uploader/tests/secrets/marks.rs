//! Secrets that carry a mark, and the search for it.

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// The mark that all secrets here have, in clear or in base64.
pub(crate) const MARK: &str = "hunter2hunter2hunter2";
pub(crate) const ACCOUNT: &str = "devstoreaccount1";
/// A certificate with its key.
pub(crate) const PEM: &str = include_str!("../../src/azure/credential/certificate/test.pem");

pub(crate) fn key() -> String {
    STANDARD.encode(MARK)
}

/// A token whose signature has characters that are escaped.
pub(crate) fn sas() -> String {
    format!("sv=2020-08-04&ss=b&srt=o&sp=rw&se=2099-01-01T00%3A00%3A00Z&sig={MARK}%2Bx%3D")
}

pub(crate) fn connection_string() -> String {
    format!("DefaultEndpointsProtocol=https;AccountName={ACCOUNT};AccountKey={};EndpointSuffix=core.windows.net", key())
}

/// A token as Kubernetes and Entra sign them.
pub(crate) fn signed_token() -> String {
    let part = |text: &str| STANDARD.encode(text).trim_end_matches('=').to_owned();
    let claims = format!(r#"{{"iss":"https://issuer","sub":"subject","aud":["audience"],"jti":"{MARK}"}}"#);
    format!("{}.{}.{}", part(r#"{"alg":"RS256","typ":"JWT"}"#), part(&claims), part(MARK))
}

/// Whether `text` has a secret in any of its spellings.
pub(crate) fn shows_a_secret(text: &str) -> bool {
    // Base64 of the mark at each of the three offsets, without what depends on its neighbours.
    let inner = |padding: &str| {
        let code = STANDARD.encode(format!("{padding}{MARK}"));
        code[4..code.len() - 4].to_owned()
    };
    let secrets = [MARK.to_owned(), inner(""), inner("x"), inner("xx"), key_line().to_owned()];
    secrets.iter().any(|secret| text.contains(secret.as_str())) || shows_a_token(text)
}

/// A line in the middle of the certificate's key.
fn key_line() -> &'static str {
    PEM.lines().rev().nth(3).unwrap()
}

/// Whether there is a signed token: one that was made on the way has no mark.
fn shows_a_token(text: &str) -> bool {
    let goes_on = |rest: &str| rest.bytes().take(20).filter(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count() == 20;
    text.split("eyJ").skip(1).any(goes_on)
}

/// The lines that show a secret.
pub(crate) fn around(said: &str) -> String {
    let cut = |line: &str| line.chars().take(2000).collect::<String>();
    said.lines().filter(|line| shows_a_secret(line)).take(5).map(cut).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_search_finds_a_secret_in_each_of_its_spellings() {
    for text in [
        key(),
        sas(),
        connection_string(),
        signed_token(),
        signed_token().split('.').nth(1).unwrap().to_owned(),
        PEM.to_owned(),
        STANDARD.encode(format!("truck:{MARK}")),
        format!("x{MARK}"),
    ] {
        assert!(shows_a_secret(&text), "{text}");
    }
    assert!(!shows_a_secret("(hidden) eyJ(hidden)"));
}
