//! The versioned hash of what a person means, by which a change that needs another pod is seen.
//!
//! Values that are the resource's defaults are left out, and values that are written in different ways but mean the same are equal.
//! So neither a new version of the operator nor a new field with a default in the resource restarts anything. What the
//! installation decides (image, pull policy) is not in it for the same reason. An operator whose hashes mean something else has another
//! version of them, and brings its own to sessions as it does a new image.

use std::collections::{BTreeMap, BTreeSet};

use blobferry_crds::{Overwrite, PodTemplate, Quantity, Transfer, Watch};
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::decisions::{
    federation::Federation,
    validate::{Container, Share, Tuning, ValidSession},
};

const VERSION: &str = "v1";

/// The hash of `session`, with its version.
pub fn spec_hash(session: &ValidSession) -> String {
    let digest = Sha256::digest(meaning(session).text().as_bytes());
    let hex = digest.iter().take(16).fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    format!("{VERSION}-{hex}")
}

/// Whether `hash` has the version of ours, so that another one means another session.
pub fn is_comparable(hash: &str) -> bool {
    hash.split_once('-').is_some_and(|(version, _)| version == VERSION)
}

/// What is meant, in a canonical form: a map of the values that are no defaults, with sorted keys at every depth.
#[derive(Default)]
struct Meaning(Map<String, Value>);

impl Meaning {
    fn put<T: Serialize + PartialEq>(&mut self, name: &str, value: T, default: &T) {
        if value != *default
            && let Ok(value) = serde_json::to_value(value)
        {
            self.0.insert(name.to_owned(), value);
        }
    }

    fn text(self) -> String {
        canonical(Value::Object(self.0)).to_string()
    }
}

/// `value` with the keys of all maps sorted, whatever the map type of `serde_json` is in this build.
fn canonical(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<String, Value> = map.into_iter().map(|(key, value)| (key, canonical(value))).collect();
            Value::Object(sorted.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(canonical).collect()),
        other => other,
    }
}

fn meaning(session: &ValidSession) -> Meaning {
    let mut meaning = Meaning::default();
    put_share(&mut meaning, session);
    put_container(&mut meaning, &session.container);
    put_tuning(&mut meaning, &session.tuning);
    meaning.put("stage", session.stage, &Some(100 << 30));
    put_template(&mut meaning, &session.template);
    meaning.put("owns", session.owns, &true);
    meaning
}

fn put_share(meaning: &mut Meaning, session: &ValidSession) {
    match &session.share {
        Share::Claim(claim) => meaning.put("claim", claim.clone(), &String::new()),
        Share::Nfs { server, path, options } => {
            meaning.put("nfs", (server.clone(), path.clone()), &(String::new(), String::new()));
            let default = blobferry_crds::DEFAULT_MOUNT_OPTIONS.map(str::to_owned).to_vec();
            meaning.put("mountOptions", options.clone(), &default);
        }
    }
    meaning.put("incomingDir", session.incoming_dir.clone(), &"incoming".to_owned());
    meaning.put("processingDir", session.processing_dir.clone(), &".processing".to_owned());
}

fn put_container(meaning: &mut Meaning, container: &Container) {
    let Container { account_url, name, prefix, overwrite, access_tier, metadata, tags, content_type, secret, federation } =
        container;
    meaning.put("accountUrl", account_url.clone(), &String::new());
    meaning.put("container", name.clone(), &String::new());
    meaning.put("prefix", prefix.clone(), &String::new());
    meaning.put("overwrite", *overwrite, &Overwrite::OwnSource);
    meaning.put("accessTier", *access_tier, &None);
    meaning.put("metadata", metadata.clone(), &BTreeMap::new());
    meaning.put("tags", tags.clone(), &BTreeMap::new());
    meaning.put("contentType", content_type.clone(), &None);
    meaning.put("secret", secret.clone(), &None);
    let identity = |federation: &Federation| [&federation.client, &federation.tenant, &federation.authority].map(String::clone);
    meaning.put("workloadIdentity", federation.as_ref().map(identity), &None);
}

