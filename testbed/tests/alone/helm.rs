//! Helm and sessions: an upgrade of our chart starts no running uploader again, and what waits for the sessions of somebody's chart sees
//! when they are ready.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use blobferry_crds::{UploadSession, conditions};
use blobferry_testbed::{
    Stage, figures,
    release::{self, CHART, RELEASE, helm},
    scenario,
    stage::{is_sending, limited},
    wait,
};
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_mins(3);
const LATER: Duration = Duration::from_mins(10);

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn upgrade_of_operator_and_definition_and_the_way_back_leave_a_running_uploader_alone() -> Result<()> {
    scenario("upgrade", async |stage| {
        stage.apply_session("s", limited("256Ki")).await?;
        let delivery = stage.deliver("s", "large.dat", 256 * MIB)?;
        stage.await_session("s", SOON, "sends the file", is_sending).await?;
        let before = stage.run("s").await?;
        let status: Value = serde_json::from_slice(&helm(&["status", RELEASE, "--output", "json"])?)?;

        let upgraded = upgrade(stage).await;
        // Other tests may follow.
        helm(&["rollback", RELEASE, &status["version"].to_string(), "--wait", "--timeout", "5m"])?;
        upgraded?;
        stage.await_session("s", SOON, "still sends the file", is_sending).await?;

        stage.apply_session("s", limited("64Mi")).await?;
        stage.await_uploaded("s", 1, LATER).await?;
        stage.compare("s", std::slice::from_ref(&delivery)).await?;
        stage.ensure_each_committed_once("s", &[delivery]).await?;
        let after = stage.run("s").await?;
        ensure!(after == before, "the uploader was started again: {before:?}, {after:?}");
        Ok(())
    })
    .await
}

/// Another definition, and operators with another argument and another variable, which look after the session.
async fn upgrade(stage: &Stage) -> Result<()> {
    let folder = tempfile::tempdir()?;
    later_chart(folder.path())?;
    let old = release::operators(&stage.client()).await?;
    let values = "logLevel=debug,uploaders.noProxy=elsewhere.example.com";
    let began = Instant::now();
    let chart = folder.path().to_string_lossy();
    helm(&["upgrade", RELEASE, &chart, "--reuse-values", "--set", values, "--wait", "--timeout", "5m"])?;
    release::leader(&stage.client(), &old).await?;
    figures::print(&format!("another operator led {:.0} s after the upgrade began", began.elapsed().as_secs_f64()));
    let later = stage.kubectl(&["get", "uploadsession/s", "--output", "jsonpath={.spec.later}"])?;
    ensure!(later == "added", "the definition is not the later one: {later}");

    stage.apply_session("s", limited("512Ki")).await?;
    let generation = stage.sessions().get("s").await?.metadata.generation;
    let is_looked_after = |session: &UploadSession| {
        let status = session.status.as_ref();
        let applied = status.and_then(|status| status.activity.as_ref()?.applied_generation);
        is_sending(session) && applied == generation && status.and_then(|status| status.observed_generation) == generation
    };
    stage.await_session("s", SOON, "is looked after in the middle of its file", is_looked_after).await.map(drop)
}

/// A later version of the chart: its definition says everything in other words, and has one more field.
fn later_chart(folder: &Path) -> Result<()> {
    let copied = Command::new("cp").args(["--recursive", &format!("{CHART}/."), &folder.to_string_lossy()]).status()?;
    ensure!(copied.success(), "the chart cannot be copied");
    let path = folder.join("files/uploadsessions.yaml");
    let mut definition: Value = serde_norway::from_str(&fs::read_to_string(&path)?)?;
    let schema = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    say_otherwise(schema);
    schema["properties"]["spec"]["properties"]["later"] = json!({"type": "string", "default": "added", "maxLength": 9});
    Ok(fs::write(&path, serde_norway::to_string(&definition)?)?)
}

