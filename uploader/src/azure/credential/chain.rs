//! What is tried when the session names no credential, in the order of `DefaultAzureCredential`:
//! <https://learn.microsoft.com/dotnet/azure/sdk/authentication/credential-chains>, then the variables of the Azure CLI.
//!
//! | link | is there when | is skipped when |
//! |---|---|---|
//! | environment | tenant, client, and secret or certificate are set | a variable is missing |
//! | workload identity | tenant, client and token file are set | a variable is missing |
//! | managed identity | an endpoint is set, or the metadata service accepts a connection | nothing answers, or it gives no token |
//! | Azure CLI | `az` is in `PATH` | it is not, or it gives no token |
//! | storage variables | a connection string, key or SAS token is set | none is set |
//!
//! The first four need https. A link whose variables are set and which does not work is an error; it is not passed over.

use std::{collections::BTreeMap, env, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use azure_core::credentials::{Secret, TokenCredential};
use azure_identity::{AzureCliCredential, ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId};

use super::{
    Credential, Named, Site,
    connection_string::ConnectionString,
    token::{self, Identity},
};
use crate::blob::BlobError;

/// Where a cloud machine has its metadata service.
pub(super) const METADATA_SERVICE: ([u8; 4], u16) = ([169, 254, 169, 254], 80);
/// The last link's name: the variables of the Azure CLI.
const STORAGE: &str = "AZURE_STORAGE_*";
/// How long the metadata service may take to accept a connection; elsewhere than in a cloud nothing answers.
const PROBE: Duration = Duration::from_secs(1);
/// How long the metadata service may take to give a token; with the probe it stays below the five seconds. The SDK tries again for longer.
const METADATA_PATIENCE: Duration = Duration::from_secs(3);

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

    /// The values that must not be shown.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &str> {
        const KINDS: [&str; 5] = ["_SECRET", "_KEY", "_SAS_TOKEN", "_CONNECTION_STRING", "_HEADER"];
        let secret = |name: &str| KINDS.iter().any(|kind| name.ends_with(kind));
        self.0.iter().filter(move |(name, _)| secret(name)).map(|(_, value)| value.secret())
    }

    fn secret(&self, name: &str) -> Option<Secret> {
        self.0.get(name).cloned()
    }

    fn text(&self, name: &str) -> Option<String> {
        self.0.get(name).map(|value| value.secret().to_owned())
    }

    /// Who asks for tokens, or which variable is missing.
    fn identity(&self) -> Result<Identity, String> {
        let take = |name: &str| self.text(name).ok_or_else(|| format!("no {name}"));
        let (tenant, client) = (take("AZURE_TENANT_ID")?, take("AZURE_CLIENT_ID")?);
        Ok(Identity { tenant, client, authority: self.text("AZURE_AUTHORITY_HOST") })
    }
}

/// What one link of the chain came to.
enum Link {
    Found(Credential),
    /// It is not set up here; the next one is tried.
    Absent(String),
    /// It may be set up, and gives no token; the next one is tried.
    Fruitless(String),
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
    let links = ["environment", "workload identity", "managed identity", "Azure CLI", STORAGE];
    for name in links {
        let link = match name {
            _ if name != STORAGE && !site.url.is_https() => Link::Absent("needs https".to_owned()),
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
            // The likeliest one comes first: a status has room for 200 characters.
            Link::Fruitless(why) => tried.insert(0, why),
            Link::Broken(error) => return Err(error),
        }
    }
    Err(BlobError::Denied { message: format!("no credential named or found: {}", tried.join(", ")) })
}

async fn environment(name: &str, variables: &Variables, site: &Site) -> Link {
    let identity = match variables.identity() {
        Ok(identity) => identity,
        Err(why) => return Link::Absent(why),
    };
    let credential = if let Some(secret) = variables.secret("AZURE_CLIENT_SECRET") {
        token::client_secret(&identity, secret, site)
    } else if let Some(path) = variables.text("AZURE_CLIENT_CERTIFICATE_PATH") {
        let send_chain = variables.text("AZURE_CLIENT_SEND_CERTIFICATE_CHAIN").is_some_and(|text| is_true(&text));
        token::client_certificate(&identity, path.into(), send_chain, site)
    } else {
        return Link::Absent("no AZURE_CLIENT_SECRET, no AZURE_CLIENT_CERTIFICATE_PATH".to_owned());
    };
    Link::from(token::prove(name, credential, token::PATIENCE).await)
}

