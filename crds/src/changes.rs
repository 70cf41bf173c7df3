//! (pure) What a change of each field of the spec does: the one table, which tests hold against the schema, the hash and the API server.

/// What a change of a field does to a running session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The running uploader works on with the new value.
    Live,
    /// The operator acts on it; a running uploader does not need to know.
    Operator,
    /// The pod is replaced.
    Replaces,
    /// The API server refuses it, also to add or to remove the field.
    Refused,
}

use Effect::{Live, Operator, Refused, Replaces};

/// Every field of the spec, by its path.
pub const EFFECTS: &[(&str, Effect)] = &[
    ("sessionName", Refused),
    ("suspend", Operator),
    ("runToken", Live),
    ("completion.idleTimeout", Live),
    ("ttlSecondsAfterFinished", Operator),
    ("deletionPolicy", Replaces),
    ("drainTimeout", Operator),
    ("source.persistentVolumeClaim.claimName", Refused),
    ("source.nfs.server", Refused),
    ("source.nfs.path", Refused),
    ("source.nfs.mountOptions", Replaces),
    ("source.incomingDir", Refused),
    ("source.processingDir", Refused),
    ("destination.azureBlob.accountUrl", Refused),
    ("destination.azureBlob.container", Refused),
    ("destination.azureBlob.prefix", Refused),
    ("destination.azureBlob.overwrite", Replaces),
    ("destination.azureBlob.accessTier", Replaces),
    ("destination.azureBlob.metadata", Replaces),
    ("destination.azureBlob.tags", Replaces),
    ("destination.azureBlob.contentType", Replaces),
    ("destination.azureBlob.credentialsSecretRef.name", Replaces),
    ("destination.azureBlob.workloadIdentity.clientId", Replaces),
    ("destination.azureBlob.workloadIdentity.tenantId", Replaces),
    ("destination.azureBlob.workloadIdentity.authorityHost", Replaces),
    ("watch.pollInterval", Live),
    ("watch.minFileAge", Live),
    ("watch.fileExtensions", Replaces),
    ("watch.ignore", Replaces),
    ("watch.recursive", Replaces),
    ("transfer.workers", Live),
    ("transfer.queueSize", Replaces),
    ("transfer.blockSize", Replaces),
    ("transfer.singlePutSize", Replaces),
    ("transfer.concurrency", Replaces),
    ("transfer.memoryLimit", Replaces),
    ("transfer.bandwidthLimit", Live),
    ("transfer.maxAttempts", Replaces),
    ("staging.mode", Replaces),
    ("staging.sizeLimit", Replaces),
    ("retention.interval", Live),
    ("retention.keepCompletedFor", Live),
    ("pod.resources.requests", Replaces),
    ("pod.resources.limits", Replaces),
    ("pod.nodeSelector", Replaces),
    ("pod.tolerations", Replaces),
    ("pod.affinity", Replaces),
    ("pod.priorityClassName", Replaces),
    ("pod.serviceAccountName", Replaces),
    ("pod.labels", Replaces),
    ("pod.annotations", Replaces),
    ("pod.imagePullSecrets", Replaces),
    ("pod.securityContext.runAsUser", Replaces),
    ("pod.securityContext.runAsGroup", Replaces),
    ("pod.securityContext.supplementalGroups", Replaces),
    ("pod.image", Replaces),
];

/// Paths of all fields of the schema `node` that stands at `path`; Kubernetes' own types are not entered.
pub fn fields(node: &serde_json::Value, path: &str) -> Vec<String> {
    match node["properties"].as_object() {
        Some(properties) if path != "pod.affinity" => properties
            .iter()
            .flat_map(|(name, field)| fields(field, &if path.is_empty() { name.clone() } else { format!("{path}.{name}") }))
            .collect(),
        _ => vec![path.to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_field_of_the_schema_has_one_row() {
        let definition = serde_json::to_value(crate::manifest::definition()).unwrap();
        let spec = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let fields: BTreeSet<_> = fields(spec, "").into_iter().collect();
        let rows: BTreeSet<_> = EFFECTS.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(rows, fields);
        assert_eq!(rows.len(), EFFECTS.len(), "a field has two rows");
    }
}
