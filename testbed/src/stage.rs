//! A namespace for each test, with a share, a claim, a credential and a container of its own.

mod oracle;
mod setting;

use std::{
    any::Any,
    env,
    panic::AssertUnwindSafe,
    path::PathBuf,
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use blobferry_crds::UploadSession;
use futures::FutureExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Pod, Secret};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{Bed, Blobs, Contents, Delivery, evidence, figures, files, wait};

/// Name of the claim and of the Secret in each stage's namespace.
const CLAIM: &str = "share";
const SECRET: &str = "azure";
const FIELD_MANAGER: &str = "blobferry-testbed";

/// A test that takes longer has hung.
const LONGEST_SCENARIO: Duration = Duration::from_mins(40);

/// A run of an uploader: the same as long as nobody has started it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// UID of its pod.
    pub pod: String,
    /// How often its container was started again before.
    pub restarts: i32,
    /// When its container was started.
    pub started: Timestamp,
}

/// Where one test plays.
#[derive(Clone, Debug)]
pub struct Stage {
    /// The bed below.
    pub bed: Bed,
    /// Namespace of the test; the volume has the same name.
    pub namespace: String,
    /// Root of the share, as this machine sees it.
    pub share: PathBuf,
    /// The container that sessions of this stage upload to; sessions create it.
    pub blobs: Blobs,
}

/// Plays a test on a stage of its own. On failure it prints what can be known (sessions, pods, logs, events, files, blobs); in any
/// case it removes everything, unless `BLOBFERRY_KEEP` is set.
///
/// # Errors
///
/// What `play` failed with. A panic in it goes on after the cleanup.
pub async fn scenario(name: &str, play: impl AsyncFnOnce(&Stage) -> Result<()>) -> Result<()> {
    let stage = Stage::set_up(Bed::from_environment().await?, name).await?;
    let guarded = AssertUnwindSafe(play(&stage)).catch_unwind();
    let outcome = tokio::time::timeout(LONGEST_SCENARIO, guarded)
        .await
        .unwrap_or_else(|_| Ok(Err(anyhow!("still not done after {LONGEST_SCENARIO:?}"))));
    if !matches!(outcome, Ok(Ok(()))) {
        evidence::print(&stage, reason(&outcome)).await;
    }
    if env::var_os("BLOBFERRY_KEEP").is_none() {
        stage.clean_up().await.context("the test is over, but its stage cannot be removed")?;
    }
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn reason(outcome: &Result<Result<()>, Box<dyn Any + Send>>) -> String {
    match outcome {
        Ok(Ok(())) => "it passed".into(),
        Ok(Err(error)) => format!("{error:#}"),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
            format!("panicked: {}", text.unwrap_or("without a message"))
        }
    }
}

impl Stage {
    async fn set_up(bed: Bed, name: &str) -> Result<Self> {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let namespace = format!("{name}-{:x}", since_1970.as_millis());
        let stage = Self { share: bed.share.join(&namespace), blobs: bed.account.container(namespace.clone()), namespace, bed };
        files::make_folder(&stage.share.join("incoming"))?;
        stage.create_objects().await?;
        Ok(stage)
    }

    /// A client of the cluster's administrator.
    pub fn client(&self) -> Client {
        self.bed.client.clone()
    }

    /// Objects of one kind in the stage's namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()> + DeserializeOwned,
    {
        Api::namespaced(self.client(), &self.namespace)
    }

    /// The stage's sessions.
    pub fn sessions(&self) -> Api<UploadSession> {
        Api::namespaced(self.client(), &self.namespace)
    }

