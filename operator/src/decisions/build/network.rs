//! What every uploader of the installation needs on its way to Azure: a proxy, and the certificate authorities of a company.

use blobferry_crds::names::{self, variables as var};
use k8s_openapi::api::core::v1::{ConfigMapVolumeSource, EnvVar, Volume, VolumeMount};

use super::environment::plain;
use crate::settings::Network;

const VOLUME: &str = "authorities";

/// The authorities, if the installation names a `ConfigMap`. A namespace may lack it: then only the public ones are trusted.
pub(super) fn volume(network: &Network) -> Option<Volume> {
    let source =
        ConfigMapVolumeSource { name: network.authorities.clone()?, optional: Some(true), ..ConfigMapVolumeSource::default() };
    Some(Volume { name: VOLUME.into(), config_map: Some(source), ..Volume::default() })
}

pub(super) fn mount(network: &Network) -> Option<VolumeMount> {
    network.authorities.is_some().then(|| VolumeMount {
        name: VOLUME.into(),
        mount_path: names::AUTHORITIES_MOUNT.into(),
        read_only: Some(true),
        ..VolumeMount::default()
    })
}

pub(super) fn variables(network: &Network) -> Vec<EnvVar> {
    let authorities = network.authorities.is_some().then(|| format!("{}:{}", names::PUBLIC_AUTHORITIES, names::AUTHORITIES_MOUNT));
    let all = [
        (var::AUTHORITIES, authorities),
        (var::HTTPS_PROXY, network.https_proxy.clone()),
        (var::NO_PROXY, network.no_proxy.clone()),
    ];
    all.into_iter().filter_map(|(name, value)| Some(plain(name, &value?))).collect()
}
