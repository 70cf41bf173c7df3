//! Trials of the uploader's program against real folders and the project's blob server.

mod bench;
mod contents;
mod kill;
mod lane;
mod ledger;
mod pods;
mod producer;
mod requests;
mod resume;
mod uploader;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

use self::bench::Program;

/// The date in folders and blob names.
const DATE: &str = "20261126";
const CONTAINER: &str = "trials";

#[derive(Debug, Parser)]
#[command(about)]
struct Arguments {
    #[command(subcommand)]
    trial: Trial,

    /// The uploader's program
    #[arg(long, global = true, default_value = "blobferry-uploader")]
    uploader: PathBuf,

    /// Folder for the share [default: a new one that is removed after success]
    #[arg(long, global = true)]
    folder: Option<PathBuf>,
}

#[derive(Clone, Debug, Subcommand)]
enum Trial {
    /// Kills uploaders at random instants; everything must come out right all the same
    Kill {
        /// How many kills
        #[arg(long, default_value_t = 300)]
        rounds: usize,
        /// What decides about files, faults and kills [default: another one each time]
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Kills an uploader at 90 % of a large file; at most 64 MiB may be sent and read again
    Resume {
        /// Size of the file in MiB
        #[arg(long, default_value_t = 10 << 10)]
        mebibytes: u64,
    },
    /// Counts the requests that files of 4 KiB, 64 MiB and 1 GiB cost
    Requests,
    /// Compares the uploader with other programs and with the ceiling
    Bench {
        /// Measurements of each; the median counts
        #[arg(long, default_value_t = 3)]
        repeats: usize,
        /// rclone's program
        #[arg(long)]
        rclone: Option<PathBuf>,
        /// `AzCopy`'s program
        #[arg(long)]
        azcopy: Option<PathBuf>,
    },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let folder = arguments.folder.unwrap_or_else(|| std::env::temp_dir().join(format!("blobferry-trial-{}", std::process::id())));
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let program = arguments.uploader.canonicalize().with_context(|| format!("no program {}", arguments.uploader.display()))?;
    match arguments.trial {
        Trial::Kill { rounds, seed } => kill(program, folder.clone(), rounds, seed.unwrap_or_else(rand::random))?,
        Trial::Bench { repeats, rclone, azcopy } => bench(&program, &folder, repeats, rclone, azcopy)?,
        Trial::Requests => requests(&program, &folder)?,
        Trial::Resume { mebibytes } => resume(&program, &folder, mebibytes << 20)?,
    }
    std::fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))
}

#[allow(clippy::print_stdout, reason = "the result is what the program is asked for")]
fn kill(program: PathBuf, folder: PathBuf, rounds: usize, seed: u64) -> Result<()> {
    println!("seed {seed}, folder {}", folder.display());
    kill::prepare(&folder)?;
    let outcome = kill::run(&kill::Plan { program, folder, rounds, seed })?;
    println!(
        "{} kills in {} s: {} generations, {} commits, {} withdrawn by producers, {} superseded; {} requests, {} with a fault; no violation",
        outcome.kills,
        outcome.took.as_secs(),
        outcome.sums.generations,
        outcome.sums.committed,
        outcome.sums.withdrawn,
        outcome.sums.superseded,
        outcome.requests,
        outcome.faults
    );
    println!("{} passed, 0 failed", outcome.kills);
    Ok(())
}

#[allow(clippy::print_stdout, reason = "the result is what the program is asked for")]
fn resume(program: &Path, folder: &Path, size: u64) -> Result<()> {
    for staging in ["None", "Disk"] {
        let folder = folder.join(staging);
        let outcome = resume::run(&resume::Plan { program: program.to_owned(), folder: folder.clone(), size, staging })?;
        println!(
            "staging {staging}: killed after {} of {size} bytes; {} bytes sent again, {} read again, at most {} each; \
             {:.1} s from the start of the second uploader to the commit",
            outcome.before,
            outcome.sent_again,
            outcome.read_again,
            resume::ALLOWANCE,
            outcome.took.as_secs_f64()
        );
        std::fs::remove_dir_all(folder)?;
    }
    println!("2 passed, 0 failed");
    Ok(())
}

#[allow(clippy::print_stdout, reason = "the result is what the program is asked for")]
fn requests(program: &Path, folder: &Path) -> Result<()> {
    let costs = requests::run(program, folder)?;
    for (size, requests) in &costs {
        println!("{size} bytes: {requests} requests");
    }
    println!("{} passed, 0 failed", costs.len());
    Ok(())
}

#[allow(clippy::print_stdout, clippy::cast_precision_loss, reason = "the table is what the program is asked for; sizes are small")]
fn bench(program: &Path, folder: &Path, repeats: usize, rclone: Option<PathBuf>, azcopy: Option<PathBuf>) -> Result<()> {
    let ours = ["Disk", "None"].map(|staging| Program::Uploader(program.to_owned(), staging));
    let rivals = rclone.map(Program::Rclone).into_iter().chain(azcopy.map(Program::AzCopy));
    let programs: Vec<_> = std::iter::once(Program::Ceiling).chain(ours).chain(rivals).collect();
    println!(
        "{:14} {:16} {:>8} {:>9} {:>7} {:>8} {:>7} {:>8} {:>9}",
        "", "", "s", "of ceil.", "MB/s", "files/s", "CPU s", "RSS MiB", "requests"
    );
    let rows = bench::run(&programs, folder, repeats)?;
    let mut ceiling = 0.0;
    for row in rows {
        let figure = row.figure;
        if row.program == Program::Ceiling.name() {
            ceiling = figure.seconds;
        }
        println!(
            "{:14} {:16} {:8.3} {:9.2} {:7.0} {:8.0} {:7.2} {:8} {:9}",
            row.workload.name,
            row.program,
            figure.seconds,
            ceiling / figure.seconds,
            row.workload.bytes() as f64 / 1e6 / figure.seconds,
            row.workload.count() as f64 / figure.seconds,
            figure.usage.processor,
            figure.usage.peak >> 20,
            figure.requests
        );
    }
    Ok(())
}
