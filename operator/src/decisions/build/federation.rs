//! What a pod needs to use a workload identity: its own token in a file, and the variables that Microsoft's libraries read.
//!
//! The identity webhook, where there is one, acts on pods with its label only, and these have none.

use blobferry_crds::names::{self, variables as var};
use k8s_openapi::api::core::v1::{
    EnvVar, ProjectedVolumeSource, ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};

use super::environment::plain;
use crate::decisions::federation::Federation;

const VOLUME: &str = "identity";
/// The kubelet replaces the token when four fifths of this are over.
const TOKEN_SECONDS: i64 = 3600;

pub(super) fn volume() -> Volume {
    let token = ServiceAccountTokenProjection {
        audience: Some(names::IDENTITY_AUDIENCE.into()),
        expiration_seconds: Some(TOKEN_SECONDS),
        path: names::IDENTITY_TOKEN.into(),
    };
    let source = VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() };
    let projected = ProjectedVolumeSource { sources: Some(vec![source]), ..ProjectedVolumeSource::default() };
    Volume { name: VOLUME.into(), projected: Some(projected), ..Volume::default() }
}

pub(super) fn mount() -> VolumeMount {
    VolumeMount { name: VOLUME.into(), mount_path: names::IDENTITY_MOUNT.into(), read_only: Some(true), ..VolumeMount::default() }
}

pub(super) fn variables(federation: &Federation) -> Vec<EnvVar> {
    vec![
        plain(var::AZURE_WORKLOAD_IDENTITY, "true"),
        plain(var::IDENTITY_CLIENT, &federation.client),
        plain(var::IDENTITY_TENANT, &federation.tenant),
        plain(var::IDENTITY_AUTHORITY, &federation.authority),
        plain(var::IDENTITY_TOKEN_FILE, &format!("{}/{}", names::IDENTITY_MOUNT, names::IDENTITY_TOKEN)),
    ]
}
