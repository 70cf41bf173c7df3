//! `spec.destination.azureBlob.workloadIdentity`: an identity of Microsoft Entra that trusts the pod's own token.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// An identity of Microsoft Entra with a federated credential for the pod's ServiceAccount. No secret is kept anywhere: the pod's
/// token is exchanged for one of Entra. Neither Azure Arc nor the identity webhook is needed.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadIdentity {
    /// Client id (application id) of the app registration or managed identity.
    #[schemars(length(min = 36, max = 36))]
    #[x_kube(validation = Rule::new(r"self.matches('^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$')").message("workloadIdentity.clientId is the client id of the identity, a UUID like 11111111-2222-3333-4444-555555555555; not its name and not its object id"))]
    pub client_id: String,

    /// Id or a verified domain of the tenant that the identity is in.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(r"self.matches('^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$')").message("workloadIdentity.tenantId is the id of the tenant, a UUID, or one of its domains, like example.onmicrosoft.com"))]
    pub tenant_id: String,

    /// Where tokens come from, like https://login.microsoftonline.us; that of the account's cloud if absent. The chart's
    /// accountHostSuffixes must allow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 9, max = 300))]
    #[x_kube(validation = Rule::new(r"isURL(self) && self.matches('^https://[^/?#@]+/?$')").message("workloadIdentity.authorityHost is an https URL without a path, like https://login.microsoftonline.com"))]
    pub authority_host: Option<String>,
}
