//! (pure) The workload identity of a session, checked against what the installation allows.

use blobferry_crds::AzureBlob;
use url::Url;

use super::{Refusal, reasons};
use crate::settings::Settings;

/// Where the tokens of Azure's own clouds come from, by the end of the account's host:
/// <https://learn.microsoft.com/entra/identity-platform/authentication-national-cloud>.
const CLOUDS: [(&str, &str); 2] =
    [(".chinacloudapi.cn", "https://login.chinacloudapi.cn"), (".usgovcloudapi.net", "https://login.microsoftonline.us")];
const PUBLIC_CLOUD: &str = "https://login.microsoftonline.com";

/// An identity that trusts the pod's token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Federation {
    /// Client id of the identity.
    pub client: String,
    /// Its tenant.
    pub tenant: String,
    /// Where tokens come from, without a slash at the end.
    pub authority: String,
}

impl Federation {
    /// The workload identity of `blob`, if it names one. `account` is the account's URL.
    pub fn of(blob: &AzureBlob, account: &Url, settings: &Settings) -> Result<Option<Self>, Refusal> {
        let Some(identity) = &blob.workload_identity else { return Ok(None) };
        let field = "spec.destination.azureBlob.workloadIdentity";
        if blob.credentials_secret_ref.is_some() {
            return Err(Refusal::invalid(field, "is there beside credentialsSecretRef, of which only one may be"));
        }
        if account.scheme() != "https" {
            return Err(Refusal::invalid(field, "needs an https accountUrl"));
        }
        let authority = match &identity.authority_host {
            Some(text) => allowed_authority(text, settings)?,
            None => authority_of_cloud(account).to_owned(),
        };
        Ok(Some(Self { client: identity.client_id.clone(), tenant: identity.tenant_id.clone(), authority }))
    }
}

fn authority_of_cloud(account: &Url) -> &'static str {
    let host = account.host_str().unwrap_or_default();
    CLOUDS.iter().find(|(suffix, _)| host.ends_with(suffix)).map_or(PUBLIC_CLOUD, |(_, authority)| authority)
}

fn allowed_authority(text: &str, settings: &Settings) -> Result<String, Refusal> {
    let field = "spec.destination.azureBlob.workloadIdentity.authorityHost";
    let url = Url::parse(text).map_err(|error| Refusal::invalid(field, &format!("is no URL ({error})")))?;
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    if url.scheme() != "https" || !bare || url.password().is_some() {
        return Err(Refusal::invalid(field, "is no https URL without a path"));
    }
    if !settings.account_hosts.iter().any(|rule| rule.allows(&url)) {
        return Err(Refusal::new(
            reasons::AUTHORITY_HOST_NOT_ALLOWED,
            format!(
                "The host {} of workloadIdentity.authorityHost is not allowed here: leave the field out to use the one of the account's \
                 cloud, or an administrator adds it to the chart value accountHostSuffixes.",
                url.host_str().unwrap_or_default()
            ),
        ));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::{decisions::validate::validate, fixtures};

    const IDENTITY: &str = "clientId: 11111111-2222-3333-4444-555555555555, tenantId: example.onmicrosoft.com";

    fn federation(more: &str, destination: &str) -> Result<Option<Federation>, Refusal> {
        let spec = format!("destination: {{azureBlob: {{workloadIdentity: {{{IDENTITY}{more}}}{destination}}}}}");
        let settings = Settings {
            account_hosts: vec![
                ".core.windows.net",
                ".chinacloudapi.cn",
                ".usgovcloudapi.net",
                "198.18.0.2",
                "login.microsoftonline.us",
            ]
            .into_iter()
            .map(|host| host.parse().unwrap())
            .collect(),
            ..fixtures::settings()
        };
        validate(&fixtures::session(&spec), &settings).map(|valid| valid.container.federation)
    }

    /// Pods with any other authority than these are held to the hosts that the chart allows.
    #[test]
    fn policy_of_the_chart_knows_the_clouds() {
        let policy = include_str!("../../../charts/blobferry/templates/policy-operator-pods.yaml");
        for authority in CLOUDS.iter().map(|(_, authority)| authority).chain([&PUBLIC_CLOUD]) {
            assert!(policy.contains(&format!("'{authority}'")), "{authority}");
        }
    }

    #[test]
    fn authority_is_that_of_the_accounts_cloud_unless_it_is_named() {
        for (more, destination, authority) in [
            ("", "", "https://login.microsoftonline.com"),
            ("", ", accountUrl: 'https://a.blob.core.chinacloudapi.cn'", "https://login.chinacloudapi.cn"),
            ("", ", accountUrl: 'https://a.blob.core.usgovcloudapi.net'", "https://login.microsoftonline.us"),
            (", authorityHost: 'https://login.microsoftonline.us/'", "", "https://login.microsoftonline.us"),
            (", authorityHost: 'https://198.18.0.2:8443'", "", "https://198.18.0.2:8443"),
        ] {
            assert_eq!(federation(more, destination).unwrap().unwrap().authority, authority, "{more} {destination}");
        }
    }

    #[test]
    fn authority_that_is_not_allowed_is_refused_with_the_value_to_change() {
        let refusal = federation(", authorityHost: 'https://evil.example.com'", "").unwrap_err();
        assert_eq!(refusal.reason, "AuthorityHostNotAllowed");
        assert!(refusal.message.contains("accountHostSuffixes") && refusal.message.contains("evil.example.com"));
    }

    #[test]
    fn what_the_schema_would_have_refused_is_refused_here_too() {
        for (more, destination) in [
            ("", ", credentialsSecretRef: {name: azure}"),
            ("", ", accountUrl: 'http://198.18.0.2/devstoreaccount1'"),
            (", authorityHost: 'http://login.microsoftonline.us'", ""),
            (", authorityHost: 'https://login.microsoftonline.us/tenant'", ""),
            (", authorityHost: 'https://a:b@login.microsoftonline.us'", ""),
            (", authorityHost: login", ""),
        ] {
            assert_eq!(federation(more, destination).unwrap_err().reason, "InvalidSpec", "{more} {destination}");
        }
    }

    #[test]
    fn a_session_without_an_identity_has_none() {
        assert_eq!(validate(&fixtures::session(""), &fixtures::settings()).unwrap().container.federation, None);
    }
}
