//! The commands with which the README has a person make sure that a share can be wiped, run as they stand there.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use blobferry_crds::{UploadSession, conditions};
use blobferry_testbed::{Stage, scenario};
use serde_json::json;
use tokio::process::Command;

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_mins(5);
const SESSION: &str = "truck-7";

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn what_the_readmes_commands_call_safe_is_in_azure() -> Result<()> {
    scenario("wipe", async |stage| {
        // Slow enough that the commands begin to wait in the middle of a file.
        stage.apply_session(SESSION, json!({"transfer": {"bandwidthLimit": "512Ki"}})).await?;
        let delivered = [stage.deliver(SESSION, "small.dat", 5000)?, stage.deliver(SESSION, "large.dat", 16 * MIB)?];
        fs::write(stage.incoming(SESSION)?.join("half.part"), "left alone")?;
        let sends = |session: &UploadSession| {
            let progress = session.status.as_ref().and_then(|status| status.progress.as_ref());
            progress.is_some_and(|progress| progress.files_active > 0)
        };
        stage.await_session(SESSION, SOON, "sends a file", sends).await?;
        let said = run(stage, &commands()?).await?;
        // Nothing is waited for any more.
        stage.compare(SESSION, &delivered).await?;
        ensure!(said.trim() == "1 ignored", "they say {said}");
        run(stage, "kubectl wait uploadsession/truck-7 --for=condition=CaughtUp --timeout=4m").await?;
        stage.apply_session(SESSION, json!({"transfer": {"bandwidthLimit": "64Ki"}})).await?;
        stage.deliver(SESSION, "another.dat", 16 * MIB)?;
        let waits = |session: &UploadSession| {
            let conditions = session.status.iter().flat_map(|status| &status.conditions);
            conditions.into_iter().any(|it| it.type_ == conditions::CAUGHT_UP && it.status == "False")
        };
        stage.await_session(SESSION, SOON, "has not caught up", waits).await.map(drop)
    })
    .await
}

/// The commands of the README's section.
fn commands() -> Result<String> {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md"))?;
    let section = readme.split("\n## ").find(|section| section.starts_with("Before you wipe a disk")).context("no such section")?;
    let block = section.split("```").nth(1).context("the section has no commands")?;
    Ok(block.strip_prefix("bash\n").context("the commands are no script")?.to_owned())
}

/// Runs commands for the stage's namespace, on a file server that is this machine.
async fn run(stage: &Stage, commands: &str) -> Result<String> {
    let here = format!("ssh() {{ shift; \"$@\"; }}\nkubectl() {{ command kubectl --namespace {} \"$@\"; }}\n", stage.namespace);
    let mut shell = Command::new("bash");
    shell.args(["-euo", "pipefail", "-c", &format!("{here}{commands}")]).kill_on_drop(true);
    let output = tokio::time::timeout(SOON, shell.output()).await.context("the commands do not end")??;
    ensure!(output.status.success(), "{commands}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
