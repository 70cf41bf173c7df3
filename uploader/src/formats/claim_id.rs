//! What a claim appends to a file's name.

use std::fmt;

use sha2::{Digest, Sha256};

use super::base32;
use crate::share::Identity;

const VERSION: &str = "b1";
const KEY_DIGITS: u32 = 13;
const PROCESS_DIGITS: u32 = 8;
const TAIL_DIGITS: u32 = 8;
const SECOND: i128 = 1_000_000_000;
/// Keys kept free after each for the changes of a file that was completed already.
const CHANGES: u64 = 1000;

/// Orders the generations of one name: nanoseconds since 1970 of the file's ctime on the server's clock, raised where needed so that
/// a later claim of a name has a greater key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderKey(pub u64);

impl OrderKey {
    /// The key of a file that came to its name at this time of the server's clock, in nanoseconds.
    pub fn at(time: i128) -> Self {
        Self(u64::try_from(time.max(0)).unwrap_or(u64::MAX))
    }

    /// The next greater key.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// A key greater than those that a file of this key gets for being changed after it was completed.
    #[must_use]
    pub fn beyond_changes(self) -> Self {
        Self(self.0.saturating_add(CHANGES))
    }
}

/// Forty random bits, drawn when an uploader starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(u64);

impl ProcessId {
    /// The id made of the low forty bits of `random`.
    pub fn new(random: u64) -> Self {
        Self(random & ((1 << 40) - 1))
    }

    /// Reads what [`fmt::Display`] wrote.
    pub fn parse(text: &[u8]) -> Option<Self> {
        (text.len() == PROCESS_DIGITS as usize)
            .then(|| base32::decode(text))
            .flatten()
            .and_then(|value| u64::try_from(value).ok())
            .map(Self)
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base32::encode(self.0.into(), PROCESS_DIGITS))
    }
}

/// What tells a file from others of its name: sixteen bits of SHA-256 over its inode number. All else may change under a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Fingerprint(u16);

impl Fingerprint {
    fn of(identity: &Identity) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"blobferry claimed file 1\0");
        hash.update(identity.inode.to_be_bytes());
        let hash = hash.finalize();
        Self(u16::from_be_bytes([hash[0], hash[1]]))
    }
}

/// The name of one claim: version, order key, process id and forty bits more, in 31 characters of `[0-9a-v]`. Those are the lag, in
/// sixteen bits, the fingerprint of the file, in sixteen, and randomness.
///
/// Claim ids of one name sort as text in the order of their generations. A key is raised now and then above the time from which on its
/// file has waited; the lag says by how many seconds at most, so that whoever finds the claim knows since when it waits. A rename takes
/// what has the name by then; the fingerprint says for which file the claim was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimId {
    /// The generation's place among those of its name.
    pub key: OrderKey,
    /// The process that claimed.
    pub process: ProcessId,
    /// Seconds, rounded up; the greatest number stands for any.
    lag: u16,
    file: Fingerprint,
    random: u8,
}

impl ClaimId {
    /// Characters of a claim id.
    pub const LENGTH: usize = VERSION.len() + (KEY_DIGITS + PROCESS_DIGITS + TAIL_DIGITS) as usize;

    /// The claim id with bits of `random`, of a file that has waited since its key's time.
    pub fn new(key: OrderKey, process: ProcessId, random: u64) -> Self {
        Self { key, process, lag: 0, file: Fingerprint(0), random: random.to_le_bytes()[0] }
    }

    fn with_tail(key: OrderKey, process: ProcessId, tail: u64) -> Self {
        let [_, _, _, lag @ .., file_high, file_low, random] = tail.to_be_bytes();
        Self { key, process, lag: u16::from_be_bytes(lag), file: Fingerprint(u16::from_be_bytes([file_high, file_low])), random }
    }

    fn tail(self) -> u64 {
        u64::from(self.lag) << 24 | u64::from(self.file.0) << 8 | u64::from(self.random)
    }

    /// The same for the file with this identity.
    #[must_use]
    pub fn made_for(self, identity: &Identity) -> Self {
        Self { file: Fingerprint::of(identity), ..self }
    }

    /// True if the claim was made for the file with this identity, as far as the fingerprint tells.
    pub fn is_of(&self, identity: &Identity) -> bool {
        self.file == Fingerprint::of(identity)
    }

