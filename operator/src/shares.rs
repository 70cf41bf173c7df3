//! (I/O in) Which export of which file server a claim leads to, as far as the API tells.
//!
//! Two claims, also of two namespaces, may lead to one export; sessions on both meet each other's files. What the API cannot tell (a
//! server with two names, other kinds of volumes) the uploaders find out by a marker on the share.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec};
use kube::{Api, Client};

use crate::{
    api::{self, CallError},
    reconcile::area::{Area, ShareKey},
};

/// A bound claim cannot be bound anew, and one that a pod uses cannot be made again. That it was although its sessions want pods is noticed
/// after this time.
const BELIEVED_FOR: Duration = Duration::from_mins(10);
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

/// What is known of bound claims, by namespace and name: where a claim leads for as long as a session may run on it, because nobody
/// asks again while its uploader does.
#[derive(Debug, Default)]
pub struct Shares(Mutex<HashMap<(String, String), Known>>);

#[derive(Clone, Debug)]
struct Known {
    /// None for a volume of another kind.
    export: Option<Export>,
    /// When it is asked again before it counts for a new pod.
    doubted: Timestamp,
}

impl Shares {
    fn lock(&self) -> MutexGuard<'_, HashMap<(String, String), Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The export that a claim is known to lead to.
    pub fn known(&self, namespace: &str, claim: &str) -> Option<Export> {
        self.lock().get(&(namespace.to_owned(), claim.to_owned())).and_then(|known| known.export.clone())
    }

    /// Whether it is known what a claim leads to, an export or a volume of another kind.
    pub fn know(&self, namespace: &str, claim: &str) -> bool {
        self.lock().contains_key(&(namespace.to_owned(), claim.to_owned()))
    }

    /// The shares on which something may meet `area`, and which folder of its share the root of each is: its own, and the claims that are
    /// known to lead there.
    pub fn near(&self, area: &Area) -> Vec<(ShareKey, String)> {
        let all = self.lock();
        let claims = all.iter().filter_map(|((namespace, claim), known)| {
            let export = known.export.as_ref()?;
            let is_there =
                matches!(&area.share, ShareKey::Server(server) if *server == export.server) && area.is_near(&export.path);
            is_there.then(|| (ShareKey::Claim(namespace.clone(), claim.clone()), export.path.clone()))
        });
        claims.chain([(area.share.clone(), String::new())]).collect()
    }

    /// A claim led to `export` when a pod was made, if nothing newer is known.
    pub fn learn(&self, namespace: &str, claim: &str, export: Export) {
        let known = Known { export: Some(export), doubted: Timestamp::MIN };
        self.lock().entry((namespace.to_owned(), claim.to_owned())).or_insert(known);
    }

    /// A claim may have been made again, and lead elsewhere.
    pub fn doubt(&self, namespace: &str, claim: &str) {
        if let Some(known) = self.lock().get_mut(&(namespace.to_owned(), claim.to_owned())) {
            known.doubted = Timestamp::MIN;
        }
    }

    /// A claim does not matter any more.
    pub fn forget(&self, namespace: &str, claim: &str) {
        self.lock().remove(&(namespace.to_owned(), claim.to_owned()));
    }

    /// The claims of which something is known, each with its namespace.
    pub fn claims(&self) -> Vec<(String, String)> {
        self.lock().keys().cloned().collect()
    }

    /// (I/O) The export that a claim leads to; none if it is not bound, or to another kind of volume.
    pub async fn find(&self, client: &Client, namespace: &str, claim: &str, now: Timestamp) -> Result<Option<Export>, CallError> {
        let key = (namespace.to_owned(), claim.to_owned());
        if let Some(known) = self.lock().get(&key).filter(|known| now < known.doubted) {
            return Ok(known.export.clone());
        }
        let claims: Api<PersistentVolumeClaim> = api::namespaced(client, namespace);
        let bound = api::get(&claims, claim).await?.and_then(|claim| bound_volume(&claim));
        let volume = match bound {
            Some(volume) => api::get(&Api::<PersistentVolume>::all(client.clone()), &volume).await?,
            None => None,
        };
        let Some(spec) = volume.and_then(|volume| volume.spec) else {
            self.lock().remove(&key);
            return Ok(None);
        };
        let export = export(&spec);
        self.lock().insert(key, Known { export: export.clone(), doubted: now + BELIEVED_FOR });
        Ok(export)
    }
}

fn bound_volume(claim: &PersistentVolumeClaim) -> Option<String> {
    let bound = claim.status.as_ref()?.phase.as_deref() == Some("Bound");
    claim.spec.as_ref()?.volume_name.clone().filter(|_| bound)
}

/// The export behind a volume of Kubernetes' own NFS kind or of the usual NFS driver.
fn export(volume: &PersistentVolumeSpec) -> Option<Export> {
    let (server, path) = if let Some(nfs) = &volume.nfs {
        (nfs.server.clone(), nfs.path.clone())
    } else {
        let csi = volume.csi.as_ref().filter(|csi| csi.driver == NFS_DRIVER)?;
        let attribute = |name: &str| csi.volume_attributes.as_ref()?.get(name).cloned();
        let below = attribute("subdir").unwrap_or_default();
        (attribute("server")?, format!("{}/{below}", attribute("share")?))
    };
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
