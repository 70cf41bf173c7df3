//! Whether a copy is kept on a local disk during the upload.

use blobferry_crds::StagingMode;

use super::value;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct StagingArguments {
    /// Disk keeps a copy of a file on the local disk while it is uploaded, so that a retry does not read the share again; None reads from the share only
    #[arg(long, env = "APP_STAGING_MODE", value_name = "MODE", default_value = "Disk", value_parser = mode)]
    staging_mode: StagingMode,

    /// Most bytes of all copies together; a file that does not fit is not copied
    #[arg(long, env = "APP_STAGING_SIZE_LIMIT", value_name = "SIZE", default_value = "100Gi", value_parser = |text: &str| value::size(text, "0", "100Ti"))]
    staging_size_limit: u64,
}

/// Whether a copy is kept on a local disk during the upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StagingSettings {
    /// Whether files are staged.
    pub mode: StagingMode,
    /// Most bytes on the stage.
    pub size_limit: u64,
}

impl StagingArguments {
    pub(super) fn check(self) -> StagingSettings {
        StagingSettings { mode: self.staging_mode, size_limit: self.staging_size_limit }
    }
}

fn mode(text: &str) -> Result<StagingMode, String> {
    value::word(text, &[("Disk", StagingMode::Disk), ("None", StagingMode::None)])
}
