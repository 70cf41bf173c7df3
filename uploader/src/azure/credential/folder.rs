//! A folder with a file per key, as Kubernetes mounts a Secret.

use std::{collections::BTreeMap, io, path::Path};

use azure_core::credentials::Secret;

use super::{Named, connection_string::ConnectionString};

/// The keys that are looked at, all others are not read.
const KEYS: [&str; 9] = [
    "connectionString",
    "accountName",
    "accountKey",
    "sasToken",
    "AZURE_TENANT_ID",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_AUTHORITY_HOST",
    "AZURE_CLIENT_CERTIFICATE_PATH",
];

/// What a Secret may hold, for messages.
const WANTED: &str = "set connectionString, or accountName and accountKey, or sasToken, or AZURE_TENANT_ID, AZURE_CLIENT_ID and \
                      AZURE_CLIENT_SECRET";

/// The keys of a Secret with their values, blanks at the ends cut off.
pub(super) type Keys = BTreeMap<&'static str, Secret>;

/// Reads the keys that are there.
pub(super) async fn read(folder: &Path) -> io::Result<Keys> {
    // The kubelet exchanges all files at once by turning this link: through it the files are of one version.
    let folder = tokio::fs::canonicalize(folder.join("..data")).await.unwrap_or_else(|_| folder.to_owned());
    let mut keys = Keys::new();
    for key in KEYS {
        match tokio::fs::read_to_string(folder.join(key)).await {
            Ok(value) => {
                let value = value.trim();
                if !value.is_empty() {
                    keys.insert(key, Secret::new(value.to_owned()));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(keys)
}

/// The credential that the keys make, or what to set.
pub(super) fn choose(keys: &Keys) -> Result<Named, String> {
    let get = |key: &str| keys.get(key);
    let text = |key: &str| keys.get(key).map(|value| value.secret().to_owned());
    if let Some(value) = get("connectionString") {
        return Ok(ConnectionString::parse(value)?.credential());
    }
    if let Some(key) = get("accountKey") {
        return Ok(Named::AccountKey { account: text("accountName"), key: key.clone() });
    }
    if let Some(token) = get("sasToken") {
        return Ok(Named::SasToken { account: text("accountName"), token: token.clone() });
    }
    match (text("AZURE_TENANT_ID"), text("AZURE_CLIENT_ID"), get("AZURE_CLIENT_SECRET")) {
        (Some(tenant), Some(client), Some(secret)) => {
            Ok(Named::ClientSecret { tenant, client, secret: secret.clone(), authority: text("AZURE_AUTHORITY_HOST") })
        }
        _ => Err(missing(keys)),
    }
}

fn missing(keys: &Keys) -> String {
    let names: Vec<_> = keys.keys().copied().collect();
    if names.is_empty() {
        return format!("the Secret with the credential is absent or has none of its keys: {WANTED}");
    }
    if names.contains(&"AZURE_CLIENT_CERTIFICATE_PATH") {
        return "the Secret names a client certificate, which is not supported: use AZURE_CLIENT_SECRET".to_owned();
    }
    format!("the Secret has only {}: {WANTED}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(pairs: &[(&'static str, &'static str)]) -> Keys {
        pairs.iter().map(|(key, value)| (*key, Secret::new(*value))).collect()
    }

    #[test]
    fn each_documented_set_of_keys_makes_its_credential() {
        let account = || Some("a".to_owned());
        assert_eq!(
            choose(&keys(&[("accountName", "a"), ("accountKey", "k")])).unwrap(),
            Named::AccountKey { account: account(), key: Secret::new("k") }
        );
        assert_eq!(choose(&keys(&[("sasToken", "t")])).unwrap(), Named::SasToken { account: None, token: Secret::new("t") });
        assert_eq!(
            choose(&keys(&[("connectionString", "AccountName=a;AccountKey=k"), ("sasToken", "t")])).unwrap(),
            Named::AccountKey { account: account(), key: Secret::new("k") }
        );
        assert_eq!(
            choose(&keys(&[("AZURE_TENANT_ID", "t"), ("AZURE_CLIENT_ID", "c"), ("AZURE_CLIENT_SECRET", "s")])).unwrap(),
            Named::ClientSecret { tenant: "t".to_owned(), client: "c".to_owned(), secret: Secret::new("s"), authority: None }
        );
    }

    #[test]
    fn an_incomplete_secret_is_told_what_to_set() {
        let empty = choose(&keys(&[])).unwrap_err();
        assert!(empty.contains("absent") && empty.contains("connectionString") && empty.contains("AZURE_CLIENT_SECRET"), "{empty}");
        let half = choose(&keys(&[("accountName", "a"), ("AZURE_CLIENT_SECRET", "hunter2")])).unwrap_err();
        assert!(half.starts_with("the Secret has only AZURE_CLIENT_SECRET, accountName: set connectionString"), "{half}");
        assert!(!half.contains("hunter2"));
    }

    #[tokio::test]
    async fn files_are_read_through_the_link_that_the_kubelet_turns_and_blanks_are_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(&folder.path().join("absent")).await.unwrap().is_empty());
        std::fs::create_dir(folder.path().join("..1")).unwrap();
        std::fs::write(folder.path().join("..1/sasToken"), "new\n").unwrap();
        std::fs::write(folder.path().join("sasToken"), "old").unwrap();
        std::os::unix::fs::symlink("..1", folder.path().join("..data")).unwrap();
        assert_eq!(read(folder.path()).await.unwrap(), keys(&[("sasToken", "new")]));
    }
}
