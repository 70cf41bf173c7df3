//! The bed's virtual machines: NFS servers and nodes with kernels of their own, see `testbed/bed vm`.

use std::{path::Path, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::{
    Bed,
    files::{Contents, Delivery},
};

/// One machine.
#[derive(Clone, Debug)]
pub struct Machine {
    name: String,
    bed: String,
}

impl Machine {
    /// The machine of this name, which has been started.
    pub fn new(bed: &Bed, name: &str) -> Self {
        Self { name: name.into(), bed: bed.name.clone() }
    }

    /// Its name, which is also that of a node.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs a command line in the machine; what it printed.
    ///
    /// # Errors
    ///
    /// When it cannot be run or fails.
    pub async fn run(&self, line: &str) -> Result<String> {
        self.run_with(line, Vec::new()).await
    }

    /// Boots it, with the disks that it had; it is ready afterwards.
    ///
    /// # Errors
    ///
    /// When it does not become ready.
    pub async fn start(&self) -> Result<()> {
        self.bed(&["start", &self.name], Vec::new()).await.map(drop)
    }

    /// Cuts its power.
    ///
    /// # Errors
    ///
    /// When it goes on.
    pub async fn cut_power(&self) -> Result<()> {
        self.bed(&["kill", &self.name], Vec::new()).await.map(drop)
    }

    /// Takes its network away; it goes on.
    ///
    /// # Errors
    ///
    /// When it has none.
    pub async fn unplug(&self) -> Result<()> {
        self.bed(&["unplug", &self.name], Vec::new()).await.map(drop)
    }

    /// Gives it its network back.
    ///
    /// # Errors
    ///
    /// When it cannot be connected.
    pub async fn plug(&self) -> Result<()> {
        self.bed(&["plug", &self.name], Vec::new()).await.map(drop)
    }

    /// Gives the node the images of a docker archive.
    ///
    /// # Errors
    ///
    /// When it refuses them.
    pub async fn load(&self, archive: &str) -> Result<()> {
        self.bed(&["load", &self.name, archive], Vec::new()).await.map(drop)
    }

    /// Writes a file into a folder of the machine as a producer there does, as the user that owns the share, and makes the folder if
    /// there is none; both are on the disk of the machine afterwards.
    ///
    /// # Errors
    ///
    /// When the machine refuses.
    pub async fn deliver(&self, folder: &str, name: &str, contents: Contents) -> Result<Delivery> {
        let mut bytes = Vec::new();
        let fingerprint = contents.write_to(&mut bytes)?;
        // Written aside, so that the command's end is the file's end and a slow line is no slow producer. One command, because an
        // emulated machine takes a second to let somebody in.
        let line = format!(
            "cat >/tmp/delivery && {{ [ -d '{folder}' ] || install -d -o 65534 -g 65534 '{folder}'; }} \
             && install -o 65534 -g 65534 -m 644 /tmp/delivery '{folder}/{name}' && rm /tmp/delivery && sync"
        );
        self.run_with(&line, bytes).await?;
        Ok(Delivery { name: name.into(), fingerprint })
    }

    async fn run_with(&self, line: &str, input: Vec<u8>) -> Result<String> {
        self.bed(&["ssh", &self.name, line], input).await
    }

    async fn bed(&self, arguments: &[&str], input: Vec<u8>) -> Result<String> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("bed");
        let mut child = Command::new(program)
            .arg("vm")
            .args(arguments)
            .env("BLOBFERRY_BED", &self.bed)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot run testbed/bed")?;
        let mut stdin = child.stdin.take().context("the command has no input")?;
        // A command that reads nothing may have ended before.
        let _ = stdin.write_all(&input).await;
        drop(stdin);
        let output = child.wait_with_output().await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "testbed/bed vm {} failed: {}", arguments.join(" "), said.trim_end());
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }
}
