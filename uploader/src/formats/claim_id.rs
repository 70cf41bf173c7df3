//! What a claim appends to a file's name.

use std::fmt;

use super::base32;

const VERSION: &str = "b1";
const KEY_DIGITS: u32 = 13;
const PROCESS_DIGITS: u32 = 8;
const RANDOM_DIGITS: u32 = 8;

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

/// The name of one claim: version, order key, process id and forty random bits, in 31 characters of `[0-9a-v]`.
///
/// Claim ids of one name sort as text in the order of their generations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimId {
    /// The generation's place among those of its name.
    pub key: OrderKey,
    /// The process that claimed.
    pub process: ProcessId,
    random: u64,
}

impl ClaimId {
    /// Characters of a claim id.
    pub const LENGTH: usize = VERSION.len() + (KEY_DIGITS + PROCESS_DIGITS + RANDOM_DIGITS) as usize;

    /// The claim id with the low forty bits of `random`.
    pub fn new(key: OrderKey, process: ProcessId, random: u64) -> Self {
        Self { key, process, random: random & ((1 << 40) - 1) }
    }

    /// Reads what [`fmt::Display`] wrote, and nothing else.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let digits = text.strip_prefix(VERSION.as_bytes())?;
        if text.len() != Self::LENGTH {
            return None;
        }
        let (key, rest) = digits.split_at(KEY_DIGITS as usize);
        let (process, random) = rest.split_at(PROCESS_DIGITS as usize);
        Some(Self {
            key: OrderKey(u64::try_from(base32::decode(key)?).ok()?),
            process: ProcessId::parse(process)?,
            random: u64::try_from(base32::decode(random)?).ok()?,
        })
    }
}

impl fmt::Display for ClaimId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{VERSION}{}{}{}",
            base32::encode(self.key.0.into(), KEY_DIGITS),
            self.process,
            base32::encode(self.random.into(), RANDOM_DIGITS)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claim_ids_are_read_back_and_have_one_length() {
        for (key, process, random) in [(0, 0, 0), (u64::MAX, u64::MAX, u64::MAX), (1_763_712_000_123_456_789, 77, 5)] {
            let id = ClaimId::new(OrderKey(key), ProcessId::new(process), random);
            assert_eq!(id.to_string().len(), ClaimId::LENGTH);
            assert_eq!(ClaimId::parse(id.to_string().as_bytes()), Some(id));
        }
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
