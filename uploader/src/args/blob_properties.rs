//! What blobs get besides their content, by the service's rules.
//!
//! - <https://learn.microsoft.com/rest/api/storageservices/setting-and-retrieving-properties-and-metadata-for-blob-resources>
//! - <https://learn.microsoft.com/rest/api/storageservices/set-blob-tags>

use std::collections::BTreeMap;

use blobferry_crds::AccessTier;

use super::value;

/// Most bytes of names and values; the service takes 8 KiB, of which ours need less than half a KiB.
const METADATA_BYTES: usize = 7680;
const TAGS: usize = 10;

/// Names and values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pairs(pub(super) BTreeMap<String, String>);

pub(super) fn access_tier(text: &str) -> Result<AccessTier, String> {
    let words =
        [("Hot", AccessTier::Hot), ("Cool", AccessTier::Cool), ("Cold", AccessTier::Cold), ("Archive", AccessTier::Archive)];
    value::word(text, &words)
}

fn pairs(text: &str) -> Result<BTreeMap<String, String>, String> {
    if text.trim().is_empty() {
        return Ok(BTreeMap::new());
    }
    serde_json::from_str(text).map_err(|_| "write a JSON object of texts, like {\"site\": \"3\"}".into())
}

pub(super) fn metadata(text: &str) -> Result<Pairs, String> {
    let pairs = pairs(text)?;
    let name = |name: &str| {
        let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        !name.starts_with(|first: char| first.is_ascii_digit()) && !name.is_empty() && name.bytes().all(inside)
    };
    let value = |value: &str| !value.is_empty() && value.trim() == value && value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if !pairs.keys().all(|key| name(key) && !key.starts_with("blobferry_")) {
        return Err(
            "write names of lower-case letters, digits and underscores that start with no digit and not with blobferry_".into()
        );
    }
    if !pairs.values().all(|text| value(text)) {
        return Err("write values of printable ASCII, without spaces at the ends and not empty".into());
    }
    if pairs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > METADATA_BYTES {
        return Err(format!("write names and values of at most {METADATA_BYTES} bytes together"));
    }
    Ok(Pairs(pairs))
}

pub(super) fn tags(text: &str) -> Result<Pairs, String> {
    let pairs = pairs(text)?;
    let allowed = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b" +-./:=_".contains(&byte));
    let fits = |(name, value): (&String, &String)| {
        (1..=128).contains(&name.len()) && value.len() <= 256 && allowed(name) && allowed(value)
    };
    if pairs.len() > TAGS || !pairs.iter().all(fits) {
        return Err(
            "write at most 10 tags, names of 1 to 128 and values of up to 256 letters, digits, spaces and + - . / : = _".into()
        );
    }
    Ok(Pairs(pairs))
}

pub(super) fn content_type(text: &str) -> Result<String, String> {
    let token =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte));
    let (kind, parameters) = text.split_once(';').map_or((text, ""), |(kind, parameters)| (kind.trim_end(), parameters));
    let well_formed = kind.split_once('/').is_some_and(|(main, sub)| token(main) && token(sub));
    let printable = parameters.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if text.is_empty() || (well_formed && printable && text.len() <= 128) {
        Ok(text.to_owned())
    } else {
        Err("write a MIME type of at most 128 characters, like video/mp4 or text/csv; charset=utf-8".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_follows_the_rules_of_the_service_and_leaves_ours_alone() {
        let good = metadata(r#"{"site": "3", "_a1": "left front, 100%"}"#).unwrap();
        assert_eq!(good.0["_a1"], "left front, 100%");
        assert!(metadata("").unwrap().0.is_empty());
        let name = |text: &str| metadata(&format!("{{\"{text}\": \"1\"}}")).unwrap_err();
        for text in ["", "1a", "a-b", "A", "ä", "blobferry_claim"] {
            assert!(name(text).starts_with("write names of"), "{text}");
        }
        let value = |text: &str| metadata(&format!("{{\"a\": \"{text}\"}}")).unwrap_err();
        for text in ["", " a", "a ", "ä", "a\\nb"] {
            assert!(value(text).starts_with("write values of"), "{text}");
        }
        assert!(value(&"v".repeat(METADATA_BYTES)).contains("at most 7680 bytes"));
        assert!(metadata(r#"{"a": 1}"#).unwrap_err().starts_with("write a JSON object"));
    }

    #[test]
    fn tags_are_at_most_ten_of_the_allowed_characters() {
        assert_eq!(tags(r#"{"a b": "x+y-z./:=_"}"#).unwrap().0["a b"], "x+y-z./:=_");
        let many: BTreeMap<String, String> = (0..11).map(|number| (format!("t{number}"), String::new())).collect();
        for text in [r#"{"": "1"}"#, r#"{"a": "50%"}"#, r#"{"a,b": "1"}"#, &serde_json::to_string(&many).unwrap()] {
            assert!(tags(text).unwrap_err().starts_with("write at most 10 tags"), "{text}");
        }
    }

    #[test]
    fn content_types_have_two_parts() {
        for text in ["video/mp4", "text/csv; charset=utf-8", "application/vnd.a+json", ""] {
            assert_eq!(content_type(text).unwrap(), text);
        }
        for text in ["video", "/mp4", "video/", "a b/c", "text/csv; ä", "a/b/c"] {
            assert!(content_type(text).is_err(), "{text}");
        }
    }
}
