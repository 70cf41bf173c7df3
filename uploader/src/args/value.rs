//! Values as people write them. Each parser's error is the end of clap's sentence about the value and its flag.

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use blobferry_crds::Quantity;
use clap::builder::{OsStringValueParser, TypedValueParser};

/// Seconds from `least` to `most`, with a fraction if need be.
pub(super) fn seconds(text: &str, least: f64, most: f64) -> Result<Duration, String> {
    let hint = || format!("write seconds from {least} to {most}, like {}", if least < 1.0 { "2.5" } else { "5" });
    let number: f64 = text.trim().parse().map_err(|_| hint())?;
    if !(least..=most).contains(&number) {
        return Err(hint());
    }
    Duration::try_from_secs_f64(number).map_err(|_| hint())
}

/// A size in bytes from `least` to `most`, both of which are written as in the message.
pub(super) fn size(text: &str, least: &str, most: &str) -> Result<u64, String> {
    let bytes = |text: &str| Quantity::from(text.trim()).bytes();
    let within = |size: u64| bytes(least).is_ok_and(|least| least <= size) && bytes(most).is_ok_and(|most| size <= most);
    bytes(text)
        .ok()
        .filter(|size| within(*size))
        .ok_or_else(|| format!("write a size in bytes from {least} to {most}, also with a suffix, like 4Mi"))
}

/// A number from 1 to `most`.
pub(super) fn count(text: &str, most: usize) -> Result<NonZeroUsize, String> {
    text.trim()
        .parse::<NonZeroUsize>()
        .ok()
        .filter(|number| number.get() <= most)
        .ok_or_else(|| format!("write a whole number from 1 to {most}"))
}

/// One of a resource's words, such as `OwnSource`, in upper or lower case.
pub(super) fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    let meant = |(word, _): &&(&str, T)| word.eq_ignore_ascii_case(text.trim());
    words.iter().find(meant).map(|(_, value)| *value).ok_or_else(|| {
        let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        format!("write {}", all.join(" or "))
    })
}

/// `None` for a variable that is set to nothing.
pub(super) fn unless_empty(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.trim().is_empty())
}

/// A path, or nothing: unlike clap's own parser this one takes a variable that is set to nothing.
pub(super) fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// Something that becomes part of a file's name, such as a UID.
pub(super) fn plain_name(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if text.len() <= 64 && text.bytes().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("write at most 64 letters, digits and hyphens, like a UUID".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_take_a_fraction_and_keep_to_their_range() {
        assert_eq!(seconds("2.5", 0.1, 3600.0).unwrap(), Duration::from_millis(2500));
        for text in ["", "2s", "nan", "inf", "-1", "0.05", "3601"] {
            assert_eq!(seconds(text, 0.1, 3600.0).unwrap_err(), "write seconds from 0.1 to 3600, like 2.5", "{text}");
        }
    }

    #[test]
    fn sizes_take_a_suffix_and_keep_to_their_range() {
        assert_eq!(size("4Mi", "64Ki", "4000Mi").unwrap(), 4 << 20);
        assert_eq!(size("65536", "64Ki", "4000Mi").unwrap(), 65_536);
        for text in ["", "4 MiB", "63Ki", "4001Mi", "-1"] {
            assert!(size(text, "64Ki", "4000Mi").unwrap_err().contains("from 64Ki to 4000Mi"), "{text}");
        }
    }

    #[test]
    fn words_are_taken_in_any_case_and_listed_when_wrong() {
        let words = [("Disk", 1), ("None", 2)];
        assert_eq!(word("none", &words).unwrap(), 2);
        assert_eq!(word("memory", &words).unwrap_err(), "write Disk or None");
    }

    #[test]
    fn a_uid_cannot_lead_out_of_a_folder() {
        assert!(plain_name("8f1c-77").is_ok());
        assert!(plain_name("../x").is_err());
        assert!(plain_name(&"a".repeat(65)).is_err());
    }
}
