//! Reads the credential when it is needed and again when it may have changed.

use std::{io, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use azure_core::{
    error::ErrorKind,
    http::{
        Context, Request,
        policies::{Policy, PolicyResult},
    },
};
use tokio::{sync::Mutex, time::Instant};

use super::{Credential, CredentialSource, Named, Site, chain, connection_string::ConnectionString, folder, token};
use crate::{
    azure::{
        AccountUrl, SettingsError,
        errors::{carried, carry},
        scrub::Scrubber,
        transport::Transport,
    },
    blob::BlobError,
};

/// How often a Secret's files are looked at, a failed source is tried again and a token is asked for anew, at most.
const PAUSE: Duration = Duration::from_secs(5);

/// The credential of one store.
#[derive(Debug)]
pub(in crate::azure) struct Keeper {
    source: CredentialSource,
    site: Site,
    kept: Mutex<Option<Kept>>,
    /// Hides the secrets that were read last, in all that the transport receives too.
    scrubber: Scrubber,
}

#[derive(Debug)]
struct Kept {
    outcome: Result<Arc<Credential>, BlobError>,
    /// What the folder held.
    keys: Option<folder::Keys>,
    loaded: Instant,
    /// When the folder was last looked at, or a failed source tried.
    looked: Instant,
}

impl Keeper {
    pub(in crate::azure) fn new(source: CredentialSource, url: AccountUrl, transport: Transport) -> Result<Self, SettingsError> {
        let scrubber = transport.scrubber();
        Ok(Self { source, site: Site::new(url, transport)?, kept: Mutex::new(None), scrubber })
    }

    /// The credential now. Requests that come while it is read wait for it.
    async fn current(&self) -> Result<Arc<Credential>, BlobError> {
        let mut kept = self.kept.lock().await;
        match kept.as_mut() {
            None => *kept = Some(self.load().await),
            Some(found) if found.looked.elapsed() < PAUSE => {}
            Some(found) => self.look_again(found).await,
        }
        kept.as_ref().map_or_else(|| Err(nothing()), |kept| kept.outcome.clone())
    }

    /// Reads the credential again after the service refused it. A folder is always looked at; what costs requests, such as a new
    /// token, has its pause, since all workers ask for it at the same time.
    pub(in crate::azure) async fn refresh(&self) {
        let mut kept = self.kept.lock().await;
        let Some(found) = kept.as_mut() else { return };
        if found.loaded.elapsed() >= PAUSE {
            *found = self.load().await;
        } else if matches!(self.source, CredentialSource::Folder(_)) {
            self.look_again(found).await;
        }
    }

    /// Loads again what failed and what changed.
    async fn look_again(&self, kept: &mut Kept) {
        kept.looked = Instant::now();
        let unchanged = match &self.source {
            CredentialSource::Folder(path) => folder::read(path).await.ok() == kept.keys,
            _ => true,
        };
        if !unchanged || (kept.outcome.is_err() && self.may_heal()) {
            *kept = self.load().await;
        }
    }

    /// Whether the same source can give another outcome: what was given as a variable does not change.
    fn may_heal(&self) -> bool {
        use CredentialSource::{Chain, Folder, WorkloadIdentity};
        matches!(self.source, Folder(_) | WorkloadIdentity(_) | Chain(_))
    }

    async fn load(&self) -> Kept {
        let keys = match &self.source {
            CredentialSource::Folder(path) => Some(folder::read(path).await),
            _ => None,
        };
        // Before the first request that has one of them.
        self.hide_secrets(keys.as_ref().and_then(|keys| keys.as_ref().ok()));
        let outcome = match &self.source {
            CredentialSource::Folder(path) => self.of_folder(path, keys.as_ref()).await,
            CredentialSource::ConnectionString(text) => {
                self.build(ConnectionString::parse(text).map(ConnectionString::credential)).await
            }
            CredentialSource::AccountKey { account, key } => {
                self.build(Ok(Named::AccountKey { account: account.clone(), key: key.clone() })).await
            }
            CredentialSource::SasToken(token) => self.build(Ok(Named::SasToken { account: None, token: token.clone() })).await,
            CredentialSource::WorkloadIdentity(variables) => chain::federated(variables, &self.site).await,
            CredentialSource::Chain(variables) => chain::find(variables, &self.site).await,
        };
        let outcome = outcome.map(Arc::new).map_err(|error| self.scrubber.now().clean_error(error));
        let now = Instant::now();
        Kept { outcome, keys: keys.and_then(Result::ok), loaded: now, looked: now }
    }

    async fn of_folder(&self, path: &Path, keys: Option<&io::Result<folder::Keys>>) -> Result<Credential, BlobError> {
        match keys {
            Some(Ok(keys)) => self.build(folder::choose(path, keys)).await,
            Some(Err(error)) => {
                Err(BlobError::Denied { message: format!("cannot read the credential in {}: {error}", path.display()) })
            }
            None => Err(nothing()),
        }
    }

    fn hide_secrets(&self, keys: Option<&folder::Keys>) {
        match &self.source {
            CredentialSource::Folder(_) => self.scrubber.hide(keys.into_iter().flat_map(folder::secrets)),
            CredentialSource::ConnectionString(text) | CredentialSource::SasToken(text) => self.scrubber.hide([text.secret()]),
            CredentialSource::AccountKey { key, .. } => self.scrubber.hide([key.secret()]),
            CredentialSource::WorkloadIdentity(variables) | CredentialSource::Chain(variables) => {
                self.scrubber.hide(variables.secrets());
            }
        }
    }

    async fn build(&self, named: Result<Named, String>) -> Result<Credential, BlobError> {
        named.map_err(|message| BlobError::Denied { message })?.build(&self.site).await
    }
}

fn nothing() -> BlobError {
    BlobError::Denied { message: "no credential was read".to_owned() }
}

/// The policy that authorizes each request with the credential of the moment.
#[derive(Debug)]
pub(in crate::azure) struct Authorize(pub(in crate::azure) Arc<Keeper>);

#[async_trait]
#[allow(elided_lifetimes_in_paths, reason = "the macro needs the lifetimes as the trait has them")]
impl Policy for Authorize {
    async fn send(&self, ctx: &Context, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        let credential = self.0.current().await.map_err(|error| carry(ErrorKind::Credential, error))?;
        credential.send(ctx, request, next).await.map_err(|error| {
            // The token of a request may have to be fetched anew.
            let ours = carried(&error).is_some() || *error.kind() != ErrorKind::Credential;
            if ours { error } else { carry(ErrorKind::Credential, self.0.scrubber.now().clean_error(token::sort("token", &error))) }
        })
    }
}

#[cfg(test)]
mod tests {
    use azure_core::credentials::Secret;

    use super::*;

    fn keeper(source: CredentialSource) -> Keeper {
        Keeper::new(source, AccountUrl::parse("https://truck.blob.core.windows.net").unwrap(), Transport::new(false).unwrap())
            .unwrap()
    }

    fn is_sas(outcome: &Result<Arc<Credential>, BlobError>) -> bool {
        matches!(outcome.as_deref(), Ok(Credential::Sas(_)))
    }

    #[tokio::test]
    async fn an_empty_folder_is_denied_and_heals_when_the_secret_appears() {
        let folder = tempfile::tempdir().unwrap();
        let keeper = keeper(CredentialSource::Folder(folder.path().to_owned()));
        let error = keeper.current().await.unwrap_err();
        assert!(matches!(&error, BlobError::Denied { message } if message.contains("set connectionString")), "{error:?}");
        std::fs::write(folder.path().join("sasToken"), "sv=1&sig=a").unwrap();
        tokio::time::pause();
        assert!(keeper.current().await.is_err(), "looked at again too soon");
        tokio::time::advance(PAUSE).await;
        assert!(is_sas(&keeper.current().await));
    }

    #[tokio::test]
    async fn a_changed_secret_is_used_after_the_pause_or_at_once_after_a_refusal() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("sasToken"), "sv=1&sig=a").unwrap();
        let keeper = keeper(CredentialSource::Folder(folder.path().to_owned()));
        assert!(is_sas(&keeper.current().await));
        std::fs::write(folder.path().join("accountKey"), "a2V5").unwrap();
        tokio::time::pause();
        assert!(is_sas(&keeper.current().await));
        keeper.refresh().await;
        assert!(!is_sas(&keeper.current().await));
        std::fs::remove_file(folder.path().join("accountKey")).unwrap();
        tokio::time::advance(PAUSE).await;
        assert!(is_sas(&keeper.current().await));
    }

    #[tokio::test]
    async fn a_refused_credential_of_an_unchanged_secret_is_made_anew_after_the_pause() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("sasToken"), "sv=1&sig=a").unwrap();
        let keeper = keeper(CredentialSource::Folder(folder.path().to_owned()));
        let first = keeper.current().await.unwrap();
        tokio::time::pause();
        keeper.refresh().await;
        assert!(Arc::ptr_eq(&first, &keeper.current().await.unwrap()), "made anew too soon");
        tokio::time::advance(PAUSE).await;
        assert!(Arc::ptr_eq(&first, &keeper.current().await.unwrap()), "made anew without being refused");
        keeper.refresh().await;
        assert!(!Arc::ptr_eq(&first, &keeper.current().await.unwrap()));
    }

    #[tokio::test]
    async fn an_unchanged_credential_is_kept() {
        let keeper = keeper(CredentialSource::SasToken(Secret::new("sv=1&sig=a")));
        let first = keeper.current().await.unwrap();
        tokio::time::pause();
        tokio::time::advance(2 * PAUSE).await;
        assert!(Arc::ptr_eq(&first, &keeper.current().await.unwrap()));
    }
}
