//! Prints the `CustomResourceDefinition` as YAML.

use std::io::{self, Write};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    io::stdout().write_all(blobferry_crds::manifest::yaml()?.as_bytes())?;
    Ok(())
}