    /// Writes the Secret that sessions of this stage name; the account's right key is what it holds at first.
    ///
    /// # Errors
    ///
    /// When the API server refuses.
    pub async fn put_secret(&self, data: &std::collections::BTreeMap<String, String>) -> Result<()> {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET}, "stringData": data});
        self.api::<Secret>().patch(SECRET, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&secret)).await?;
        Ok(())
    }

    /// Applies a session as a person does: the smallest manifest that works on this stage, merged with `change` (a JSON merge patch
    /// of the spec). The session's name is also the name of its folder.
    ///
    /// # Errors
    ///
    /// When the API server refuses.
    pub async fn apply_session(&self, name: &str, change: Value) -> Result<()> {
        let kind = ApiResource::erase::<UploadSession>(&());
        let sessions: Api<DynamicObject> = Api::namespaced_with(self.client(), &self.namespace, &kind);
        let spec = self.spec(name, change);
        let session = json!({"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}, "spec": spec});
        let apply = PatchParams::apply(FIELD_MANAGER).force();
        sessions.patch(name, &apply, &Patch::Apply(&session)).await.with_context(|| format!("cannot apply session {name}"))?;
        Ok(())
    }

    /// The spec of such a session.
    pub fn spec(&self, name: &str, change: Value) -> Value {
        let mut spec = json!({
            "sessionName": name,
            "source": {"persistentVolumeClaim": {"claimName": CLAIM}},
            "destination": {"azureBlob": {
                "accountUrl": self.bed.account.url(),
                "container": self.blobs.container(),
                "credentialsSecretRef": {"name": SECRET},
            }},
        });
        merge(&mut spec, change);
        spec
    }

    /// Waits until the session is as described in `what`.
    ///
    /// # Errors
    ///
    /// When it is not within the time; the error holds its status. When `safeThrough`, `caughtUp` or
    /// `heldBack` is not true at any look.
    pub async fn await_session(
        &self,
        name: &str,
        within: Duration,
        what: &str,
        holds: impl Fn(&UploadSession) -> bool,
    ) -> Result<UploadSession> {
        let mut lies = Vec::new();
        wait::until(within, &format!("session {name} {what}"), async || {
            let session = self.sessions().get(name).await?;
            lies.extend(self.lies(&session)?);
            ensure!(lies.is_empty(), "its status is not true: {}", lies.join(", "));
            ensure!(holds(&session), "its status is {}", serde_json::to_string_pretty(&session.status)?);
            Ok(Some(session))
        })
        .await
    }

    /// Waits until the session has uploaded that many files and waits for none.
    ///
    /// # Errors
    ///
    /// When it has not within the time.
    pub async fn await_uploaded(&self, name: &str, files: usize, within: Duration) -> Result<UploadSession> {
        self.await_session(name, within, &format!("has uploaded {files} files"), |session| {
            let progress = session.status.as_ref().and_then(|status| status.progress.as_ref());
            progress.is_some_and(|progress| {
                progress.files_uploaded == files as u64 && progress.files_active + progress.files_waiting == 0
            })
        })
        .await
    }

    /// The session's pod; `None` while there is none.
    ///
    /// # Errors
    ///
    /// When the API server cannot be asked.
    pub async fn uploader_pod(&self, session: &str) -> Result<Option<Pod>> {
        Ok(self.api::<Pod>().get_opt(&format!("{session}-uploader")).await?)
    }

    /// Waits until people were told `reason` of a session, with all of `words`; when that was.
    ///
    /// # Errors
    ///
    /// When they were not within the time; the error has what they were told.
    pub async fn await_told(&self, session: &str, within: Duration, reason: &str, words: &[&str]) -> Result<Timestamp> {
        wait::until(within, &format!("people are told {reason} with {words:?}"), async || {
            let events = self.events(session).await?;
            let found = events.iter().find(|event| {
                let message = event.message.as_deref().unwrap_or_default();
                event.reason.as_deref() == Some(reason) && words.iter().all(|word| message.contains(word))
            });
            let of = |event: &Event| format!("{:?} {:?}", event.reason, event.message);
            let found = found.with_context(|| format!("they were told {:?}", events.iter().map(of).collect::<Vec<_>>()))?;
            Ok(found.event_time.as_ref().map(|time| time.0))
        })
        .await
    }

    /// Waits until a condition of a session has this status and a reason and message with all of `words`.
    ///
    /// # Errors
    ///
    /// When it has not within the time; the error holds the session's status.
    pub async fn await_condition(
        &self,
        session: &str,
        within: Duration,
        (type_, status): (&str, &str),
        words: &[&str],
    ) -> Result<UploadSession> {
        let says = |session: &UploadSession| {
            let conditions = session.status.iter().flat_map(|status| &status.conditions);
            conditions.filter(|condition| condition.type_ == type_ && condition.status == status).any(|condition| {
                let text = format!("{} {}", condition.reason, condition.message);
                words.iter().all(|word| text.contains(word))
            })
        };
        self.await_session(session, within, &format!("has {type_}={status} naming {words:?}"), says).await
    }

    /// What people were told of a session, by the time when they were told it first.
    ///
    /// # Errors
    ///
    /// When the API server cannot be asked.
    pub async fn events(&self, session: &str) -> Result<Vec<Event>> {
        let of_session = ListParams::default().fields(&format!("involvedObject.kind=UploadSession,involvedObject.name={session}"));
        let mut events = self.api::<Event>().list(&of_session).await?.items;
        events.sort_by_key(|event| event.event_time.as_ref().map(|time| time.0));
        Ok(events)
    }

    /// Runs kubectl as a person does who works in the stage's namespace, and returns what it says.
    ///
    /// # Errors
    ///
    /// When it fails; the error has its words.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new("kubectl").args(arguments).args(["--namespace", &self.namespace]).output();
        let output = output.context("cannot start kubectl")?;
        ensure!(output.status.success(), "kubectl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The run of the session's uploader.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub async fn run(&self, session: &str) -> Result<Run> {
        let pod = self.uploader_pod(session).await?.context("the session has no pod")?;
        let started = figures::container_start(&pod).context("the uploader does not run")?;
        let restarts = figures::restarts(&pod).context("the uploader does not run")?;
        Ok(Run { pod: pod.uid().context("the pod has no UID")?, restarts, started })
    }

    /// Folder that producers of a session write to.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn incoming(&self, session: &str) -> Result<PathBuf> {
        let folder = self.share.join("incoming").join(session);
        files::make_folder(&folder)?;
        Ok(folder)
    }

    /// Puts a file into a session's folder. Names and sizes make the seed, so that no two files of a test are equal by accident.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn deliver(&self, session: &str, name: &str, size: u64) -> Result<Delivery> {
        let seed = name.bytes().fold(session.len() as u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
        files::deliver(&self.incoming(session)?, name, Contents { seed, size })
    }
}

