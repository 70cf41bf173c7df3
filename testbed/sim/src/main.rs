//! `sim`: see `--help`.

use blobferry_sim::command::{self, Options};
use clap::Parser;

fn main() -> anyhow::Result<()> {
    command::run(&Options::parse())
}
