//! Tokens of Microsoft Entra.

use std::{path::PathBuf, sync::Arc, time::Duration};

use azure_core::{
    cloud::{CloudConfiguration, CustomConfiguration},
    credentials::{Secret, TokenCredential},
    error::ErrorKind,
    http::{ClientOptions, RetryOptions, Transport as SdkTransport, policies::auth::BearerTokenAuthorizationPolicy},
};
use azure_identity::{
    ClientAssertion, ClientAssertionCredential, ClientAssertionCredentialOptions, ClientSecretCredential,
    ClientSecretCredentialOptions,
};

use super::{
    super::transport::Transport,
    Credential, Site,
    assertion::{self, CertificateFile, Claims, TokenFile},
};
use crate::{azure::errors::carried, blob::BlobError};

/// What tokens are asked for; the same in every cloud.
const SCOPE: &str = "https://storage.azure.com/.default";

/// How long a first token may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// Where tokens of the public cloud come from.
const PUBLIC_CLOUD: &str = "https://login.microsoftonline.com";

/// Who asks for tokens, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) tenant: String,
    pub(super) client: String,
    /// `None` is the public cloud.
    pub(super) authority: Option<String>,
}

impl Identity {
    /// The token service's URL, which is also whom a certificate's signature is for.
    fn endpoint(&self) -> String {
        let authority = self.authority.as_deref().unwrap_or(PUBLIC_CLOUD).trim_end_matches('/');
        format!("{authority}/{}/oauth2/v2.0/token", self.tenant)
    }
}

/// Options that send requests through our own client, once.
pub(super) fn options(transport: &Transport, authority: Option<&str>) -> ClientOptions {
    let cloud = authority.map(|host| {
        let mut custom = CustomConfiguration::default();
        custom.authority_host = host.into();
        Arc::new(CloudConfiguration::Custom(custom))
    });
    let transport = Some(SdkTransport::new(Arc::new(transport.clone())));
    ClientOptions { transport, retry: RetryOptions::none(), cloud, ..ClientOptions::default() }
}

/// A service principal with a secret.
pub(super) fn client_secret(identity: &Identity, secret: Secret, site: &Site) -> azure_core::Result<Arc<dyn TokenCredential>> {
    let options = ClientSecretCredentialOptions { client_options: site.token_options(identity.authority.as_deref()) };
    Ok(ClientSecretCredential::new(&identity.tenant, identity.client.clone(), secret, Some(options))?)
}

/// A service principal with a certificate.
pub(super) fn client_certificate(
    identity: &Identity,
    path: PathBuf,
    send_chain: bool,
    site: &Site,
) -> azure_core::Result<Arc<dyn TokenCredential>> {
    let client = identity.client.clone();
    asserted(identity, CertificateFile { path, audience: identity.endpoint(), client, send_chain }, site)
}

/// An identity that trusts the token in a file.
pub(super) fn federated(identity: &Identity, path: PathBuf, site: &Site) -> azure_core::Result<Arc<dyn TokenCredential>> {
    asserted(identity, TokenFile(path), site)
}

fn asserted<A: ClientAssertion + 'static>(
    identity: &Identity,
    assertion: A,
    site: &Site,
) -> azure_core::Result<Arc<dyn TokenCredential>> {
    let options = ClientAssertionCredentialOptions { client_options: site.token_options(identity.authority.as_deref()) };
    let Identity { tenant, client, .. } = identity.clone();
    Ok(ClientAssertionCredential::new(tenant, client, assertion, Some(options))?)
}

/// Says what the federated credential must have, where Entra found none that fits.
pub(super) async fn with_claims(error: BlobError, path: &std::path::Path) -> BlobError {
    match (error, assertion::claims(path).await) {
        (BlobError::Denied { message }, Some(claims)) => BlobError::Denied { message: explain(message, &claims) },
        (error, _) => error,
    }
}

/// What does not fit comes first, because a status has room for 200 characters.
fn explain(message: String, claims: &Claims) -> String {
    let (subject, issuer, audience) =
        (format!("subject {}", claims.subject), format!("issuer {}", claims.issuer), format!("audience {}", claims.audience));
    let (code, fields) = match message.find("AADSTS70021").and_then(|at| message.get(at..at + 12)) {
        Some(code @ "AADSTS700211") => (code, [issuer, subject, audience]),
        Some(code @ "AADSTS700212") => (code, [audience, subject, issuer]),
        Some(code) => (code, [subject, issuer, audience]),
        None => return message,
    };
    format!("workload identity: {code}: the federated credential needs {}", fields.join(", "))
}

