//! Contents that can be made again from a number, any part by itself. (pure)

use sha2::{Digest as _, Sha256};

/// Size and SHA-256 of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Fingerprint {
    pub(crate) size: u64,
    pub(crate) sha256: [u8; 32],
}

impl Fingerprint {
    /// Of bytes in memory.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self { size: bytes.len() as u64, sha256: Sha256::digest(bytes).into() }
    }
}

/// The first `size` bytes of content number `id`.
pub(crate) fn contents(id: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    fill(id, 0, &mut bytes);
    bytes
}

/// Fills `bytes` with what content number `id` has from `offset` on, which is a multiple of eight.
pub(crate) fn fill(id: u64, offset: u64, bytes: &mut [u8]) {
    let first = offset / 8;
    for (index, word) in (first..).zip(bytes.chunks_mut(8)) {
        word.copy_from_slice(&mix(id, index).to_le_bytes()[..word.len()]);
    }
}

/// `SplitMix64` at a place of its own for each number.
fn mix(id: u64, index: u64) -> u64 {
    let mut word = id.wrapping_mul(0xd1b5_4a32_d192_ed03).wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_of_a_content_is_the_same_as_in_the_whole() {
        let whole = contents(7, 1000);
        let mut part = vec![0; 100];
        fill(7, 800, &mut part);
        assert_eq!(part, whole[800..900]);
        assert_eq!(contents(7, 500), whole[..500]);
        assert_ne!(contents(8, 1000), whole);
    }
}
