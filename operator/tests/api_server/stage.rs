//! A namespace for each test, and the parts that a node would play.

use std::{
    env,
    fmt::Debug,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use blobferry_crds::{Progress, UploadSession, UploadSessionStatus, names};
use blobferry_operator::{args::Args, controller::Operator};
use clap::Parser;
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{Event, Namespace, PersistentVolume, Pod},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    Api, Client, Config, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::chart::{ensure_nothing_was_refused, operator_config};

/// The variable with the way to the bed's API server.
pub(crate) const KUBECONFIG: &str = "BLOBFERRY_BED_KUBECONFIG";
/// More than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(10);
/// Between two looks.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

/// Where one test plays.
#[derive(Clone)]
pub(crate) struct Stage {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    /// For how long it waits for something.
    pub(crate) patience: Duration,
}

/// What did not come.
#[derive(Debug, thiserror::Error)]
#[error("waited in vain until {what}; {scene}")]
pub(crate) struct InVain {
    what: String,
    scene: String,
}

/// Whether an API server that has no time, or has just gone, answers or fails like this.
fn is_passing(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<kube::Error>() {
        Some(kube::Error::Api(status)) => status.code == 429 || status.code >= 500,
        Some(kube::Error::Service(_) | kube::Error::HyperError(_)) => true,
        _ => false,
    }
}

/// Access of the administrator.
pub(crate) async fn config() -> Result<Config> {
    let path = env::var(KUBECONFIG)
        .context("BLOBFERRY_BED_KUBECONFIG is not set: run `make e2e`, or eval \"$(testbed/bed env)\" first")?;
    Ok(Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &KubeConfigOptions::default()).await?)
}

/// An operator on `client`.
pub(crate) fn operator_of(name: &str, client: Client) -> Result<Operator> {
    let args = arguments(&["--pod-name", name])?;
    Ok(Operator::new(client, args.settings(std::iter::empty()), args.pod_name.clone(), &opentelemetry::global::meter("test")))
}

