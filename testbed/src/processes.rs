//! Processes of pods, seen from the host: a container from scratch has no shell to kill its own from.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// Processes of the pod's containers, without the one that only holds the pod's namespaces.
///
/// # Errors
///
/// When the process table cannot be read.
pub fn of_pod(uid: &str) -> Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("cannot read the process table")? {
        let folder = entry?.path();
        let Some(pid) = number(&folder) else { continue };
        // A process that ends meanwhile is none of them.
        let groups = fs::read_to_string(folder.join("cgroup")).unwrap_or_default();
        let command = fs::read(folder.join("cmdline")).unwrap_or_default();
        if groups.contains(&format!("/pod{uid}/")) && !command.is_empty() && command != b"/pause\0" {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Sends a signal to every process of the pod's containers: `Signal::KILL` ends them without a farewell, `Signal::STOP` makes them
/// hang.
///
/// # Errors
///
/// When there is none.
pub fn signal_pod(uid: &str, signal: Signal) -> Result<()> {
    let processes = of_pod(uid)?;
    ensure!(!processes.is_empty(), "pod {uid} has no process");
    for process in processes {
        // One that has just ended needs no signal.
        let _ = kill_process(process, signal);
    }
    Ok(())
}

/// A process that hangs as long as this is held.
#[derive(Debug)]
pub struct Paused(Pid);

/// Makes the process hang that runs `program` with files of `folder`.
///
/// # Errors
///
/// When there is none, or several are.
pub fn pause(program: &str, folder: &Path) -> Result<Paused> {
    let process = of_bed(program, folder)?;
    kill_process(process, Signal::STOP)?;
    Ok(Paused(process))
}

/// The process that runs `program` with files of the bed in `folder`.
///
/// # Errors
///
/// When there is none, or several are.
pub fn of_bed(program: &str, folder: &Path) -> Result<Pid> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("cannot read the process table")? {
        let process = entry?.path();
        let Some(pid) = number(&process) else { continue };
        let command = fs::read_to_string(process.join("cmdline")).unwrap_or_default();
        let mut words = command.split('\0');
        let is_it = words.next().is_some_and(|first| Path::new(first).ends_with(program));
        if is_it && words.any(|word| word.contains(&format!("{}/", folder.display()))) {
            found.push(pid);
        }
    }
    ensure!(found.len() == 1, "{} processes run {program} with files of {}", found.len(), folder.display());
    Ok(found[0])
}

impl Drop for Paused {
    fn drop(&mut self) {
        // One that is gone needs no signal.
        let _ = kill_process(self.0, Signal::CONT);
    }
}

fn number(folder: &Path) -> Option<Pid> {
    Pid::from_raw(folder.file_name()?.to_str()?.parse().ok()?)
}
