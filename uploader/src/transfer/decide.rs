//! What may be done with a claimed file after a look at its blob. (pure)

use blobferry_crds::Overwrite;

use crate::{
    blob::{Condition, Found},
    formats::{BlobOrigin, ClaimId, SourceId},
};

/// What a look says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The blob may be written under this condition.
    Write(Condition),
    /// The blob was made of this very claim.
    Committed(Found, BlobOrigin),
    /// A file that came to the name later was committed. Whatever was written to this one since, it does not go before that: it is kept.
    Overtaken,
    /// The session does not allow to replace what is there.
    Occupied(&'static str),
}

/// The verdict on `claim` of `source` when `found` is under its blob's name.
pub fn decide(found: Option<Found>, source: &SourceId, claim: &ClaimId, overwrite: Overwrite) -> Verdict {
    let Some(found) = found else { return Verdict::Write(Condition::Absent) };
    let ours = BlobOrigin::parse(&found.metadata).filter(|origin| origin.source == *source);
    match ours {
        Some(origin) if origin.claim == *claim => Verdict::Committed(found, origin),
        Some(origin) if origin.claim > *claim => Verdict::Overtaken,
        _ if overwrite == Overwrite::Any => Verdict::Write(Condition::Matches(found.etag)),
        Some(_) if overwrite == Overwrite::OwnSource => Verdict::Write(Condition::Matches(found.etag)),
        Some(_) => {
            Verdict::Occupied("an earlier file of this name is there and overwrite is Never: move the blob away or rename the file")
        }
        None => Verdict::Occupied(
            "a blob that this share and session did not put there has the name: move it away, or allow it with overwrite: Any",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        blob::ETag,
        formats::{OrderKey, ProcessId, metadata_of},
    };

    fn source(session: &str) -> SourceId {
        SourceId::new(uuid::Uuid::nil(), session)
    }

    fn claim(key: u64) -> ClaimId {
        ClaimId::new(OrderKey(key), ProcessId::new(1), 1)
    }

    fn found(metadata: BTreeMap<String, String>) -> Found {
        Found { etag: ETag("e".into()), size: 1, metadata }
    }

    fn blob_of(session: &str, key: u64) -> Found {
        found(metadata_of(&BlobOrigin { source: source(session), claim: claim(key), crc64: 1 }, 0))
    }

    fn verdict(found: impl Into<Option<Found>>, overwrite: Overwrite) -> Verdict {
        decide(found.into(), &source("s"), &claim(5), overwrite)
    }

    #[test]
    fn nothing_there_is_written_only_while_nothing_is_there() {
        for overwrite in [Overwrite::OwnSource, Overwrite::Never, Overwrite::Any] {
            assert_eq!(verdict(None, overwrite), Verdict::Write(Condition::Absent));
        }
    }

    #[test]
    fn own_earlier_generation_is_replaced_unless_never() {
        let write = Verdict::Write(Condition::Matches(ETag("e".into())));
        assert_eq!(verdict(blob_of("s", 4), Overwrite::OwnSource), write);
        assert_eq!(verdict(blob_of("s", 4), Overwrite::Any), write);
        assert!(matches!(verdict(blob_of("s", 4), Overwrite::Never), Verdict::Occupied(_)));
    }

    #[test]
    fn later_generation_is_never_replaced() {
        for overwrite in [Overwrite::OwnSource, Overwrite::Never, Overwrite::Any] {
            assert_eq!(verdict(blob_of("s", 6), overwrite), Verdict::Overtaken);
        }
    }

    #[test]
    fn blobs_of_others_are_replaced_only_by_any() {
        for blob in [blob_of("t", 4), blob_of("t", 6), found(BTreeMap::new())] {
            assert!(matches!(verdict(blob.clone(), Overwrite::OwnSource), Verdict::Occupied(_)));
            assert!(matches!(verdict(blob.clone(), Overwrite::Never), Verdict::Occupied(_)));
            assert!(matches!(verdict(blob, Overwrite::Any), Verdict::Write(_)));
        }
    }

    #[test]
    fn own_claim_is_recognised() {
        for overwrite in [Overwrite::OwnSource, Overwrite::Never, Overwrite::Any] {
            assert!(matches!(verdict(blob_of("s", 5), overwrite), Verdict::Committed(..)));
        }
    }
}
