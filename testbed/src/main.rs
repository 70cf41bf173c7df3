//! Delivers the files of the demonstration, and compares the blobs that came out of them.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use blobferry_testbed::{Contents, Delivery, blobs::Account, files};
use clap::{Parser, ValueEnum};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// From nothing to more than a single request may carry.
const SIZES: [(&str, u64); 6] = [
    ("empty.dat", 0),
    ("one-byte.dat", 1),
    ("four-kib.dat", 4 * KIB),
    ("five-mib.dat", 5 * MIB),
    ("forty-mib.dat", 40 * MIB),
    ("three-hundred-mib.dat", 300 * MIB),
];

/// Names that trip over quoting, encoding or our own suffixes somewhere.
const NAMES: [&str; 12] = [
    "plain.dat",
    "with spaces and  two.dat",
    "grüße-日本語-🚢.dat",
    "100% sure.dat",
    "percent%20twenty.dat",
    "hash#1.dat",
    "question?.dat",
    "x.completed",
    "y.failed",
    "-leading-dash.dat",
    "quote'\"&<>;$(id).dat",
    "no-extension",
];

/// What the demonstration does beside `kubectl`.
#[derive(Parser)]
#[command(version)]
enum Command {
    /// Writes files into a session's folder, as a producer does.
    Deliver {
        /// Which files.
        #[arg(long)]
        set: Set,
        /// The session's incoming folder, as this machine sees it.
        #[arg(long)]
        folder: PathBuf,
        /// File that remembers what was delivered, for `compare`.
        #[arg(long)]
        record: PathBuf,
    },
    /// Compares every blob below a folder of the container, byte by byte by its hash, with what was delivered.
    Compare {
        /// What `deliver` wrote.
        #[arg(long)]
        record: PathBuf,
        /// Name of the container.
        #[arg(long)]
        container: String,
        /// `[prefix/]date/session/`.
        #[arg(long)]
        folder: String,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Set {
    /// Files of 0 B to 300 MiB.
    Sizes,
    /// Small files with odd names.
    Names,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    match Command::parse() {
        Command::Deliver { set, folder, record } => deliver(set, &folder, &record),
        Command::Compare { record, container, folder } => compare(&record, &container, &folder).await,
    }
}

fn deliver(set: Set, folder: &Path, record: &Path) -> Result<()> {
    files::make_folder(folder)?;
    let mut record = File::create(record).with_context(|| format!("cannot write {}", record.display()))?;
    for (seed, (name, size)) in (0..).zip(set.files()) {
        let delivery = files::deliver(folder, name, Contents { seed, size })?;
        writeln!(record, "{}", serde_json::to_string(&delivery)?)?;
    }
    Ok(())
}

impl Set {
    fn files(self) -> Vec<(&'static str, u64)> {
        match self {
            Self::Sizes => SIZES.to_vec(),
            Self::Names => NAMES.iter().zip(1..).map(|(name, number)| (*name, number * KIB + 1)).collect(),
        }
    }
}

#[allow(clippy::print_stdout, reason = "the comparison is what a person came to see")]
async fn compare(record: &Path, container: &str, folder: &str) -> Result<()> {
    let lines = BufReader::new(fs::File::open(record).with_context(|| format!("cannot read {}", record.display()))?).lines();
    let deliveries: Vec<Delivery> = lines.map(|line| Ok(serde_json::from_str(&line?)?)).collect::<Result<_>>()?;
    let differences = Account::from_environment()?.container(container).differences(folder, &deliveries).await?;
    for delivery in &deliveries {
        let verdict =
            if differences.iter().any(|line| line.starts_with(&format!("{}: ", delivery.name))) { "DIFFERS" } else { "equal  " };
        println!("  {verdict} {:>11} bytes  {container}/{folder}{}", delivery.fingerprint.size, delivery.name);
    }
    ensure!(differences.is_empty(), "blobs differ from their files:\n{}", differences.join("\n"));
    Ok(())
}
