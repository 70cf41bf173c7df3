//! Shared access signatures: <https://learn.microsoft.com/rest/api/storageservices/delegate-access-with-shared-access-signature>.

use azure_core::{credentials::Secret, http::Request};

/// A query string that is itself the right to something.
#[derive(Debug)]
pub(super) struct SasToken(Secret);

impl SasToken {
    /// Takes the token with or without its question mark; the error does not repeat it.
    pub(super) fn new(token: &Secret) -> Result<Self, String> {
        let text = token.secret().trim().trim_start_matches('?').trim_matches('&');
        if text.contains("://") {
            return Err("the SAS token is a URL: give only what is behind its question mark".to_owned());
        }
        let has = |name: &str| text.split('&').any(|pair| pair.split_once('=').is_some_and(|(key, _)| key == name));
        if !has("sig") || !has("sv") {
            return Err("the SAS token has no sig= or no sv=: copy it again, whole".to_owned());
        }
        if text.contains(char::is_whitespace) {
            return Err("the SAS token has a space or a line break in it: copy it again".to_owned());
        }
        Ok(Self(Secret::new(text.to_owned())))
    }

    /// Adds the token to the query, byte for byte: it is escaped already.
    pub(super) fn apply(&self, request: &mut Request) {
        let query = match request.url().query() {
            Some(query) if !query.is_empty() => format!("{query}&{}", self.0.secret()),
            _ => self.0.secret().to_owned(),
        };
        request.url_mut().set_query(Some(&query));
    }
}

#[cfg(test)]
mod tests {
    use azure_core::http::{Method, Url};

    use super::*;

    fn token(text: &str) -> Result<SasToken, String> {
        SasToken::new(&Secret::new(text.to_owned()))
    }

    #[test]
    fn token_is_added_as_it_is() {
        for (url, expected) in [
            ("https://a/b?comp=block&blockid=x%2B", "/b?comp=block&blockid=x%2B&sv=1&sig=a%2Bb%3D"),
            ("https://a/b", "/b?sv=1&sig=a%2Bb%3D"),
        ] {
            let mut request = Request::new(Url::parse(url).unwrap(), Method::Put);
            token(" ?sv=1&sig=a%2Bb%3D\n").unwrap().apply(&mut request);
            assert_eq!(request.path_and_query(), expected);
            assert!(!format!("{request:?}").contains("a%2Bb"), "{request:?}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused_without_repeating_it() {
        for text in ["", "hunter2", "sv=hunter2", "https://a/b?sv=1&sig=hunter2", "sv=1&sig=hunter2 x"] {
            let error = token(text).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(!format!("{:?}", token("sv=1&sig=hunter2").unwrap()).contains("hunter2"));
    }
}
