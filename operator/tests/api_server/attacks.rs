//! What somebody gains who may make sessions and nothing else: nothing that the installation does not allow.

mod marks;
mod prepared;

use anyhow::{Context as _, Result, ensure};
use blobferry_crds::names::UPLOADER_ACCOUNT;
use futures::future::try_join_all;
use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, ServiceAccount},
    rbac::v1::RoleBinding,
};
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::{Value, json};

use crate::stage::Stage;

fn nfs(server: &str, path: &str) -> Value {
    json!({"source": {"nfs": {"server": server, "path": path}}})
}

fn options(options: &[&str]) -> Value {
    json!({"source": {"nfs": {"server": "nas.example.com", "path": "/srv/drop", "mountOptions": options}}})
}

fn account(url: &str) -> Value {
    json!({"destination": {"azureBlob": {"accountUrl": url, "container": "archive"}}})
}

fn authority(host: &str) -> Value {
    let id = "11111111-2222-3333-4444-555555555555";
    let identity = json!({"clientId": id, "tenantId": id, "authorityHost": host});
    let url = "https://acct.blob.core.windows.net";
    json!({"destination": {"azureBlob": {"accountUrl": url, "container": "archive", "workloadIdentity": identity}}})
}

fn folder(incoming: &str, processing: &str) -> Value {
    json!({"source": {"persistentVolumeClaim": {"claimName": "share"}, "incomingDir": incoming, "processingDir": processing}})
}

/// What the schema takes and the installation does not allow, with the reason that is told.
fn not_allowed() -> Vec<(Value, &'static str)> {
    vec![
        (nfs("other.example.com", "/srv/drop"), "NfsNotAllowed"),
        (nfs("nas.example.com", "/srv"), "NfsNotAllowed"),
        (nfs("nas.example.com", "/srv/dropped"), "NfsNotAllowed"),
        (account("https://evil.example.com"), "AccountHostNotAllowed"),
        (account("https://acct.blob.core.windows.net.example.com"), "AccountHostNotAllowed"),
        (account("https://evilblob.core.windows.net"), "AccountHostNotAllowed"),
        (account("https://169.254.169.254"), "AccountHostNotAllowed"),
        (authority("https://login.example.com"), "AuthorityHostNotAllowed"),
        (json!({"pod": {"image": "evil:1"}}), "ImageNotAllowed"),
    ]
}

/// What the schema refuses.
fn refused() -> Vec<Value> {
    let pod = |field: &str, value: Value| json!({"pod": {field: value}});
    vec![
        nfs("nas.example.com", "/srv/drop/../other"),
        nfs("nas.example.com:/srv/other", "/srv/drop"),
        options(&["soft"]),
        options(&["exec", "suid"]),
        options(&["hard,soft"]),
        options(&["vers=4.1,context=x"]),
        account("http://acct.blob.core.windows.net"),
        account("https://acct.blob.core.windows.net@evil.example.com"),
        account("https://acct.blob.core.windows.net?sig=x"),
        authority("http://login.microsoftonline.com"),
        folder("../incoming", ".processing"),
        folder("/incoming", ".processing"),
        folder("incoming", ".processing/../../x"),
        folder(".processing", ".processing"),
        json!({"sessionName": ".."}),
        json!({"sessionName": "a/b"}),
        pod("securityContext", json!({"runAsUser": 0})),
        // Stricter than the restricted Pod Security Standard, because an export may trust the root group.
        pod("securityContext", json!({"runAsGroup": 0})),
        pod("securityContext", json!({"supplementalGroups": [1000, 0]})),
        pod("labels", json!({"blobferry.io/session-uid": "x"})),
        pod("labels", json!({"app.kubernetes.io/managed-by": "x"})),
        pod("labels", json!({"azure.workload.identity/use": "true"})),
        pod("annotations", json!({"blobferry.io/area": "x"})),
        pod("annotations", json!({"container.apparmor.security.beta.kubernetes.io/uploader": "unconfined"})),
        pod("annotations", json!({"container.seccomp.security.alpha.kubernetes.io/uploader": "unconfined"})),
        pod("annotations", json!({"seccomp.security.alpha.kubernetes.io/pod": "unconfined"})),
    ]
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn what_the_installation_does_not_allow_leads_to_no_object() -> Result<()> {
    let stage = Stage::new("attacks").await?;
    try_join_all(not_allowed().into_iter().enumerate().map(async |(number, (spec, reason))| {
        let name = format!("s{number}");
        stage.session(&name, spec.clone()).await.with_context(|| spec.to_string())?;
        stage.until_condition(&name, "Stalled", "True", reason).await.with_context(|| spec.to_string())
    }))
    .await?;
    for (number, spec) in refused().into_iter().enumerate() {
        ensure!(stage.session(&format!("r{number}"), spec.clone()).await.is_err(), "{spec} was taken");
    }
    ensure!(stage.list::<Pod>().await?.is_empty() && stage.list::<RoleBinding>().await?.is_empty());
    ensure!(stage.list::<PersistentVolumeClaim>().await?.is_empty());
    let ours = ListParams::default().labels(&format!("blobferry.io/session-namespace={}", stage.namespace));
    ensure!(Api::<PersistentVolume>::all(stage.client.clone()).list(&ours).await?.items.is_empty());
    stage.end().await
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn account_and_binding_that_somebody_prepared_are_not_used() -> Result<()> {
    let stage = Stage::new("prepared").await?;
    let ours = json!({"app.kubernetes.io/managed-by": "blobferry-operator"});
    // Our label on a binding of another role.
    stage
        .create::<RoleBinding>(json!({
            "metadata": {"name": UPLOADER_ACCOUNT, "labels": ours},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
            "subjects": [],
        }))
        .await?;
    stage.session("truck-7", json!({"pod": {"serviceAccountName": "default"}})).await?;
    stage.until_condition("truck-7", "Stalled", "True", "NameTaken").await?;
    let binding: RoleBinding = stage.api().get(UPLOADER_ACCOUNT).await?;
    ensure!(binding.subjects.unwrap_or_default().is_empty(), "somebody got the rights of another role");
    stage.delete::<RoleBinding>(UPLOADER_ACCOUNT).await?;
    stage.until_pod("truck-7", None).await?;
    // An account of ours without our label.
    stage.delete::<blobferry_crds::UploadSession>("truck-7").await?;
    stage.until("the rights are gone", async || Ok(stage.list::<RoleBinding>().await?.is_empty())).await?;
    stage.until("the account is gone", async || Ok(stage.list::<ServiceAccount>().await?.len() == 1)).await?;
    stage.create::<ServiceAccount>(json!({"metadata": {"name": UPLOADER_ACCOUNT}})).await?;
    stage.session("truck-8", json!({})).await?;
    let message = stage.until_condition("truck-8", "Stalled", "True", "NameTaken").await?;
    ensure!(message.contains("ServiceAccount"), "{message}");
    ensure!(stage.list::<Pod>().await?.iter().all(|pod| pod.name_any() != "truck-8-uploader"), "the account was used");
    stage.end().await
}
