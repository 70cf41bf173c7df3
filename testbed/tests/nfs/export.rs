//! A stage's folder on the NFS server.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use blobferry_crds::{UploadSession, conditions};
use blobferry_testbed::{Contents, Delivery, Machine, Stage, figures, wait};
use serde_json::{Value, json};
use tokio::time::Instant;

/// The server's address in every bed.
pub(crate) const SERVER: &str = "172.30.0.11";
/// An emulated machine takes its time.
pub(crate) const PATIENCE: Duration = Duration::from_mins(8);

/// A folder of the export, with an incoming folder in it.
pub(crate) struct Export<'a> {
    pub(crate) stage: &'a Stage,
    pub(crate) server: Machine,
    pub(crate) path: String,
}

impl<'a> Export<'a> {
    pub(crate) async fn make(stage: &'a Stage) -> Result<Self> {
        let export = Self { stage, server: Machine::new(&stage.bed, "nfs1"), path: format!("/export/{}", stage.namespace) };
        let path = &export.path;
        export.server.run(&format!("install -d -o 65534 -g 65534 {path} {path}/incoming && sync")).await?;
        Ok(export)
    }

    /// Applies a session whose source is this folder, on a node that has NFS.
    pub(crate) async fn apply(&self, session: &str, change: Value) -> Result<()> {
        self.apply_from(session, json!({"persistentVolumeClaim": null, "nfs": {"server": SERVER, "path": self.path}}), change).await
    }

    pub(crate) async fn apply_from(&self, session: &str, source: Value, mut change: Value) -> Result<()> {
        change["source"] = source;
        change["pod"] = json!({"nodeSelector": {"kubernetes.io/hostname": "node1"}});
        self.stage.apply_session(session, change).await
    }

    /// Drops a file on the server; it is on the server's disk afterwards.
    pub(crate) async fn deliver(&self, session: &str, name: &str, size: u64) -> Result<Delivery> {
        let folder = format!("{}/incoming/{session}", self.path);
        let seed = name.bytes().fold(size, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
        self.server.run(&format!("[ -d {folder} ] || install -d -o 65534 -g 65534 {folder}")).await?;
        let delivery = self.server.deliver(&folder, name, Contents { seed, size }).await?;
        self.server.run("sync").await?;
        Ok(delivery)
    }

    /// Every file is a blob, and nothing that was claimed is left over.
    pub(crate) async fn compare(&self, session: &str, deliveries: &[Delivery]) -> Result<()> {
        self.stage.await_uploaded(session, deliveries.len(), PATIENCE).await?;
        self.stage.compare(session, deliveries).await?;
        let path = &self.path;
        let left = format!("find {path}/incoming/{session} {path}/.processing/2*/{session} -type f ! -name '*.completed'");
        wait::until(PATIENCE, "nothing but completed files is left", async || {
            let left = self.server.run(&left).await?;
            ensure!(left.is_empty(), "these are left:\n{left}");
            Ok(Some(()))
        })
        .await
    }

    /// Waits for the condition of the source, and prints how long it took since `since`.
    pub(crate) async fn await_source(&self, session: &str, status: &str, since: Instant) -> Result<UploadSession> {
        let what = format!("has SourceReachable={status}");
        let found =
            self.stage.await_session(session, PATIENCE, &what, |session| source(session).is_some_and(|it| it.0 == status)).await?;
        let (_, reason, message) = source(&found).context("the condition is gone")?;
        figures::print(&format!("SourceReachable={status} {reason} after {:.0} s: {message}", since.elapsed().as_secs_f64()));
        Ok(found)
    }

    pub(crate) async fn remove(self) -> Result<()> {
        self.server.run(&format!("rm -rf {}", self.path)).await.map(drop)
    }
}

/// Status, reason and message of the condition of the source.
pub(crate) fn source(session: &UploadSession) -> Option<(&str, &str, &str)> {
    let mut conditions = session.status.iter().flat_map(|status| &status.conditions);
    let found = conditions.find(|condition| condition.type_ == conditions::SOURCE_REACHABLE)?;
    Some((&found.status, &found.reason, &found.message))
}
