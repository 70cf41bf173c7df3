//! Whether the table of changes is true: each field is changed, added and removed, on the API server and in the hash.

use anyhow::{Context as _, Result, ensure};
use blobferry_crds::{
    UploadSession,
    changes::{EFFECTS, Effect},
};
use blobferry_operator::decisions::{build::spec_hash, validate::validate};
use futures::future::try_join_all;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::stage::{Stage, arguments};

const CLIENT: &str = "11111111-2222-3333-4444-555555555555";
const OTHER: &str = "99999999-2222-3333-4444-555555555555";

/// Two values of each field, none of them the default; null where only one is possible.
fn values(path: &str) -> Result<(Value, Value)> {
    let pair = match path.rsplit('.').next().unwrap_or_default() {
        "sessionName" | "runToken" | "name" | "claimName" | "incomingDir" | "container" | "prefix" | "priorityClassName"
        | "serviceAccountName" => (json!("one-value"), json!("other-value")),
        "processingDir" => (json!(".one"), json!(".other")),
        "suspend" | "recursive" => (json!(true), json!(false)),
        "idleTimeout" | "drainTimeout" => (json!("11m"), json!("12m")),
        "ttlSecondsAfterFinished" => (json!(60), json!(120)),
        "deletionPolicy" => (json!("Drain"), json!("Stop")),
        "server" => (json!("nas.example.com"), json!("nas2.example.com")),
        "path" => (json!("/srv/drop/one"), json!("/srv/drop/other")),
        "mountOptions" => (json!(["hard", "nfsvers=4.1"]), json!(["hard", "nfsvers=4.2"])),
        "accountUrl" => (json!("https://one.blob.core.windows.net"), json!("https://other.blob.core.windows.net")),
        "overwrite" => (json!("Never"), json!("Any")),
        "accessTier" => (json!("Cool"), json!("Cold")),
        "metadata" | "tags" | "nodeSelector" | "labels" | "annotations" => (json!({"a": "1"}), json!({"a": "2"})),
        "contentType" => (json!("video/mp4"), json!("text/csv")),
        "clientId" | "tenantId" => (json!(CLIENT), json!(OTHER)),
        "authorityHost" => (json!("https://login.microsoftonline.us"), json!("https://login.chinacloudapi.cn")),
        "pollInterval" | "minFileAge" | "interval" => (json!("11s"), json!("12s")),
        "keepCompletedFor" => (json!("2h"), json!("3h")),
        "fileExtensions" | "ignore" => (json!(["a"]), json!(["b"])),
        "workers" | "queueSize" | "concurrency" | "maxAttempts" => (json!(3), json!(5)),
        "blockSize" | "singlePutSize" => (json!("1Mi"), json!("2Mi")),
        "memoryLimit" => (json!("512Mi"), json!("1Gi")),
        "bandwidthLimit" => (json!("1M"), json!("2M")),
        "mode" => (json!("None"), json!("Disk")),
        "sizeLimit" => (json!("2Gi"), json!("3Gi")),
        "requests" | "limits" => (json!({"cpu": "1"}), json!({"cpu": "2"})),
        "tolerations" => (json!([{"key": "a", "operator": "Exists"}]), json!([{"key": "b", "operator": "Exists"}])),
        "affinity" => (json!({"nodeAffinity": {}}), json!({"podAffinity": {}})),
        "imagePullSecrets" => (json!([{"name": "a"}]), json!([{"name": "b"}])),
        "runAsUser" | "runAsGroup" => (json!(1000), json!(1001)),
        "supplementalGroups" => (json!([1000]), json!([1001])),
        "image" => (json!("a:1"), json!("a:2")),
        _ => anyhow::bail!("no values for {path}"),
    };
    Ok(pair)
}

/// A session with this value at `path`, and with what a session with such a field needs besides.
fn session(name: &str, path: &str, value: &Value) -> Value {
    let mut spec = json!({
        "suspend": true,
        "source": {"persistentVolumeClaim": {"claimName": "share"}},
        "destination": {"azureBlob": {"accountUrl": "https://acct.blob.core.windows.net", "container": "archive"}},
    });
    if path.starts_with("source.nfs") {
        spec["source"] = json!({"nfs": {"server": "nas.example.com", "path": "/srv/drop/one"}});
    }
    if path.contains("workloadIdentity") {
        spec["destination"]["azureBlob"]["workloadIdentity"] = json!({"clientId": CLIENT, "tenantId": CLIENT});
    }
    let place = path.split('.').fold(&mut spec, |node, name| &mut node[name]);
    *place = value.clone();
    json!({
        "apiVersion": "blobferry.io/v1alpha1", "kind": "UploadSession", "spec": spec,
        "metadata": {"name": name, "namespace": "n", "uid": "u", "creationTimestamp": "2026-11-21T08:00:00Z"},
    })
}

/// The field alone, as a merge patch.
fn patch(path: &str, value: &Value) -> Value {
    let nested = path.rsplit('.').fold(value.clone(), |inner, name| json!({name: inner}));
    json!({"spec": nested})
}

/// What decides about another pod: the hash, and whether the session owns its pod.
fn hash(session: Value) -> Result<(String, bool)> {
    let settings = arguments(&["--allow-pod-image"])?.settings(std::iter::empty());
    let session: UploadSession = serde_json::from_value(session)?;
    let valid = validate(&session, &settings).map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
    Ok((spec_hash(&valid), valid.owns))
}

#[test]
fn another_pod_is_made_for_exactly_the_fields_that_the_table_says() -> Result<()> {
    for (path, effect) in EFFECTS {
        let (one, other) = values(path)?;
        // What the API server refuses to change need not be in the hash, and may.
        if *effect == Effect::Refused || other.is_null() {
            continue;
        }
        let differs = hash(session("s", path, &one))? != hash(session("s", path, &other))?;
        ensure!(differs == (*effect == Effect::Replaces), "{path}: {effect:?}, {differs}");
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn api_server_refuses_exactly_the_changes_that_the_table_says() -> Result<()> {
    let stage = Stage::new("changes").await?;
    try_join_all(EFFECTS.iter().enumerate().map(async |(number, (path, effect))| {
        check(&stage, &format!("s{number}"), path, *effect).await.with_context(|| format!("field {path}"))
    }))
    .await?;
    stage.end().await
}

async fn check(stage: &Stage, name: &str, path: &str, effect: Effect) -> Result<()> {
    let kind = ApiResource::erase::<UploadSession>(&());
    let sessions: Api<DynamicObject> = Api::namespaced_with(stage.client.clone(), &stage.namespace, &kind);
    let (one, other) = values(path)?;
    let mut object = session(name, path, &one);
    object["metadata"] = json!({"name": name});
    sessions.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    let required = ["accountUrl", "container", "claimName", "server", "path", "clientId", "tenantId", "name"];
    let is_required = required.iter().any(|name| path.ends_with(&format!(".{name}")));
    for value in [other, Value::Null] {
        if value.is_null() && is_required {
            continue;
        }
        let answer = sessions.patch(name, &dry, &Patch::Merge(patch(path, &value))).await;
        match (answer, effect) {
            (Ok(_), Effect::Refused) => anyhow::bail!("{value} was taken"),
            (Err(error), Effect::Refused) => ensure!(error.to_string().contains("cannot be"), "{error}"),
            (Ok(_), _) => {}
            (Err(error), _) => return Err(error.into()),
        }
    }
    Ok(())
}