/// Arguments of an operator of these tests, and `more`, some of which may be in place of the usual ones.
pub(crate) fn arguments(more: &[&str]) -> Result<Args> {
    let usual = [
        ("--uploader-image=", "localhost/blobferry-uploader:dev"),
        ("--nfs-allowed=", r#"[{"server":"nas.example.com","pathPrefix":"/srv/drop"}]"#),
    ];
    let usual = usual.iter().filter(|(flag, _)| !more.iter().any(|it| it.starts_with(flag)));
    let usual = usual.map(|(flag, value)| format!("{flag}{value}"));
    let program = std::iter::once("blobferry-operator".to_owned());
    Ok(Args::try_parse_from(program.chain(usual).chain(more.iter().map(|&it| it.to_owned())))?)
}

/// A client of the administrator.
pub(crate) async fn client() -> Result<Client> {
    blobferry_crds::tls::install();
    Ok(Client::try_from(config().await?)?)
}

impl Stage {
    /// A new namespace, which enforces the restricted Pod Security Standard, and no operator but those that the test starts.
    pub(crate) async fn bare(name: &str) -> Result<Self> {
        let client = client().await?;
        operator_config().await?;
        let stage = Self { client, namespace: format!("{name}-{:x}", jiff::Timestamp::now().as_millisecond()), patience: PATIENCE };
        let namespace: Namespace = serde_json::from_value(json!({
            "metadata": {"name": stage.namespace, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        }))?;
        Api::all(stage.client.clone()).create(&PostParams::default(), &namespace).await?;
        stage
            .until("the default account exists", async || {
                Ok(stage.list::<k8s_openapi::api::core::v1::ServiceAccount>().await?.len() == 1)
            })
            .await?;
        Ok(stage)
    }

    /// Objects of this namespace.
    pub(crate) fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// All objects of one kind in this namespace.
    pub(crate) async fn list<K>(&self) -> Result<Vec<K>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        Ok(self.api().list(&ListParams::default()).await?.items)
    }

    /// Creates what the JSON `object` says.
    pub(crate) async fn create<K>(&self, object: Value) -> Result<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Serialize + DeserializeOwned + Debug,
    {
        Ok(self.api().create(&PostParams::default(), &serde_json::from_value(object)?).await?)
    }

    /// Creates a minimal session with more fields of the spec.
    pub(crate) async fn session(&self, name: &str, spec: Value) -> Result<UploadSession> {
        self.marked_session(name, json!({}), spec).await
    }

    /// The same with `metadata`.
    pub(crate) async fn marked_session(&self, name: &str, metadata: Value, spec: Value) -> Result<UploadSession> {
        let mut object = json!({
            "apiVersion": "blobferry.io/v1alpha1",
            "kind": "UploadSession",
            "metadata": metadata,
            "spec": {
                "source": {"persistentVolumeClaim": {"claimName": "share"}},
                "destination": {"azureBlob": {"accountUrl": "https://acct.blob.core.windows.net", "container": "archive"}},
            },
        });
        object["metadata"]["name"] = name.into();
        for (key, value) in spec.as_object().into_iter().flatten() {
            object["spec"][key] = value.clone();
        }
        self.create(object).await
    }

    /// Changes fields of a session's spec.
    pub(crate) async fn change(&self, name: &str, spec: Value) -> Result<UploadSession> {
        Ok(self.api().patch(name, &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await?)
    }

    /// Deletes an object, as `kubectl delete` does.
    pub(crate) async fn delete<K>(&self, name: &str) -> Result<()>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        self.api::<K>().delete(name, &DeleteParams::background()).await?;
        Ok(())
    }

    /// The status of a session.
    pub(crate) async fn status(&self, name: &str) -> Result<UploadSessionStatus> {
        Ok(self.api::<UploadSession>().get(name).await?.status.unwrap_or_default())
    }

    /// Waits until `holds`, and looks once more when the time is over. An API server that does not answer may do so the next time.
    pub(crate) async fn until(&self, what: &str, mut holds: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + self.patience;
        loop {
            let is_last = Instant::now() > deadline;
            let failure = match holds().await {
                Ok(true) => return Ok(()),
                Ok(false) => String::new(),
                Err(error) if is_passing(&error) => format!("{error:#}; "),
                Err(error) => return Err(error),
            };
            if is_last {
                let scene = self.scene().await.unwrap_or_else(|error| format!("{error:#}"));
                return Err(InVain { what: what.to_owned(), scene: failure + &scene }.into());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Removes the sessions that other tests have left, whose namespaces are not gone yet.
    pub(crate) async fn remove_others(&self) -> Result<()> {
        let all: Api<UploadSession> = Api::all(self.client.clone());
        self.until("no other session is left", async || {
            let sessions = all.list(&ListParams::default()).await?.items;
            let others = sessions.into_iter().filter(|session| session.namespace().as_deref() != Some(&self.namespace));
            let mut none = true;
            for session in others {
                none = false;
                let of_namespace: Api<UploadSession> =
                    Api::namespaced(self.client.clone(), &session.namespace().unwrap_or_default());
                let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
                // It may be gone by now.
                let _ = of_namespace.patch(&session.name_any(), &PatchParams::default(), &free).await;
                let _ = of_namespace.delete(&session.name_any(), &DeleteParams::background()).await;
            }
            Ok(none)
        })
        .await
    }

    /// The sessions and pods of this namespace in a few words.
    async fn scene(&self) -> Result<String> {
        let mut lines = Vec::new();
        for session in self.list::<UploadSession>().await? {
            let status = session.status.clone().unwrap_or_default();
            let condition = |it: &Condition| format!("{}={}/{}", it.type_, it.status, it.reason);
            let conditions: Vec<String> = status.conditions.iter().map(condition).collect();
            let (deleted, progress) = (&session.metadata.deletion_timestamp, &status.progress);
            lines.push(format!("session {}: {conditions:?}, deleted {deleted:?}, {progress:?}", session.name_any()));
        }
        for pod in self.list::<Pod>().await? {
            let images = pod.spec.iter().flat_map(|spec| &spec.containers).map(|container| &container.image).collect::<Vec<_>>();
            lines.push(format!("pod {}: {images:?}, deleted {:?}", pod.name_any(), pod.metadata.deletion_timestamp));
        }
        Ok(lines.join("\n"))
    }

    /// Waits until the session's condition `type_` has this status and reason, and returns its message.
    pub(crate) async fn until_condition(&self, name: &str, type_: &str, status: &str, reason: &str) -> Result<String> {
        let mut message = String::new();
        self.until(&format!("{name} is {type_}={status}/{reason}"), async || {
            let conditions = self.status(name).await?.conditions;
            let found = conditions.into_iter().find(|it| it.type_ == type_ && it.status == status && it.reason == reason);
            message = found.as_ref().map(|found| found.message.clone()).unwrap_or_default();
            Ok(found.is_some())
        })
        .await?;
        Ok(message)
    }

    /// Waits until the session has a pod that is not the one with UID `but`.
    pub(crate) async fn until_pod(&self, session: &str, but: Option<&str>) -> Result<Pod> {
        let name = format!("{session}-uploader");
        let mut found = None;
        self.until(&format!("pod {name} is there"), async || {
            found = self.api::<Pod>().get_opt(&name).await?.filter(|pod| pod.uid().as_deref() != but);
            Ok(found.is_some())
        })
        .await?;
        found.context("the pod was there")
    }

    /// Plays the kubelet: the pod's status changes.
    pub(crate) async fn set_pod_status(&self, pod: &Pod, status: Value) -> Result<()> {
        let api = self.api::<Pod>();
        api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await?;
        Ok(())
    }

    /// Plays the kubelet: the uploader runs and is ready.
    pub(crate) async fn run_pod(&self, pod: &Pod) -> Result<()> {
        let state = json!({"running": {"startedAt": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()}});
        self.set_pod_status(pod, running(&state)).await
    }

    /// Plays the uploader: it reports.
    pub(crate) async fn report(&self, session: &str, progress: &Progress) -> Result<()> {
        let body = json!({
            "apiVersion": "blobferry.io/v1alpha1",
            "kind": "UploadSession",
            "metadata": {"name": session},
            // No two reports are equal: one that changes nothing would leave no trace.
            "status": {"progress": progress, "activity": {"rate": format!("{} B/s", jiff::Timestamp::now().as_microsecond())}},
        });
        let manager = PatchParams::apply(names::UPLOADER_MANAGER).force();
        self.api::<UploadSession>().patch_status(session, &manager, &Patch::Apply(body)).await?;
        Ok(())
    }

    /// Plays the uploader in `pod` and its kubelet: it has ended well with this result.
    pub(crate) async fn ends(&self, pod: &Pod, result: &str, mode: &str) -> Result<()> {
        let uid = pod.labels().get(names::SESSION_UID_LABEL);
        let account = json!({"result": result, "sessionUID": uid, "mode": mode, "reason": result, "message": "done"});
        let mut status = running(&json!({"terminated": {"exitCode": 0, "message": account.to_string()}}));
        status["phase"] = "Succeeded".into();
        self.set_pod_status(pod, status).await
    }

    /// The same if the uploader is the last of a deleted session.
    pub(crate) async fn ends_if_last(&self, pod: &Pod) -> Result<()> {
        match pod.annotations().get(names::MODE_ANNOTATION).map(String::as_str) {
            Some("drain") => self.ends(pod, "Drained", "drain").await,
            Some("release") => self.ends(pod, "Released", "release").await,
            _ => Ok(()),
        }
    }

    /// A session whose uploader runs and reports that all is well.
    pub(crate) async fn running_session(&self, name: &str, spec: Value) -> Result<Pod> {
        self.session(name, spec).await?;
        let pod = self.until_pod(name, None).await?;
        self.run_pod(&pod).await?;
        self.report(name, &all_well()).await?;
        self.until_condition(name, "Ready", "True", "Running").await?;
        Ok(pod)
    }

    /// Reasons of the session's events.
    pub(crate) async fn event_reasons(&self, session: &str) -> Result<Vec<String>> {
        let events = self.list::<Event>().await?;
        let of_session = events.into_iter().filter(|event| event.involved_object.name.as_deref() == Some(session));
        Ok(of_session.filter_map(|event| event.reason).collect())
    }

    /// Name of the volume behind the claim "share".
    pub(crate) fn share_volume(&self) -> String {
        format!("{}-share", self.namespace)
    }

    /// Removes the namespace, and the volume behind its claim, in the background; a failed test leaves them for a look.
    pub(crate) async fn end(self) -> Result<()> {
        ensure_nothing_was_refused()?;
        let gone = DeleteParams::background();
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        if volumes.get_opt(&self.share_volume()).await?.is_some() {
            volumes.delete(&self.share_volume(), &gone).await?;
        }
        match Api::<Namespace>::all(self.client.clone()).delete(&self.namespace, &gone).await {
            // It is on its way already.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }
}

/// A pod of somebody who may make pods where the restricted Pod Security Standard is enforced.
pub(crate) fn somebodys_pod(name: &str) -> Value {
    let security = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    json!({
        "metadata": {"name": name},
        "spec": {
            "securityContext": {"runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "other", "image": "other", "securityContext": security}],
        },
    })
}

/// The status of a pod whose container has `state`.
pub(crate) fn running(state: &Value) -> Value {
    let container = json!({"name": "uploader", "image": "x", "imageID": "x", "ready": true, "started": true, "restartCount": 0, "state": state});
    json!({
        "phase": "Running",
        "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}],
        "containerStatuses": [container],
    })
}

/// A report of an uploader to which both ends work.
pub(crate) fn all_well() -> Progress {
    let check = |type_: &str| json!({"type": type_, "ok": true, "reason": "Works", "message": "It works."});
    serde_json::from_value(json!({"checks": [check("source"), check("destination")], "caughtUp": true})).unwrap_or_default()
}
