//! The `PersistentVolumeClaim` of an inline NFS source.

use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};

use blobferry_crds::names;
use kube::ResourceExt;

use super::{
    is_managed,
    meta::{child, session_labels, volume_name},
    volume::NOMINAL_SIZE,
};
use crate::decisions::validate::{Share, ValidSession};

/// Whether `found` was made for the session with `uid`: it has our label, is for its volume, and is controlled by it, or by nobody and
/// has the label with its UID.
pub fn is_claim_of(found: &PersistentVolumeClaim, uid: &str) -> bool {
    let volume = found.spec.as_ref().and_then(|spec| spec.volume_name.as_ref());
    is_managed(&found.metadata)
        && volume == Some(&volume_name(uid))
        && match found.owner_references().iter().find(|owner| owner.controller == Some(true)) {
            Some(owner) => owner.uid == uid,
            None => found.labels().get(names::SESSION_UID_LABEL).is_some_and(|of| of == uid),
        }
}

/// The claim of `session`, if its source is an export.
pub fn volume_claim(session: &ValidSession) -> Option<PersistentVolumeClaim> {
    let Share::Nfs { .. } = session.share else { return None };
    let name = volume_name(&session.uid);
    Some(PersistentVolumeClaim {
        metadata: child(session, name.clone(), session_labels(session)),
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteMany".into()]),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), Quantity(NOMINAL_SIZE.into()))].into()),
                limits: None,
            }),
            storage_class_name: Some(String::new()),
            volume_mode: Some("Filesystem".into()),
            volume_name: Some(name),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    })
}
