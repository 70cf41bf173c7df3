//! Reports against a real API server, with no more rights than the chart gives to an uploader. `make e2e`, or `testbed/api-tests`,
//! gives these tests a control plane.

use std::{env, time::Duration};

use anyhow::{Context as _, Result, bail};
use blobferry_crds::{Progress, UploadSession, manifest, names, tls};
use blobferry_uploader::{
    args::SessionObject,
    report::{Ended, KubeReporter, Report},
};
use k8s_openapi::{
    api::core::v1::Namespace, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition, jiff::Timestamp,
};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle, time};
use tokio_util::sync::CancellationToken;

/// More than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(3);
const PAUSE: Duration = Duration::from_millis(100);

/// The uploader's pod, as its token would name it; the chart's admission policy, which may be in force, lets no other report.
const POD_UID: &str = "6f7e0b0c-0000-4000-8000-000000000001";
const POD_UID_HEADER: &str = "impersonate-extra-authentication.kubernetes.io%2fpod-uid";

/// A session in a namespace of its own, and an account that may only read and write statuses there.
struct Stage {
    client: Client,
    uploader: Client,
    namespace: String,
    sessions: Api<UploadSession>,
}

async fn config() -> Result<Config> {
    let path = env::var("BLOBFERRY_BED_KUBECONFIG")
        .context("BLOBFERRY_BED_KUBECONFIG is not set: run `make e2e`, or eval \"$(testbed/bed env)\" first")?;
    Ok(Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &KubeConfigOptions::default()).await?)
}

impl Stage {
    async fn new(name: &str) -> Result<Self> {
        tls::install();
        let namespace = format!("{name}-{:x}", Timestamp::now().as_millisecond());
        let client = Client::try_from(config().await?)?;
        let mut restricted = config().await?;
        restricted.auth_info.impersonate = Some(format!("system:serviceaccount:{namespace}:{}", names::UPLOADER_ACCOUNT));
        restricted.headers.push((POD_UID_HEADER.parse()?, POD_UID.parse()?));
        let stage = Self {
            uploader: Client::try_from(restricted)?,
            sessions: Api::namespaced(client.clone(), &namespace),
            client,
            namespace,
        };
        stage.install().await?;
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": stage.namespace}}))?;
        Api::all(stage.client.clone()).create(&PostParams::default(), &namespace).await?;
        stage.allow_statuses().await?;
        Ok(stage)
    }

    async fn install(&self) -> Result<()> {
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let how = PatchParams::apply("test").force();
        definitions.patch("uploadsessions.blobferry.io", &how, &Patch::Apply(manifest::definition())).await?;
        let established = kube::runtime::conditions::is_crd_established();
        let wait = kube::runtime::wait::await_condition(definitions, "uploadsessions.blobferry.io", established);
        time::timeout(PATIENCE, wait).await??;
        Ok(())
    }

    /// The rule is that of the chart's ClusterRole for uploaders.
    async fn allow_statuses(&self) -> Result<()> {
        let statuses = json!({"apiGroups": ["blobferry.io"], "resources": ["uploadsessions/status"], "verbs": ["get", "patch"]});
        self.create("Role", json!({"metadata": {"name": "uploader"}, "rules": [statuses]})).await?;
        let account = json!({"kind": "ServiceAccount", "name": names::UPLOADER_ACCOUNT, "namespace": self.namespace});
        let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "uploader"});
        self.create("RoleBinding", json!({"metadata": {"name": "uploader"}, "roleRef": role, "subjects": [account]})).await
    }

    async fn create(&self, kind: &str, mut object: Value) -> Result<()> {
        let kind = GroupVersionKind::gvk("rbac.authorization.k8s.io", "v1", kind);
        object["apiVersion"] = json!("rbac.authorization.k8s.io/v1");
        object["kind"] = json!(kind.kind);
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace, &ApiResource::from_gvk(&kind));
        api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        Ok(())
    }

    /// A minimal session, as an uploader knows it.
    async fn session(&self) -> Result<SessionObject> {
        let session = serde_json::from_value(json!({
            "apiVersion": "blobferry.io/v1alpha1", "kind": "UploadSession", "metadata": {"name": "truck-7"},
            "spec": {
                "source": {"persistentVolumeClaim": {"claimName": "share"}},
                "destination": {"azureBlob": {"accountUrl": "https://a.blob.core.windows.net", "container": "archive"}},
            },
        }))?;
        let session = self.sessions.create(&PostParams::default(), &session).await?;
        self.operator_writes(json!({})).await?;
        let uid = session.uid().context("an object has a UID")?;
        Ok(SessionObject { namespace: self.namespace.clone(), name: "truck-7".into(), uid })
    }

    /// What the operator does at its own pace, which outdates the uploader's resourceVersion.
    async fn operator_writes(&self, mut status: Value) -> Result<()> {
        status["podUID"] = json!(POD_UID);
        let how = PatchParams::apply(names::OPERATOR_MANAGER).force();
        let body = json!({"apiVersion": "blobferry.io/v1alpha1", "kind": "UploadSession", "status": status});
        self.sessions.patch_status("truck-7", &how, &Patch::Apply(body)).await?;
        Ok(())
    }

    async fn until_uploaded(&self, files: u64) -> Result<UploadSession> {
        let deadline = time::Instant::now() + PATIENCE;
        while time::Instant::now() < deadline {
            let session = self.sessions.get("truck-7").await?;
            let progress = session.status.as_ref().and_then(|status| status.progress.as_ref());
            if progress.is_some_and(|progress| progress.files_uploaded == files) {
                return Ok(session);
            }
            time::sleep(PAUSE).await;
        }
        bail!("the status does not show {files} uploaded files")
    }

    /// An uploader's writer, and the counters that it found.
    async fn start(&self, object: SessionObject) -> Result<(Progress, watch::Sender<Report>, JoinHandle<Ended>)> {
        let (progress, writer) = KubeReporter::new(self.uploader.clone(), object).previous().await?;
        let (publish, reports) = watch::channel(uploaded(1));
        Ok((progress, publish, tokio::spawn(writer.run(reports, CancellationToken::new()))))
    }
}

