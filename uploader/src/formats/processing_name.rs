//! The grammar of file names below the processing folder: one parser, exact lengths.
//!
//! ```text
//! NAME.CLAIM                     claimed
//! NAME.CLAIM.STAMP.completed     committed and verified
//! NAME.CLAIM.failed              set aside; the reason is in NAME.CLAIM.failed.reason
//! NAME.CLAIM.superseded          a later generation was committed first
//! ```
//!
//! NAME is the producer's, whatever it looks like.

use super::{ClaimId, Stamp};

const COMPLETED: &[u8] = b".completed";
const FAILED: &[u8] = b".failed";
const FAILED_REASON: &[u8] = b".failed.reason";
const SUPERSEDED: &[u8] = b".superseded";

/// Where a file is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Ours, not yet proven to be in its blob.
    Claimed,
    /// Committed and verified.
    Completed(Stamp),
    /// Set aside.
    Failed,
    /// Not a file of a producer: says why the one beside it was set aside.
    FailedReason,
    /// Overtaken by a later generation.
    Superseded,
}

/// A parsed name below the processing folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessingName {
    /// The producer's name, as bytes.
    pub producer: Box<[u8]>,
    /// The claim.
    pub claim: ClaimId,
    /// The state.
    pub state: State,
}

impl ProcessingName {
    /// The claimed name of a producer's file.
    pub fn claimed(producer: &[u8], claim: ClaimId) -> Self {
        Self { producer: producer.into(), claim, state: State::Claimed }
    }

    /// The same generation in another state.
    #[must_use]
    pub fn with(&self, state: State) -> Self {
        Self { state, ..self.clone() }
    }

    /// The file name, as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut name = self.producer.to_vec();
        name.push(b'.');
        name.extend(self.claim.to_string().bytes());
        match self.state {
            State::Claimed => {}
            State::Completed(stamp) => {
                name.push(b'.');
                name.extend(stamp.to_string().bytes());
                name.extend(COMPLETED);
            }
            State::Failed => name.extend(FAILED),
            State::FailedReason => name.extend(FAILED_REASON),
            State::Superseded => name.extend(SUPERSEDED),
        }
        name
    }

    /// Reads what [`Self::to_bytes`] wrote; `None` for a name that is not ours.
    pub fn parse(name: &[u8]) -> Option<Self> {
        let (rest, state) = if let Some(rest) = name.strip_suffix(COMPLETED) {
            let (rest, stamp) = split_suffix(rest, Stamp::LENGTH)?;
            (rest, State::Completed(Stamp::parse(stamp)?))
        } else if let Some(rest) = name.strip_suffix(FAILED_REASON) {
            (rest, State::FailedReason)
        } else if let Some(rest) = name.strip_suffix(FAILED) {
            (rest, State::Failed)
        } else if let Some(rest) = name.strip_suffix(SUPERSEDED) {
            (rest, State::Superseded)
        } else {
            (name, State::Claimed)
        };
        let (producer, claim) = split_suffix(rest, ClaimId::LENGTH)?;
        (!producer.is_empty()).then_some(Self { producer: producer.into(), claim: ClaimId::parse(claim)?, state })
    }
}

/// Splits `.SUFFIX` of `length` bytes from the end of `name`.
fn split_suffix(name: &[u8], length: usize) -> Option<(&[u8], &[u8])> {
    let at = name.len().checked_sub(length)?;
    let (front, suffix) = name.split_at(at);
    Some((front.strip_suffix(b".")?, suffix))
}

/// Most bytes of a producer's name that still fit with the longest suffix, where the file system takes `name_max` bytes.
pub fn longest_producer_name(name_max: usize) -> usize {
    name_max.saturating_sub(1 + ClaimId::LENGTH + 1 + Stamp::LENGTH + COMPLETED.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        formats::{OrderKey, ProcessId},
        share::Identity,
    };

    fn claim(key: u64) -> ClaimId {
        ClaimId::new(OrderKey(key), ProcessId::new(2), 3)
    }

    fn states() -> [State; 5] {
        let stamp = Stamp::new(&claim(1), &Identity { inode: 1, size: 2, mtime: 3, ctime: 4 });
        [State::Claimed, State::Completed(stamp), State::Failed, State::FailedReason, State::Superseded]
    }

    #[test]
    fn every_state_is_read_back_whatever_the_producer_wrote() {
        let mut producers: Vec<Vec<u8>> =
            [&b"a.dat"[..], b"x.completed", b"y.failed.reason", b".", b"\xff\xfe", b"a b"].map(<[u8]>::to_vec).into();
        producers.extend(states().map(|state| ProcessingName { state, ..ProcessingName::claimed(b"inner", claim(8)) }.to_bytes()));
        for producer in producers {
            for state in states() {
                let name = ProcessingName { state, ..ProcessingName::claimed(&producer, claim(9)) };
                assert_eq!(ProcessingName::parse(&name.to_bytes()), Some(name));
            }
        }
    }

    #[test]
    fn foreign_names_are_not_ours() {
        let claimed = ProcessingName::claimed(b"", claim(1)).to_bytes();
        for name in [&b"a.dat"[..], b"a.completed", b"", b".superseded", &claimed, &claimed[1..]] {
            assert_eq!(ProcessingName::parse(name), None, "{}", name.escape_ascii());
        }
    }

    #[test]
    fn longest_producer_name_fits_in_every_state() {
        let producer = vec![b'a'; longest_producer_name(255)];
        let lengths =
            states().map(|state| ProcessingName { state, ..ProcessingName::claimed(&producer, claim(1)) }.to_bytes().len());
        assert_eq!(lengths.into_iter().max(), Some(255));
    }
}
