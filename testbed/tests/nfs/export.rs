//! A stage's folder on the NFS server.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use blobferry_crds::{Progress, UploadSession, conditions};
use blobferry_testbed::{Contents, Delivery, Machine, Stage, figures, scenario, wait};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
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
    pub(crate) node: Machine,
    pub(crate) path: String,
}

/// Plays a test on a stage with a folder of the export. A server that a failed test left without its service has it again afterwards:
/// else nothing that has the export mounted would end.
pub(crate) async fn on_nfs(name: &str, play: impl AsyncFnOnce(&Export<'_>) -> Result<()>) -> Result<()> {
    scenario(name, async |stage| {
        let export = Export::make(stage).await?;
        let outcome = play(&export).await;
        if outcome.is_err() {
            export.server.start().await?;
            let files = export.server.run(&format!("find {} -ls", export.path)).await;
            figures::print(&format!("files on the server:\n{}", files.unwrap_or_else(|error| format!("{error:#}"))));
        }
        outcome
    })
    .await
}

impl<'a> Export<'a> {
    /// Files of earlier tests are removed here, because a session of theirs would make its folders again.
    async fn make(stage: &'a Stage) -> Result<Self> {
        let machine = |name| Machine::new(&stage.bed, name);
        let export = Self { stage, server: machine("nfs1"), node: machine("node1"), path: format!("/export/{}", stage.namespace) };
        export.server.start().await?;
        let path = &export.path;
        let earlier = "find /export -mindepth 1 -maxdepth 1 ! -name lost+found -exec rm -rf {} +";
        export.server.run(&format!("{earlier}; install -d -o 65534 -g 65534 {path} {path}/incoming && sync")).await?;
        Ok(export)
    }

    /// Applies a session whose source is this folder, on a node that has NFS.
    pub(crate) async fn apply(&self, session: &str, change: Value) -> Result<()> {
        self.apply_from(session, json!({"persistentVolumeClaim": null, "nfs": {"server": SERVER, "path": self.path}}), change).await
    }

    pub(crate) async fn apply_from(&self, session: &str, source: Value, mut change: Value) -> Result<()> {
        change["source"] = source;
        let mut pod = on_node(self.node.name());
        change["pod"]["nodeSelector"] = pod["nodeSelector"].take();
        self.stage.apply_session(session, change).await
    }

    /// Another node with NFS, started if it is not up.
    pub(crate) async fn second_node(&self) -> Result<Machine> {
        let second = Machine::new(&self.stage.bed, "node2");
        second.start().await?;
        Ok(second)
    }

    /// Folder in which a producer drops files of a session.
    pub(crate) fn incoming(&self, session: &str) -> String {
        format!("{}/incoming/{session}", self.path)
    }

    /// Drops a file on the server; it is on the server's disk afterwards.
    pub(crate) async fn deliver(&self, session: &str, name: &str, size: u64) -> Result<Delivery> {
        let seed = name.bytes().fold(size, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
        self.server.deliver(&self.incoming(session), name, Contents { seed, size }).await
    }

    /// Every file is a blob, the status says so, and nothing that was claimed is left over.
    pub(crate) async fn compare(&self, session: &str, deliveries: &[Delivery]) -> Result<()> {
        self.ensure_safe(session).await?;
        self.stage.await_uploaded(session, deliveries.len(), PATIENCE).await?;
        self.stage.compare(session, deliveries).await?;
        let caught_up = |session: &UploadSession| condition(session, conditions::CAUGHT_UP).is_some_and(|it| it.status == "True");
        self.stage.await_session(session, PATIENCE, "has caught up", caught_up).await?;
        self.ensure_safe(session).await?;
        let left = format!("find {} {}/.processing/2*/{session} -type f ! -name '*.completed'", self.incoming(session), self.path);
        wait::until(PATIENCE, "nothing but completed files is left", async || {
            let left = self.server.run(&left).await?;
            ensure!(left.is_empty(), "these are left:\n{left}");
            Ok(Some(()))
        })
        .await
    }

    /// The same, and each file was committed once: nobody has changed it since it was quiet.
    pub(crate) async fn compare_each_once(&self, session: &str, deliveries: &[Delivery]) -> Result<()> {
        self.compare(session, deliveries).await?;
        self.stage.ensure_each_committed_once(session, deliveries).await
    }

    /// What the status calls uploaded is: no file that the server had before `safeThrough` waits there, claimed or not. (A claim is a
    /// rename, which moves the ctime: of claimed files this sees those that came long before.)
    pub(crate) async fn ensure_safe(&self, session: &str) -> Result<()> {
        let found = self.stage.sessions().get(session).await?;
        let Some(safe) = progress(&found).and_then(|progress| progress.safe_through.as_ref()).map(|time| time.0) else {
            return Ok(());
        };
        // What is claimed or collected meanwhile is not there any more.
        let waiting = format!(
            "for folder in {} {}/.processing/2*/{session}; do if [ -d $folder ]; then \
             find $folder -type f ! -name '.*' ! -name '*.completed' -exec stat -c '%.9Z %n' {{}} + 2>/dev/null || true; fi; done",
            self.incoming(session),
            self.path
        );
        for line in self.server.run(&waiting).await?.lines() {
            let (ctime, name) = line.split_once(' ').context("stat prints a time and a name")?;
            let (seconds, nanoseconds) = ctime.split_once('.').context("stat prints nanoseconds")?;
            let came = jiff::Timestamp::new(seconds.parse()?, nanoseconds.parse()?)?;
            // The status has microseconds.
            ensure!(came + Duration::from_micros(1) >= safe, "safeThrough is {safe}, and {name} has waited since {came}");
        }
        Ok(())
    }

    /// Waits until the session sends a file, and has not yet sent `files`.
    pub(crate) async fn await_sending(&self, session: &str, files: u64) -> Result<()> {
        let sends = |session: &UploadSession| {
            progress(session).is_some_and(|progress| progress.files_active > 0 && progress.files_uploaded < files)
        };
        self.stage.await_session(session, PATIENCE, "sends files", sends).await.map(drop)
    }

    /// Waits for the condition of the source, and prints and returns what it says and how long after `since`.
    pub(crate) async fn await_source(&self, session: &str, status: &str, since: Instant) -> Result<Seen> {
        let seen = self.await_source_that(session, &format!("has SourceReachable={status}"), since, |it| it.0 == status).await?;
        if status == "True" {
            self.ensure_safe(session).await?;
        }
        Ok(seen)
    }

    /// Waits until the source fails for this reason, and with a message that has these words.
    pub(crate) async fn await_refusal(&self, session: &str, since: Instant, refused: &str, words: &str) -> Result<()> {
        let what = format!("has a source that fails with {refused}: {words}");
        let fails =
            |(status, reason, message): (&str, &str, &str)| status == "False" && reason == refused && message.contains(words);
        self.await_source_that(session, &what, since, fails).await.map(drop)
    }

    /// Waits until the share fails with an error, one of these words. Other errors may come before it.
    pub(crate) async fn await_failure(&self, session: &str, since: Instant, words: &[&str]) -> Result<()> {
        let what = format!("has a source that fails with one of {words:?}");
        let fails = |(status, reason, message): (&str, &str, &str)| {
            status == "False" && reason == "ShareFailed" && words.iter().any(|words| message.contains(words))
        };
        self.await_source_that(session, &what, since, fails).await.map(drop)
    }

    async fn await_source_that(
        &self,
        session: &str,
        what: &str,
        since: Instant,
        holds: impl Fn((&str, &str, &str)) -> bool,
    ) -> Result<Seen> {
        let found = self.stage.await_session(session, PATIENCE, what, |session| source(session).is_some_and(&holds)).await?;
        let after = since.elapsed();
        let (status, reason, message) = source(&found).context("the condition is gone")?;
        figures::print(&format!("SourceReachable={status} {reason} after {:.0} s: {message}", after.as_secs_f64()));
        Ok(Seen { after, reason: reason.into(), message: message.into() })
    }
}

/// What a condition said, and when.
pub(crate) struct Seen {
    pub(crate) after: Duration,
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// `spec.pod` of a session that runs there.
pub(crate) fn on_node(name: &str) -> Value {
    json!({"nodeSelector": {"kubernetes.io/hostname": name}})
}

pub(crate) fn progress(session: &UploadSession) -> Option<&Progress> {
    session.status.as_ref()?.progress.as_ref()
}

/// Status, reason and message of the condition of the source.
pub(crate) fn source(session: &UploadSession) -> Option<(&str, &str, &str)> {
    let found = condition(session, conditions::SOURCE_REACHABLE)?;
    Some((&found.status, &found.reason, &found.message))
}

/// A condition of the session.
pub(crate) fn condition<'a>(session: &'a UploadSession, type_: &str) -> Option<&'a Condition> {
    session.status.iter().flat_map(|status| &status.conditions).find(|condition| condition.type_ == type_)
}
