//! Whether what a session says and does is true: its files, its blobs and the log of the storage emulator are held against each other.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use blobferry_crds::{Progress, UploadSession, UploadSessionStatus};
use jiff::Timestamp;

use super::{Stage, blob_folder};
use crate::{Delivery, commits::commits};

/// Whether a file's bytes are only on the share, by its name.
type IsOnlyThere = fn(&Path) -> bool;

impl Stage {
    /// What a session says of its files that is not true.
    pub(super) fn lies(&self, session: &UploadSession) -> Result<Vec<String>> {
        let Some(status) = &session.status else { return Ok(Vec::new()) };
        let Some(progress) = &status.progress else { return Ok(Vec::new()) };
        let mut lies = contradictions(progress);
        if let Some(safe) = &progress.safe_through {
            lies.extend(self.waiting_since_before(status, safe.0)?);
        }
        let scan = status.activity.as_ref().and_then(|activity| activity.last_scan_time.as_ref());
        if let Some(scan) = scan.filter(|_| progress.caught_up) {
            lies.extend(self.waiting_since_before(status, scan.0)?);
        }
        Ok(lies)
    }

    /// Files that are only on the share and came before this time, as of which the status says that they are uploaded.
    fn waiting_since_before(&self, status: &UploadSessionStatus, safe: Timestamp) -> Result<Vec<String>> {
        let (Some(name), Some(date)) = (&status.session_name, &status.date_prefix) else { return Ok(Vec::new()) };
        let mut lies = Vec::new();
        let folders: [(PathBuf, IsOnlyThere); 2] = [
            (self.share.join("incoming").join(name), is_taken),
            (self.share.join(".processing").join(date).join(name), is_claimed),
        ];
        for (folder, is_only_there) in folders {
            let Ok(entries) = fs::read_dir(folder) else { continue };
            for entry in entries {
                let path = entry?.path();
                // One that is renamed meanwhile is not under this name any more.
                let Ok(metadata) = path.symlink_metadata() else { continue };
                let ctime = Timestamp::new(metadata.ctime(), i32::try_from(metadata.ctime_nsec())?)?;
                // The status has microseconds.
                if metadata.is_file() && is_only_there(&path) && ctime + Duration::from_micros(1) < safe {
                    lies.push(format!("{} is there since {ctime}, before {safe}", path.display()));
                }
            }
        }
        Ok(lies)
    }

    /// Compares what a session put into the container with what was delivered to it: the same names, the same bytes, nothing else.
    ///
    /// # Errors
    ///
    /// When they differ; the error names each difference.
    pub async fn compare(&self, session: &str, deliveries: &[Delivery]) -> Result<()> {
        let folder = blob_folder(&self.sessions().get(session).await?)?;
        let differences = self.blobs.differences(&folder, deliveries).await?;
        ensure!(differences.is_empty(), "blobs of session {session} differ from its files:\n{}", differences.join("\n"));
        Ok(())
    }

    /// Holds the log of the storage emulator against what was delivered to a session: each blob was committed once, whoever tried. The
    /// one commit may be of an uploader that was gone before the answer.
    ///
    /// # Errors
    ///
    /// When one was not.
    pub async fn ensure_each_committed_once(&self, session: &str, deliveries: &[Delivery]) -> Result<()> {
        self.ensure_each_committed_once_below(&blob_folder(&self.sessions().get(session).await?)?, deliveries)
    }

    /// The same of a session that may be gone, by the folder of its blobs.
    ///
    /// # Errors
    ///
    /// When one was not.
    pub fn ensure_each_committed_once_below(&self, folder: &str, deliveries: &[Delivery]) -> Result<()> {
        let log = fs::read_to_string(self.bed.folder.join("log/azurite.log")).context("the emulator has no log")?;
        let commits = commits(&log, self.blobs.container());
        for Delivery { name, .. } in deliveries {
            let found = commits.get(&format!("{folder}{name}")).copied().unwrap_or_default();
            ensure!(found.succeeded <= 1 && found.succeeded + found.unanswered >= 1, "{name} was committed otherwise: {found:?}");
        }
        Ok(())
    }
}

/// What cannot be true of one session at a time.
fn contradictions(progress: &Progress) -> Vec<String> {
    let lasting = progress.files_uploaded + progress.files_failed + progress.files_superseded + progress.files_withdrawn;
    let unfinished = progress.files_waiting + progress.files_active + progress.files_retrying;
    let seen = lasting + unfinished + progress.files_ignored;
    let held: Vec<_> = progress.held_back.iter().filter(|file| file.reason != "Ignored").collect();
    let set_aside = held.iter().filter(|file| file.reason == "SetAside").count() as u64;
    let mut found = Vec::new();
    if progress.files_seen != seen {
        found.push(format!("{} files were seen, and {seen} are accounted for", progress.files_seen));
    }
    if progress.caught_up && (unfinished + progress.files_failed > 0 || !held.is_empty()) {
        found.push(format!("it is caught up, with {unfinished} unfinished files and {held:?}"));
    }
    if set_aside > progress.files_failed {
        found.push(format!("{} files are set aside, and {set_aside} are shown", progress.files_failed));
    }
    found
}

/// Whether sessions take files of this name by default.
fn is_taken(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    !name.starts_with(b".") && ![&b".tmp"[..], b".part", b".partial", b"~"].iter().any(|end| name.ends_with(end))
}

/// Whether this is a file that was claimed and is not uploaded: `<name>.b1<the rest of the claim's id>`, set aside or not.
fn is_claimed(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let id = name.strip_suffix(".failed").unwrap_or(&name).rsplit('.').next().unwrap_or_default();
    id.starts_with("b1") && id.len() > 24
}
