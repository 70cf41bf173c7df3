//! (test) Sessions as production sees them: minimal YAML, read by the resource's own types.

use blobferry_crds::UploadSession;
use serde_norway::{Mapping, Value};

use crate::settings::Settings;

const MINIMAL: &str = "
apiVersion: blobferry.io/v1alpha1
kind: UploadSession
metadata:
  name: truck-7
  namespace: cameras
  uid: 6f7e0b0c-0000-4000-8000-000000000001
  resourceVersion: '7'
  generation: 1
  creationTimestamp: 2026-11-21T08:00:00Z
spec:
  source: {persistentVolumeClaim: {claimName: share}}
  destination: {azureBlob: {accountUrl: https://acct.blob.core.windows.net, container: archive}}
";

/// A minimal session whose spec has the fields of the YAML mapping `spec` as well.
pub(crate) fn session(spec: &str) -> UploadSession {
    let mut object: Value = serde_norway::from_str(MINIMAL).unwrap();
    if !spec.is_empty() {
        let more: Mapping = serde_norway::from_str(spec).unwrap();
        merge(object.get_mut("spec").unwrap().as_mapping_mut().unwrap(), more);
    }
    serde_norway::from_value(object).unwrap()
}

fn merge(base: &mut Mapping, more: Mapping) {
    for (key, value) in more {
        match (base.get_mut(&key), value) {
            (Some(Value::Mapping(base)), Value::Mapping(more)) => merge(base, more),
            (_, value) => drop(base.insert(key, value)),
        }
    }
}

/// A session with an inline NFS source, which [`settings`] allow.
pub(crate) fn nfs_session() -> UploadSession {
    let mut session = session("source: {nfs: {server: nas.example.com, path: /srv/drop/cameras}}");
    session.spec.source.persistent_volume_claim = None;
    session
}

/// What an operator without flags allows, and one export.
pub(crate) fn settings() -> Settings {
    Settings {
        uploader_image: "localhost/blobferry-uploader:dev".into(),
        pull_policy: "IfNotPresent".into(),
        cluster_role: "blobferry-uploader".into(),
        nfs_allowed: serde_json::from_str(r#"[{"server": "nas.example.com", "pathPrefix": "/srv/drop"}]"#).unwrap(),
        account_hosts: vec![".blob.core.windows.net".parse().unwrap()],
        allow_pod_image: false,
        telemetry: Vec::new(),
    }
}

/// The moment of most tests, some minutes after the session was made.
pub(crate) fn now() -> jiff::Timestamp {
    "2026-11-21T08:30:00Z".parse().unwrap()
}
