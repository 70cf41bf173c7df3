//! What the API server refuses, and in which words: one good manifest, and one change of it per case.
//!
//! A control plane without a node is enough. Where the chart is not installed, the definition is, from the Rust types.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};
use blobferry_crds::{UploadSession, manifest};
use blobferry_testbed::Bed;
use jiff::tz::TimeZone;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, Resource as _, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::{conditions, wait::await_condition},
};
use serde_json::{Map, Value, json};

/// A claim as the source.
const CLAIM: &str = r"
apiVersion: blobferry.io/v1alpha1
kind: UploadSession
metadata: {name: bad-input, namespace: default}
spec:
  sessionName: truck-7
  source: {persistentVolumeClaim: {claimName: nfs-share}}
  destination: {azureBlob: {accountUrl: https://account.blob.core.windows.net, container: recordings, prefix: site-3}}
";

/// An NFS export as the source, everything else at its default.
const NFS: &str = r"
apiVersion: blobferry.io/v1alpha1
kind: UploadSession
metadata: {name: bad-input, namespace: default}
spec:
  source: {nfs: {server: 192.0.2.7, path: /srv/drop}}
  destination: {azureBlob: {accountUrl: http://192.0.2.9:10000/devstoreaccount1, container: recordings}}
";

/// A JSON merge patch, and a part of what the API server says to it.
type Case = (Value, &'static str);

/// A merge patch of what is below `path`, like `spec.watch`.
fn below(path: &str, change: Value) -> Value {
    path.rsplit('.').fold(change, |inner, key| Value::Object(Map::from_iter([(key.to_owned(), inner)])))
}

fn azure(change: Value) -> Value {
    below("spec.destination.azureBlob", change)
}

/// A workload identity that is right but for `change`.
fn identity(change: &Value) -> Value {
    let mut identity = json!({"clientId": "11111111-2222-3333-4444-555555555555", "tenantId": "example.onmicrosoft.com"});
    merge(&mut identity, change);
    identity
}

fn source(change: Value) -> Value {
    below("spec.source", change)
}

fn nfs(change: Value) -> Value {
    below("spec.source.nfs", change)
}

fn watch(change: Value) -> Value {
    below("spec.watch", change)
}

fn transfer(change: Value) -> Value {
    below("spec.transfer", change)
}

fn staging(change: Value) -> Value {
    below("spec.staging", change)
}

fn retention(change: Value) -> Value {
    below("spec.retention", change)
}

fn pod(change: Value) -> Value {
    below("spec.pod", change)
}

fn bad_names() -> Vec<Case> {
    let name = |text: &str| json!({"spec": {"sessionName": text}});
    vec![
        (json!({"metadata": {"name": "n".repeat(53)}}), "metadata.name has more than 52 characters: choose a shorter one"),
        (name("truck/7"), "sessionName takes letters, digits, underscore, dot and hyphen"),
        (name("-truck"), "sessionName takes letters, digits, underscore, dot and hyphen"),
        (name(".truck"), "sessionName takes letters, digits, underscore, dot and hyphen"),
        (name("truck."), "does not end with a dot, like truck-7"),
        (name(""), "sessionName takes letters, digits, underscore, dot and hyphen"),
        (name(&"n".repeat(201)), "spec.sessionName: Too long: may not be more than 200"),
    ]
}

/// A map of `count` names with one value.
fn many(name: &str, count: usize, value: &str) -> Value {
    (0..count).map(|number| (format!("{name}_{number}"), json!(value))).collect::<serde_json::Map<_, _>>().into()
}

fn bad_destinations() -> Vec<Case> {
    vec![
        (azure(json!({"accountUrl": "http://account.blob.core.windows.net"})), "accountUrl is an https URL, like https://ACCOUNT"),
        (azure(json!({"accountUrl": "ftp://account.blob.core.windows.net"})), "accountUrl is an https URL, like https://ACCOUNT"),
        (azure(json!({"accountUrl": "account.blob.core.windows.net"})), "accountUrl is an https URL, like https://ACCOUNT"),
        (
            azure(json!({"accountUrl": "https://account.blob.core.windows.net/?sv=1&sig=x"})),
            "put a SAS token under the key sasToken into a Secret",
        ),
        (azure(json!({"accountUrl": "https://user:key@account.blob.core.windows.net"})), "accountUrl holds no credential"),
        (azure(json!({"accountUrl": "https://account.blob.core.windows.net/recordings/a"})), "accountUrl is the account only"),
        (azure(json!({"accountUrl": "https://account.blob.core.windows.net/recordings"})), "accountUrl is the account only"),
        (azure(json!({"accountUrl": "https://"})), "accountUrl is the account only, like https://ACCOUNT"),
        (azure(json!({"accountUrl": null})), "spec.destination.azureBlob.accountUrl: Required value"),
        (
            azure(json!({"accountUrl": format!("https://{}.net", "a".repeat(300))})),
            "accountUrl: Too long: may not be more than 300",
        ),
        (azure(json!({"container": "Recordings"})), "container has 3 to 63 lower-case letters, digits and single hyphens"),
        (azure(json!({"container": "rec--ordings"})), "container has 3 to 63 lower-case letters, digits and single hyphens"),
        (azure(json!({"container": "recordings-"})), "container has 3 to 63 lower-case letters, digits and single hyphens"),
        (azure(json!({"container": "rc"})), "container in body should be at least 3 chars long"),
        (azure(json!({"container": "r".repeat(64)})), "container: Too long: may not be more than 63"),
        (azure(json!({"container": null})), "spec.destination.azureBlob.container: Required value"),
        (azure(json!({"accessTier": "Warm"})), "Unsupported value: \"Warm\""),
        (azure(json!({"metadata": {"Site": "3"}})), "metadata takes names of lower-case letters, digits and underscores"),
        (azure(json!({"metadata": {"3site": "3"}})), "metadata takes names of lower-case letters, digits and underscores"),
        (azure(json!({"metadata": {"blobferry_claim": "3"}})), "names that start with blobferry_ are the uploader's"),
        (azure(json!({"metadata": {"site": " 3"}})), "metadata takes values of printable ASCII"),
        (azure(json!({"metadata": {"site": ""}})), "metadata takes values of printable ASCII"),
        (azure(json!({"metadata": {"site": "ä"}})), "metadata takes values of printable ASCII"),
        (
            azure(json!({"metadata": many("name", 8, &"v".repeat(1000))})),
            "metadata has more than 7680 bytes of names and values together",
        ),
        (azure(json!({"metadata": many("name", 33, "v")})), "metadata: Too many: 33: must have at most 32 items"),
        (azure(json!({"tags": many("name", 11, "v")})), "tags: Too many: 11: must have at most 10 items"),
        (azure(json!({"tags": {"a": "50%"}})), "tags take names of 1 to 128 and values of up to 256 letters"),
        (azure(json!({"tags": {"": "1"}})), "tags take names of 1 to 128 and values of up to 256 letters"),
        (azure(json!({"tags": {"a": "v".repeat(257)}})), "tags take names of 1 to 128 and values of up to 256 letters"),
        (azure(json!({"contentType": "video"})), "contentType is a MIME type, like video/mp4"),
        (azure(json!({"prefix": "/site-3"})), "prefix is folders separated by single slashes"),
        (azure(json!({"prefix": "site-3/"})), "prefix is folders separated by single slashes"),
        (azure(json!({"prefix": "site//3"})), "prefix is folders separated by single slashes"),
        (azure(json!({"prefix": "site-3\\raw"})), "no backslash"),
        (azure(json!({"prefix": "site-3./raw"})), "no component that ends with a dot, like site-3/raw"),
        (azure(json!({"prefix": "site\u{7}"})), "prefix is folders separated by single slashes"),
        (azure(json!({"overwrite": "Sometimes"})), "supported values: \"OwnSource\", \"Never\", \"Any\""),
        (
            azure(json!({"credentialsSecretRef": {"name": "Azure"}})),
            "credentialsSecretRef.name is the name of a Secret of this namespace",
        ),
        (azure(json!({"credentialsSecretRef": {}})), "credentialsSecretRef.name: Required value"),
        (
            azure(json!({"credentialsSecretRef": {"name": "azure"}, "workloadIdentity": identity(&json!({}))})),
            "credentialsSecretRef and workloadIdentity are both there: keep one of them",
        ),
        (
            azure(json!({"accountUrl": "http://192.0.2.9:10000/devstoreaccount1", "workloadIdentity": identity(&json!({}))})),
            "workloadIdentity needs an https accountUrl",
        ),
        (azure(json!({"workloadIdentity": identity(&json!({"clientId": null}))})), "workloadIdentity.clientId: Required value"),
        (azure(json!({"workloadIdentity": identity(&json!({"tenantId": null}))})), "workloadIdentity.tenantId: Required value"),
        (
            azure(json!({"workloadIdentity": identity(&json!({"clientId": "x".repeat(36)}))})),
            "workloadIdentity.clientId is the client id of the identity, a UUID like",
        ),
        (
            azure(json!({"workloadIdentity": identity(&json!({"tenantId": "a/b"}))})),
            "workloadIdentity.tenantId is the id of the tenant",
        ),
        (
            azure(json!({"workloadIdentity": identity(&json!({"authorityHost": "http://login.microsoftonline.com"}))})),
            "workloadIdentity.authorityHost is an https URL without a path",
        ),
        (
            azure(json!({"workloadIdentity": identity(&json!({"authorityHost": "https://login.microsoftonline.com/tenant"}))})),
            "workloadIdentity.authorityHost is an https URL without a path",
        ),
        (json!({"spec": {"destination": {"azureBlob": null}}}), "spec.destination.azureBlob: Required value"),
        (json!({"spec": {"destination": null}}), "spec.destination: Required value"),
    ]
}

fn bad_sources() -> Vec<Case> {
    vec![
        (nfs(json!({"server": "192.0.2.7", "path": "/srv/drop"})), "name exactly one source: persistentVolumeClaim"),
        (source(json!({"persistentVolumeClaim": null})), "name exactly one source: persistentVolumeClaim"),
        (json!({"spec": {"source": null}}), "spec.source: Required value"),
        (
            source(json!({"persistentVolumeClaim": {"claimName": "NFS_share"}})),
            "claimName is the name of a PersistentVolumeClaim of this namespace",
        ),
        (source(json!({"persistentVolumeClaim": {"claimName": ""}})), "claimName in body should be at least 1 chars long"),
        (source(json!({"incomingDir": "/incoming"})), "incomingDir is a relative path whose components do not start with a dot"),
        (source(json!({"incomingDir": "../other"})), "incomingDir is a relative path whose components do not start with a dot"),
        (source(json!({"incomingDir": "a/../../b"})), "incomingDir is a relative path whose components do not start with a dot"),
        (source(json!({"incomingDir": ""})), "incomingDir in body should be at least 1 chars long"),
        (source(json!({"processingDir": "processing"})), "processingDir is a relative path that starts with a dot"),
        (source(json!({"processingDir": "../processing"})), "processingDir is a relative path that starts with a dot"),
        (source(json!({"processingDir": ".blobferry/../x"})), "processingDir is a relative path that starts with a dot"),
    ]
}

fn bad_exports() -> Vec<Case> {
    vec![
        (nfs(json!({"server": "192.0.2.7:/srv"})), "nfs.server is a host name or an address, like nas.example.com"),
        (nfs(json!({"server": null})), "spec.source.nfs.server: Required value"),
        (nfs(json!({"path": "srv/drop"})), "nfs.path is an absolute path without .. and white space"),
        (nfs(json!({"path": "/srv/../etc"})), "nfs.path is an absolute path without .. and white space"),
        (nfs(json!({"path": "/srv/my drop"})), "nfs.path is an absolute path without .. and white space"),
        (nfs(json!({"mountOptions": ["soft"]})), "soft is refused because it loses data"),
        (nfs(json!({"mountOptions": ["hard", "exec"]})), "mountOptions takes hard, nolock, noresvport"),
        (nfs(json!({"mountOptions": ["vers=4.1,soft"]})), "mountOptions takes hard, nolock, noresvport"),
        (nfs(json!({"mountOptions": vec!["hard"; 21]})), "mountOptions: Too many: 21: must have at most 20 items"),
    ]
}

fn bad_rules() -> Vec<Case> {
    vec![
        (watch(json!({"pollInterval": "0s"})), "pollInterval is a duration from 100ms to 1h, like 2s"),
        (watch(json!({"pollInterval": "2"})), "pollInterval is a duration from 100ms to 1h, like 2s"),
        (watch(json!({"pollInterval": "2 days"})), "pollInterval is a duration from 100ms to 1h, like 2s"),
        (watch(json!({"pollInterval": "-2s"})), "pollInterval is a duration from 100ms to 1h, like 2s"),
        (watch(json!({"pollInterval": "61m"})), "pollInterval is a duration from 100ms to 1h, like 2s"),
        (watch(json!({"pollInterval": 2})), "must be of type string: \"integer\""),
        (watch(json!({"minFileAge": "0s"})), "minFileAge is a duration from 1s to 24h, like 5s"),
        (watch(json!({"minFileAge": "25h"})), "minFileAge is a duration from 1s to 24h, like 5s"),
        (watch(json!({"fileExtensions": ["*.mp4"]})), "fileExtensions are like .mp4, bin or .tar.gz"),
        (watch(json!({"fileExtensions": [".mp4,.jpg"]})), "fileExtensions are like .mp4, bin or .tar.gz"),
        (watch(json!({"fileExtensions": vec![".bin"; 65]})), "fileExtensions: Too many: 65: must have at most 64 items"),
        (watch(json!({"ignore": ["tmp/*"]})), "ignore takes names with the wildcards * and ?, like *.tmp"),
        (watch(json!({"ignore": ["*.{tmp,part}"]})), "ignore takes names with the wildcards * and ?, like *.tmp"),
        (retention(json!({"interval": "0s"})), "retention.interval is a duration from 1s to 1h, like 30s"),
        (retention(json!({"keepCompletedFor": "366d"})), "keepCompletedFor is a duration up to 8760h, like 60s or 72h"),
        (retention(json!({"keepCompletedFor": "9000h"})), "keepCompletedFor is a duration up to 8760h, like 60s or 72h"),
        (
            json!({"spec": {"suspend": "yes"}}),
            "spec.suspend: Invalid value: \"string\": spec.suspend in body must be of type boolean",
        ),
        (
            json!({"spec": {"deletionPolicy": "Later"}}),
            "spec.deletionPolicy: Unsupported value: \"Later\": supported values: \"Stop\", \"Drain\", \"Release\"",
        ),
    ]
}

fn bad_sizes() -> Vec<Case> {
    vec![
        (transfer(json!({"workers": 0})), "spec.transfer.workers in body should be greater than or equal to 1"),
        (transfer(json!({"workers": 65})), "spec.transfer.workers in body should be less than or equal to 64"),
        (transfer(json!({"queueSize": 100_001})), "spec.transfer.queueSize in body should be less than or equal to 100000"),
        (transfer(json!({"concurrency": 0})), "spec.transfer.concurrency in body should be greater than or equal to 1"),
        (transfer(json!({"blockSize": "1Ki"})), "blockSize is a size from 64Ki to 4000Mi, like 4Mi"),
        (transfer(json!({"blockSize": "4 MB"})), "blockSize is a size from 64Ki to 4000Mi, like 4Mi"),
        (transfer(json!({"blockSize": "-4Mi"})), "blockSize is a size from 64Ki to 4000Mi, like 4Mi"),
        (
            transfer(json!({"blockSize": "5Gi", "memoryLimit": "64Gi", "concurrency": 1})),
            "blockSize is a size from 64Ki to 4000Mi, like 4Mi",
        ),
        (transfer(json!({"bandwidthLimit": "1Ki"})), "bandwidthLimit is bytes per second from 8Ki to 100G"),
        (transfer(json!({"bandwidthLimit": "fast"})), "bandwidthLimit is bytes per second from 8Ki to 100G"),
        (transfer(json!({"maxAttempts": 1001})), "maxAttempts in body should be less than or equal to 1000"),
        (transfer(json!({"maxAttempts": -1})), "maxAttempts in body should be greater than or equal to 0"),
        (json!({"spec": {"runToken": "t".repeat(129)}}), "runToken: Too long: may not be more than 128"),
        (transfer(json!({"blockSize": "32Mi"})), "concurrency times blockSize must be at most half of memoryLimit"),
        (transfer(json!({"concurrency": 64})), "concurrency times blockSize must be at most half of memoryLimit"),
        (transfer(json!({"singlePutSize": "128Mi"})), "singlePutSize must be at most a quarter of memoryLimit"),
        (transfer(json!({"singlePutSize": "6Gi", "memoryLimit": "64Gi"})), "singlePutSize is a size up to 5000Mi, like 16Mi"),
        (transfer(json!({"memoryLimit": "1Mi"})), "memoryLimit is a size from 16Mi to 64Gi, like 256Mi"),
        (transfer(json!({"memoryLimit": "1Ti"})), "memoryLimit is a size from 16Mi to 64Gi, like 256Mi"),
        (staging(json!({"sizeLimit": "100Mi"})), "sizeLimit is a size from 1Gi to 100Ti, like 100Gi"),
        (staging(json!({"sizeLimit": "0"})), "sizeLimit is a size from 1Gi to 100Ti, like 100Gi"),
        (staging(json!({"mode": "Memory"})), "supported values: \"Disk\", \"None\""),
    ]
}

fn bad_pods() -> Vec<Case> {
    let many: BTreeMap<String, &str> = (0..33).map(|number| (format!("example.com/{number}"), "x")).collect();
    vec![
        (pod(json!({"securityContext": {"runAsUser": 0}})), "runAsUser in body should be greater than or equal to 1"),
        (pod(json!({"securityContext": {"fsGroup": 1000}})), "unknown field \"spec.pod.securityContext.fsGroup\""),
        (pod(json!({"securityContext": {"privileged": true}})), "unknown field \"spec.pod.securityContext.privileged\""),
        (pod(json!({"labels": {"blobferry.io/session": "other"}})), "pod.labels takes no label of blobferry.io/"),
        (pod(json!({"annotations": {"blobferry.io/spec-hash": "0"}})), "pod.annotations takes no annotation of blobferry.io/"),
        (pod(json!({"annotations": many})), "spec.pod.annotations: Too many: 33: must have at most 32 items"),
        (
            pod(json!({"serviceAccountName": "Admin Account"})),
            "serviceAccountName is the name of a ServiceAccount of this namespace",
        ),
        (pod(json!({"imagePullSecrets": [{"name": "-"}]})), "is the name of a Secret of this namespace"),
    ]
}

fn unknown_fields() -> Vec<Case> {
    vec![
        (json!({"spec": {"sesionName": "truck-7"}}), "unknown field \"spec.sesionName\""),
        (azure(json!({"accessKey": "secret"})), "unknown field \"spec.destination.azureBlob.accessKey\""),
        (source(json!({"hostPath": {"path": "/"}})), "unknown field \"spec.source.hostPath\""),
        (watch(json!({"inotify": true})), "unknown field \"spec.watch.inotify\""),
    ]
}

fn bad_changes_of_a_claim_session() -> Vec<Case> {
    vec![
        (json!({"spec": {"sessionName": "truck-8"}}), "sessionName cannot be changed: the files are in its folder"),
        (json!({"spec": {"sessionName": null}}), "sessionName cannot be changed: the files are in its folder"),
        (azure(json!({"accountUrl": "https://other.blob.core.windows.net"})), "accountUrl, container and prefix cannot be changed"),
        (azure(json!({"container": "other"})), "create another session for another destination"),
        (azure(json!({"prefix": "site-4"})), "accountUrl, container and prefix cannot be changed"),
        (azure(json!({"prefix": null})), "accountUrl, container and prefix cannot be changed"),
        (source(json!({"persistentVolumeClaim": {"claimName": "other"}})), "source.persistentVolumeClaim cannot be changed"),
        (source(json!({"persistentVolumeClaim": null})), "source.persistentVolumeClaim cannot be changed"),
        (
            source(json!({"persistentVolumeClaim": null, "nfs": {"server": "192.0.2.7", "path": "/srv"}})),
            "create another session for another share",
        ),
        (source(json!({"incomingDir": "other"})), "incomingDir and processingDir cannot be changed"),
        (source(json!({"processingDir": ".other"})), "create another session for other folders"),
        (watch(json!({"pollInterval": "0s"})), "pollInterval is a duration from 100ms to 1h, like 2s"),
    ]
}

fn bad_changes_of_an_nfs_session() -> Vec<Case> {
    vec![
        (json!({"spec": {"sessionName": "truck-7"}}), "sessionName cannot be changed: the files are in its folder"),
        (nfs(json!({"server": "192.0.2.8"})), "source.nfs server and path cannot be changed (mountOptions can)"),
        (nfs(json!({"path": "/srv/other"})), "source.nfs server and path cannot be changed (mountOptions can)"),
        (source(json!({"nfs": null})), "source.nfs server and path cannot be changed (mountOptions can)"),
        (
            source(json!({"nfs": null, "persistentVolumeClaim": {"claimName": "nfs-share"}})),
            "create another session for another share",
        ),
        (nfs(json!({"mountOptions": ["soft"]})), "soft is refused because it loses data"),
    ]
}

fn good_changes() -> Vec<Value> {
    vec![
        json!({"spec": {"suspend": true}}),
        watch(json!({"pollInterval": "100ms", "minFileAge": "1m30s", "fileExtensions": ["bin", ".tar.gz"], "ignore": []})),
        azure(json!({
            "accessTier": "Archive",
            "metadata": {"site": "3", "_a1": "left, 100%"},
            "tags": {"a b": "x+y-z./:=_", "empty": ""},
            "contentType": "text/csv; charset=utf-8",
        })),
        watch(json!({"recursive": true})),
        transfer(json!({"maxAttempts": 1000, "bandwidthLimit": "12500k"})),
        json!({"spec": {"runToken": "2026-11-26 12:00"}}),
        transfer(json!({"workers": 64, "blockSize": "8Mi", "memoryLimit": "1Gi", "singlePutSize": 0, "concurrency": 16})),
        transfer(json!({"blockSize": 5_000_000})),
        retention(json!({"interval": "1s", "keepCompletedFor": "0s"})),
        azure(json!({"overwrite": "Never", "credentialsSecretRef": {"name": "azure"}})),
        azure(json!({"accountUrl": "https://account.blob.core.windows.net", "workloadIdentity": identity(&json!({}))})),
        azure(json!({
            "accountUrl": "https://account.blob.core.usgovcloudapi.net",
            "workloadIdentity": identity(&json!({"authorityHost": "https://login.microsoftonline.us/"})),
        })),
        pod(json!({"securityContext": {"runAsUser": 1000}, "resources": {"limits": {"cpu": 2, "memory": "1Gi"}}})),
        nfs(json!({"mountOptions": ["hard", "nfsvers=4.2", "nconnect=4"]})),
    ]
}

/// `target` changed by the JSON merge patch `change` (RFC 7396).
fn merge(target: &mut Value, change: &Value) {
    let Value::Object(change) = change else {
        *target = change.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in change {
        if value.is_null() {
            if let Some(object) = target.as_object_mut() {
                object.remove(key);
            }
        } else {
            merge(&mut target[key], value);
        }
    }
}

/// An API server that has the definition.
struct Server {
    client: Client,
    sessions: Api<UploadSession>,
}

impl Server {
    async fn prepared() -> Result<Self> {
        let client = Bed::from_environment().await?.client;
        let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
        let definition = manifest::definition();
        match definitions.create(&PostParams::default(), &definition).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            result => drop(result?),
        }
        let name = definition.name_any();
        let established = await_condition(definitions, &name, conditions::is_crd_established());
        tokio::time::timeout(Duration::from_mins(3), established).await??;
        let sessions = Api::namespaced(client.clone(), "default");
        Ok(Self { client, sessions })
    }

    /// Creates `manifest` as `kubectl create` does, with unknown fields refused.
    async fn create(&self, manifest: &Value, dry_run: bool) -> Result<(), kube::Error> {
        let mut path = format!("{}?fieldValidation=Strict", UploadSession::url_path(&(), Some("default")));
        if dry_run {
            path.push_str("&dryRun=All");
        }
        let request = http::Request::post(path)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(manifest.to_string().into_bytes())
            .map_err(kube::Error::HttpError)?;
        self.client.request_text(request).await.map(drop)
    }

    /// Changes the session `name` as `kubectl patch` does, without a trace.
    async fn change(&self, name: &str, change: &Value) -> Result<(), kube::Error> {
        let parameters = PatchParams { dry_run: true, ..PatchParams::default() }.validation_strict();
        self.sessions.patch(name, &parameters, &Patch::Merge(change)).await.map(drop)
    }

    /// Makes a session `name` of `manifest`, anew and suspended: an operator that runs makes nothing for it.
    async fn make(&self, name: &str, manifest: &str) -> Result<()> {
        let mut manifest: Value = serde_norway::from_str(manifest)?;
        manifest["metadata"]["name"] = name.into();
        manifest["spec"]["suspend"] = true.into();
        self.remove(name).await?;
        self.create(&manifest, false).await?;
        Ok(())
    }

    async fn remove(&self, name: &str) -> Result<()> {
        match self.sessions.delete(name, &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// What is wrong with the server's answer to a bad case: nothing if it refused it in the expected words.
fn complaint(case: &Case, answer: Result<(), kube::Error>) -> Option<String> {
    let (change, expected) = case;
    match answer {
        Err(kube::Error::Api(status)) if status.message.contains(expected) => None,
        Err(error) => Some(format!("{change}\n  expected: {expected}\n  answered: {error}")),
        Ok(()) => Some(format!("{change}\n  expected: {expected}\n  was accepted")),
    }
}

fn report(complaints: &[String]) {
    assert!(complaints.is_empty(), "{} cases went wrong:\n{}", complaints.len(), complaints.join("\n"));
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn every_bad_manifest_is_refused_in_words_that_help() -> Result<()> {
    let server = Server::prepared().await?;
    let mut complaints = Vec::new();
    let of_a_claim =
        [bad_names(), bad_destinations(), bad_sources(), bad_rules(), bad_sizes(), bad_pods(), unknown_fields()].concat();
    for (good, cases) in [(CLAIM, of_a_claim), (NFS, bad_exports())] {
        let good: Value = serde_norway::from_str(good)?;
        server.create(&good, true).await.context("the good manifest")?;
        for case in cases {
            let mut bad = good.clone();
            merge(&mut bad, &case.0);
            complaints.extend(complaint(&case, server.create(&bad, true).await));
        }
    }
    report(&complaints);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn every_bad_change_is_refused_in_words_that_help() -> Result<()> {
    let server = Server::prepared().await?;
    let mut complaints = Vec::new();
    for (name, good, cases) in
        [("changed-claim", CLAIM, bad_changes_of_a_claim_session()), ("changed-nfs", NFS, bad_changes_of_an_nfs_session())]
    {
        server.make(name, good).await?;
        for case in cases {
            complaints.extend(complaint(&case, server.change(name, &case.0).await));
        }
        server.remove(name).await?;
    }
    report(&complaints);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn what_the_documentation_allows_is_accepted() -> Result<()> {
    let server = Server::prepared().await?;
    let good: Value = serde_norway::from_str(NFS)?;
    let mut complaints = Vec::new();
    for change in good_changes() {
        let mut changed = good.clone();
        merge(&mut changed, &change);
        if let Err(error) = server.create(&changed, true).await {
            complaints.push(format!("{change}\n  answered: {error}"));
        }
    }
    report(&complaints);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn names_in_the_status_never_change() -> Result<()> {
    let server = Server::prepared().await?;
    let name = "changed-status";
    server.make(name, CLAIM).await?;
    let set = async |status: Value| {
        let patch = Patch::Merge(json!({"status": status}));
        server.sessions.patch_status(name, &PatchParams::default(), &patch).await.map(drop)
    };
    // What an operator that runs writes, too.
    let created = server.sessions.get(name).await?.creation_timestamp().context("the session has a time")?.0;
    let date = created.to_zoned(TimeZone::UTC).strftime("%Y%m%d").to_string();
    set(json!({"sessionName": "truck-7", "datePrefix": date})).await?;
    let mut complaints = Vec::new();
    for case in [
        (json!({"sessionName": "truck-8"}), "status.sessionName never changes"),
        (json!({"sessionName": null}), "status.sessionName never changes"),
        (json!({"datePrefix": "20201122"}), "status.datePrefix never changes"),
        (json!({"datePrefix": null}), "status.datePrefix never changes"),
        (json!({"phase": "Sleeping"}), "status.phase: Unsupported value: \"Sleeping\""),
    ] {
        let answer = set(case.0.clone()).await;
        complaints.extend(complaint(&case, answer));
    }
    server.remove(name).await?;
    report(&complaints);
    Ok(())
}
