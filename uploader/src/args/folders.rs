//! Where the files are.

use std::path::{Component, Path, PathBuf, absolute};

#[derive(Clone, Debug, clap::Args)]
pub(super) struct FolderArguments {
    /// Where producers put files, each session in a folder of its own below it
    #[arg(long, env = "APP_NFS_INCOMING_DIR", value_name = "FOLDER", default_value = "/mnt/nfs/incoming")]
    nfs_incoming_dir: PathBuf,

    /// Where files are while they are uploaded and until they are deleted; on the same file system
    #[arg(long, env = "APP_NFS_PROCESSING_ROOT", value_name = "FOLDER", default_value = "/mnt/nfs/.processing")]
    nfs_processing_root: PathBuf,

    /// Where copies are kept during the upload, on a local disk
    #[arg(long, env = "APP_LOCAL_STAGING_ROOT", value_name = "FOLDER", default_value = "/mnt/staging")]
    local_staging_root: PathBuf,
}

/// Where the files are. All paths are absolute and none is inside another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderSettings {
    /// Where producers put files; the session's folder is below it.
    pub incoming_root: PathBuf,
    /// Where claimed files are.
    pub processing_root: PathBuf,
    /// Where staged copies are.
    pub staging_root: PathBuf,
}

impl FolderArguments {
    pub(super) fn check(self) -> Result<FolderSettings, String> {
        let incoming = ("--nfs-incoming-dir", plain("--nfs-incoming-dir", &self.nfs_incoming_dir)?);
        let processing = ("--nfs-processing-root", plain("--nfs-processing-root", &self.nfs_processing_root)?);
        let staging = ("--local-staging-root", plain("--local-staging-root", &self.local_staging_root)?);
        apart(&incoming, &processing)?;
        apart(&incoming, &staging)?;
        apart(&processing, &staging)?;
        Ok(FolderSettings { incoming_root: incoming.1, processing_root: processing.1, staging_root: staging.1 })
    }
}

fn plain(flag: &str, path: &Path) -> Result<PathBuf, String> {
    if path.components().any(|component| component == Component::ParentDir) {
        return Err(format!("{flag}: write the path without .., like {}", "/mnt/nfs/incoming"));
    }
    absolute(path).map_err(|_| format!("{flag}: write the path of a folder, like /mnt/nfs/incoming"))
}

/// Refuses a folder inside another: the uploader would find its own files there.
fn apart((one_flag, one): &(&str, PathBuf), (other_flag, other): &(&str, PathBuf)) -> Result<(), String> {
    if one.starts_with(other) || other.starts_with(one) {
        return Err(format!(
            "{one_flag} and {other_flag} contain each other ({} and {}): choose folders side by side, like incoming and .processing",
            one.display(),
            other.display()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(incoming: &str, processing: &str, staging: &str) -> Result<FolderSettings, String> {
        FolderArguments {
            nfs_incoming_dir: incoming.into(),
            nfs_processing_root: processing.into(),
            local_staging_root: staging.into(),
        }
        .check()
    }

    #[test]
    fn relative_folders_become_absolute() {
        let folders = check("in", ".processing", "stage").unwrap();
        assert!(folders.incoming_root.is_absolute() && folders.incoming_root.ends_with("in"));
    }

    #[test]
    fn folders_inside_each_other_are_refused_and_similar_names_are_not() {
        assert!(check("/s/in", "/s/in/.processing", "/stage").unwrap_err().contains("--nfs-processing-root contain each other"));
        assert!(check("/s/in", "/s/.processing", "/s/in/").unwrap_err().contains("--local-staging-root"));
        assert!(check("/s/.p/in", "/s/.p", "/stage").is_err());
        assert!(check("/s/in", "/s/in.processing", "/stage").is_ok());
    }

    #[test]
    fn a_way_up_is_refused_because_it_cannot_be_compared() {
        assert!(check("/s/x/../in", "/s/.processing", "/stage").unwrap_err().contains("without .."));
        assert!(check("", "/s/.processing", "/stage").is_err());
    }
}
