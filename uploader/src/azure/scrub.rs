//! Keeps secrets out of what is shown: a service, or a proxy in front of it, may answer with parts of the request.

use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use percent_encoding::percent_decode_str;

use crate::blob::BlobError;

const HIDDEN: &str = "(hidden)";
/// Shorter texts are no secrets, and would be found in ordinary words.
const SHORTEST: usize = 6;
/// What secrets follow in any text, whoever's they are. The last is how every signed token begins.
const MARKERS: [&str; 7] = ["sig=", "AccountKey=", "client_secret=", "client_assertion=", "Bearer ", "SharedKey ", "eyJ"];

/// What is hidden at the moment, for all who see replies. Replies are cleaned where they come in, before a library can log them.
#[derive(Clone, Debug, Default)]
pub(super) struct Scrubber(Arc<RwLock<Arc<Scrub>>>);

impl Scrubber {
    /// Hides these texts too, for good: what was sent with a secret that is replaced now may still be answered.
    pub(super) fn hide<'a>(&self, texts: impl IntoIterator<Item = &'a str>) {
        let mut scrub = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *scrub = Arc::new(scrub.and(texts));
    }

    /// The secrets to hide now.
    pub(super) fn now(&self) -> Arc<Scrub> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

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
    fn and<'a>(&self, texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut all = self.0.clone();
        all.extend(texts.into_iter().flat_map(parts).flat_map(spellings));
        all.retain(|secret| secret.len() >= SHORTEST);
        // A secret may begin with another one.
        all.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
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

    /// A header of a reply without secrets. An `ETag` and metadata must stay what they are, and no library shows them.
    pub(super) fn clean_header(&self, name: &str, value: &str) -> String {
        if name == "etag" || name.starts_with("x-ms-meta-") { value.to_owned() } else { self.clean(value) }
    }

    /// The body of a reply: without secrets if it is a refusal, whose text is shown.
    pub(super) fn clean_body(&self, status: u16, body: Bytes) -> Bytes {
        if status < 400 { body } else { self.clean(&String::from_utf8_lossy(&body)).into() }
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
        let scrub = Scrub::default().and([
            "AccountName=truck;AccountKey=aHVudGVyMg==;EndpointSuffix=x",
            "?sv=1&sig=hun%2Bter2%3D",
            "cli~ent/secret",
        ]);
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
        assert_eq!(Scrub::default().and(["", "a", "the"]).clean("the answer"), "the answer");
    }

    #[test]
    fn a_refusal_is_cleaned_and_what_a_success_is_for_is_not_touched() {
        let scrub = Scrub::default().and(["hunter22"]);
        let body = Bytes::from_static(b"hunter22");
        assert_eq!(scrub.clean_body(403, body.clone()), "(hidden)");
        assert_eq!(scrub.clean_body(200, body), "hunter22");
        assert_eq!(scrub.clean_header("server", "x hunter22"), "x (hidden)");
        assert_eq!(scrub.clean_header("etag", "hunter22"), "hunter22");
        assert_eq!(scrub.clean_header("x-ms-meta-note", "eyJ hunter22"), "eyJ hunter22");
    }

    #[test]
    fn all_who_share_a_scrubber_hide_each_secret_that_one_of_them_learned() {
        let scrubber = Scrubber::default();
        let shared = scrubber.clone();
        scrubber.hide(["hunter22"]);
        scrubber.hide(["hunter33", "hunter22"]);
        assert_eq!(shared.now().clean("hunter22 hunter33 hunter44"), "(hidden) (hidden) hunter44");
        assert_eq!(shared.now().0.len(), 2);
    }
}
