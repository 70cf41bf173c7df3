//! What the person who installs the operator allows, parsed once.

use std::num::NonZeroUsize;

use serde::Deserialize;

/// Settings of the operator that sessions are checked against and pods are built from.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Image of uploader pods.
    pub uploader_image: String,
    /// Pull policy of uploader pods.
    pub pull_policy: String,
    /// `ClusterRole` that each session namespace's `RoleBinding` names.
    pub cluster_role: String,
    /// Exports that inline NFS sources may name; empty means none.
    pub nfs_allowed: Vec<NfsRule>,
    /// Hosts to which sessions may upload.
    pub account_hosts: Vec<HostRule>,
    /// Whether a session may name its uploader's image.
    pub allow_pod_image: bool,
    /// OpenTelemetry variables that uploader pods get.
    pub telemetry: Vec<(String, String)>,
    /// How uploaders reach Azure.
    pub network: Network,
    /// How running sessions get another [`Self::uploader_image`].
    pub update: Strategy,
}

/// How running sessions get a new image; the chart's `uploaders.update`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// So many sessions at a time.
    Rolling(NonZeroUsize),
    /// When their pod is replaced for another reason.
    OnRestart,
}

/// How uploaders reach Azure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// `ConfigMap` of each session's namespace with certificate authorities to trust besides the public ones.
    pub authorities: Option<String>,
    /// Proxy for https.
    pub https_proxy: Option<String>,
    /// Hosts that are reached without it.
    pub no_proxy: Option<String>,
}

/// One entry of the chart value `nfs.allowed`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NfsRule {
    server: String,
    path_prefix: String,
    #[serde(default)]
    namespaces: Vec<String>,
}

impl NfsRule {
    /// Whether a session of `namespace` may mount `path` of `server`. No list of namespaces means every namespace.
    pub fn allows(&self, server: &str, path: &str, namespace: &str) -> bool {
        let mut path = components(path);
        self.server.eq_ignore_ascii_case(server)
            && (self.namespaces.is_empty() || self.namespaces.iter().any(|allowed| allowed == namespace))
            && !path.clone().any(|component| component == "..")
            && components(&self.path_prefix).all(|component| path.next() == Some(component))
    }
}

/// The parts of a path, as a file system sees them.
pub fn components(path: &str) -> impl Iterator<Item = &str> + Clone {
    path.split('/').filter(|component| !component.is_empty() && *component != ".")
}

/// One entry of the chart value `accountHostSuffixes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostRule {
    /// An entry that starts with a dot: every host below it, on every port.
    Below(String),
    /// A host, on the given port if the entry has one.
    Exactly(String, Option<u16>),
}

/// An entry that no host can match.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no host: write a suffix like .blob.core.windows.net or a host like 192.0.2.9 or 192.0.2.9:10000")]
pub struct HostRuleError(String);

impl std::str::FromStr for HostRule {
    type Err = HostRuleError;

    fn from_str(text: &str) -> Result<Self, HostRuleError> {
        let error = || HostRuleError(text.to_owned());
        let entry = text.trim().to_ascii_lowercase();
        if entry.starts_with('.') {
            let plain = entry.len() > 1 && entry.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
            return if plain { Ok(Self::Below(entry)) } else { Err(error()) };
        }
        let url = url::Url::parse(&format!("blobferry://{entry}")).map_err(|_| error())?;
        match (url.host_str(), url.path()) {
            (Some(host), "") if !host.is_empty() => Ok(Self::Exactly(host.to_owned(), url.port())),
            _ => Err(error()),
        }
    }
}

impl HostRule {
    /// Whether the host and port of `url` are allowed.
    pub fn allows(&self, url: &url::Url) -> bool {
        let Some(host) = url.host_str() else { return false };
        match self {
            Self::Below(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
            Self::Exactly(allowed, port) => host == allowed && port.is_none_or(|port| url.port_or_known_default() == Some(port)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(json: &str) -> NfsRule {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn nfs_rule_allows_its_path_and_what_is_below_it() {
        let rule = rule(r#"{"server": "nas", "pathPrefix": "/srv/drop/", "namespaces": ["cameras"]}"#);
        for path in ["/srv/drop", "/srv/drop/", "/srv//drop/a/b", "/srv/./drop"] {
            assert!(rule.allows("NAS", path, "cameras"), "{path}");
        }
        for path in ["/srv", "/srv/dropped", "/srv/drop/../other", "/"] {
            assert!(!rule.allows("nas", path, "cameras"), "{path}");
        }
        assert!(!rule.allows("nas2", "/srv/drop", "cameras"));
        assert!(!rule.allows("nas", "/srv/drop", "others"));
    }

    #[test]
    fn nfs_rule_without_namespaces_allows_all_of_them() {
        assert!(rule(r#"{"server": "nas", "pathPrefix": "/"}"#).allows("nas", "/a", "any"));
    }

    #[test]
    fn host_suffix_allows_hosts_below_it_only() {
        let rule: HostRule = ".blob.core.windows.net".parse().unwrap();
        let allows = |url: &str| rule.allows(&url::Url::parse(url).unwrap());
        assert!(allows("https://acct.blob.core.windows.net"));
        assert!(allows("https://ACCT.Blob.core.windows.net/"));
        for url in
            ["https://blob.core.windows.net", "https://evilblob.core.windows.net", "https://acct.blob.core.windows.net.evil.com"]
        {
            assert!(!allows(url), "{url}");
        }
    }

    #[test]
    fn exact_host_allows_any_port_unless_it_names_one() {
        let url = url::Url::parse("http://10.0.0.9:10000/devstoreaccount1").unwrap();
        let allows = |rule: &str| rule.parse::<HostRule>().unwrap().allows(&url);
        assert!(allows("10.0.0.9") && allows("10.0.0.9:10000"));
        assert!(!allows("10.0.0.9:10001") && !allows("10.0.0.8"));
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in ["", ".", "https://a.b", "a/b", "a b", ".a/b"] {
            assert!(text.parse::<HostRule>().is_err(), "{text}");
        }
    }
}
