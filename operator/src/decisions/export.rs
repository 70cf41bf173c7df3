//! (pure) The export of a file server that a volume leads to.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeSpec};

/// The driver of <https://github.com/kubernetes-csi/csi-driver-nfs>.
const NFS_DRIVER: &str = "nfs.csi.k8s.io";

/// A folder that a file server exports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Name or address of the server, in lower case.
    pub server: String,
    /// Absolute path.
    pub path: String,
}

/// The volume to which `claim` is bound.
pub fn bound_volume(claim: &PersistentVolumeClaim) -> Option<String> {
    let bound = claim.status.as_ref()?.phase.as_deref() == Some("Bound");
    claim.spec.as_ref()?.volume_name.clone().filter(|_| bound)
}

/// The export behind a volume of Kubernetes' own NFS kind or of the usual NFS driver.
pub fn export(volume: &PersistentVolumeSpec) -> Option<Export> {
    let (server, path) = if let Some(nfs) = &volume.nfs {
        (nfs.server.clone(), nfs.path.clone())
    } else {
        let csi = volume.csi.as_ref().filter(|csi| csi.driver == NFS_DRIVER)?;
        let attributes = csi.volume_attributes.as_ref()?;
        // The driver takes its parameters in any case, and calls one `subDir`.
        let attribute =
            |name: &str| attributes.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone());
        let below = attribute("subdir").unwrap_or_default();
        (attribute("server")?, format!("{}/{below}", attribute("share")?))
    };
    // What the driver puts into such a template, the volume does not tell.
    if path.contains("${") {
        return None;
    }
    Some(Export { server: server.to_ascii_lowercase(), path })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn found(spec: Value) -> Option<(String, String)> {
        export(&serde_json::from_value(spec).unwrap()).map(|export| (export.server, export.path))
    }

    #[test]
    fn exports_are_found_in_volumes_of_both_kinds() {
        let nfs = json!({"nfs": {"server": "NAS.example.com", "path": "/srv/drop"}});
        assert_eq!(found(nfs), Some(("nas.example.com".into(), "/srv/drop".into())));
        let csi = |attributes: Value| json!({"csi": {"driver": NFS_DRIVER, "volumeHandle": "x", "volumeAttributes": attributes}});
        assert_eq!(found(csi(json!({"server": "nas", "share": "/srv"}))), Some(("nas".into(), "/srv/".into())));
        assert_eq!(found(csi(json!({"server": "nas", "share": "/srv", "subdir": "a/b"}))), Some(("nas".into(), "/srv/a/b".into())));
        assert_eq!(found(csi(json!({"Server": "nas", "share": "/srv", "subDir": "a"}))), Some(("nas".into(), "/srv/a".into())));
        let template = json!({"server": "nas", "share": "/srv", "subDir": "${pvc.metadata.name}"});
        assert_eq!(found(csi(template)), None, "it may be any folder");
    }

    #[test]
    fn other_volumes_have_no_export() {
        assert_eq!(found(json!({"hostPath": {"path": "/"}})), None);
        assert_eq!(
            found(json!({"csi": {"driver": "other", "volumeHandle": "x", "volumeAttributes": {"server": "s", "share": "/"}}})),
            None
        );
    }
}
