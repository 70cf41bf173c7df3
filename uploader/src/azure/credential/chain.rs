//! What is tried when the session names no credential, in the order of `DefaultAzureCredential`:
//! <https://learn.microsoft.com/dotnet/azure/sdk/authentication/credential-chains>, then the variables of the Azure CLI.

use std::{collections::BTreeMap, env, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use azure_core::credentials::{Secret, TokenCredential};
use azure_identity::{
    AzureCliCredential, ClientAssertionCredentialOptions, ManagedIdentityCredential, ManagedIdentityCredentialOptions,
    UserAssignedId, WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};

use super::{Credential, Named, Site, connection_string::ConnectionString, token};
use crate::blob::BlobError;

/// Where a cloud machine has its metadata service.
pub(super) const METADATA_SERVICE: ([u8; 4], u16) = ([169, 254, 169, 254], 80);
/// How long the metadata service may take to accept a connection; elsewhere than in a cloud nothing answers.
const PROBE: Duration = Duration::from_secs(1);
/// How long the metadata service may take to give a token. The SDK tries again for longer.
const METADATA_PATIENCE: Duration = Duration::from_secs(10);

/// The variables of the process that credentials are read from.
#[derive(Clone, Debug, Default)]
pub struct Variables(BTreeMap<String, Secret>);

impl Variables {
    /// Those of this process.
    pub fn of_process() -> Self {
        let ours = |name: &str| name == "PATH" || ["AZURE_", "IDENTITY_", "MSI_"].iter().any(|prefix| name.starts_with(prefix));
        let pairs = env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self(
            pairs.filter(|(name, value)| ours(name) && !value.is_empty()).map(|(name, value)| (name, Secret::new(value))).collect(),
        )
    }

    fn secret(&self, name: &str) -> Option<Secret> {
        self.0.get(name).cloned()
    }

    fn text(&self, name: &str) -> Option<String> {
        self.0.get(name).map(|value| value.secret().to_owned())
    }

    /// Where tokens come from, if it is not the public cloud.
    fn authority(&self) -> Option<String> {
        self.text("AZURE_AUTHORITY_HOST")
    }

    /// The first of `names` that is not set.
    fn missing(&self, names: &[&str]) -> Option<String> {
        names.iter().find(|name| !self.0.contains_key(**name)).map(|name| format!("{name} is not set"))
    }
}

/// What one link of the chain came to.
enum Link {
    Found(Credential),
    /// It is not set up here; the next one is tried.
    Absent(String),
    /// It is set up and does not work: what the person meant is clear.
    Broken(BlobError),
}

impl Link {
    fn from(outcome: Result<Credential, BlobError>) -> Self {
        outcome.map_or_else(Self::Broken, Self::Found)
    }
}

/// The first credential that is there. If there is none, this is known within five seconds.
pub(super) async fn find(variables: &Variables, site: &Site) -> Result<Credential, BlobError> {
    let mut tried = Vec::new();
    let links = ["environment", "workload identity", "managed identity", "Azure CLI", "storage variables"];
    for name in links {
        let link = match name {
            _ if name != "storage variables" && !site.url.is_https() => Link::Absent("tokens need an https account URL".to_owned()),
            "environment" => environment(name, variables, site).await,
            "workload identity" => workload_identity(name, variables, site).await,
            "managed identity" => managed_identity(name, variables, site).await,
            "Azure CLI" => azure_cli(name, variables).await,
            _ => storage_variables(variables, site).await,
        };
        match link {
            Link::Found(credential) => {
                tracing::info!(credential = name, "found a credential");
                return Ok(credential);
            }
            Link::Absent(why) => tried.push(format!("{name} ({why})")),
            Link::Broken(error) => return Err(error),
        }
    }
    let tried = tried.join(", ");
    Err(BlobError::Denied { message: format!("no credential was named for the session and none was found; tried: {tried}") })
}

async fn environment(name: &str, variables: &Variables, site: &Site) -> Link {
    if let Some(why) = variables.missing(&["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"]) {
        let certificate = variables.text("AZURE_CLIENT_CERTIFICATE_PATH").is_some();
        return Link::Absent(if certificate { "client certificates are not supported".to_owned() } else { why });
    }
    let take = |name| variables.text(name).unwrap_or_default();
    let secret = Secret::new(take("AZURE_CLIENT_SECRET"));
    let credential = token::client_secret(
        &take("AZURE_TENANT_ID"),
        take("AZURE_CLIENT_ID"),
        secret,
        site.token_options(variables.authority().as_deref()),
    );
    Link::from(token::prove(name, credential, token::PATIENCE).await)
}

async fn workload_identity(name: &str, variables: &Variables, site: &Site) -> Link {
    if let Some(why) = variables.missing(&["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"]) {
        return Link::Absent(why);
    }
    let client_options = site.token_options(variables.authority().as_deref());
    let options = WorkloadIdentityCredentialOptions {
        credential_options: ClientAssertionCredentialOptions { client_options },
        client_id: variables.text("AZURE_CLIENT_ID"),
        tenant_id: variables.text("AZURE_TENANT_ID"),
        token_file_path: variables.text("AZURE_FEDERATED_TOKEN_FILE").map(PathBuf::from),
    };
    let credential = WorkloadIdentityCredential::new(Some(options)).map(|found| found as Arc<dyn TokenCredential>);
    Link::from(token::prove(name, credential, token::PATIENCE).await)
}

async fn managed_identity(name: &str, variables: &Variables, site: &Site) -> Link {
    let has_endpoint = ["IDENTITY_ENDPOINT", "MSI_ENDPOINT"].iter().any(|name| variables.text(name).is_some());
    if !has_endpoint && !reachable(site.metadata_service).await {
        return Link::Absent(format!("no metadata service at {} within {} s", site.metadata_service.ip(), PROBE.as_secs()));
    }
    let user_assigned_id = variables.text("AZURE_CLIENT_ID").map(UserAssignedId::ClientId);
    let client_options = site.local_options();
    let options = ManagedIdentityCredentialOptions { user_assigned_id, client_options };
    let credential = ManagedIdentityCredential::new(Some(options)).map(|found| found as Arc<dyn TokenCredential>);
    // Many a machine has a metadata service and no identity.
    match token::prove(name, credential, METADATA_PATIENCE).await {
        Ok(credential) => Link::Found(credential),
        Err(error) => Link::Absent(error.to_string()),
    }
}

async fn azure_cli(name: &str, variables: &Variables) -> Link {
    let path = variables.text("PATH").unwrap_or_default();
    let mut installed = false;
    for folder in env::split_paths(&path) {
        installed |= tokio::fs::metadata(folder.join("az")).await.is_ok();
    }
    if !installed {
        return Link::Absent("az is not in PATH".to_owned());
    }
    let credential = AzureCliCredential::new(None).map(|found| found as Arc<dyn TokenCredential>);
    match token::prove(name, credential, token::PATIENCE).await {
        Ok(credential) => Link::Found(credential),
        Err(error) => Link::Absent(error.to_string()),
    }
}

/// The variables that the Azure CLI reads.
async fn storage_variables(variables: &Variables, site: &Site) -> Link {
    let named = if let Some(text) = variables.secret("AZURE_STORAGE_CONNECTION_STRING") {
        match ConnectionString::parse(&text) {
            Ok(read) => read.credential(),
            Err(message) => return Link::Broken(BlobError::Denied { message }),
        }
    } else if let Some(key) = variables.secret("AZURE_STORAGE_KEY") {
        Named::AccountKey { account: variables.text("AZURE_STORAGE_ACCOUNT"), key }
    } else if let Some(token) = variables.secret("AZURE_STORAGE_SAS_TOKEN") {
        Named::SasToken { account: variables.text("AZURE_STORAGE_ACCOUNT"), token }
    } else {
        let names = "AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_KEY and AZURE_STORAGE_SAS_TOKEN are not set";
        return Link::Absent(names.to_owned());
    };
    Link::from(named.build(site).await)
}

async fn reachable(address: SocketAddr) -> bool {
    matches!(tokio::time::timeout(PROBE, tokio::net::TcpStream::connect(address)).await, Ok(Ok(_)))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::azure::{AccountUrl, transport::Transport};

    async fn site(url: &str) -> Site {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let metadata_service = listener.local_addr().unwrap();
        Site { metadata_service, ..Site::new(AccountUrl::parse(url).unwrap(), Transport::new(false).unwrap()).unwrap() }
    }

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        Variables(pairs.iter().map(|(name, value)| ((*name).to_owned(), Secret::new((*value).to_owned()))).collect())
    }

    #[tokio::test]
    async fn where_nothing_is_found_all_that_was_tried_is_named_within_five_seconds() {
        let start = Instant::now();
        let error = find(&variables(&[]), &site("https://truck.blob.core.windows.net").await).await.unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(5));
        let BlobError::Denied { message } = error else { panic!("{error:?}") };
        for part in [
            "environment (AZURE_TENANT_ID is not set)",
            "workload identity (AZURE_TENANT_ID is not set)",
            "managed identity (no metadata service at 127.0.0.1 within 1 s)",
            "Azure CLI (az is not in PATH)",
            "AZURE_STORAGE_KEY",
        ] {
            assert!(message.contains(part), "{part} is not in {message}");
        }
    }

    #[tokio::test]
    async fn storage_variables_are_the_last_resort_and_tokens_are_not_tried_over_http() {
        let site = site("http://127.0.0.1:10000/devstoreaccount1").await;
        let found = find(&variables(&[("AZURE_STORAGE_KEY", "a2V5"), ("AZURE_TENANT_ID", "t")]), &site).await.unwrap();
        assert!(matches!(found, Credential::SharedKey(_)));
    }

    #[tokio::test]
    async fn a_service_principal_that_does_not_work_is_not_passed_over() {
        let named = [
            ("AZURE_TENANT_ID", "tenant"),
            ("AZURE_CLIENT_ID", "client"),
            ("AZURE_CLIENT_SECRET", "hunter2"),
            ("AZURE_AUTHORITY_HOST", "https://login.invalid"),
            ("AZURE_STORAGE_KEY", "a2V5"),
        ];
        let error = find(&variables(&named), &site("https://truck.blob.core.windows.net").await).await.unwrap_err();
        let BlobError::Transient { message, .. } = error else { panic!("{error:?}") };
        assert!(message.starts_with("environment: cannot connect to login.invalid: "), "{message}");
    }

    #[tokio::test]
    async fn a_workload_identity_without_its_token_file_says_so() {
        let named = [("AZURE_TENANT_ID", "t"), ("AZURE_CLIENT_ID", "c"), ("AZURE_FEDERATED_TOKEN_FILE", "/nowhere/token")];
        let error = find(&variables(&named), &site("https://truck.blob.core.windows.net").await).await.unwrap_err();
        assert!(error.to_string().contains("/nowhere/token"), "{error}");
    }

    #[test]
    fn debug_shows_no_value() {
        assert!(!format!("{:?}", variables(&[("AZURE_STORAGE_KEY", "hunter2")])).contains("hunter2"));
    }
}
