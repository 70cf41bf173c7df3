//! The `PersistentVolume` of an inline NFS source.

use blobferry_crds::names;
use k8s_openapi::{
    api::core::v1::{NFSVolumeSource, ObjectReference, PersistentVolume, PersistentVolumeSpec},
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};

use super::meta::{session_labels, volume_name};
use crate::decisions::validate::{Share, ValidSession};

/// What volume and claim agree on. NFS knows no such limit.
pub(super) const NOMINAL_SIZE: &str = "1Gi";

/// The volume of `session`, if its source is an export. It is kept for its claim. It has no owner, because an object of the cluster
/// cannot belong to one of a namespace; the sweep removes it.
pub fn volume(session: &ValidSession) -> Option<PersistentVolume> {
    let Share::Nfs { server, path, options } = &session.share else { return None };
    let name = volume_name(&session.uid);
    let mut labels = session_labels(session);
    labels.insert(names::SESSION_NAMESPACE_LABEL.into(), session.namespace.clone());
    Some(PersistentVolume {
        metadata: ObjectMeta { name: Some(name.clone()), labels: Some(labels), ..ObjectMeta::default() },
        spec: Some(PersistentVolumeSpec {
            access_modes: Some(vec!["ReadWriteMany".into()]),
            capacity: Some([("storage".to_owned(), Quantity(NOMINAL_SIZE.into()))].into()),
            claim_ref: Some(ObjectReference {
                api_version: Some("v1".into()),
                kind: Some("PersistentVolumeClaim".into()),
                namespace: Some(session.namespace.clone()),
                name: Some(name),
                ..ObjectReference::default()
            }),
            mount_options: Some(options.clone()),
            nfs: Some(NFSVolumeSource { server: server.clone(), path: path.clone(), read_only: None }),
            persistent_volume_reclaim_policy: Some("Retain".into()),
            storage_class_name: Some(String::new()),
            volume_mode: Some("Filesystem".into()),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    })
}

/// Whether `found` mounts something else, or in another way, than `wanted`.
pub fn volume_differs(found: &PersistentVolume, wanted: &PersistentVolume) -> bool {
    let mounts = |volume: &PersistentVolume| {
        let spec = volume.spec.clone().unwrap_or_default();
        (spec.nfs.map(|nfs| (nfs.server, nfs.path)), spec.mount_options.unwrap_or_default())
    };
    mounts(found) != mounts(wanted)
}
