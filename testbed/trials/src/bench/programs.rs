//! The programs that are compared, and how each is told what to do.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use blobferry_blob_server::{ACCOUNT, BlobServer, KEY};

use super::ceiling;
use crate::{
    CONTAINER, DATE,
    uploader::{Process, Usage, tail, variables},
};

const SESSION: &str = "bench";
const PATIENCE: Duration = Duration::from_mins(10);

/// Something that uploads a folder.
#[derive(Clone, Debug)]
pub(crate) enum Program {
    /// Threads of this program that read, checksum and send, and nothing else.
    Ceiling,
    /// The uploader, with its staging mode.
    Uploader(PathBuf, &'static str),
    /// rclone with its defaults.
    Rclone(PathBuf),
    /// `AzCopy` with its defaults, without checksums.
    AzCopy(PathBuf),
}

impl Program {
    /// For the table.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Ceiling => "ceiling".to_owned(),
            Self::Uploader(_, staging) => format!("blobferry, {staging}"),
            Self::Rclone(_) => "rclone".to_owned(),
            Self::AzCopy(_) => "AzCopy".to_owned(),
        }
    }

    /// Where it takes its files from.
    pub(super) fn source(place: &Path) -> PathBuf {
        place.join("incoming").join(SESSION)
    }

    /// Uploads everything; `is_done` says when all blobs are there.
    pub(super) fn upload(&self, place: &Path, server: &BlobServer, is_done: impl Fn() -> bool) -> Result<Usage> {
        let log = place.join("log");
        let source = Self::source(place);
        match self {
            Self::Ceiling => return ceiling::upload(&source, server.address()),
            Self::Uploader(program, staging) => {
                for folder in [".processing", "staging"] {
                    std::fs::create_dir_all(place.join(folder))?;
                }
                let variables = variables(place, SESSION, &server.account_url(), &[("APP_STAGING_MODE", staging)]);
                let process = Process::start(program, &[], &variables, &log)?;
                return until_done(&process, &log, is_done);
            }
            Self::Rclone(_) | Self::AzCopy(_) => {}
        }
        let (program, arguments, variables) = self.command(place, &source, server);
        let mut process = Process::start(&program, &arguments, &variables, &log)?;
        let (start, mut usage) = (Instant::now(), Usage::default());
        // The last measure before its end.
        let status = loop {
            usage = process.usage().unwrap_or(usage);
            if let Some(status) = process.ended()? {
                break status;
            }
            ensure!(start.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        ensure!(status.success() && is_done(), "it failed: {}", tail(&log, 20));
        Ok(usage)
    }

    fn command(&self, place: &Path, source: &Path, server: &BlobServer) -> (PathBuf, Vec<OsString>, Vec<(String, String)>) {
        let url = server.account_url();
        let home = place.display().to_string();
        let text = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let source = source.display().to_string();
        match self {
            Self::AzCopy(program) => {
                let target = format!("{url}/{CONTAINER}/{DATE}?sv=2021-12-02&sig=none");
                let source = format!("{source}/*");
                let arguments =
                    text(&["copy", &source, &target, "--from-to=LocalBlob", "--log-level=NONE", "--output-level=quiet"]);
                let places = [("AZCOPY_LOG_LOCATION", home.as_str()), ("AZCOPY_JOB_PLAN_LOCATION", &home), ("HOME", &home)];
                (program.clone(), arguments, pairs(&places))
            }
            Self::Rclone(program) | Self::Uploader(program, _) => {
                let target = format!("bench:{CONTAINER}/{DATE}");
                let remote = [
                    ("RCLONE_CONFIG_BENCH_TYPE", "azureblob"),
                    ("RCLONE_CONFIG_BENCH_ACCOUNT", ACCOUNT),
                    ("RCLONE_CONFIG_BENCH_KEY", KEY),
                    ("RCLONE_CONFIG_BENCH_ENDPOINT", &url),
                    ("HOME", &home),
                ];
                (program.clone(), text(&["copy", &source, &target, "--config=", "--azureblob-no-check-container"]), pairs(&remote))
            }
            Self::Ceiling => (PathBuf::new(), Vec::new(), Vec::new()),
        }
    }
}

fn until_done(process: &Process, log: &Path, is_done: impl Fn() -> bool) -> Result<Usage> {
    let start = Instant::now();
    while !is_done() {
        if start.elapsed() > PATIENCE {
            bail!("it does not end: {}", tail(log, 20));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    process.usage()
}