/// Asks for a first token, so that a credential that does not work is known at once.
pub(super) async fn prove(
    name: &str,
    credential: azure_core::Result<Arc<dyn TokenCredential>>,
    patience: Duration,
) -> Result<Credential, BlobError> {
    let credential = credential.map_err(|error| sort(name, &error))?;
    match tokio::time::timeout(patience, credential.get_token(&[SCOPE], None)).await {
        Ok(Ok(_)) => Ok(Credential::Token(BearerTokenAuthorizationPolicy::new(credential, [SCOPE]))),
        Ok(Err(error)) => Err(sort(name, &error)),
        Err(_) => {
            Err(BlobError::Transient { message: format!("{name}: no token within {} s", patience.as_secs()), retry_after: None })
        }
    }
}

/// Whether the network or the identity is in the way.
pub(super) fn sort(name: &str, error: &azure_core::Error) -> BlobError {
    if let Some(BlobError::Transient { message, retry_after }) = carried(error) {
        return BlobError::Transient { message: format!("{name}: {message}"), retry_after: *retry_after };
    }
    let message = format!("{name}: {}", first_line(error));
    if is_trouble(error) { BlobError::Transient { message, retry_after: None } } else { BlobError::Denied { message } }
}

/// Whether the token service itself is in trouble.
fn is_trouble(error: &azure_core::Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = source {
        if let Some(inner) = cause.downcast_ref::<azure_core::Error>()
            && let ErrorKind::HttpResponse { status, .. } = inner.kind()
        {
            return matches!(u16::from(*status), 408 | 429 | 500..);
        }
        source = cause.source();
    }
    false
}

/// Entra's text from its code on, or another's behind the library's, up to the numbers that only operators of Entra can use.
fn first_line(error: &azure_core::Error) -> String {
    let text = error.to_string();
    let behind = |(_, text)| text;
    let text = text.split_once("Credential authentication failed. ").map_or(text.as_str(), behind);
    let text = text.find("AADSTS").and_then(|start| text.get(start..)).unwrap_or(text);
    let text = text.split("To troubleshoot, visit").next().unwrap_or_default();
    let text = text.split("Trace ID").next().unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::azure::errors::carry;

    #[test]
    fn an_unreachable_authority_is_trouble_and_a_wrong_secret_is_a_refusal() {
        let network = BlobError::Transient { message: "cannot connect to login.example.com: x".to_owned(), retry_after: None };
        let wrapped = azure_core::Error::with_error(ErrorKind::Credential, carry(ErrorKind::Io, network), "failed");
        assert!(matches!(sort("environment", &wrapped), BlobError::Transient { message, .. }
            if message == "environment: cannot connect to login.example.com: x"));
        let text = "failed. AADSTS7000215: Invalid client secret provided. Trace ID: 1 Correlation ID: 2\nTo troubleshoot, visit x";
        let refused = azure_core::Error::with_message(ErrorKind::Credential, text);
        let message = "environment: AADSTS7000215: Invalid client secret provided.".to_owned();
        assert_eq!(sort("environment", &refused), BlobError::Denied { message });
    }

    #[test]
    fn a_federated_credential_that_does_not_fit_is_told_what_it_needs_and_other_refusals_are_not() {
        let claims = Claims { issuer: "https://k3s/".to_owned(), subject: "a:b".to_owned(), audience: "api://x".to_owned() };
        for (code, needs) in [
            ("AADSTS700211", "issuer https://k3s/, subject a:b, audience api://x"),
            ("AADSTS700212", "audience api://x, subject a:b, issuer https://k3s/"),
            ("AADSTS700213", "subject a:b, issuer https://k3s/, audience api://x"),
        ] {
            let message = format!("workload identity: {code}: No matching federated identity record found.");
            assert_eq!(explain(message, &claims), format!("workload identity: {code}: the federated credential needs {needs}"));
        }
        let message = "workload identity: AADSTS700024: Client assertion is not within its valid time range.".to_owned();
        assert_eq!(explain(message.clone(), &claims), message);
    }

    #[test]
    fn a_token_service_in_trouble_is_not_a_refusal() {
        let kind = ErrorKind::HttpResponse { status: 503.into(), error_code: None, raw_response: None };
        let wrapped = azure_core::Error::with_error(ErrorKind::Credential, azure_core::Error::new(kind, "busy"), "failed: busy");
        assert!(matches!(sort("environment", &wrapped), BlobError::Transient { .. }));
    }
}
