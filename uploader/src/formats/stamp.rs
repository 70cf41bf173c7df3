//! The stamp of a completed file: what it was when it was proven to be in its blob.

use std::fmt;

use sha2::{Digest, Sha256};

use super::{ClaimId, base32};
use crate::share::Identity;

const DIGITS: u32 = 16;

/// Eighty bits of SHA-256 over claim id, inode, size and mtime, in 16 characters of `[0-9a-v]`.
///
/// The ctime is left out because the rename that writes the stamp changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp(u128);

impl Stamp {
    /// Characters of a stamp.
    pub const LENGTH: usize = DIGITS as usize;

    /// The stamp of a claimed file in a given state.
    pub fn new(claim: &ClaimId, identity: &Identity) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"blobferry stamp 1\0");
        hash.update(claim.to_string());
        hash.update(identity.inode.to_be_bytes());
        hash.update(identity.size.to_be_bytes());
        hash.update(identity.mtime.to_be_bytes());
        let bits = hash.finalize()[..10].iter().fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
        Self(bits)
    }

    /// Reads what [`fmt::Display`] wrote.
    pub fn parse(text: &[u8]) -> Option<Self> {
        (text.len() == Self::LENGTH).then(|| base32::decode(text)).flatten().map(Self)
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base32::encode(self.0, DIGITS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::{OrderKey, ProcessId};

    #[test]
    fn stamp_is_read_back_and_changes_with_the_file_but_not_with_its_ctime() {
        let claim = ClaimId::new(OrderKey(1), ProcessId::new(2), 3);
        let identity = Identity { inode: 1, size: 2, mtime: 3, ctime: 4 };
        let stamp = Stamp::new(&claim, &identity);
        assert_eq!(stamp.to_string().len(), Stamp::LENGTH);
        assert_eq!(Stamp::parse(stamp.to_string().as_bytes()), Some(stamp));
        assert_eq!(stamp, Stamp::new(&claim, &Identity { ctime: 9, ..identity }));
        for changed in [Identity { inode: 9, ..identity }, Identity { size: 9, ..identity }, Identity { mtime: 9, ..identity }] {
            assert_ne!(stamp, Stamp::new(&claim, &changed));
        }
    }
}
