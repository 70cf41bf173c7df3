//! By what right requests are sent.
//!
//! A [`CredentialSource`] says where the credential comes from; what is named is used alone. The [`Keeper`] reads it when the first
//! request needs it, keeps it, and looks again when its file changes or the service refuses it.

mod assertion;
mod certificate;
mod chain;
mod connection_string;
mod folder;
mod keeper;
mod sas;
mod shared_key;
mod token;

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use azure_core::{
    credentials::Secret,
    http::{
        ClientOptions, Context, Request,
        policies::{Policy, PolicyResult, auth::BearerTokenAuthorizationPolicy},
    },
};

pub(super) use self::keeper::{Authorize, Keeper};
pub use self::{chain::Variables, connection_string::ConnectionString};
use self::{sas::SasToken, shared_key::SharedKey, token::Identity};
use super::{AccountUrl, SettingsError, transport::Transport};
use crate::blob::BlobError;

/// Where the credential comes from. What is named is used alone.
#[derive(Clone, Debug)]
pub enum CredentialSource {
    /// A folder with the files `connectionString`, `accountName` and `accountKey`, `sasToken`, or `AZURE_TENANT_ID`,
    /// `AZURE_CLIENT_ID` and `AZURE_CLIENT_SECRET` or `AZURE_CLIENT_CERTIFICATE_PATH`, as Kubernetes mounts a Secret. It is read again
    /// when it changes.
    Folder(PathBuf),
    /// A connection string.
    ConnectionString(Secret),
    /// An account key.
    AccountKey {
        /// The account, if it is not to be read from the account URL.
        account: Option<String>,
        /// The key, base64.
        key: Secret,
    },
    /// A SAS token.
    SasToken(Secret),
    /// The workload identity of `AZURE_TENANT_ID`, `AZURE_CLIENT_ID` and `AZURE_FEDERATED_TOKEN_FILE`.
    WorkloadIdentity(Variables),
    /// Nothing is named: environment, workload identity, managed identity, Azure CLI, then `AZURE_STORAGE_CONNECTION_STRING`,
    /// `AZURE_STORAGE_KEY` and `AZURE_STORAGE_SAS_TOKEN`.
    Chain(Variables),
}

/// What the uploader was told about its credential; all of it may be absent.
#[derive(Clone, Debug, Default)]
pub struct NamedCredential {
    /// `APP_CREDENTIALS_DIR`
    pub folder: Option<PathBuf>,
    /// `APP_AZURE_CONNECTION_STRING`
    pub connection_string: Option<Secret>,
    /// `APP_AZURE_ACCOUNT_NAME`
    pub account_name: Option<String>,
    /// `APP_AZURE_ACCOUNT_KEY`
    pub account_key: Option<Secret>,
    /// `APP_AZURE_SAS_TOKEN`
    pub sas_token: Option<Secret>,
    /// `APP_AZURE_WORKLOAD_IDENTITY`
    pub workload_identity: bool,
}

impl NamedCredential {
    /// The first that is given, in the order of the fields; the chain if there is none.
    pub fn source(self) -> CredentialSource {
        if let Some(folder) = self.folder {
            return CredentialSource::Folder(folder);
        }
        if let Some(text) = self.connection_string {
            return CredentialSource::ConnectionString(text);
        }
        if let Some(key) = self.account_key {
            return CredentialSource::AccountKey { account: self.account_name, key };
        }
        if let Some(token) = self.sas_token {
            return CredentialSource::SasToken(token);
        }
        let variables = Variables::of_process();
        if self.workload_identity { CredentialSource::WorkloadIdentity(variables) } else { CredentialSource::Chain(variables) }
    }
}

/// A credential that was named, before it is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Named {
    AccountKey { account: Option<String>, key: Secret },
    SasToken { account: Option<String>, token: Secret },
    ClientSecret { identity: Identity, secret: Secret },
    ClientCertificate { identity: Identity, path: PathBuf, send_chain: bool },
}

impl Named {
    async fn build(self, site: &Site) -> Result<Credential, BlobError> {
        let deny = |message| BlobError::Denied { message };
        match self {
            Self::AccountKey { account, key } => {
                let account = site.agree(account).map_err(deny)?;
                let account =
                    account.ok_or_else(|| deny("the account key comes without the account's name: give it too".to_owned()))?;
                SharedKey::new(account, key).map(Credential::SharedKey).map_err(deny)
            }
            Self::SasToken { account, token } => {
                site.agree(account).map_err(deny)?;
                SasToken::new(&token).map(Credential::Sas).map_err(deny)
            }
            Self::ClientSecret { .. } | Self::ClientCertificate { .. } if !site.url.is_https() => {
                Err(deny("a service principal needs an https account URL".to_owned()))
            }
            Self::ClientSecret { identity, secret } => {
                let credential = token::client_secret(&identity, secret, site);
                token::prove("service principal", credential, token::PATIENCE).await
            }
            Self::ClientCertificate { identity, path, send_chain } => {
                let credential = token::client_certificate(&identity, path, send_chain, site);
                token::prove("service principal", credential, token::PATIENCE).await
            }
        }
    }
}

