//! Where the files go, and by what right.

use std::{fmt, path::PathBuf};

use blobferry_crds::{AccessTier, Overwrite};
use url::Url;

use super::{
    blob_properties::{self, Pairs},
    value,
};
use crate::blob::Properties;

// The doc comments are the help text, which is no Markdown.
#[allow(clippy::doc_markdown)]
#[derive(Clone, Debug, clap::Args)]
pub(super) struct DestinationArguments {
    /// URL of the storage account's blob service, like https://ACCOUNT.blob.core.windows.net
    // This and the next two are taken as text and checked later: clap would repeat a wrong value, and a secret that is in its place.
    #[arg(long, env = "APP_AZURE_ACCOUNT_URL", value_name = "URL", hide_env_values = true)]
    azure_account_url: Secret,

    /// Name of the container; made if it is absent and the credential allows it
    #[arg(long, env = "APP_AZURE_CONTAINER", value_name = "NAME", hide_env_values = true)]
    azure_container: Secret,

    /// What blob names start with, before the date
    #[arg(
        long,
        env = "APP_AZURE_PREFIX",
        value_name = "PREFIX",
        default_value = "",
        hide_default_value = true,
        hide_env_values = true
    )]
    azure_prefix: Secret,

    /// What happens when a blob of the name exists: OwnSource replaces only what this share and session put there, Never nothing, Any everything
    #[arg(long, env = "APP_AZURE_OVERWRITE", value_name = "RULE", default_value = "OwnSource", value_parser = overwrite)]
    azure_overwrite: Overwrite,

    /// How blobs are stored: Hot, Cool, Cold or Archive [default: the account's]
    #[arg(long, env = "APP_AZURE_ACCESS_TIER", value_name = "TIER", value_parser = blob_properties::access_tier)]
    azure_access_tier: Option<AccessTier>,

    /// Metadata of every blob, as a JSON object of texts, like {"site": "3"}
    #[arg(long, env = "APP_AZURE_METADATA", value_name = "JSON", default_value = "{}", hide_default_value = true, value_parser = blob_properties::metadata)]
    azure_metadata: Pairs,

    /// Index tags of every blob, as a JSON object of texts, like {"project": "north"}; they need a right of their own
    #[arg(long, env = "APP_AZURE_TAGS", value_name = "JSON", default_value = "{}", hide_default_value = true, value_parser = blob_properties::tags)]
    azure_tags: Pairs,

    /// MIME type of every blob, like video/mp4 [default: application/octet-stream]
    #[arg(long, env = "APP_AZURE_CONTENT_TYPE", value_name = "TYPE", value_parser = blob_properties::content_type)]
    azure_content_type: Option<String>,

    /// Connection string of the account
    #[arg(long, env = "APP_AZURE_CONNECTION_STRING", value_name = "TEXT", hide_env_values = true)]
    azure_connection_string: Option<Secret>,

    /// Name of the account, for its key
    #[arg(long, env = "APP_AZURE_ACCOUNT_NAME", value_name = "NAME", hide_env_values = true)]
    azure_account_name: Option<String>,

    /// Key of the account
    #[arg(long, env = "APP_AZURE_ACCOUNT_KEY", value_name = "BASE64", hide_env_values = true)]
    azure_account_key: Option<Secret>,

    /// Shared access signature of the account or container
    #[arg(long, env = "APP_AZURE_SAS_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    azure_sas_token: Option<Secret>,

    /// Use the workload identity of AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_FEDERATED_TOKEN_FILE, and nothing else
    #[arg(long, env = "APP_AZURE_WORKLOAD_IDENTITY", action = clap::ArgAction::SetTrue, value_parser = clap::builder::FalseyValueParser::new())]
    azure_workload_identity: bool,

    /// Folder of a mounted Secret with credentials, a file per key; used alone if it names any, and read again when it changes
    #[arg(long, env = "APP_CREDENTIALS_DIR", value_name = "FOLDER", value_parser = value::path())]
    credentials_dir: Option<PathBuf>,
}

/// Where the files go.
#[derive(Clone, Debug)]
pub struct DestinationSettings {
    /// The account's blob service: `https`, or `http` for an emulator; without query, fragment, user and slash at the end.
    pub account_url: Url,
    /// Name of the container.
    pub container: String,
    /// What blob names start with: empty, or folders without a slash at either end.
    pub prefix: String,
    /// What happens when a blob of the name exists.
    pub overwrite: Overwrite,
    /// What every blob gets besides our own metadata.
    pub properties: Properties,
    /// By what right.
    pub credentials: Credentials,
}

/// The credentials as they were given.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// Folder of a mounted Secret.
    pub folder: Option<PathBuf>,
    /// Connection string.
    pub connection_string: Option<Secret>,
    /// Name and key of the account.
    pub account_key: Option<(String, Secret)>,
    /// Shared access signature.
    pub sas_token: Option<Secret>,
    /// Whether the workload identity of the environment is meant.
    pub workload_identity: bool,
}

/// A text that must not be shown: neither `Debug` nor an error of ours gives it away.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for the request that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    fn is_empty(&self) -> bool {
        self.0.trim().is_empty()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(not shown)")
    }
}

