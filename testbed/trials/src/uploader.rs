//! The uploader's process: started with its variables, hit by signals, measured, and ended in any case.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

/// A program that runs until it is killed, at the latest when this is dropped or the thread that started it ends.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pid: Pid,
}

/// What a process has used up.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Bytes that `read` and its like returned, from files and pipes.
    pub(crate) read: u64,
    /// Processor time, in seconds.
    pub(crate) processor: f64,
    /// Most memory at a time, in bytes.
    pub(crate) peak: u64,
}

impl Process {
    /// Starts a program that knows nothing but `variables`; its output is appended to `log`.
    pub(crate) fn start(program: &Path, arguments: &[OsString], variables: &[(String, String)], log: &Path) -> Result<Self> {
        let log = append(log)?;
        // The kernel kills it when this thread is gone, however this program ends.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a process without a number")?;
        Ok(Self { child, pid })
    }

    /// Sends a signal; one that has ended needs none.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = kill_process(self.pid, signal);
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Kills it; says how it ended if it did so by itself.
    pub(crate) fn kill(mut self) -> Result<Option<ExitStatus>> {
        self.signal(Signal::KILL);
        let status = self.child.wait()?;
        Ok((status.signal() != Some(Signal::KILL.as_raw())).then_some(status))
    }

    /// What it has used so far.
    pub(crate) fn usage(&self) -> Result<Usage> {
        let folder = PathBuf::from(format!("/proc/{}", self.pid.as_raw_nonzero()));
        let field = |file: &str, name: &str| -> Result<u64> {
            let text = fs::read_to_string(folder.join(file))?;
            let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name} in {file}"))?;
            Ok(line.split_whitespace().next().unwrap_or_default().parse()?)
        };
        let stat = fs::read_to_string(folder.join("stat"))?;
        // The name, in parentheses, may contain anything.
        let after_name = stat.rsplit(") ").next().unwrap_or_default();
        let ticks: u64 = after_name.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        #[allow(clippy::cast_precision_loss, reason = "a few days of ticks")]
        let processor = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
        Ok(Usage { read: field("io", "rchar:")?, processor, peak: field("status", "VmHWM:")? << 10 })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn append(log: &Path) -> Result<File> {
    OpenOptions::new().create(true).append(true).open(log).with_context(|| format!("cannot write {}", log.display()))
}

/// The last lines of a log.
pub(crate) fn tail(log: &Path, lines: usize) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// The variables of an uploader that drains `session` of the share below `root`, quickly.
pub(crate) fn variables(root: &Path, session: &str, account_url: &str, more: &[(&str, &str)]) -> Vec<(String, String)> {
    let folder = |name: &str| root.join(name).display().to_string();
    let (incoming, processing, staging) = (folder("incoming"), folder(".processing"), folder("staging"));
    let usual = [
        ("APP_SESSION_NAME", session),
        ("APP_SESSION_UID", session),
        ("APP_DATE_PREFIX", crate::DATE),
        ("APP_AZURE_ACCOUNT_URL", account_url),
        ("APP_AZURE_CONTAINER", crate::CONTAINER),
        ("APP_AZURE_ACCOUNT_NAME", blobferry_blob_server::ACCOUNT),
        ("APP_AZURE_ACCOUNT_KEY", blobferry_blob_server::KEY),
        ("APP_NFS_INCOMING_DIR", incoming.as_str()),
        ("APP_NFS_PROCESSING_ROOT", processing.as_str()),
        ("APP_LOCAL_STAGING_ROOT", staging.as_str()),
        ("APP_POLL_INTERVAL_S", "0.1"),
        ("APP_MIN_FILE_AGE_S", "1"),
        ("APP_GC_INTERVAL_S", "1"),
        ("APP_KEEP_COMPLETED_FOR_S", "0"),
        ("RUST_LOG", "info"),
    ];
    let mut all: Vec<(String, String)> = Vec::new();
    for (name, value) in usual.iter().chain(more) {
        all.retain(|(other, _)| other != name);
        all.push(((*name).to_owned(), (*value).to_owned()));
    }
    all
}
