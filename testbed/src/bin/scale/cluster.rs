//! The cluster: namespaces with a claim each, and sessions in them.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use blobferry_crds::{UploadSession, manifest};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::{
    api::{
        core::v1::{Namespace, PersistentVolume, PersistentVolumeClaim},
        rbac::v1::ClusterRole,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{AT_ONCE, PATIENCE, say};

const PER_NAMESPACE: usize = 100;

/// The numbers of `all` that are the first of their namespace.
pub(crate) fn firsts(all: usize) -> impl Iterator<Item = usize> {
    (0..all).step_by(PER_NAMESPACE)
}

/// The other numbers of `all`.
pub(crate) fn others(all: usize) -> impl Iterator<Item = usize> {
    (0..all).filter(|number| number % PER_NAMESPACE != 0)
}

pub(crate) fn namespace(number: usize) -> String {
    format!("scale-{}", number / PER_NAMESPACE)
}

pub(crate) fn name(number: usize) -> String {
    format!("session-{number}")
}

/// The definition, the role, and namespaces with a claim each that is bound to an export.
pub(crate) async fn prepare(client: &Client, sessions: usize) -> Result<()> {
    let apply = PatchParams::apply("blobferry-scale").force();
    let definition = manifest::definition();
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    definitions.patch(&definition.name_any(), &apply, &Patch::Apply(&definition)).await?;
    kube::runtime::wait::await_condition(definitions, &definition.name_any(), kube::runtime::conditions::is_crd_established())
        .await?;
    let role: ClusterRole = object(json!({"metadata": {"name": "blobferry-uploader"}, "rules": []}))?;
    Api::<ClusterRole>::all(client.clone()).patch("blobferry-uploader", &apply, &Patch::Apply(&role)).await?;
    let namespaces = firsts(sessions).map(namespace);
    stream::iter(namespaces).map(Ok).try_for_each_concurrent(AT_ONCE, |namespace| prepare_namespace(client, namespace)).await
}

async fn prepare_namespace(client: &Client, namespace: String) -> Result<()> {
    let apply = PatchParams::apply("blobferry-scale").force();
    let object_: Namespace = object(json!({"metadata": {"name": namespace}}))?;
    Api::<Namespace>::all(client.clone()).patch(&namespace, &apply, &Patch::Apply(&object_)).await?;
    let capacity = json!({"storage": "1Gi"});
    let volume: PersistentVolume = object(json!({"metadata": {"name": namespace}, "spec": {
        "capacity": capacity, "accessModes": ["ReadWriteMany"], "storageClassName": "", "persistentVolumeReclaimPolicy": "Retain",
        "nfs": {"server": "nas.example.com", "path": format!("/srv/{namespace}")},
        "claimRef": {"namespace": namespace, "name": "share"}}}))?;
    Api::<PersistentVolume>::all(client.clone()).patch(&namespace, &apply, &Patch::Apply(&volume)).await?;
    let claim: PersistentVolumeClaim = object(json!({"metadata": {"name": "share"}, "spec": {
        "accessModes": ["ReadWriteMany"], "storageClassName": "", "resources": {"requests": capacity}, "volumeName": namespace}}))?;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
    claims.patch("share", &apply, &Patch::Apply(&claim)).await?;
    let bound =
        |claim: Option<&PersistentVolumeClaim>| claim.and_then(|claim| claim.status.as_ref()?.phase.as_deref()) == Some("Bound");
    kube::runtime::wait::await_condition(claims, "share", bound).await?;
    Ok(())
}

fn object<K>(mut value: Value) -> Result<K>
where
    K: serde::de::DeserializeOwned + kube::Resource<DynamicType = ()>,
{
    value["apiVersion"] = json!(K::api_version(&()));
    value["kind"] = json!(K::kind(&()));
    Ok(serde_json::from_value(value)?)
}

/// Creates sessions, `apart` or as fast as it goes; when each was applied, by name.
pub(crate) async fn create(
    client: &Client,
    numbers: impl IntoIterator<Item = usize>,
    apart: Option<Duration>,
) -> Result<HashMap<String, Instant>> {
    let begun = Instant::now();
    stream::iter(numbers.into_iter().enumerate())
        .map(async |(place, number)| {
            if let Some(apart) = apart {
                tokio::time::sleep_until((begun + apart * u32::try_from(place)?).into()).await;
            }
            let session: UploadSession = object(json!({"metadata": {"name": name(number)}, "spec": {
                "sessionName": name(number),
                "source": {"persistentVolumeClaim": {"claimName": "share"}},
                "destination": {"azureBlob": {"accountUrl": "https://acct.blob.core.windows.net", "container": "archive"}}}}))?;
            let sent = Instant::now();
            Api::namespaced(client.clone(), &namespace(number)).create(&PostParams::default(), &session).await?;
            Ok((name(number), sent))
        })
        .buffer_unordered(if apart.is_some() { 10 * AT_ONCE } else { AT_ONCE })
        .try_collect()
        .await
}

/// Waits until so many sessions are ready, as long as they become more.
pub(crate) async fn until_running(client: &Client, sessions: usize) -> Result<()> {
    let (mut most, mut deadline) = (0, Instant::now() + PATIENCE);
    loop {
        let ready = ready(client).await.unwrap_or_else(|error| {
            say(&format!("the sessions cannot be counted now: {error:#}"));
            0
        });
        if ready >= sessions {
            return Ok(());
        }
        if ready > most {
            (most, deadline) = (ready, Instant::now() + PATIENCE);
        }
        ensure!(Instant::now() < deadline, "only {ready} of {sessions} sessions run");
        // A list of all is a lot of work for the API server, which is not what is measured.
        tokio::time::sleep(Duration::from_millis(500 + u64::try_from(sessions)?)).await;
    }
}

/// How many sessions are ready; in pages, because all together may be too much for one answer on a busy machine.
async fn ready(client: &Client) -> Result<usize> {
    let (mut ready, mut page) = (0, ListParams::default().limit(250));
    loop {
        let sessions = Api::<UploadSession>::all(client.clone()).list(&page).await?;
        let is_ready = |session: &&UploadSession| {
            let conditions = session.status.iter().flat_map(|status| &status.conditions);
            conditions.into_iter().any(|it| it.type_ == "Ready" && it.status == "True")
        };
        ready += sessions.items.iter().filter(is_ready).count();
        match sessions.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(ready),
        }
    }
}
