//! Names, labels and owners of what the operator makes.

use std::collections::BTreeMap;

use blobferry_crds::{UploadSession, names};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;

use crate::decisions::validate::ValidSession;

/// Name of the pod of the session object `session`.
pub fn pod_name(session: &str) -> String {
    format!("{session}-uploader")
}

/// Name of the volume and of the claim that are made for an inline NFS source.
pub fn volume_name(uid: &str) -> String {
    format!("blobferry-{uid}")
}

/// The label by which the operator knows what it made.
pub fn managed_labels() -> BTreeMap<String, String> {
    BTreeMap::from([(names::MANAGED_BY_LABEL.into(), names::OPERATOR.into())])
}

/// Whether the operator made an object with these labels.
pub fn is_managed(meta: &ObjectMeta) -> bool {
    meta.labels.as_ref().and_then(|labels| labels.get(names::MANAGED_BY_LABEL)).is_some_and(|value| value == names::OPERATOR)
}

/// Labels of what is made for one session.
pub(super) fn session_labels(session: &ValidSession) -> BTreeMap<String, String> {
    let mut labels = managed_labels();
    labels.insert(names::SESSION_LABEL.into(), session.name.clone());
    labels.insert(names::SESSION_UID_LABEL.into(), session.uid.clone());
    labels
}

/// What is made for one session in its namespace. The garbage collector removes it with the session, unless claimed files are to be
/// seen to first.
pub(super) fn child(session: &ValidSession, name: String, labels: BTreeMap<String, String>) -> ObjectMeta {
    let owner = || OwnerReference {
        api_version: UploadSession::api_version(&()).into_owned(),
        kind: UploadSession::kind(&()).into_owned(),
        name: session.name.clone(),
        uid: session.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    };
    ObjectMeta {
        name: Some(name),
        namespace: Some(session.namespace.clone()),
        labels: Some(labels),
        owner_references: session.owns.then(|| vec![owner()]),
        ..ObjectMeta::default()
    }
}
