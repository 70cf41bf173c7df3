//! `spec.source`: the share and its two folders.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The mount options of an inline NFS source unless the session names others.
pub const DEFAULT_MOUNT_OPTIONS: [&str; 5] = ["hard", "nfsvers=4.1", "actimeo=5", "rsize=1048576", "wsize=1048576"];

/// The share that producers write to: a claim that a person made, or an NFS export.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("has(self.persistentVolumeClaim) != has(self.nfs)").message("name exactly one source: persistentVolumeClaim (a claim that exists in this namespace) or nfs (server and path of an export)"),
    validation = Rule::new("has(self.persistentVolumeClaim) == has(oldSelf.persistentVolumeClaim) && (!has(self.persistentVolumeClaim) || self.persistentVolumeClaim == oldSelf.persistentVolumeClaim)").message("source.persistentVolumeClaim cannot be changed: create another session for another share"),
    validation = Rule::new("has(self.nfs) == has(oldSelf.nfs) && (!has(self.nfs) || (self.nfs.server == oldSelf.nfs.server && self.nfs.path == oldSelf.nfs.path))").message("source.nfs server and path cannot be changed (mountOptions can): create another session for another share"),
    validation = Rule::new("self.incomingDir == oldSelf.incomingDir && self.processingDir == oldSelf.processingDir").message("incomingDir and processingDir cannot be changed: create another session for other folders"),
    validation = Rule::new("!(self.incomingDir + '/').startsWith(self.processingDir + '/') && !(self.processingDir + '/').startsWith(self.incomingDir + '/')").message("incomingDir and processingDir must not contain each other: choose folders side by side, like incoming and .processing"),
)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// A PersistentVolumeClaim of the session's namespace, bound to the share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<PvcSource>,

    /// An NFS export; the operator makes a volume for it and removes it with the session. The chart must allow the server and path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nfs: Option<NfsSource>,

    /// Folder on the share where producers put files, each session in a folder of its own below it. It must exist.
    #[serde(default = "incoming")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new(r"self.matches('^[^./][^/]*(/[^./][^/]*)*$')").message("incomingDir is a relative path whose components do not start with a dot, like incoming or camera/incoming"))]
    pub incoming_dir: String,

    /// Folder on the share for files that are claimed and uploaded; its first component starts with a dot.
    #[serde(default = "processing")]
    #[schemars(length(min = 2, max = 512))]
    #[x_kube(validation = Rule::new(r"self.matches('^[.][^/.][^/]*(/[^./][^/]*)*$')").message("processingDir is a relative path that starts with a dot and has no other component that does, like .processing or .blobferry/files"))]
    pub processing_dir: String,
}

fn incoming() -> String {
    "incoming".into()
}

fn processing() -> String {
    ".processing".into()
}

/// A claim that a person made.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PvcSource {
    /// Name of the PersistentVolumeClaim.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(r"self.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$')").message("claimName is the name of a PersistentVolumeClaim of this namespace: lower-case letters, digits, hyphen and dot"))]
    pub claim_name: String,
}

/// An NFS export.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NfsSource {
    /// Host name or address of the NFS server.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(r"self.matches('^[A-Za-z0-9]([A-Za-z0-9.:-]*[A-Za-z0-9])?$')").message("nfs.server is a host name or an address, like nas.example.com or 192.0.2.7"))]
    pub server: String,

    /// Exported path, absolute.
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new(r"self.matches('^/[^:\\s]*$') && !self.matches('(^|/)[.][.](/|$)')").message("nfs.path is an absolute path without .. and white space, like /srv/export"))]
    pub path: String,

    /// Mount options; see nfs(5). Only options that cannot weaken the node or the other sessions are taken.
    #[serde(default = "mount_options")]
    #[schemars(length(max = 20), inner(length(max = 64)))]
    #[x_kube(validation = Rule::new(r"self.all(option, option.matches('^(hard|nolock|noresvport|((nfs)?vers|proto|port|timeo|retrans|actimeo|acregmin|acregmax|acdirmin|acdirmax|rsize|wsize|nconnect|lookupcache|sec)=[A-Za-z0-9.:_-]+)$'))").message("mountOptions takes hard, nolock, noresvport, vers=, nfsvers=, proto=, port=, timeo=, retrans=, actimeo=, acregmin=, acregmax=, acdirmin=, acdirmax=, rsize=, wsize=, nconnect=, lookupcache= and sec=; soft is refused because it loses data"))]
    pub mount_options: Vec<String>,
}

fn mount_options() -> Vec<String> {
    DEFAULT_MOUNT_OPTIONS.map(str::to_owned).to_vec()
}
