//! `spec.pod`: how the uploader's pod is made.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, Toleration};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::SecretReference;
use crate::Quantity;

/// How the uploader's pod is made. Absent fields get sane values.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// Image of the uploader; only where the chart allows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,

    /// Requests and limits. Defaults: requests of cpu 250m, memory 256Mi, ephemeral-storage 2Gi; limits of cpu 2, memory
    /// memoryLimit + 768Mi, ephemeral-storage staging.sizeLimit + 10Gi.
    #[serde(default)]
    pub resources: PodResources,

    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32), schema_with = "short_text_map")]
    pub node_selector: BTreeMap<String, String>,

    /// Taints that the pod tolerates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,

    /// Rules for choosing a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,

    /// Name of a PriorityClass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,

    /// ServiceAccount of the session's namespace for the pod; blobferry-uploader if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(r"self.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$')").message("serviceAccountName is the name of a ServiceAccount of this namespace: lower-case letters, digits, hyphen and dot"))]
    pub service_account_name: Option<String>,

    /// More labels for the pod; those of blobferry.io, app.kubernetes.io and azure.workload.identity are ours.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "short_text_map")]
    #[x_kube(validation = Rule::new(r"self.all(key, !key.matches('^(blobferry[.]io|app[.]kubernetes[.]io|azure[.]workload[.]identity)/'))").message("pod.labels takes no label of blobferry.io/, app.kubernetes.io/ and azure.workload.identity/: choose another prefix"))]
    pub labels: BTreeMap<String, String>,

    /// More annotations for the pod; those of blobferry.io and azure.workload.identity are ours, and AppArmor and seccomp profiles are
    /// refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "long_text_map")]
    #[x_kube(validation = Rule::new(r"self.all(key, !key.matches('^(blobferry[.]io|azure[.]workload[.]identity)/'))").message("pod.annotations takes no annotation of blobferry.io/ and azure.workload.identity/: choose another prefix"))]
    #[x_kube(validation = Rule::new(r"self.all(key, !key.matches('^([a-z]+[.])?(apparmor[.]security[.]beta|seccomp[.]security[.]alpha)[.]kubernetes[.]io/'))").message("pod.annotations takes no AppArmor or seccomp profile: the uploader runs under those of the container runtime"))]
    pub annotations: BTreeMap<String, String>,

    /// Secrets of the session's namespace with which the image is pulled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<SecretReference>,

    /// User and groups of the uploader's process; the files on the share must be theirs.
    #[serde(default)]
    pub security_context: PodSecurity,
}

/// Requests and limits of the uploader's container.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodResources {
    /// What the scheduler sets aside.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub requests: BTreeMap<String, Quantity>,

    /// What the container may not exceed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub limits: BTreeMap<String, Quantity>,
}

/// User and groups of the uploader's process. There is no fsGroup: the kubelet would re-own the whole share.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSecurity {
    /// Numeric user, not root; 65534 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub run_as_user: Option<i64>,

    /// Numeric group; 65534 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub run_as_group: Option<i64>,

    /// More numeric groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(range(min = 1, max = 2_147_483_647)))]
    pub supplemental_groups: Vec<i64>,
}

fn short_text_map(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "maxProperties": 32, "additionalProperties": {"type": "string", "maxLength": 63}})
}

fn long_text_map(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "maxProperties": 32, "additionalProperties": {"type": "string", "maxLength": 4096}})
}