fn say_otherwise(schema: &mut Value) {
    match schema {
        Value::Object(members) => members.iter_mut().for_each(|(name, member)| match member {
            Value::String(words) if name == "description" => *words = format!("In other words: {words}"),
            member => say_otherwise(member),
        }),
        Value::Array(elements) => elements.iter_mut().for_each(say_otherwise),
        _ => {}
    }
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn helm_kubectl_and_argo_see_when_a_session_is_ready_and_why_it_is_not() -> Result<()> {
    scenario("waits", async |stage| {
        let folder = tempfile::tempdir()?;
        fs::create_dir(folder.path().join("templates"))?;
        fs::write(folder.path().join("Chart.yaml"), "apiVersion: v2\nname: site\nversion: 1.0.0\n")?;
        let run = |what: &str, sessions: &[(&str, Value)], within: &str| -> Result<Output> {
            let sessions = sessions.iter().map(|(name, change)| {
                let (metadata, spec) = (json!({"name": name}), stage.spec(name, change.clone()));
                json!({"apiVersion": "blobferry.io/v1alpha1", "kind": "UploadSession", "metadata": metadata, "spec": spec})
                    .to_string()
            });
            fs::write(folder.path().join("templates/sessions.yaml"), sessions.collect::<Vec<_>>().join("\n---\n"))?;
            let chart = folder.path().to_string_lossy();
            let arguments = [what, "site", &chart, "--namespace", &stage.namespace, "--wait", "--timeout", within];
            Command::new("helm4").args(arguments).output().context("cannot start Helm")
        };
        let well = || ("s", json!({}));

        let began = Instant::now();
        succeeded(&run("install", &[well()], "3m")?)?;
        figures::print(&format!("helm install --wait returned after {:.0} s", began.elapsed().as_secs_f64()));
        stage.kubectl(&["wait", "uploadsession/s", "--for=condition=Ready", "--timeout=0"])?;
        let words = health(stage, "s")?;
        ensure!(words.starts_with("Healthy"), "Argo CD says {words}");

        let without_secret = json!({"destination": {"azureBlob": {"credentialsSecretRef": {"name": "absent"}}}});
        // Its pod is made anew first.
        failed(&run("upgrade", &[("s", without_secret.clone())], "1s")?)?;
        stage.await_session("s", SOON, "names the credential", |session| names(session, "credential is absent")).await?;
        wait::until(SOON, "Helm says what it waits for", async || {
            let words = failed(&run("upgrade", &[("s", without_secret.clone())], "15s")?)?;
            ensure!(words.contains("InProgress") && words.contains("credential is absent"), "Helm says {words}");
            Ok(Some(()))
        })
        .await?;
        ensure!(stage.kubectl(&["wait", "uploadsession/s", "--for=condition=Ready", "--timeout=1s"]).is_err());
        let words = health(stage, "s")?;
        ensure!(words.starts_with("Progressing") && words.contains("credential is absent"), "Argo CD says {words}");

        let began = Instant::now();
        let somewhere = json!({"source": {"persistentVolumeClaim": null, "nfs": {"server": "nas.example.com", "path": "/srv"}}});
        let words = failed(&run("upgrade", &[well(), ("not-allowed", somewhere)], "15m")?)?;
        ensure!(words.contains("Failed") && words.contains("nfs.allowed"), "Helm says {words}");
        ensure!(!words.contains("deadline"), "Helm waited for what cannot become right by itself: {words}");
        figures::print(&format!("helm upgrade --wait gave up after {:.0} s", began.elapsed().as_secs_f64()));
        let words = health(stage, "not-allowed")?;
        ensure!(words.starts_with("Degraded") && words.contains("nfs.allowed"), "Argo CD says {words}");

        succeeded(&run("upgrade", &[well()], "3m")?)?;
        stage.kubectl(&["wait", "uploadsession/s", "--for=condition=Ready", "--timeout=0"])?;
        let delivery = stage.deliver("s", "after.dat", 4096)?;
        stage.await_uploaded("s", 1, SOON).await?;
        stage.compare("s", &[delivery]).await
    })
    .await
}

/// Whether the session's readiness says so.
fn names(session: &UploadSession, words: &str) -> bool {
    let mut conditions = session.status.iter().flat_map(|status| &status.conditions);
    conditions.any(|condition| condition.type_ == conditions::READY && condition.message.contains(words))
}

fn succeeded(output: &Output) -> Result<()> {
    ensure!(output.status.success(), "Helm says {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// What Helm says when it fails, as it should.
fn failed(output: &Output) -> Result<String> {
    ensure!(!output.status.success(), "Helm did not wait");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// What the health check of `docs/gitops.md` says of the session as it is now, in the interpreter of Argo CD.
fn health(stage: &Stage, session: &str) -> Result<String> {
    let session: Value = serde_json::from_str(&stage.kubectl(&["get", "uploadsession", session, "--output", "json"])?)?;
    let document = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/gitops.md"))?;
    let check = document.split("```lua\n").nth(1).and_then(|rest| rest.split("```").next()).context("there is no health check")?;
    let script = tempfile::NamedTempFile::new()?;
    let told = "print(health.status .. \": \" .. health.message)";
    fs::write(&script, format!("obj = {}\nlocal function look()\n{check}end\nlocal health = look()\n{told}\n", lua(&session)))?;
    let output = Command::new("glua").arg(script.path()).output().context("cannot start glua")?;
    ensure!(output.status.success() && output.stderr.is_empty(), "glua: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// A value as Lua writes it.
fn lua(value: &Value) -> String {
    match value {
        Value::Null => "nil".into(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => format!("[==[{text}]==]"),
        Value::Array(elements) => format!("{{{}}}", elements.iter().map(lua).collect::<Vec<_>>().join(",")),
        Value::Object(members) => {
            let members: Vec<_> = members.iter().map(|(name, member)| format!("[ [==[{name}]==] ]={}", lua(member))).collect();
            format!("{{{}}}", members.join(","))
        }
    }
}
