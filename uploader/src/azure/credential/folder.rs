//! A folder with a file per key, as Kubernetes mounts a Secret.

use std::{collections::BTreeMap, io, path::Path};

use azure_core::credentials::Secret;

use super::{Named, chain::is_true, connection_string::ConnectionString, token::Identity};

/// The files that are looked at, all others are not read, and the key that each means. Of two with one meaning the first counts.
const FILES: [(&str, &str); 14] = [
    ("connectionString", "connectionString"),
    ("accountName", "accountName"),
    ("accountKey", "accountKey"),
    ("sasToken", "sasToken"),
    ("AZURE_STORAGE_CONNECTION_STRING", "connectionString"),
    ("AZURE_STORAGE_ACCOUNT", "accountName"),
    ("AZURE_STORAGE_KEY", "accountKey"),
    ("AZURE_STORAGE_SAS_TOKEN", "sasToken"),
    ("AZURE_TENANT_ID", "AZURE_TENANT_ID"),
    ("AZURE_CLIENT_ID", "AZURE_CLIENT_ID"),
    ("AZURE_CLIENT_SECRET", "AZURE_CLIENT_SECRET"),
    (CERTIFICATE, CERTIFICATE),
    (SEND_CHAIN, SEND_CHAIN),
    ("AZURE_AUTHORITY_HOST", "AZURE_AUTHORITY_HOST"),
];
const CERTIFICATE: &str = "AZURE_CLIENT_CERTIFICATE_PATH";
const SEND_CHAIN: &str = "AZURE_CLIENT_SEND_CERTIFICATE_CHAIN";

/// What a Secret may hold, for messages.
const WANTED: &str = "set connectionString, or accountName and accountKey, or sasToken, or AZURE_TENANT_ID, AZURE_CLIENT_ID and \
                      one of AZURE_CLIENT_SECRET and AZURE_CLIENT_CERTIFICATE_PATH";

/// The keys of a Secret with their values, blanks at the ends cut off.
pub(super) type Keys = BTreeMap<&'static str, Secret>;

/// Reads the keys that are there.
pub(super) async fn read(folder: &Path) -> io::Result<Keys> {
    // The kubelet exchanges all files at once by turning this link: through it the files are of one version.
    let folder = tokio::fs::canonicalize(folder.join("..data")).await.unwrap_or_else(|_| folder.to_owned());
    let mut keys = Keys::new();
    for (file, key) in FILES {
        match tokio::fs::read_to_string(folder.join(file)).await {
            Ok(value) => {
                let value = value.trim();
                if !value.is_empty() {
                    keys.entry(key).or_insert_with(|| Secret::new(value.to_owned()));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(keys)
}

/// The values that must not be shown.
pub(super) fn secrets(keys: &Keys) -> impl Iterator<Item = &str> {
    let shown = |key: &str| key.starts_with("AZURE_") && key != "AZURE_CLIENT_SECRET";
    keys.iter().filter(move |(key, _)| !shown(key) && **key != "accountName").map(|(_, value)| value.secret())
}

/// The credential that the keys of `folder` make, or what to set.
pub(super) fn choose(folder: &Path, keys: &Keys) -> Result<Named, String> {
    let get = |key: &str| keys.get(key);
    if let Some(value) = get("connectionString") {
        return Ok(ConnectionString::parse(value)?.credential());
    }
    if let Some(key) = get("accountKey") {
        return Ok(Named::AccountKey { account: text(keys, "accountName"), key: key.clone() });
    }
    if let Some(token) = get("sasToken") {
        return Ok(Named::SasToken { account: text(keys, "accountName"), token: token.clone() });
    }
    service_principal(folder, keys).ok_or_else(|| missing(keys))
}

fn service_principal(folder: &Path, keys: &Keys) -> Option<Named> {
    let (tenant, client) = (text(keys, "AZURE_TENANT_ID")?, text(keys, "AZURE_CLIENT_ID")?);
    let identity = Identity { tenant, client, authority: text(keys, "AZURE_AUTHORITY_HOST") };
    if let Some(secret) = keys.get("AZURE_CLIENT_SECRET") {
        return Some(Named::ClientSecret { identity, secret: secret.clone() });
    }
    // The name of another key of the Secret, which the kubelet keeps in step.
    let path = folder.join(text(keys, CERTIFICATE)?);
    let send_chain = text(keys, SEND_CHAIN).is_some_and(|value| is_true(&value));
    Some(Named::ClientCertificate { identity, path, send_chain })
}

fn text(keys: &Keys, key: &str) -> Option<String> {
    keys.get(key).map(|value| value.secret().to_owned())
}

fn missing(keys: &Keys) -> String {
    let names: Vec<_> = keys.keys().copied().collect();
    if names.is_empty() {
        return format!("the Secret with the credential is absent or has none of its keys: {WANTED}");
    }
    format!("the Secret has only {}: {WANTED}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(pairs: &[(&'static str, &'static str)]) -> Keys {
        pairs.iter().map(|(key, value)| (*key, Secret::new(*value))).collect()
    }

    fn chosen(pairs: &[(&'static str, &'static str)]) -> Result<Named, String> {
        choose(Path::new("/secret"), &keys(pairs))
    }

    #[test]
    fn each_documented_set_of_keys_makes_its_credential() {
        let account = || Some("a".to_owned());
        let key = Named::AccountKey { account: account(), key: Secret::new("k") };
        assert_eq!(chosen(&[("accountName", "a"), ("accountKey", "k")]).unwrap(), key);
        assert_eq!(chosen(&[("connectionString", "AccountName=a;AccountKey=k"), ("sasToken", "t")]).unwrap(), key);
        let token = Secret::new("t");
        assert_eq!(chosen(&[("sasToken", "t")]).unwrap(), Named::SasToken { account: None, token });
    }

    #[test]
    fn a_service_principal_has_a_secret_or_a_certificate_beside_it_in_the_secret() {
        let who =
            [("AZURE_TENANT_ID", "t"), ("AZURE_CLIENT_ID", "c"), ("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.us")];
        let authority = Some("https://login.microsoftonline.us".to_owned());
        let identity = Identity { tenant: "t".to_owned(), client: "c".to_owned(), authority };
        let secret = Named::ClientSecret { identity: identity.clone(), secret: Secret::new("s") };
        assert_eq!(chosen(&[who.as_slice(), &[("AZURE_CLIENT_SECRET", "s")]].concat()).unwrap(), secret);
        let certificate = Named::ClientCertificate { identity, path: "/secret/tls-combined.pem".into(), send_chain: true };
        let keys = [(CERTIFICATE, "tls-combined.pem"), (SEND_CHAIN, "true")];
        assert_eq!(chosen(&[who.as_slice(), &keys].concat()).unwrap(), certificate);
    }

    #[test]
    fn an_incomplete_secret_is_told_what_to_set() {
        let empty = chosen(&[]).unwrap_err();
        assert!(empty.contains("absent") && empty.contains("connectionString") && empty.contains("AZURE_CLIENT_SECRET"), "{empty}");
        let half = chosen(&[("accountName", "a"), ("AZURE_CLIENT_SECRET", "hunter2")]).unwrap_err();
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
        std::fs::write(folder.path().join("..1/AZURE_STORAGE_SAS_TOKEN"), "passed over").unwrap();
        std::fs::write(folder.path().join("..1/AZURE_STORAGE_KEY"), "k").unwrap();
        assert_eq!(read(folder.path()).await.unwrap(), keys(&[("sasToken", "new"), ("accountKey", "k")]));
    }
}