impl DestinationArguments {
    pub(super) fn check(self) -> Result<DestinationSettings, String> {
        let given = |secret: Option<Secret>| secret.filter(|secret| !secret.is_empty());
        let account_key = match (value::unless_empty(self.azure_account_name), given(self.azure_account_key)) {
            (Some(name), Some(key)) => Some((name, key)),
            (None, Some(_)) => return Err("--azure-account-key is given without --azure-account-name: write both".into()),
            // A name alone is no credential; it may be there for other programs.
            (_, None) => None,
        };
        Ok(DestinationSettings {
            account_url: account_url(self.azure_account_url.expose())?,
            container: container(self.azure_container.expose()).map_err(|hint| format!("--azure-container: {hint}"))?,
            prefix: prefix(self.azure_prefix.expose()).map_err(|hint| format!("--azure-prefix: {hint}"))?,
            overwrite: self.azure_overwrite,
            properties: Properties {
                metadata: self.azure_metadata.0,
                tags: self.azure_tags.0,
                access_tier: self.azure_access_tier,
                content_type: value::unless_empty(self.azure_content_type),
            },
            credentials: Credentials {
                folder: self.credentials_dir.filter(|folder| !folder.as_os_str().is_empty()),
                connection_string: given(self.azure_connection_string),
                account_key,
                sas_token: given(self.azure_sas_token),
                workload_identity: self.azure_workload_identity,
            },
        })
    }
}

/// The emulators' account, whose URL has it as a path and may be `http`.
const EMULATOR_PATH: &str = "/devstoreaccount1";

fn account_url(text: &str) -> Result<Url, String> {
    let problem = |hint: &str| format!("--azure-account-url: {hint}");
    if text.contains(['?', '@', '#']) {
        return Err(problem("write the URL alone, without credential: a SAS token goes into APP_AZURE_SAS_TOKEN"));
    }
    let hint = "write an https URL, like https://ACCOUNT.blob.core.windows.net (http only for an emulator, whose path is /devstoreaccount1)";
    let mut url = Url::parse(text.trim()).map_err(|_| problem(hint))?;
    let path = url.path().trim_end_matches('/').to_owned();
    let schemed = url.scheme() == "https" || (url.scheme() == "http" && path == EMULATOR_PATH);
    if !schemed || url.host_str().is_none_or(str::is_empty) {
        return Err(problem(hint));
    }
    if path.matches('/').count() > 1 {
        return Err(problem("write the account only: the container goes into --azure-container, folders into --azure-prefix"));
    }
    url.set_path(&path);
    Ok(url)
}

fn container(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let hyphens_inside = !text.starts_with('-') && !text.ends_with('-') && !text.contains("--");
    if (3..=63).contains(&text.len()) && text.bytes().all(allowed) && hyphens_inside {
        Ok(text.to_owned())
    } else {
        Err("write 3 to 63 lower-case letters, digits and single hyphens between them, like camera-archive".into())
    }
}

fn prefix(text: &str) -> Result<String, String> {
    let good = |part: &str| !part.is_empty() && !part.ends_with('.') && !part.contains(|c: char| c == '\\' || c.is_control());
    if text.is_empty() || (text.chars().count() <= 400 && text.split('/').all(good)) {
        Ok(text.to_owned())
    } else {
        Err("write at most 400 characters of folders with single slashes between them, none at either end, no backslash and no dot at \
             the end of a folder, like site-3/raw"
            .into())
    }
}

fn overwrite(text: &str) -> Result<Overwrite, String> {
    value::word(text, &[("OwnSource", Overwrite::OwnSource), ("Never", Overwrite::Never), ("Any", Overwrite::Any)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_url_is_taken_without_its_last_slash() {
        let url = |text| account_url(text).unwrap().as_str().trim_end_matches('/').to_owned();
        assert_eq!(url("https://a.blob.core.windows.net/"), "https://a.blob.core.windows.net");
        assert_eq!(url("http://127.0.0.1:10000/devstoreaccount1/"), "http://127.0.0.1:10000/devstoreaccount1");
    }

    #[test]
    fn an_account_url_with_more_or_less_than_the_account_is_refused() {
        for (text, hint) in [
            ("", "write an https URL"),
            ("a.blob.core.windows.net", "write an https URL"),
            ("http://a.blob.core.windows.net", "http only for an emulator"),
            ("ftp://a/devstoreaccount1", "write an https URL"),
            ("https://a.blob.core.windows.net/container/folder", "--azure-container"),
            ("https://user:pass@a.blob.core.windows.net", "without credential"),
        ] {
            let problem = account_url(text).unwrap_err();
            assert!(problem.contains(hint), "{text}: {problem}");
        }
    }

    #[test]
    fn a_sas_token_left_in_the_url_is_not_repeated() {
        let problem = account_url("https://a.blob.core.windows.net/?sv=1&sig=hush").unwrap_err();
        assert!(problem.contains("APP_AZURE_SAS_TOKEN") && !problem.contains("hush"), "{problem}");
    }

    #[test]
    fn names_follow_the_rules_of_the_service() {
        assert!(["abc", "camera-archive", "a1-b2"].into_iter().all(|name| container(name).is_ok()));
        assert!(["", "ab", "Abc", "a--b", "-ab", "ab-", "a_b", &"a".repeat(64)].into_iter().all(|name| container(name).is_err()));
        assert!(["", "a", "site-3/raw", "ä b"].into_iter().all(|text| prefix(text).is_ok()));
        assert!(["/", "/a", "a/", "a//b", "a./b", "a\\b", "a\n", &"a".repeat(401)].into_iter().all(|text| prefix(text).is_err()));
    }

    #[test]
    fn a_secret_is_not_shown() {
        let credentials = Credentials { sas_token: Some(Secret("hush".into())), ..Credentials::default() };
        assert!(!format!("{credentials:?}").contains("hush"));
    }
}
