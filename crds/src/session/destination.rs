//! `spec.destination`: the container, and by what right.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

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
)]
#[serde(rename_all = "camelCase")]
pub struct AzureBlob {
    /// URL of the storage account's blob service, like https://ACCOUNT.blob.core.windows.net. Cannot be changed.
    #[schemars(length(min = 8, max = 300))]
    #[x_kube(
        validation = Rule::new(r"isURL(self) && (url(self).getScheme() == 'https' || (url(self).getScheme() == 'http' && self.matches('/devstoreaccount1/?$')))").message("accountUrl is an https URL, like https://ACCOUNT.blob.core.windows.net; http is taken only for an emulator, whose path is /devstoreaccount1"),
        validation = Rule::new(r"!self.contains('?') && !self.contains('@') && !self.contains('#')").message("accountUrl holds no credential: put a SAS token under the key sasToken into a Secret and name it in credentialsSecretRef"),
        validation = Rule::new(r"self.matches('^https?://[^/]+(/[A-Za-z0-9-]+)?/?$')").message("accountUrl is the account only, like https://ACCOUNT.blob.core.windows.net: name the container in container and folders in prefix"),
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

    /// A Secret of the session's namespace with any of the keys connectionString, accountName with accountKey, sasToken, or the
    /// AZURE_* variables of a service principal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<SecretReference>,
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
