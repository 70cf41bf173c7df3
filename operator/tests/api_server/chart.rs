//! The chart without the operator's pod: roles, bindings and admission policies, and the access that they leave to the operator.

use std::{
    env,
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use blobferry_crds::names::{MANAGED_BY_LABEL, OPERATOR};
use k8s_openapi::{
    api::{
        authentication::v1::{TokenRequest, TokenRequestSpec},
        core::v1::{PersistentVolume, Pod, ServiceAccount},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Config,
    api::PostParams,
    client::Body,
    runtime::{conditions::is_crd_established, wait::await_condition},
};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::{
    around::{around, line},
    stage::{self, KUBECONFIG, PATIENCE},
};

/// Where it is installed, and where operators compete for the Lease.
pub(crate) const NAMESPACE: &str = "blobferry";

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/blobferry");
/// What the arguments of the operators of these tests allow, and their images.
const VALUES: &str = "replicas=0,image.operator.repository=none,image.uploader.repository=localhost/blobferry-uploader,\
                      nfs.allowed[0].server=nas.example.com,nfs.allowed[0].pathPrefix=/srv/drop";
/// Longer than any tests take.
const TOKEN_SECONDS: i64 = 24 * 60 * 60;
const PAUSE: Duration = Duration::from_millis(200);

/// What the chart did not let the operators of this process do. Some of it they only log.
static REFUSALS: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn refusals() -> MutexGuard<'static, Vec<String>> {
    REFUSALS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Fails if the chart has refused something to an operator.
pub(crate) fn ensure_nothing_was_refused() -> Result<()> {
    let refusals = refusals();
    ensure!(refusals.is_empty(), "the chart refuses what the operator does: {refusals:#?}");
    Ok(())
}

/// An API server that has just started refuses everything until it knows the roles.
pub(crate) fn forget_refusals() {
    refusals().clear();
}

/// A client of an operator, with the token of its account and nothing else.
pub(crate) async fn operator_client() -> Result<Client> {
    Ok(around(Client::try_from(operator_config().await?)?, note_refusal))
}

async fn note_refusal(request: http::Request<Body>, client: Client) -> kube::Result<http::Response<Body>> {
    let line = line(&request);
    let (head, body) = client.send(request).await?.into_parts();
    if !matches!(head.status.as_u16(), 403 | 422) {
        return Ok(http::Response::from_parts(head, body));
    }
    let body = body.collect_bytes().await?;
    let status: Value = serde_json::from_slice(&body).unwrap_or_default();
    let words = status["message"].as_str().unwrap_or_default();
    let by_role =
        head.status == http::StatusCode::FORBIDDEN && ["\" cannot ", "is attempting to grant"].iter().any(|it| words.contains(it));
    if by_role || words.contains("ValidatingAdmissionPolicy 'blobferry-") {
        refusals().push(format!("{line}: {words}"));
    }
    Ok(http::Response::from_parts(head, Body::from(body)))
}

/// Access with the token of the operator's account, once the chart is installed and in force.
pub(crate) async fn operator_config() -> Result<Config> {
    static CONFIG: OnceCell<std::result::Result<Config, String>> = OnceCell::const_new();
    let installed = CONFIG.get_or_init(async || Box::pin(install()).await.map_err(|error| format!("{error:#}"))).await;
    installed.clone().map_err(|error| anyhow!(error))
}

async fn install() -> Result<Config> {
    let administrator = stage::client().await?;
    upgrade()?;
    let definitions: Api<CustomResourceDefinition> = Api::all(administrator.clone());
    await_condition(definitions, "uploadsessions.blobferry.io", is_crd_established()).await?;
    let mut config = stage::config().await?;
    config.auth_info = serde_json::from_value(json!({"token": token(&administrator).await?}))?;
    let operator = Client::try_from(config.clone())?;
    let probes = [
        (&operator, json!({}), "blobferry-operator-"),
        (&administrator, json!({MANAGED_BY_LABEL: OPERATOR}), "blobferry-uploader-pods"),
    ];
    for (client, labels, policy) in probes {
        until_refused(client, &labels, policy).await?;
    }
    until_exports_are_allowed(&operator).await?;
    Ok(config)
}

/// As `testbed/check-policies` does it, so that either may find what the other has left.
fn upgrade() -> Result<()> {
    let path = env::var(KUBECONFIG)?;
    let upgraded = Command::new("helm")
        .args(["upgrade", "--install", "--take-ownership", "blobferry", FOLDER, "--set", VALUES])
        .args(["--namespace", NAMESPACE, "--create-namespace", "--kubeconfig", &path])
        .output()
        .context("cannot start helm, which a bed has: eval \"$(testbed/bed env)\" first")?;
    ensure!(upgraded.status.success(), "helm: {}", String::from_utf8_lossy(&upgraded.stderr));
    Ok(())
}

async fn token(administrator: &Client) -> Result<String> {
    let spec = TokenRequestSpec { expiration_seconds: Some(TOKEN_SECONDS), ..TokenRequestSpec::default() };
    let accounts: Api<ServiceAccount> = Api::namespaced(administrator.clone(), NAMESPACE);
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let answer = accounts.create_token_request(OPERATOR, &PostParams::default(), &request).await?;
    Ok(answer.status.context("a token was made")?.token)
}

/// Waits until a policy whose name begins with `policy` refuses a pod with these labels: the API server notices new roles and policies
/// within some seconds.
async fn until_refused(client: &Client, labels: &Value, policy: &str) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let pod =
        json!({"metadata": {"name": "probe", "labels": labels}, "spec": {"containers": [{"name": "probe", "image": "none"}]}});
    let (pod, dry_run) = (serde_json::from_value(pod)?, PostParams { dry_run: true, ..PostParams::default() });
    let deadline = Instant::now() + PATIENCE;
    loop {
        match pods.create(&dry_run, &pod).await {
            Err(kube::Error::Api(status)) if status.message.contains(policy) => return Ok(()),
            answer if Instant::now() > deadline => bail!("the policy {policy} is not in force: {answer:?}"),
            _ => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Waits until the policies are those of [`VALUES`], and not what an earlier installation on this bed has left.
async fn until_exports_are_allowed(operator: &Client) -> Result<()> {
    let volumes: Api<PersistentVolume> = Api::all(operator.clone());
    let volume = serde_json::from_value(json!({
        "metadata": {"name": "blobferry-probe", "labels": {MANAGED_BY_LABEL: OPERATOR}},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "capacity": {"storage": "1Gi"},
            "claimRef": {"namespace": NAMESPACE, "name": "blobferry-probe"},
            "nfs": {"server": "nas.example.com", "path": "/srv/drop"},
        },
    }))?;
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let deadline = Instant::now() + PATIENCE;
    while let Err(refusal) = volumes.create(&dry_run, &volume).await {
        ensure!(Instant::now() < deadline, "the policies are not those of this installation: {refusal}");
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