    /// The same for a file that has waited since this time of the server's clock, in nanoseconds since 1970.
    #[must_use]
    pub fn waiting_since(self, time: i128) -> Self {
        let seconds = ((i128::from(self.key.0) - time).max(0) + SECOND - 1) / SECOND;
        Self { lag: u16::try_from(seconds).unwrap_or(u16::MAX), ..self }
    }

    /// A time of the server's clock before which the file did not wait, in nanoseconds since 1970; zero if that is not known.
    pub fn waits_since(&self) -> i128 {
        if self.lag == u16::MAX { 0 } else { i128::from(self.key.0) - i128::from(self.lag) * SECOND }
    }

    /// Reads what [`fmt::Display`] wrote, and nothing else.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let digits = text.strip_prefix(VERSION.as_bytes())?;
        if text.len() != Self::LENGTH {
            return None;
        }
        let (key, rest) = digits.split_at(KEY_DIGITS as usize);
        let (process, tail) = rest.split_at(PROCESS_DIGITS as usize);
        let key = OrderKey(u64::try_from(base32::decode(key)?).ok()?);
        Some(Self::with_tail(key, ProcessId::parse(process)?, u64::try_from(base32::decode(tail)?).ok()?))
    }
}

impl fmt::Display for ClaimId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{VERSION}{}{}{}",
            base32::encode(self.key.0.into(), KEY_DIGITS),
            self.process,
            base32::encode(self.tail().into(), TAIL_DIGITS)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Identity = Identity { inode: 1, size: 2, mtime: 3, ctime: 4 };

    #[test]
    fn claim_ids_are_read_back_and_have_one_length() {
        for (key, process, random) in [(0, 0, 0), (u64::MAX, u64::MAX, u64::MAX), (1_763_712_000_123_456_789, 77, 5)] {
            let id = ClaimId::new(OrderKey(key), ProcessId::new(process), random);
            assert_eq!(id.to_string().len(), ClaimId::LENGTH);
            assert_eq!(ClaimId::parse(id.to_string().as_bytes()), Some(id));
        }
    }

    #[test]
    fn claim_id_says_since_when_its_file_waits_and_never_too_late() {
        let key = 1_763_712_000_123_456_789_i128;
        for (since, expected) in [
            (key, key),
            (key + 5, key),
            (key - 1, key - SECOND),
            (key - 90 * SECOND, key - 90 * SECOND),
            (key - 65_535 * SECOND, 0),
            (0, 0),
        ] {
            let id = ClaimId::new(OrderKey::at(key), ProcessId::new(1), u64::MAX).waiting_since(since);
            assert_eq!(ClaimId::parse(id.to_string().as_bytes()).unwrap().waits_since(), expected, "{since}");
            assert_eq!(id.to_string().len(), ClaimId::LENGTH);
        }
    }

    #[test]
    fn claim_id_tells_the_file_it_was_made_for_whatever_is_written_to_it() {
        let id = ClaimId::new(OrderKey(1), ProcessId::new(2), 3).made_for(&FILE).waiting_since(-9 * SECOND);
        let id = ClaimId::parse(id.to_string().as_bytes()).unwrap();
        assert!(id.is_of(&FILE) && id.is_of(&Identity { size: 9, mtime: 9, ctime: 9, ..FILE }));
        assert!((2..100).all(|inode| !id.is_of(&Identity { inode, ..FILE })));
    }

    #[test]
    fn claim_id_of_version_one_never_changes() {
        let id = ClaimId::new(OrderKey(31), ProcessId::new(2), 3).made_for(&FILE).waiting_since(0);
        assert_eq!(id.to_string(), "b1000000000000v00000002000lakg3");
    }

    #[test]
    fn claim_ids_sort_as_text_by_their_order_key() {
        let text = |key| ClaimId::new(OrderKey(key), ProcessId::new(u64::MAX), 9).to_string();
        assert!(text(31) < text(32) && text(32) < text(1 << 40) && text(1 << 40) < text(u64::MAX));
    }

    #[test]
    fn what_is_no_claim_id_is_refused() {
        let good = ClaimId::new(OrderKey(1), ProcessId::new(2), 3).to_string();
        for bad in
            [&good[1..], &good[..30], &format!("{good}0"), &good.replace("b1", "b2"), &good.replace('0', "w"), &good.to_uppercase()]
        {
            assert_eq!(ClaimId::parse(bad.as_bytes()), None, "{bad}");
        }
        // Thirteen digits hold 65 bits; a key has 64.
        assert_eq!(ClaimId::parse(good.replacen("b10", "b1v", 1).as_bytes()), None);
    }
}
