//! The blob server as a program of its own.

use std::net::SocketAddr;

use anyhow::Context as _;
use blobferry_blob_server::{AccountKey, BlobServer, KEY, Keep, Settings};
use clap::{Parser, ValueEnum};

/// A blob service for tests: Azure's rules for block blobs, in memory.
#[derive(Debug, Parser)]
struct Arguments {
    /// Address and port
    #[arg(long, default_value = "127.0.0.1:10000")]
    listen: SocketAddr,

    /// What is kept of contents
    #[arg(long, default_value = "checksums")]
    keep: Kept,

    /// Most MiB held in memory
    #[arg(long, default_value_t = 1024)]
    memory: u64,

    /// Take requests without a signature by the emulators' key
    #[arg(long)]
    anonymous: bool,

    /// Seed of random faults
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Part of the requests that meet a fault, 0 to 1
    #[arg(long, default_value_t = 0.0, value_parser = rate)]
    faults: f64,
}

fn rate(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|rate| (0.0..=1.0).contains(rate)).ok_or_else(|| "write a number from 0 to 1".to_owned())
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kept {
    Contents,
    Hashes,
    Checksums,
}

#[tokio::main]
#[allow(clippy::print_stdout, reason = "the URL is what the program is asked for")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let keep = match arguments.keep {
        Kept::Contents => Keep::Contents,
        Kept::Hashes => Keep::Hashes,
        Kept::Checksums => Keep::Checksums,
    };
    let key = if arguments.anonymous { None } else { Some(AccountKey::new(KEY).context("the emulators' key is base64")?) };
    let memory = arguments.memory << 20;
    let settings = Settings { listen: arguments.listen, keep, memory, key, keeps_records: false, observer: None };
    let server = BlobServer::start(settings).await.with_context(|| format!("cannot listen on {}", arguments.listen))?;
    server.faults().draw(arguments.seed, arguments.faults);
    println!("{}", server.account_url());
    tokio::signal::ctrl_c().await.context("cannot listen for signals")?;
    println!("{:#?}", server.totals());
    Ok(())
}
