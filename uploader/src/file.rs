//! A file that is ours: what is known of it between two attempts to upload it.

use std::{path::PathBuf, time::Duration};

use tokio::time::Instant;

use crate::{
    formats::{BlobName, ProcessingName},
    scan::StableFile,
    share::{Identity, join},
    transfer::Sent,
};

/// How long a claimed file has been observed in one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quiet {
    /// The state.
    pub identity: Identity,
    /// Since when, on our own clock; `None` if its quiet period was over before the claim.
    pub since: Option<Instant>,
}

/// A claimed file.
#[derive(Debug)]
pub struct ClaimedFile {
    /// The folder it is in: `.processing/DATE/SESSION`.
    pub folder: PathBuf,
    /// Its name there.
    pub name: ProcessingName,
    /// The blob that it becomes.
    pub blob: BlobName,
    /// Bytes, as far as known.
    pub size: u64,
    /// Since when it waits (server clock), in nanoseconds since 1970.
    pub since: i128,
    /// The state in which it was sampled before this process claimed it; `None` for an adopted file.
    pub sample: Option<Identity>,
    /// What was observed since; `None` before the first look.
    pub quiet: Option<Quiet>,
    /// What the first look at it showed.
    pub first: Option<Identity>,
    /// What earlier attempts of this process sent.
    pub sent: Option<Sent>,
    /// Attempts of this process, the one under way included.
    pub attempts: u32,
    /// Attempts that ended because something moved meanwhile.
    pub looks_again: u32,
    /// Failures in a row.
    pub failures: u32,
    /// Failures of the file's own.
    pub own_failures: u32,
    /// True if the file that was sampled was gone after the rename: this is another one.
    pub was_replaced: bool,
}

impl ClaimedFile {
    /// A claim found on the share, of which nothing is known but its name.
    pub fn adopted(folder: PathBuf, name: ProcessingName, blob: BlobName) -> Self {
        let since = name.claim.waits_since();
        Self {
            folder,
            name,
            blob,
            size: 0,
            since,
            sample: None,
            quiet: None,
            first: None,
            sent: None,
            attempts: 0,
            looks_again: 0,
            failures: 0,
            own_failures: 0,
            was_replaced: false,
        }
    }

    /// A file that this process has just claimed in its stable state.
    pub fn claimed(folder: PathBuf, name: ProcessingName, blob: BlobName, stable: &StableFile) -> Self {
        let StableFile { sample, since, .. } = *stable;
        Self { size: sample.size, since, sample: Some(sample), ..Self::adopted(folder, name, blob) }
    }

    /// True in the first attempt after a claim by this process: the service cannot have anything of it.
    pub fn is_fresh(&self) -> bool {
        self.sample.is_some() && self.attempts <= 1
    }

    /// True if the file with this identity is not the one that it was claimed as: a later one took the name before the rename. Who made
    /// the claim has its sample, others have the claim's fingerprint.
    pub fn is_caught(&self, identity: &Identity) -> bool {
        self.was_replaced || self.sample.map_or_else(|| !self.name.claim.is_of(identity), |sample| sample.inode != identity.inode)
    }

    /// The least ctime that this content of it was seen with: a change of its mode alone says nothing of when it came.
    pub fn ctime_of(&self, identity: &Identity) -> i128 {
        self.first.filter(|first| first.same_content(identity)).map_or(identity.ctime, |first| first.ctime.min(identity.ctime))
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        join(&self.folder, &self.name.to_bytes())
    }

    /// The producer's name with its folders: where it was in the incoming folder.
    pub fn producer(&self) -> &str {
        self.blob.file()
    }

    /// The producer's name for people.
    pub fn display_name(&self) -> String {
        self.producer().to_owned()
    }

    /// Takes what a look by name found of a file that may not be readable.
    pub fn seen(&mut self, identity: Identity) {
        self.first.get_or_insert(identity);
    }

    /// Takes what a look found. The sample before the claim counts as observed quiet if nothing but the ctime differs, which the claim's
    /// own rename changes.
    pub fn observe(&mut self, identity: Identity, now: Instant) {
        self.size = identity.size;
        let since = match (&self.quiet, &self.sample) {
            (Some(quiet), _) if quiet.identity == identity => return,
            (None, Some(sample)) if sample.same_content(&identity) => None,
            _ => Some(now),
        };
        self.quiet = Some(Quiet { identity, since });
    }

    /// Takes a change of the ctime alone whose content was compared with what was sent.
    pub fn accept_attributes(&mut self, identity: Identity) {
        if let Some(quiet) = &mut self.quiet {
            quiet.identity = identity;
        }
        if let Some(sent) = &mut self.sent {
            sent.accept_attributes(identity);
        }
    }

    /// When the quiet period of `minimum` is over; `None` if it is.
    pub fn quiet_at(&self, minimum: Duration, now: Instant) -> Option<Instant> {
        let at = self.quiet.map_or(Some(now), |quiet| quiet.since)? + minimum;
        (at > now).then_some(at)
    }
}

impl Identity {
    /// True if nothing differs but the ctime.
    pub fn same_content(&self, other: &Self) -> bool {
        Self { ctime: other.ctime, ..*self } == *other
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::{ClaimId, OrderKey, ProcessId, blob_name};

    const QUIET: Duration = Duration::from_secs(5);

    fn file(sample: Option<Identity>) -> ClaimedFile {
        let name = ProcessingName::claimed(b"a", ClaimId::new(OrderKey(1), ProcessId::new(1), 1));
        let blob = blob_name("", "20261121", "s", b"a").unwrap();
        match sample {
            Some(sample) => {
                let stable = StableFile { name: b"a".as_slice().into(), sample, since: sample.ctime };
                ClaimedFile::claimed("/p".into(), name, blob, &stable)
            }
            None => ClaimedFile::adopted("/p".into(), name, blob),
        }
    }

    fn identity() -> Identity {
        Identity { inode: 1, size: 2, mtime: 3, ctime: 4 }
    }

    #[test]
    fn file_that_was_seen_before_its_mode_changed_has_the_ctime_of_before() {
        let mut file = file(None);
        assert_eq!(file.ctime_of(&identity()), 4);
        file.seen(identity());
        let later = Identity { ctime: 9, ..identity() };
        file.seen(later);
        assert_eq!(file.ctime_of(&later), 4);
        assert_eq!(file.ctime_of(&Identity { mtime: 8, ..later }), 9, "another content came later");
    }

    #[tokio::test(start_paused = true)]
    async fn file_that_is_the_sampled_one_needs_no_further_quiet() {
        let mut file = file(Some(identity()));
        file.observe(Identity { ctime: 9, ..identity() }, Instant::now());
        assert_eq!(file.quiet_at(QUIET, Instant::now()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn file_that_is_not_the_sampled_one_and_an_adopted_file_must_become_quiet() {
        let now = Instant::now();
        for mut file in [file(Some(Identity { size: 1, ..identity() })), file(None)] {
            file.observe(identity(), now);
            assert_eq!(file.quiet_at(QUIET, now), Some(now + QUIET));
            file.observe(identity(), now + QUIET);
            assert_eq!(file.quiet_at(QUIET, now + QUIET), None);
            file.observe(Identity { mtime: 9, ..identity() }, now + QUIET);
            assert_eq!(file.quiet_at(QUIET, now + QUIET), Some(now + QUIET * 2));
        }
    }
}