/// As Microsoft's libraries read a switch.
pub(super) fn is_true(text: &str) -> bool {
    text == "1" || text.eq_ignore_ascii_case("true")
}

/// The workload identity that was named, alone.
pub(super) async fn federated(variables: &Variables, site: &Site) -> Result<Credential, BlobError> {
    const NAME: &str = "workload identity";
    if !site.url.is_https() {
        return Err(BlobError::Denied { message: format!("a {NAME} needs an https account URL") });
    }
    match workload_identity(NAME, variables, site).await {
        Link::Found(credential) => Ok(credential),
        Link::Absent(why) | Link::Fruitless(why) => Err(BlobError::Denied { message: format!("{NAME}: {why}") }),
        Link::Broken(error) => Err(error),
    }
}

async fn workload_identity(name: &str, variables: &Variables, site: &Site) -> Link {
    let identity = match variables.identity() {
        Ok(identity) => identity,
        Err(why) => return Link::Absent(why),
    };
    let Some(path) = variables.text("AZURE_FEDERATED_TOKEN_FILE").map(PathBuf::from) else {
        return Link::Absent("no AZURE_FEDERATED_TOKEN_FILE".to_owned());
    };
    let credential = token::federated(&identity, path.clone(), site);
    match token::prove(name, credential, token::PATIENCE).await {
        Ok(credential) => Link::Found(credential),
        Err(error) => Link::Broken(token::with_claims(error, &path).await),
    }
}

async fn managed_identity(name: &str, variables: &Variables, site: &Site) -> Link {
    let has_endpoint = ["IDENTITY_ENDPOINT", "MSI_ENDPOINT"].iter().any(|name| variables.text(name).is_some());
    if !has_endpoint && !reachable(site.metadata_service).await {
        return Link::Absent("no metadata service".to_owned());
    }
    let user_assigned_id = variables.text("AZURE_CLIENT_ID").map(UserAssignedId::ClientId);
    let client_options = site.local_options();
    let options = ManagedIdentityCredentialOptions { user_assigned_id, client_options };
    let credential = ManagedIdentityCredential::new(Some(options)).map(|found| found as Arc<dyn TokenCredential>);
    // Many a machine has a metadata service and no identity.
    match token::prove(name, credential, METADATA_PATIENCE).await {
        Ok(credential) => Link::Found(credential),
        Err(error) => Link::Fruitless(error.to_string()),
    }
}

async fn azure_cli(name: &str, variables: &Variables) -> Link {
    let path = variables.text("PATH").unwrap_or_default();
    let mut installed = false;
    for folder in env::split_paths(&path) {
        installed |= tokio::fs::metadata(folder.join("az")).await.is_ok();
    }
    if !installed {
        return Link::Absent("no az in PATH".to_owned());
    }
    let credential = AzureCliCredential::new(None).map(|found| found as Arc<dyn TokenCredential>);
    match token::prove(name, credential, token::PATIENCE).await {
        Ok(credential) => Link::Found(credential),
        Err(error) => Link::Fruitless(error.to_string()),
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
        return Link::Absent("none is set".to_owned());
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
    async fn where_nothing_is_found_all_that_was_tried_is_named_soon() {
        let start = Instant::now();
        let error = find(&variables(&[]), &site("https://truck.blob.core.windows.net").await).await.unwrap_err();
        assert!(start.elapsed() < Duration::from_mins(1));
        let BlobError::Denied { message } = error else { panic!("{error:?}") };
        assert_eq!(
            message,
            "no credential named or found: environment (no AZURE_TENANT_ID), workload identity (no AZURE_TENANT_ID), managed identity (no \
             metadata service), Azure CLI (no az in PATH), AZURE_STORAGE_* (none is set)"
        );
        assert!(message.len() <= 200, "the status would cut it");
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