/// The change of a session that is quick to see a file and sends so much of it in a second.
pub fn limited(bandwidth: &str) -> Value {
    json!({"watch": {"pollInterval": "200ms", "minFileAge": "1s"}, "transfer": {"bandwidthLimit": bandwidth}})
}

/// Whether bytes of a file that is not uploaded yet are with Azure, as far as the uploader has reported.
pub fn is_sending(session: &UploadSession) -> bool {
    let activity = session.status.as_ref().and_then(|status| status.activity.as_ref());
    activity.is_some_and(|activity| activity.active_files.iter().any(|file| file.bytes_sent > 0))
}

/// `[prefix/]<date>/<session>/`: what the names of a session's blobs start with.
///
/// # Errors
///
/// When the status does not say it yet.
pub fn blob_folder(session: &UploadSession) -> Result<String> {
    let status = session.status.as_ref().context("the session has no status")?;
    let name = status.session_name.as_ref().context("status.sessionName is empty")?;
    let date = status.date_prefix.as_ref().context("status.datePrefix is empty")?;
    let prefix = &session.spec.destination.azure_blob.prefix;
    Ok(if prefix.is_empty() { format!("{date}/{name}/") } else { format!("{prefix}/{date}/{name}/") })
}

/// JSON merge patch, RFC 7386.
fn merge(target: &mut Value, change: Value) {
    match change {
        Value::Object(members) => {
            if !target.is_object() {
                *target = json!({});
            }
            for (name, member) in members {
                if member.is_null() {
                    if let Some(target) = target.as_object_mut() {
                        target.remove(&name);
                    }
                } else {
                    merge(&mut target[name], member);
                }
            }
        }
        other => *target = other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_replaces_adds_and_removes() {
        let mut spec = json!({"a": {"b": 1, "c": 2}, "d": [1]});
        merge(&mut spec, json!({"a": {"b": null, "e": {"f": 3}}, "d": [2, 3]}));
        assert_eq!(spec, json!({"a": {"c": 2, "e": {"f": 3}}, "d": [2, 3]}));
    }
}
