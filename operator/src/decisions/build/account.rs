//! The `ServiceAccount` that all uploaders of a namespace share.

use blobferry_crds::names;
use k8s_openapi::{api::core::v1::ServiceAccount, apimachinery::pkg::apis::meta::v1::ObjectMeta};

use super::managed_labels;

/// The account of `namespace`.
pub fn uploader_account(namespace: &str) -> ServiceAccount {
    ServiceAccount {
        metadata: ObjectMeta {
            name: Some(names::UPLOADER_ACCOUNT.into()),
            namespace: Some(namespace.to_owned()),
            labels: Some(managed_labels()),
            ..ObjectMeta::default()
        },
        ..ServiceAccount::default()
    }
}
