//! How an uploader is told what to do: every setting is a flag and a variable (DESIGN section 8), parsed and checked once.
//!
//! One file per concern: the raw arguments as clap reads them, and the settings that the rest of the program sees. What reaches
//! the settings is valid; every message says what to write instead, and none of them holds a credential.

mod blob_properties;
mod destination;
mod folders;
mod report;
mod retention;
mod session;
mod staging;
mod transfer;
mod value;
mod watch;

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches, Parser, error::ErrorKind};
use jiff::{Timestamp, tz::TimeZone};
use uuid::Uuid;

pub use destination::{Credentials, DestinationSettings, Secret};
pub use folders::FolderSettings;
pub(crate) use report::TERMINATION_LOG;
pub use report::{Listen, ReportSettings, SessionObject};
pub use retention::RetentionSettings;
pub use session::{Mode, SessionSettings};
pub use staging::StagingSettings;
pub use transfer::TransferSettings;
pub use watch::WatchSettings;

const ABOUT: &str = "Ferries the files of one session from a folder, usually an NFS share, to a container of Azure Blob Storage.";

const AFTER_HELP: &str = "\
Files that appear in NFS_INCOMING_DIR/SESSION_NAME are uploaded as [AZURE_PREFIX/]DATE_PREFIX/SESSION_NAME/FILE.

Sizes are bytes or have a suffix, like 4Mi. A flag wins over its variable.
Credentials belong into variables or a mounted Secret: other users of the machine see a program's flags.
With none given, those of the environment are tried: service principal, workload identity, managed identity, Azure CLI.

Logs follow RUST_LOG. Traces, metrics and logs go to OTEL_EXPORTER_OTLP_ENDPOINT when it is set.";

/// The arguments as they are written.
#[derive(Clone, Debug, Parser)]
#[command(name = "blobferry-uploader", version, about = ABOUT, after_help = AFTER_HELP, next_line_help = true)]
struct Arguments {
    #[command(flatten, next_help_heading = "Session")]
    session: session::SessionArguments,
    #[command(flatten, next_help_heading = "Destination")]
    destination: destination::DestinationArguments,
    #[command(flatten, next_help_heading = "Folders")]
    folders: folders::FolderArguments,
    #[command(flatten, next_help_heading = "Which files, and when")]
    watch: watch::WatchArguments,
    #[command(flatten, next_help_heading = "Transfer")]
    transfer: transfer::TransferArguments,
    #[command(flatten, next_help_heading = "Staging")]
    staging: staging::StagingArguments,
    #[command(flatten, next_help_heading = "Uploaded files")]
    retention: retention::RetentionArguments,
    #[command(flatten, next_help_heading = "Kubernetes and health")]
    report: report::ReportArguments,
}

/// What an uploader is to do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whose files.
    pub session: SessionSettings,
    /// Where they go.
    pub destination: DestinationSettings,
    /// Where they are.
    pub folders: FolderSettings,
    /// Which of them are taken, and when.
    pub watch: WatchSettings,
    /// How they are sent.
    pub transfer: TransferSettings,
    /// Whether a copy is kept meanwhile.
    pub staging: StagingSettings,
    /// What happens to them afterwards.
    pub retention: RetentionSettings,
    /// Who is told.
    pub report: ReportSettings,
}

/// What is used where nothing is written.
#[derive(Clone, Copy, Debug)]
pub struct Fallbacks {
    /// The time from which today's date is taken.
    pub now: Timestamp,
    /// UID of a session that has no object.
    pub session_uid: Uuid,
    /// UID of a run that is in no pod.
    pub pod_uid: Uuid,
}

impl Fallbacks {
    /// Now, and random UIDs.
    pub fn fresh() -> Self {
        Self { now: Timestamp::now(), session_uid: Uuid::new_v4(), pod_uid: Uuid::new_v4() }
    }

    fn date(&self) -> String {
        self.now.to_zoned(TimeZone::UTC).strftime("%Y%m%d").to_string()
    }
}

impl Settings {
    /// Reads the program's arguments, the first of which is its name, and the process's environment.
    ///
    /// The error is also what `--help` and `--version` give; [`crate::exit::refuse`] knows what to do with it.
    pub fn read<I, T>(arguments: I, fallbacks: &Fallbacks) -> Result<Self, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<OsString> + Clone,
    {
        let mut command = Arguments::command();
        let matches = command.try_get_matches_from_mut(arguments)?;
        let arguments = Arguments::from_arg_matches(&matches)?;
        arguments.check(fallbacks).map_err(|problem| command.error(ErrorKind::ValueValidation, problem))
    }
}

impl Arguments {
    fn check(self, fallbacks: &Fallbacks) -> Result<Settings, String> {
        let report = self.report.check(self.session.uid.as_deref(), fallbacks)?;
        Ok(Settings {
            session: self.session.check(fallbacks),
            destination: self.destination.check()?,
            folders: self.folders.check()?,
            watch: self.watch.check(),
            transfer: self.transfer.check()?,
            staging: self.staging.check(),
            retention: self.retention.check(),
            report,
        })
    }
}

#[cfg(test)]
mod tests;
