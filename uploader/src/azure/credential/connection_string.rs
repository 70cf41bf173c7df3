//! `Name=value;Name=value`: <https://learn.microsoft.com/azure/storage/common/storage-configure-connection-string>.

use std::collections::BTreeMap;

use azure_core::credentials::Secret;

use super::{super::AccountUrl, Named};

/// The published account and key of every emulator:
/// <https://learn.microsoft.com/azure/storage/common/storage-connect-azurite#well-known-storage-account-and-key>.
const EMULATOR_ACCOUNT: &str = "devstoreaccount1";
const EMULATOR_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const EMULATOR_URL: &str = "http://127.0.0.1:10000";

/// A connection string, read. Names are taken in any case; those that do not concern blobs are passed over.
#[derive(Clone, Debug)]
pub struct ConnectionString {
    account: Option<String>,
    key: Option<Secret>,
    sas: Option<Secret>,
    endpoint: Option<String>,
    protocol: String,
    suffix: String,
}

impl ConnectionString {
    /// Reads a connection string. The error never repeats a value.
    pub fn parse(text: &Secret) -> Result<Self, String> {
        let mut fields = fields(text.secret())?;
        let mut take = |name: &str| fields.remove(name).filter(|value| !value.is_empty());
        if let Some(value) = take("usedevelopmentstorage") {
            let proxy = take("developmentstorageproxyuri");
            return emulator(&value, proxy.as_deref());
        }
        let read = Self {
            account: take("accountname"),
            key: take("accountkey").map(Secret::new),
            sas: take("sharedaccesssignature").map(Secret::new),
            endpoint: take("blobendpoint"),
            protocol: take("defaultendpointsprotocol").unwrap_or_else(|| "https".to_owned()),
            suffix: take("endpointsuffix").unwrap_or_else(|| "core.windows.net".to_owned()),
        };
        match (&read.account, &read.key, &read.sas) {
            (None, Some(_), _) => Err("the connection string has AccountKey and no AccountName".to_owned()),
            (_, None, None) => Err("the connection string has neither AccountKey nor SharedAccessSignature".to_owned()),
            _ => Ok(read),
        }
    }

    /// The account's URL, which the session's own wins over.
    pub fn account_url(&self) -> Result<AccountUrl, String> {
        let url = match (&self.endpoint, &self.account) {
            (Some(endpoint), _) => endpoint.clone(),
            (None, Some(account)) => format!("{}://{account}.blob.{}", self.protocol, self.suffix),
            (None, None) => return Err("the connection string has neither BlobEndpoint nor AccountName".to_owned()),
        };
        AccountUrl::parse(&url).map_err(|error| format!("in the connection string, {error}"))
    }

    /// The account that the string is for, if it says so.
    fn account_name(&self) -> Option<String> {
        let of_endpoint = || self.account_url().ok().and_then(|url| url.account_name().map(str::to_owned));
        self.account.clone().or_else(of_endpoint)
    }

    /// An account key counts before a SAS token.
    pub(super) fn credential(self) -> Named {
        let account = self.account_name();
        match (self.key, self.sas) {
            (Some(key), _) => Named::AccountKey { account, key },
            (None, sas) => Named::SasToken { account, token: sas.unwrap_or_else(|| Secret::new("")) },
        }
    }
}

fn emulator(value: &str, proxy: Option<&str>) -> Result<ConnectionString, String> {
    if !value.eq_ignore_ascii_case("true") {
        return Err("UseDevelopmentStorage in the connection string has no other value than true".to_owned());
    }
    let host = proxy.map_or_else(|| EMULATOR_URL.to_owned(), |proxy| format!("{}:10000", proxy.trim_end_matches('/')));
    Ok(ConnectionString {
        account: Some(EMULATOR_ACCOUNT.to_owned()),
        key: Some(Secret::new(EMULATOR_KEY)),
        sas: None,
        endpoint: Some(format!("{host}/{EMULATOR_ACCOUNT}")),
        protocol: "http".to_owned(),
        suffix: String::new(),
    })
}

/// Names in lower case. A value may hold `=`.
fn fields(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut fields = BTreeMap::new();
    for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').ok_or("the connection string has a part without an equals sign")?;
        let name = name.trim();
        if fields.insert(name.to_ascii_lowercase(), value.trim().to_owned()).is_some() {
            return Err(format!("the connection string has {name} twice"));
        }
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ConnectionString, String> {
        ConnectionString::parse(&Secret::new(text.to_owned()))
    }

    fn url(text: &str) -> AccountUrl {
        parse(text).unwrap().account_url().unwrap()
    }

    #[test]
    fn account_key_and_endpoint_are_read_in_any_order_and_case() {
        let text = "defaultendpointsprotocol=https; AccountKey=a2V5==;AccountName=truck;EndpointSuffix=core.chinacloudapi.cn;";
        assert_eq!(url(text), AccountUrl::parse("https://truck.blob.core.chinacloudapi.cn").unwrap());
        let named = parse(text).unwrap().credential();
        assert_eq!(named, Named::AccountKey { account: Some("truck".to_owned()), key: Secret::new("a2V5==") });
    }

    #[test]
    fn blob_endpoint_wins_and_names_the_account_of_a_sas_token() {
        let text = "BlobEndpoint=https://truck.blob.core.windows.net/;QueueEndpoint=https://x;SharedAccessSignature=sv=1&sig=a%3D";
        assert_eq!(url(text), AccountUrl::parse("https://truck.blob.core.windows.net/").unwrap());
        let named = parse(text).unwrap().credential();
        assert_eq!(named, Named::SasToken { account: Some("truck".to_owned()), token: Secret::new("sv=1&sig=a%3D") });
    }

    #[test]
    fn emulator_has_its_published_account() {
        assert_eq!(url("UseDevelopmentStorage=true"), AccountUrl::parse("http://127.0.0.1:10000/devstoreaccount1").unwrap());
        let proxied = "UseDevelopmentStorage=true;DevelopmentStorageProxyUri=http://azurite";
        assert_eq!(url(proxied), AccountUrl::parse("http://azurite:10000/devstoreaccount1").unwrap());
        let key = parse("UseDevelopmentStorage=true").unwrap().credential();
        assert!(matches!(key, Named::AccountKey { account: Some(account), .. } if account == EMULATOR_ACCOUNT));
    }

    #[test]
    fn incomplete_strings_are_refused_without_repeating_a_value() {
        for (text, reason) in [
            ("", "neither AccountKey nor SharedAccessSignature"),
            ("hunter2", "without an equals sign"),
            ("AccountName=hunter2", "neither AccountKey nor SharedAccessSignature"),
            ("AccountKey=hunter2", "no AccountName"),
            ("AccountKey=hunter2;AccountKey=hunter2", "AccountKey twice"),
            ("UseDevelopmentStorage=hunter2", "no other value than true"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(reason) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn debug_shows_neither_key_nor_token() {
        let read = parse("AccountName=a;AccountKey=hunter2;SharedAccessSignature=hunter2").unwrap();
        assert!(!format!("{read:?}").contains("hunter2"));
    }
}