fn uploaded(files: u64) -> Report {
    let counted_through = Timestamp::from_nanosecond(1_769_853_600_123_456_789).ok();
    Report { progress: Progress { files_uploaded: files, counted_through, ..Progress::default() }, ..Report::default() }
}

fn managers(session: &UploadSession, field: &str) -> Vec<String> {
    let entries = session.metadata.managed_fields.iter().flatten();
    let owns = |fields: &Value| fields["f:status"].get(field).is_some();
    let entries = entries.filter(|entry| entry.fields_v1.as_ref().is_some_and(|fields| owns(&fields.0)));
    entries.filter_map(|entry| entry.manager.clone()).collect()
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn progress_arrives_beside_what_the_operator_writes_and_is_found_by_the_next_run() -> Result<()> {
    let stage = Stage::new("report").await?;
    let object = stage.session().await?;
    let (progress, publish, writer) = stage.start(object.clone()).await?;
    assert_eq!(progress, Progress::default());
    stage.until_uploaded(1).await?;
    stage.operator_writes(json!({"phase": "Running", "podName": "truck-7-uploader"})).await?;
    publish.send_replace(uploaded(2));
    let session = stage.until_uploaded(2).await?;
    let status = session.status.clone().unwrap_or_default();
    assert_eq!((status.pod_name.as_deref(), status.phase), (Some("truck-7-uploader"), Some(blobferry_crds::Phase::Running)));
    assert_eq!(managers(&session, "f:progress"), [names::UPLOADER_MANAGER]);
    assert_eq!(managers(&session, "f:activity"), [names::UPLOADER_MANAGER]);
    assert_eq!(managers(&session, "f:phase"), [names::OPERATOR_MANAGER]);
    writer.abort();
    let (progress, ..) = stage.start(object).await?;
    assert_eq!(progress, uploaded(2).progress, "with every digit of countedThrough");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn a_deleted_session_ends_the_writer_and_one_of_the_same_name_is_left_alone() -> Result<()> {
    let stage = Stage::new("gone").await?;
    let first = stage.session().await?;
    let (_, publish, writer) = stage.start(first.clone()).await?;
    stage.until_uploaded(1).await?;
    stage.sessions.delete("truck-7", &DeleteParams::default()).await?;
    let second = stage.session().await?;
    assert_ne!(first.uid, second.uid);
    publish.send_replace(uploaded(2));
    assert_eq!(time::timeout(PATIENCE, writer).await??, Ended::SessionGone);
    let status = stage.sessions.get("truck-7").await?.status.unwrap_or_default();
    assert_eq!(status.progress, None);
    assert!(KubeReporter::new(stage.uploader.clone(), first).previous().await.is_err());
    stage.sessions.delete("truck-7", &DeleteParams::default()).await?;
    assert!(KubeReporter::new(stage.uploader.clone(), second).previous().await.is_err());
    Ok(())
}

/// When the uploader wrote last, as the operator learns it.
fn told(session: &UploadSession) -> Option<Timestamp> {
    let fields = session.metadata.managed_fields.iter().flatten();
    let uploaders = fields.filter(|entry| entry.manager.as_deref() == Some(names::UPLOADER_MANAGER));
    uploaders.filter_map(|entry| Some(entry.time.as_ref()?.0)).max()
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn a_report_that_says_nothing_new_leaves_a_trace_all_the_same() -> Result<()> {
    let stage = Stage::new("trace").await?;
    let object = stage.session().await?;
    let (_, publish, writing) = stage.start(object).await?;
    let first = told(&stage.until_uploaded(1).await?).context("it has reported")?;
    let deadline = time::Instant::now() + PATIENCE;
    while told(&stage.sessions.get("truck-7").await?) <= Some(first) {
        if time::Instant::now() > deadline {
            bail!("no report has left a trace since {first}");
        }
        time::sleep(PAUSE).await;
    }
    drop(publish);
    if writing.await? != Ended::Stopped {
        bail!("it ended otherwise");
    }
    Ok(())
}