/// What a credential is for, and how tokens are fetched.
#[derive(Clone, Debug)]
struct Site {
    url: AccountUrl,
    transport: Transport,
    local: Transport,
    metadata_service: SocketAddr,
}

impl Site {
    fn new(url: AccountUrl, transport: Transport) -> Result<Self, SettingsError> {
        let local = transport.without_proxy()?;
        Ok(Self { url, transport, local, metadata_service: chain::METADATA_SERVICE.into() })
    }

    fn token_options(&self, authority: Option<&str>) -> ClientOptions {
        token::options(&self.transport, authority)
    }

    fn local_options(&self) -> ClientOptions {
        token::options(&self.local, None)
    }

    /// The account of URL and credential, if at least one knows it and they do not contradict each other.
    fn agree(&self, account: Option<String>) -> Result<Option<String>, String> {
        // A key in the place of the name must not be repeated.
        let plausible = |name: &String| (3..=24).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if account.as_ref().is_some_and(|name| !plausible(name)) {
            return Err(
                "the account's name has 3 to 24 lower-case letters and digits: are name and key in each other's place?".to_owned()
            );
        }
        match (self.url.account_name(), account) {
            (Some(of_url), Some(named)) if of_url != named => Err(format!(
                "the credential is for the account {named}, the account URL for {of_url}: use the credential of {of_url}"
            )),
            (of_url, named) => Ok(named.or_else(|| of_url.map(str::to_owned))),
        }
    }
}

/// A credential that can be used.
#[derive(Debug)]
enum Credential {
    SharedKey(SharedKey),
    Sas(SasToken),
    Token(BearerTokenAuthorizationPolicy),
}

impl Credential {
    async fn send(&self, ctx: &Context<'_>, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        match self {
            Self::SharedKey(key) => key.sign(request)?,
            Self::Sas(token) => token.apply(request),
            Self::Token(policy) => return policy.send(ctx, request, next).await,
        }
        next[0].send(ctx, request, &next[1..]).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(url: &str) -> Site {
        Site::new(AccountUrl::parse(url).unwrap(), Transport::new(false).unwrap()).unwrap()
    }

    fn account_key(account: Option<&str>) -> Named {
        Named::AccountKey { account: account.map(str::to_owned), key: Secret::new("aHVudGVyMg==") }
    }

    #[tokio::test]
    async fn a_credential_of_another_account_is_refused_and_both_are_named() {
        let site = site("https://truck.blob.core.windows.net");
        let error = account_key(Some("train")).build(&site).await.unwrap_err();
        assert!(error.to_string().contains("the account train, the account URL for truck"), "{error}");
        assert!(account_key(Some("truck")).build(&site).await.is_ok());
        assert!(account_key(None).build(&site).await.is_ok());
    }

    #[tokio::test]
    async fn a_key_in_the_place_of_the_accounts_name_is_not_repeated() {
        let error = account_key(Some("aHVudGVyMg==")).build(&site("https://truck.blob.core.windows.net")).await.unwrap_err();
        assert!(error.to_string().contains("each other's place") && !error.to_string().contains("aHVu"), "{error}");
    }

    #[tokio::test]
    async fn a_domain_of_ones_own_needs_the_accounts_name() {
        let site = site("https://files.example.com");
        assert!(account_key(None).build(&site).await.unwrap_err().to_string().contains("without the account's name"));
        assert!(account_key(Some("truck")).build(&site).await.is_ok());
    }

    #[test]
    fn what_is_named_first_is_used_alone() {
        let key = Some(Secret::new("k"));
        let folder = NamedCredential { folder: Some("/x".into()), account_key: key.clone(), ..Default::default() };
        assert!(matches!(folder.source(), CredentialSource::Folder(_)));
        let keyed = NamedCredential { account_key: key.clone(), sas_token: key, ..Default::default() };
        assert!(matches!(keyed.source(), CredentialSource::AccountKey { .. }));
        let federated = NamedCredential { workload_identity: true, ..Default::default() };
        assert!(matches!(federated.source(), CredentialSource::WorkloadIdentity(_)));
        assert!(matches!(NamedCredential::default().source(), CredentialSource::Chain(_)));
    }

    #[test]
    fn debug_of_no_source_shows_a_secret() {
        let secret = || Secret::new("hunter2");
        for source in [
            CredentialSource::ConnectionString(secret()),
            CredentialSource::AccountKey { account: None, key: secret() },
            CredentialSource::SasToken(secret()),
        ] {
            assert!(!format!("{source:?}").contains("hunter2"), "{source:?}");
        }
    }
}
