//! The `RoleBinding` by which the uploaders of a namespace may report.

use std::collections::BTreeSet;

use blobferry_crds::names;
use k8s_openapi::{
    api::rbac::v1::{RoleBinding, RoleRef, Subject},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{is_managed, managed_labels};

const RBAC: &str = "rbac.authorization.k8s.io";

/// The binding of `namespace` of `cluster_role` to the shared account and to `accounts`.
pub fn uploader_binding(namespace: &str, cluster_role: &str, accounts: &BTreeSet<String>) -> RoleBinding {
    let shared = names::UPLOADER_ACCOUNT.to_owned();
    let subjects = accounts.iter().cloned().chain([shared]).collect::<BTreeSet<_>>();
    RoleBinding {
        metadata: ObjectMeta {
            name: Some(names::UPLOADER_ACCOUNT.into()),
            namespace: Some(namespace.to_owned()),
            labels: Some(managed_labels()),
            ..ObjectMeta::default()
        },
        role_ref: RoleRef { api_group: RBAC.into(), kind: "ClusterRole".into(), name: cluster_role.to_owned() },
        subjects: Some(
            subjects
                .into_iter()
                .map(|name| Subject { kind: "ServiceAccount".into(), name, namespace: Some(namespace.to_owned()), api_group: None })
                .collect(),
        ),
    }
}

/// Whether `found` is a binding that the operator made: our label, exactly our role, and accounts of the namespace only. Which
/// accounts those are changes with the sessions.
pub fn binding_is_ours(found: &RoleBinding, wanted: &RoleBinding) -> bool {
    let ours = |subject: &Subject| subject.kind == "ServiceAccount" && subject.namespace == wanted.metadata.namespace;
    is_managed(&found.metadata) && found.role_ref == wanted.role_ref && found.subjects.iter().flatten().all(ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(accounts: &[&str]) -> RoleBinding {
        uploader_binding("cameras", "release-uploader", &accounts.iter().map(|&name| name.to_owned()).collect())
    }

    #[test]
    fn subjects_are_the_shared_account_and_the_named_ones_without_repetition() {
        let subjects = wanted(&["custom", "blobferry-uploader"]).subjects.unwrap();
        let names: Vec<_> = subjects.iter().map(|subject| subject.name.as_str()).collect();
        assert_eq!(names, ["blobferry-uploader", "custom"]);
    }

    #[test]
    fn binding_with_another_role_a_user_or_without_our_label_is_not_ours() {
        let wanted = wanted(&[]);
        assert!(binding_is_ours(&super::tests::wanted(&["other"]), &wanted));
        let mut other = wanted.clone();
        other.role_ref.name = "cluster-admin".into();
        assert!(!binding_is_ours(&other, &wanted));
        let mut other = wanted.clone();
        other.subjects.as_mut().unwrap()[0].kind = "User".into();
        assert!(!binding_is_ours(&other, &wanted));
        let mut other = wanted.clone();
        other.subjects.as_mut().unwrap()[0].namespace = Some("elsewhere".into());
        assert!(!binding_is_ours(&other, &wanted));
        let mut other = wanted.clone();
        other.metadata.labels = None;
        assert!(!binding_is_ours(&other, &wanted));
    }
}
