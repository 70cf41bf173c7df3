//! The name of a file's blob: `[prefix/]DATE/SESSION/[FOLDERS/]FILE`.
//!
//! Rules: <https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata>.

use std::fmt;

/// Most characters of a blob name.
const LIMIT: usize = 1024;
/// Most parts of a blob name between slashes.
const SEGMENTS: usize = 254;

/// A blob name that the service takes. It is not percent-encoded; that is done where the URL is made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobName {
    text: String,
    /// Where the producer's part of it begins.
    file: usize,
}

/// Why a file's name cannot be part of a blob name. The file stays where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlobNameError {
    /// Blob names are Unicode.
    #[error("the name is not UTF-8: rename the file")]
    NotUtf8,
    /// Control characters cannot be part of a URL.
    #[error("the name has a control character: rename the file")]
    ControlCharacter,
    /// A backslash is taken for a slash by parts of the service.
    #[error("the name has a backslash: rename the file")]
    Backslash,
    /// Not a character of XML, in which blobs are listed.
    #[error("the name has a character (U+FFFE or U+FFFF) that is none: rename the file")]
    NoCharacter,
    /// The service drops a dot at the end of a path segment.
    #[error("the name, or that of a folder, ends with a dot: rename it")]
    TrailingDot,
    /// Two slashes, or one at an end.
    #[error("the name has an empty folder in it: rename the file")]
    EmptySegment,
    /// More than 254 folders.
    #[error("the blob name would have more than 254 folders: move the file up")]
    TooDeep,
    /// More than 1,024 characters.
    #[error("the blob name would have more than 1,024 characters: shorten the file's name or the prefix")]
    TooLong,
}

/// The blob name of `file`, which may have folders in front. `prefix`, `date` and `session` have been validated before.
pub fn blob_name(prefix: &str, date: &str, session: &str, file: &[u8]) -> Result<BlobName, BlobNameError> {
    let file = std::str::from_utf8(file).map_err(|_| BlobNameError::NotUtf8)?;
    if file.chars().any(char::is_control) {
        return Err(BlobNameError::ControlCharacter);
    }
    if file.contains('\\') {
        return Err(BlobNameError::Backslash);
    }
    if file.contains(['\u{fffe}', '\u{ffff}']) {
        return Err(BlobNameError::NoCharacter);
    }
    if file.split('/').any(|segment| segment.ends_with('.')) {
        return Err(BlobNameError::TrailingDot);
    }
    if file.split('/').any(str::is_empty) {
        return Err(BlobNameError::EmptySegment);
    }
    let slash = if prefix.is_empty() { "" } else { "/" };
    let text = format!("{prefix}{slash}{date}/{session}/{file}");
    if text.chars().count() > LIMIT {
        return Err(BlobNameError::TooLong);
    }
    if text.split('/').count() > SEGMENTS {
        return Err(BlobNameError::TooDeep);
    }
    Ok(BlobName { file: text.len() - file.len(), text })
}

impl BlobName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The producer's part: the file's path from the session's incoming folder.
    pub fn file(&self) -> &str {
        self.text.get(self.file..).unwrap_or_default()
    }
}

impl fmt::Display for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blob_names_have_prefix_date_session_and_file() {
        assert_eq!(blob_name("", "20261121", "truck-7", b"a b.dat").unwrap().as_str(), "20261121/truck-7/a b.dat");
        assert_eq!(blob_name("site/raw", "20261121", "t", "ä%#?".as_bytes()).unwrap().as_str(), "site/raw/20261121/t/ä%#?");
    }

    #[test]
    fn folders_of_the_producer_are_part_of_the_name() {
        let name = blob_name("site", "20261121", "t", b"a/b c/d.dat").unwrap();
        assert_eq!((name.as_str(), name.file()), ("site/20261121/t/a/b c/d.dat", "a/b c/d.dat"));
    }

    #[test]
    fn names_that_differ_in_case_escapes_or_inner_dots_are_different_blobs() {
        let names = ["a.dat", "A.dat", "a%2Edat", "a..dat", ".a.dat", "a .dat"];
        let blobs: std::collections::BTreeSet<_> =
            names.iter().map(|name| blob_name("", "20261121", "t", name.as_bytes()).unwrap()).collect();
        assert_eq!(blobs.len(), names.len());
    }

    #[test]
    fn the_limit_counts_characters_and_not_bytes() {
        let name = "ä".repeat(1024 - "20261121/t/".len());
        assert!(blob_name("", "20261121", "t", name.as_bytes()).is_ok());
        assert_eq!(blob_name("", "20261121", "t", format!("{name}ä").as_bytes()).unwrap_err(), BlobNameError::TooLong);
    }

    #[test]
    fn names_that_the_service_would_change_or_refuse_are_refused() {
        let reason = |file: &[u8]| blob_name("", "20261121", "t", file).unwrap_err();
        assert_eq!(reason(b"a\xff"), BlobNameError::NotUtf8);
        assert_eq!(reason(b"a\nb"), BlobNameError::ControlCharacter);
        assert_eq!(reason(b"a\\b"), BlobNameError::Backslash);
        assert_eq!(reason("a\u{ffff}".as_bytes()), BlobNameError::NoCharacter);
        assert_eq!(reason("a\u{85}".as_bytes()), BlobNameError::ControlCharacter);
        assert_eq!(reason(b"a."), BlobNameError::TrailingDot);
        assert_eq!(reason(b"a./b"), BlobNameError::TrailingDot);
        assert_eq!(reason(b"../b"), BlobNameError::TrailingDot);
        assert_eq!(reason(b"a//b"), BlobNameError::EmptySegment);
        assert_eq!(reason(b""), BlobNameError::EmptySegment);
        assert_eq!(reason("a/".repeat(251).as_bytes()), BlobNameError::EmptySegment);
        assert_eq!(reason(["a"; 253].join("/").as_bytes()), BlobNameError::TooDeep);
        assert!(blob_name("", "20261121", "t", ["a"; 252].join("/").as_bytes()).is_ok());
        assert_eq!(blob_name(&"p".repeat(1012), "20261121", "t", b"a").unwrap_err(), BlobNameError::TooLong);
        assert!(blob_name(&"p".repeat(1011), "20261121", "t", b"a").is_ok());
    }
}
