//! Where blobs are: the account's URL, and how names become paths.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

use super::SettingsError;
use crate::formats::BlobName;

/// All but RFC 3986's unreserved characters and the slash is escaped, so that nothing between us and the service reads a name
/// differently and a signature fits.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// The only account that emulators have by themselves.
const EMULATOR: &str = "devstoreaccount1";

/// URL of a storage account's blob service, such as `https://ACCOUNT.blob.core.windows.net`, or
/// `http://127.0.0.1:10000/devstoreaccount1` for an emulator. It holds no credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountUrl(Url);

impl AccountUrl {
    /// Reads and checks the URL. The error never repeats what was given, since it may hold a SAS token.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let refuse = |reason: &str| SettingsError(format!("the account URL {reason}"));
        let url = Url::parse(text).map_err(|error| refuse(&format!("cannot be read: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(refuse("is not an https URL like https://ACCOUNT.blob.core.windows.net"));
        }
        if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
            return Err(refuse("holds more than scheme, host and path: give a SAS token in its own variable or Secret key"));
        }
        if url.path().trim_matches('/').contains('/') {
            return Err(refuse("names more than the account: give the container and folders on their own"));
        }
        if url.scheme() == "http" && url.path().trim_matches('/') != EMULATOR {
            return Err(refuse("is http, which is only for an emulator, whose path is /devstoreaccount1: write https"));
        }
        Ok(Self(url))
    }

    /// The account's name as the URL tells it: the path of an emulator, or the first label of a host like
    /// `ACCOUNT.blob.core.windows.net`. `None` for a domain of one's own.
    pub fn account_name(&self) -> Option<&str> {
        let path = self.0.path().trim_matches('/');
        if !path.is_empty() {
            return Some(path);
        }
        let host = self.0.host_str()?;
        let (first, rest) = host.split_once('.')?;
        let of_the_service = rest.split('.').any(|label| label == "blob");
        of_the_service.then(|| first.strip_suffix("-secondary").unwrap_or(first))
    }

    /// Whether the connection is encrypted; tokens are sent over no other.
    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    pub(super) fn container_url(&self, container: &str) -> Result<Url, SettingsError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        // A hyphen stands between two others.
        let good = container.split('-').all(|part| !part.is_empty() && part.bytes().all(allowed));
        if !(3..=63).contains(&container.len()) || !good {
            let rule = "the container's name has 3 to 63 lower-case letters, digits and single hyphens between them";
            return Err(SettingsError(rule.to_owned()));
        }
        let mut url = self.0.clone();
        url.set_path(&format!("{}/{container}", self.0.path().trim_end_matches('/')));
        Ok(url)
    }
}

/// The path of a blob's URL below that of its container, percent-encoded.
pub(super) fn blob_path(container: &Url, name: &BlobName) -> String {
    format!("{}/{}", container.path(), utf8_percent_encode(name.as_str(), ESCAPED))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::blob_name;

    fn url(text: &str) -> AccountUrl {
        AccountUrl::parse(text).unwrap()
    }

    #[test]
    fn account_is_read_from_host_or_path() {
        for (text, account) in [
            ("https://truck.blob.core.windows.net", Some("truck")),
            ("https://truck.blob.core.windows.net/", Some("truck")),
            ("https://truck.z12.blob.storage.azure.net", Some("truck")),
            ("https://truck.privatelink.blob.core.windows.net", Some("truck")),
            ("https://truck-secondary.blob.core.windows.net", Some("truck")),
            ("http://127.0.0.1:10000/devstoreaccount1", Some("devstoreaccount1")),
            ("http://azurite:10000/devstoreaccount1/", Some("devstoreaccount1")),
            ("https://files.example.com", None),
        ] {
            assert_eq!(url(text).account_name(), account, "{text}");
        }
    }

    #[test]
    fn urls_with_more_than_an_account_are_refused_without_repeating_them() {
        for text in [
            "https://truck.blob.core.windows.net/?sv=1&sig=secret",
            "https://user:secret@truck.blob.core.windows.net",
            "https://truck.blob.core.windows.net/container/secret",
            "ftp://secret",
            "http://secret.blob.core.windows.net",
            "http://127.0.0.1:10000/secret",
            "secret",
        ] {
            let message = AccountUrl::parse(text).unwrap_err().to_string();
            assert!(message.starts_with("the account URL ") && !message.contains("secret"), "{message}");
        }
    }

    #[test]
    fn every_reserved_character_of_a_name_is_escaped() {
        let container = url("http://127.0.0.1:10000/devstoreaccount1/").container_url("data").unwrap();
        let name = blob_name("a b", "20261121", "s", "x%20#?&=+'\"[]ü~.dat".as_bytes()).unwrap();
        assert_eq!(
            blob_path(&container, &name),
            "/devstoreaccount1/data/a%20b/20261121/s/x%2520%23%3F%26%3D%2B%27%22%5B%5D%C3%BC~.dat"
        );
    }

    #[test]
    fn every_character_that_a_name_may_have_comes_back_from_the_path_of_its_url() {
        let container = url("http://127.0.0.1:10000/devstoreaccount1/").container_url("data").unwrap();
        let characters = (0..=0x2ff).chain([0x20ac, 0xfffd, 0x1f4a9, 0x10_ffff]).filter_map(char::from_u32);
        let mut taken = 0;
        for character in characters {
            let Ok(name) = blob_name("", "20261121", "s", format!("a{character}b").as_bytes()) else { continue };
            let mut blob = container.clone();
            blob.set_path(&blob_path(&container, &name));
            let path = percent_encoding::percent_decode_str(blob.path()).decode_utf8().unwrap().into_owned();
            assert_eq!(path, format!("/devstoreaccount1/data/{}", name.as_str()), "{character:?}");
            taken += 1;
        }
        assert!(taken > 600, "only {taken} characters are taken");
    }

    #[test]
    fn container_names_that_change_the_url_are_refused() {
        for name in ["", "a", "Data", "a/b", "..%2f", "data?x", "-ab", "ab-", "a--b", "$web", &"a".repeat(64)] {
            assert!(url("https://truck.blob.core.windows.net").container_url(name).is_err(), "{name}");
        }
    }
}
