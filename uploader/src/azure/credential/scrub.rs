//! Keeps secrets out of what is shown: a service, or a proxy in front of it, may answer with parts of the request.

use azure_core::http::{AsyncRawResponse, headers::Headers};
use percent_encoding::percent_decode_str;

use crate::blob::BlobError;

const HIDDEN: &str = "(hidden)";
/// Shorter texts are no secrets, and would be found in ordinary words.
const SHORTEST: usize = 6;
/// What secrets follow in any text, whoever's they are. The last is how every signed token begins.
const MARKERS: [&str; 7] = ["sig=", "AccountKey=", "client_secret=", "client_assertion=", "Bearer ", "SharedKey ", "eyJ"];

/// The secrets of one credential.
#[derive(Default)]
pub(super) struct Scrub(Vec<String>);

impl std::fmt::Debug for Scrub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scrub")
    }
}

impl Scrub {
    /// Hides these texts, the secret parts of connection strings and SAS tokens among them, and what else follows a marker.
    pub(super) fn of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut all: Vec<_> = texts.into_iter().flat_map(parts).flat_map(spellings).collect();
        all.retain(|secret| secret.len() >= SHORTEST);
        // A secret may begin with another one.
        all.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        all.dedup();
        Self(all)
    }

    /// `text` with every secret replaced.
    pub(super) fn clean(&self, text: &str) -> String {
        let known = self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret, HIDDEN));
        MARKERS.iter().fold(known, |text, marker| hide_after(&text, marker))
    }

    /// An error without secrets.
    pub(super) fn clean_error(&self, error: BlobError) -> BlobError {
        match error {
            BlobError::Denied { message } => BlobError::Denied { message: self.clean(&message) },
            BlobError::Transient { message, retry_after } => BlobError::Transient { message: self.clean(&message), retry_after },
            other => other,
        }
    }

    /// A refusal of the service without secrets; other responses as they are.
    pub(super) async fn clean_response(&self, response: AsyncRawResponse) -> azure_core::Result<AsyncRawResponse> {
        let status = response.status();
        if u16::from(status) < 400 {
            return Ok(response);
        }
        let response = response.try_into_raw_response().await?;
        let mut headers = Headers::new();
        for (name, value) in response.headers().iter() {
            headers.insert(name.clone(), self.clean(value.as_str()));
        }
        let body = self.clean(&String::from_utf8_lossy(response.body()));
        Ok(AsyncRawResponse::from_bytes(status, headers, body.into_bytes()))
    }
}

/// The text itself, and what is secret in it if it is a connection string or a SAS token.
fn parts(text: &str) -> Vec<String> {
    let text = text.trim();
    let mut all = vec![text.to_owned(), text.trim_start_matches('?').to_owned()];
    for part in text.split([';', '&', '?']) {
        if let Some((name, value)) = part.split_once('=')
            && ["accountkey", "sig"].contains(&name.trim().to_ascii_lowercase().as_str())
        {
            all.push(value.trim().to_owned());
        }
    }
    all
}

/// As it is written, without escapes, and with them.
fn spellings(secret: String) -> Vec<String> {
    let decoded = percent_decode_str(&secret).decode_utf8_lossy().into_owned();
    let encoded = url::form_urlencoded::byte_serialize(decoded.as_bytes()).collect();
    vec![secret, encoded, decoded]
}

/// `text` with what follows each `marker` replaced, up to the next character that ends a value.
fn hide_after(text: &str, marker: &str) -> String {
    let mut pieces = text.split(marker);
    let mut clean = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let end = piece.find(|c: char| c.is_whitespace() || "&;,\"'<>()".contains(c)).unwrap_or(piece.len());
        clean.push_str(marker);
        // `sig=(hidden)` stays what it is.
        if end > 0 {
            clean.push_str(HIDDEN);
        }
        clean.push_str(&piece[end..]);
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_their_spellings_are_hidden_and_the_rest_stays() {
        let scrub =
            Scrub::of(["AccountName=truck;AccountKey=aHVudGVyMg==;EndpointSuffix=x", "?sv=1&sig=hun%2Bter2%3D", "cli~ent/secret"]);
        for (text, clean) in [
            ("no aHVudGVyMg== here", "no (hidden) here"),
            ("no aHVudGVyMg%3D%3D here", "no (hidden) here"),
            ("hun+ter2= and hun%2Bter2%3D", "(hidden) and (hidden)"),
            ("sv=1&sig=hun%2Bter2%3D", "(hidden)"),
            ("https://a/b?comp=block&sig=other&x=1", "https://a/b?comp=block&sig=(hidden)&x=1"),
            ("cli%7Eent%2Fsecret, cli~ent/secret", "(hidden), (hidden)"),
            ("Authorization: Bearer eyJhbGciOiJ9.eyJz.x-y_z\nHost: a", "Authorization: Bearer (hidden)\nHost: a"),
            ("SharedKey truck:c2lnbmF0dXJl)", "SharedKey (hidden))"),
            ("the account truck at 10.0.0.1", "the account truck at 10.0.0.1"),
        ] {
            assert_eq!(scrub.clean(text), clean);
        }
    }

    #[test]
    fn short_and_empty_texts_hide_nothing() {
        assert_eq!(Scrub::of(["", "a", "the"]).clean("the answer"), "the answer");
    }

    #[tokio::test]
    async fn a_refusal_is_cleaned_and_a_success_is_not_touched() {
        let scrub = Scrub::of(["hunter22"]);
        let response = |status: u16| {
            let mut headers = Headers::new();
            headers.insert("x-ms-error-code", "hunter22");
            AsyncRawResponse::from_bytes(status.into(), headers, "hunter22")
        };
        let refusal = scrub.clean_response(response(403)).await.unwrap().try_into_raw_response().await.unwrap();
        assert_eq!(refusal.body().as_ref(), b"(hidden)");
        assert!(!format!("{refusal:?}{:?}", refusal.headers().iter().collect::<Vec<_>>()).contains("hunter22"));
        let success = scrub.clean_response(response(200)).await.unwrap().try_into_raw_response().await.unwrap();
        assert_eq!(success.body().as_ref(), b"hunter22");
    }
}
