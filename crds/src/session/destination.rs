//! `spec.destination`: the container, and by what right.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::WorkloadIdentity;

/// Where the files go.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Destination {
    /// A container of Azure Blob Storage.
    pub azure_blob: AzureBlob,
}

/// A container of Azure Blob Storage. A blob is named [prefix/]DATE/SESSION/FILE.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("self.accountUrl == oldSelf.accountUrl && self.container == oldSelf.container && self.prefix == oldSelf.prefix").message("accountUrl, container and prefix cannot be changed, because files are half-way there: create another session for another destination"),
    validation = Rule::new("!has(self.credentialsSecretRef) || !has(self.workloadIdentity)").message("credentialsSecretRef and workloadIdentity are both there: keep one of them, what is named is used alone"),
    validation = Rule::new("!has(self.workloadIdentity) || self.accountUrl.startsWith('https:')").message("workloadIdentity needs an https accountUrl: a token is sent over no other connection"),
)]
#[serde(rename_all = "camelCase")]
pub struct AzureBlob {
    /// URL of the storage account's blob service, like https://ACCOUNT.blob.core.windows.net. Cannot be changed.
    #[schemars(length(min = 8, max = 300))]
    #[x_kube(
        validation = Rule::new(r"isURL(self) && (url(self).getScheme() == 'https' || (url(self).getScheme() == 'http' && self.matches('/devstoreaccount1/?$')))").message("accountUrl is an https URL, like https://ACCOUNT.blob.core.windows.net; http is taken only for an emulator, whose path is /devstoreaccount1"),
        validation = Rule::new(r"!self.contains('?') && !self.contains('@') && !self.contains('#')").message("accountUrl holds no credential: put a SAS token under the key sasToken into a Secret and name it in credentialsSecretRef"),
        validation = Rule::new(r"self.matches('^https?://[^/]+(/[A-Za-z0-9-]+)?/?$') && !self.matches('^https?://[^/]*[.]blob[.][^/]*/.')").message("accountUrl is the account only, like https://ACCOUNT.blob.core.windows.net: name the container in container and folders in prefix"),
    )]
    pub account_url: String,

    /// Name of the container; made if it is absent and the credential allows it. Cannot be changed.
    #[schemars(length(min = 3, max = 63))]
    #[x_kube(validation = Rule::new(r"self.matches('^[a-z0-9](-?[a-z0-9])*$')").message("container has 3 to 63 lower-case letters, digits and single hyphens, and starts and ends with a letter or digit, like camera-archive"))]
    pub container: String,

    /// What blob names start with, before the date; no slash at either end. Cannot be changed.
    #[serde(default)]
    #[schemars(length(max = 400))]
    #[x_kube(validation = Rule::new(r"self == '' || (self.matches('^[^/\\\\]+(/[^/\\\\]+)*$') && !self.matches('[.](/|$)') && !self.matches('[\\x00-\\x1f\\x7f]'))").message("prefix is folders separated by single slashes, with no slash at either end, no backslash and no component that ends with a dot, like site-3/raw"))]
    pub prefix: String,

    /// What happens when a blob of the name exists. OwnSource replaces what this share and session put there and leaves any other
    /// blob alone: the file waits and says so. Never makes a reused name wait too. Any replaces whatever is there.
    #[serde(default)]
    pub overwrite: Overwrite,

    /// How blobs are stored: Hot, Cool, Cold or Archive; the account's default if absent. An archived blob cannot be replaced: a later file
    /// of its name waits until it is moved away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_tier: Option<AccessTier>,

    /// Metadata of every blob: at most 32 names of lower-case letters, digits and underscores, with values of printable ASCII.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    #[x_kube(
        validation = Rule::new(r"self.all(name, name.matches('^[a-z_][a-z0-9_]*$') && !name.startsWith('blobferry_'))").message("metadata takes names of lower-case letters, digits and underscores that start with no digit, like site; names that start with blobferry_ are the uploader's"),
        validation = Rule::new(r"self.all(name, self[name].matches('^[!-~]([ -~]*[!-~])?$'))").message("metadata takes values of printable ASCII, without spaces at the ends and not empty"),
        validation = Rule::new(r"self.map(name, name.size() + self[name].size()).sum() <= 7680").message("metadata has more than 7680 bytes of names and values together: the service takes 8 KiB with the uploader's own"),
    )]
    pub metadata: BTreeMap<String, String>,

    /// Index tags of every blob, at most 10. The credential needs the right to write tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 10))]
    #[x_kube(
        validation = Rule::new(r"self.all(name, name.matches('^[A-Za-z0-9 +./:=_-]{1,128}$') && self[name].matches('^[A-Za-z0-9 +./:=_-]{0,256}$'))").message("tags take names of 1 to 128 and values of up to 256 letters, digits, spaces and + - . / : = _"),
    )]
    pub tags: BTreeMap<String, String>,

    /// MIME type of every blob, like video/mp4; application/octet-stream if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    #[x_kube(validation = Rule::new(r"self.matches('^[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+( *;[ -~]*)?$')").message("contentType is a MIME type, like video/mp4 or text/csv; charset=utf-8"))]
    pub content_type: Option<String>,

    /// A Secret of the session's namespace with any of the keys connectionString, accountName with accountKey, sasToken, or the
    /// AZURE_* variables of a service principal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<SecretReference>,

    /// An identity of Microsoft Entra that trusts the pod's ServiceAccount, in place of a Secret. With neither, the uploader looks for
    /// a credential in its environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_identity: Option<WorkloadIdentity>,
}

/// How blobs are stored: Hot, Cool, Cold or Archive; the account's default if absent. An archived blob cannot be replaced: a later file of
/// its name waits until it is moved away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum AccessTier {
    /// For content that is read often.
    Hot,
    /// For content that stays for 30 days or more.
    Cool,
    /// For content that stays for 90 days or more.
    Cold,
    /// For content that stays for 180 days or more and may take hours to be read.
    Archive,
}

/// What happens when a blob of the name exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Overwrite {
    /// Replace what this share and session put there.
    #[default]
    OwnSource,
    /// Replace nothing.
    Never,
    /// Replace whatever is there.
    Any,
}

/// A Secret of the session's namespace.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretReference {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(r"self.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$')").message("credentialsSecretRef.name is the name of a Secret of this namespace: lower-case letters, digits, hyphen and dot"))]
    pub name: String,
}