fn put_tuning(meaning: &mut Meaning, tuning: &Tuning) {
    let Tuning {
        recursive,
        file_extensions,
        ignore,
        queue_size,
        block_size,
        single_put_size,
        concurrency,
        memory_limit,
        max_attempts,
        // These change live, by the reply to a status write.
        poll_interval: _,
        min_file_age: _,
        workers: _,
        bandwidth_limit: _,
        gc_interval: _,
        keep_completed_for: _,
        idle_timeout: _,
        run_token: _,
    } = tuning;
    let (watch, transfer) = (Watch::default(), Transfer::default());
    let of_size = |size: &Quantity| size.bytes().unwrap_or(0);
    meaning.put("recursive", *recursive, &watch.recursive);
    meaning.put("fileExtensions", extensions(file_extensions), &extensions(&watch.file_extensions));
    meaning.put("ignore", as_set(ignore), &as_set(&watch.ignore));
    meaning.put("queueSize", *queue_size, &transfer.queue_size);
    meaning.put("blockSize", *block_size, &of_size(&transfer.block_size));
    meaning.put("singlePutSize", *single_put_size, &of_size(&transfer.single_put_size));
    meaning.put("concurrency", *concurrency, &transfer.concurrency);
    meaning.put("memoryLimit", *memory_limit, &of_size(&transfer.memory_limit));
    meaning.put("maxAttempts", *max_attempts, &transfer.max_attempts);
}

/// Extensions mean the same with and without the dot, in upper and lower case, in any order.
fn extensions(all: &[String]) -> BTreeSet<String> {
    all.iter().map(|extension| extension.trim_start_matches('.').to_ascii_lowercase()).collect()
}

/// `1` and `"1"` are the same quantity.
fn as_text(quantities: &BTreeMap<String, Quantity>) -> BTreeMap<String, String> {
    quantities.iter().map(|(name, quantity)| (name.clone(), quantity.to_string())).collect()
}

fn as_set(all: &[String]) -> BTreeSet<String> {
    all.iter().cloned().collect()
}

fn put_template(meaning: &mut Meaning, template: &PodTemplate) {
    let PodTemplate {
        image,
        resources,
        node_selector,
        tolerations,
        affinity,
        priority_class_name,
        service_account_name,
        labels,
        annotations,
        image_pull_secrets,
        security_context,
    } = template;
    let default = PodTemplate::default();
    meaning.put("image", image.clone(), &default.image);
    meaning.put("requests", as_text(&resources.requests), &BTreeMap::new());
    meaning.put("limits", as_text(&resources.limits), &BTreeMap::new());
    meaning.put("nodeSelector", node_selector.clone(), &default.node_selector);
    meaning.put("tolerations", tolerations.clone(), &default.tolerations);
    meaning.put("affinity", affinity.clone(), &default.affinity);
    meaning.put("priorityClassName", priority_class_name.clone(), &default.priority_class_name);
    meaning.put("serviceAccountName", service_account_name.clone(), &default.service_account_name);
    meaning.put("labels", labels.clone(), &default.labels);
    meaning.put("annotations", annotations.clone(), &default.annotations);
    meaning.put("imagePullSecrets", image_pull_secrets.clone(), &default.image_pull_secrets);
    meaning.put("securityContext", security_context.clone(), &default.security_context);
}

#[cfg(test)]
mod tests {
    use blobferry_crds::{
        StagingMode, UploadSession,
        changes::{EFFECTS, Effect},
    };

    use super::*;
    use crate::{decisions::validate::validate, fixtures, settings::Settings};

    fn hash(spec: &str) -> String {
        spec_hash(&validate(&fixtures::session(spec), &fixtures::settings()).unwrap())
    }

