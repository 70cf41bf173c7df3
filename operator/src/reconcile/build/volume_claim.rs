//! The `PersistentVolumeClaim` of an inline NFS source.

use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};

use super::{
    meta::{owned, session_labels, volume_name},
    volume::NOMINAL_SIZE,
};
use crate::reconcile::validate::{Share, ValidSession};

/// The claim of `session`, if its source is an export.
pub fn volume_claim(session: &ValidSession) -> Option<PersistentVolumeClaim> {
    let Share::Nfs { .. } = session.share else { return None };
    let name = volume_name(&session.uid);
    Some(PersistentVolumeClaim {
        metadata: owned(session, name.clone(), session_labels(session)),
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
