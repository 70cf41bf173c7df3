//! Files with contents that can be made again, and their delivery to a folder as a producer does it.

use std::{
    fmt::{self, Write as _},
    fs::{self, File},
    io::Write as _,
    os::unix::fs::chown,
    path::Path,
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// User and group of uploaders, and the owner of the documented export.
pub const OWNER: u32 = 65534;

const CHUNK: usize = 1 << 20;

/// Size and SHA-256 of some bytes: equal means the same bytes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Number of bytes.
    pub size: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

impl Fingerprint {
    pub(crate) fn new(size: u64, hash: Sha256) -> Self {
        let mut sha256 = String::with_capacity(64);
        for byte in hash.finalize() {
            write!(sha256, "{byte:02x}").expect("a String takes everything");
        }
        Self { size, sha256 }
    }

    /// Of bytes in memory.
    pub fn of(bytes: &[u8]) -> Self {
        Self::new(bytes.len() as u64, Sha256::new_with_prefix(bytes))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} bytes, sha256 {:.12}", self.size, self.sha256)
    }
}

/// Bytes that look random and are the same for the same seed.
#[derive(Clone, Copy, Debug)]
pub struct Contents {
    /// What distinguishes files of one size.
    pub seed: u64,
    /// Number of bytes.
    pub size: u64,
}

impl Contents {
    /// Writes all of them, and says what they are.
    pub(crate) fn write_to(self, mut target: impl std::io::Write) -> Result<Fingerprint> {
        let mut generator = SplitMix(self.seed ^ self.size.rotate_left(32));
        let (mut hash, mut chunk) = (Sha256::new(), vec![0; CHUNK]);
        let mut left = self.size;
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK);
            generator.fill(&mut chunk);
            target.write_all(&chunk[..length])?;
            hash.update(&chunk[..length]);
            left -= length as u64;
        }
        Ok(Fingerprint::new(self.size, hash))
    }
}

/// A file that was put into a folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Delivery {
    /// Name inside the folder.
    pub name: String,
    /// The bytes it had when its producer closed it.
    pub fingerprint: Fingerprint,
}

/// Writes a file in place, slowly or not, as most producers do; it belongs to [`OWNER`].
///
/// # Errors
///
/// When the file system refuses.
pub fn deliver(folder: &Path, name: &str, contents: Contents) -> Result<Delivery> {
    let path = folder.join(name);
    let write = || -> Result<Fingerprint> {
        let mut file = File::create(&path)?;
        chown(&path, Some(OWNER), Some(OWNER))?;
        let fingerprint = contents.write_to(&mut file)?;
        file.flush()?;
        Ok(fingerprint)
    };
    let fingerprint = write().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Delivery { name: name.into(), fingerprint })
}

/// Makes a folder and those above it that are missing, owned by [`OWNER`].
///
/// # Errors
///
/// When the file system refuses.
pub fn make_folder(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_folder(parent)?;
    }
    let make = || fs::create_dir(path).and_then(|()| chown(path, Some(OWNER), Some(OWNER)));
    make().with_context(|| format!("cannot make folder {}", path.display()))
}

/// <https://prng.di.unimi.it/splitmix64.c>: small, and fast also without optimisation.
struct SplitMix(u64);

impl SplitMix {
    fn fill(&mut self, bytes: &mut [u8]) {
        for word in bytes.chunks_exact_mut(8) {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut next = self.0;
            next = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            next = (next ^ (next >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word.copy_from_slice(&(next ^ (next >> 31)).to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(seed: u64, size: u64) -> (Vec<u8>, Fingerprint) {
        let mut bytes = Vec::new();
        let fingerprint = Contents { seed, size }.write_to(&mut bytes).unwrap();
        (bytes, fingerprint)
    }

    #[test]
    fn contents_have_the_size_asked_for_and_the_fingerprint_returned() {
        for size in [0, 1, 4096, CHUNK as u64 + 1] {
            let (bytes, fingerprint) = bytes(7, size);
            assert_eq!(bytes.len() as u64, size);
            assert_eq!(fingerprint, Fingerprint::of(&bytes));
        }
    }

    #[test]
    fn contents_are_the_same_for_the_same_seed_only() {
        assert_eq!(bytes(1, 100), bytes(1, 100));
        assert_ne!(bytes(1, 100), bytes(2, 100));
    }
}