    #[test]
    fn hash_of_a_minimal_session_never_changes() {
        assert_eq!(hash(""), "v1-2f47f5315289e6a04e8c2b70ef653fd4");
    }

    /// Every field that is in the hash, with a value that is no default; a session names one kind of source and of credential.
    const EVERYTHING: &str = "
        sessionName: truck-7
        source: {incomingDir: camera/incoming, processingDir: .camera}
        deletionPolicy: Drain
        destination: {azureBlob: {prefix: site-3/raw, overwrite: Never, accessTier: Cool, metadata: {site: '3', a: b}, tags: {a b: c},
          contentType: video/mp4, credentialsSecretRef: {name: azure}}}
        watch: {recursive: true, fileExtensions: [.bin, MP4], ignore: ['*.tmp', '*.log']}
        transfer: {queueSize: 10, blockSize: 8Mi, singlePutSize: 1Mi, concurrency: 4, memoryLimit: 128Mi, maxAttempts: 5}
        staging: {sizeLimit: 1Gi}
        pod:
          image: localhost/other:1
          resources: {requests: {cpu: 1, memory: 1Gi}, limits: {memory: 2Gi}}
          nodeSelector: {disk: fast}
          tolerations: [{key: dedicated, operator: Exists, effect: NoSchedule}]
          affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [
            {matchExpressions: [{key: a, operator: In, values: [b]}]}]}}}
          priorityClassName: high
          serviceAccountName: own
          labels: {team: vision}
          annotations: {note: mine}
          imagePullSecrets: [{name: registry}]
          securityContext: {runAsUser: 1000, runAsGroup: 1001, supplementalGroups: [1002]}
    ";

    /// Two sessions that name every field of the hash between them.
    fn everything() -> [UploadSession; 2] {
        let claim = fixtures::session(EVERYTHING);
        let mut export = claim.clone();
        export.spec.source.persistent_volume_claim = None;
        export.spec.source.nfs = fixtures::nfs_session().spec.source.nfs;
        export.spec.source.nfs.as_mut().unwrap().mount_options = vec!["hard".into(), "nfsvers=4.2".into()];
        let identity = "{clientId: c, tenantId: t, authorityHost: 'https://a.blob.core.windows.net'}";
        let identity = fixtures::session(&format!("destination: {{azureBlob: {{workloadIdentity: {identity}}}}}"));
        let blob = &mut export.spec.destination.azure_blob;
        (blob.workload_identity, blob.credentials_secret_ref) = (identity.spec.destination.azure_blob.workload_identity, None);
        export.spec.staging.mode = StagingMode::None;
        [claim, export]
    }

    /// Another hash would restart every uploader of every installation with its next operator.
    #[test]
    fn hashes_of_sessions_that_name_everything_never_change() {
        let settings = Settings { allow_pod_image: true, ..fixtures::settings() };
        let hashes = everything().map(|session| spec_hash(&validate(&session, &settings).unwrap()));
        assert_eq!(hashes, ["v1-02fd10decc20773c31c856edb7fba4d2", "v1-30a9fe681ee75d6a6c7bbc9bf3e09c42"]);
    }

    #[test]
    fn every_field_that_replaces_the_pod_is_named_by_those_sessions() {
        let spec = |session: &UploadSession| serde_json::to_value(&session.spec).unwrap();
        let (usual, all) = (spec(&fixtures::session("")), everything().each_ref().map(spec));
        for (path, _) in EFFECTS.iter().filter(|(_, effect)| *effect == Effect::Replaces) {
            let at = format!("/{}", path.replace('.', "/"));
            assert!(all.iter().any(|spec| spec.pointer(&at).is_some() && spec.pointer(&at) != usual.pointer(&at)), "{path}");
        }
    }

    #[test]
    fn defaults_that_are_written_out_mean_nothing() {
        for spec in [
            "watch: {pollInterval: 2s, minFileAge: 5000ms, ignore: ['*~', '.*', '*.tmp', '*.part', '*.partial']}",
            "transfer: {workers: 4, blockSize: 4194304, memoryLimit: 262144Ki}",
            "staging: {mode: Disk, sizeLimit: 100Gi}",
            "retention: {interval: 30s, keepCompletedFor: 1m}",
            "pod: {securityContext: {}}",
            "source: {incomingDir: incoming, processingDir: .processing}",
            "suspend: false",
        ] {
            assert_eq!(hash(spec), hash(""), "{spec}");
        }
    }

    #[test]
    fn what_changes_without_another_pod_does_not_change_the_hash() {
        for spec in [
            "suspend: true",
            "runToken: tuesday",
            "completion: {idleTimeout: 10m}",
            "ttlSecondsAfterFinished: 60",
            "drainTimeout: 5m",
            "watch: {pollInterval: 3s}",
            "watch: {minFileAge: 6s}",
            "transfer: {workers: 5}",
            "transfer: {bandwidthLimit: 100k}",
            "retention: {interval: 31s}",
            "retention: {keepCompletedFor: 61s}",
        ] {
            assert_eq!(hash(spec), hash(""), "{spec}");
        }
    }

    #[test]
    fn every_other_meaning_changes_the_hash() {
        let mut hashes: Vec<_> = [
            "",
            "source: {incomingDir: in}",
            "source: {processingDir: .p}",
            "source: {persistentVolumeClaim: {claimName: other}}",
            "destination: {azureBlob: {container: other}}",
            "destination: {azureBlob: {prefix: site}}",
            "destination: {azureBlob: {overwrite: Never}}",
            "destination: {azureBlob: {accessTier: Cool}}",
            "destination: {azureBlob: {metadata: {a: b}}}",
            "destination: {azureBlob: {tags: {a: b}}}",
            "destination: {azureBlob: {contentType: video/mp4}}",
            "destination: {azureBlob: {credentialsSecretRef: {name: s}}}",
            "watch: {recursive: true}",
            "destination: {azureBlob: {workloadIdentity: {clientId: c, tenantId: t}}}",
            "destination: {azureBlob: {workloadIdentity: {clientId: d, tenantId: t}}}",
            "destination: {azureBlob: {workloadIdentity: {clientId: c, tenantId: u}}}",
            "destination: {azureBlob: {workloadIdentity: {clientId: c, tenantId: t, authorityHost: 'https://a.blob.core.windows.net'}}}",
            "deletionPolicy: Drain",
            "watch: {fileExtensions: [bin]}",
            "watch: {ignore: []}",
            "transfer: {queueSize: 5}",
            "transfer: {blockSize: 5Mi}",
            "transfer: {singlePutSize: 5Mi}",
            "transfer: {concurrency: 5}",
            "transfer: {memoryLimit: 512Mi}",
            "transfer: {maxAttempts: 5}",
            "staging: {mode: None}",
            "staging: {sizeLimit: 1Gi}",
            "pod: {resources: {limits: {cpu: 1}}}",
            "pod: {nodeSelector: {a: b}}",
            "pod: {tolerations: [{operator: Exists}]}",
            "pod: {affinity: {nodeAffinity: {}}}",
            "pod: {priorityClassName: high}",
            "pod: {serviceAccountName: own}",
            "pod: {labels: {a: b}}",
            "pod: {annotations: {a: b}}",
            "pod: {imagePullSecrets: [{name: p}]}",
            "pod: {securityContext: {runAsUser: 1000}}",
        ]
        .map(hash)
        .to_vec();
        let count = hashes.len();
        hashes.sort();
        hashes.dedup();
        assert_eq!(hashes.len(), count);
    }

    #[test]
    fn extensions_mean_the_same_in_any_spelling() {
        assert_eq!(hash("watch: {fileExtensions: [.BIN, mp4]}"), hash("watch: {fileExtensions: ['.mp4', bin]}"));
    }
}
