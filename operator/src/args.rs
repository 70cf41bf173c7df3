//! Command-line flags, each with a variable of the environment.

use std::net::SocketAddr;

use clap::Parser;

use crate::{
    leader::{Candidate, Leadership, Role},
    settings::{HostRule, Network, NfsRule, Settings, Strategy},
};

/// Runs one uploader pod for each `UploadSession` of the cluster.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "With `uninstall` as the first argument it lets go of all sessions, before the operator is removed for good."
)]
pub struct Args {
    /// Image of the uploader.
    #[arg(long, env = "BLOBFERRY_UPLOADER_IMAGE")]
    uploader_image: String,

    /// Pull policy of the uploader's image: Always, `IfNotPresent` or Never.
    #[arg(long, env = "BLOBFERRY_UPLOADER_IMAGE_PULL_POLICY", default_value = "IfNotPresent")]
    uploader_image_pull_policy: String,

    /// `ClusterRole` that uploaders get in their namespace.
    #[arg(long, env = "BLOBFERRY_UPLOADER_CLUSTER_ROLE", default_value = "blobferry-uploader")]
    cluster_role: String,

    /// Exports that `spec.source.nfs` may name: a JSON list of {"server", "pathPrefix", "namespaces"}. Empty turns inline NFS off.
    #[arg(long, env = "BLOBFERRY_NFS_ALLOWED", default_value = "[]", value_parser = nfs_rules)]
    nfs_allowed: Rules,

    /// Hosts to which sessions may upload and from which they may get tokens: suffixes that start with a dot, or hosts, with commas
    /// between them.
    #[arg(
        long,
        env = "BLOBFERRY_ACCOUNT_HOST_SUFFIXES",
        value_delimiter = ',',
        default_value = ".blob.core.windows.net,.blob.core.chinacloudapi.cn,.blob.core.usgovcloudapi.net,.blob.storage.azure.net,\
                         login.microsoftonline.com,login.microsoftonline.us,login.chinacloudapi.cn,login.partner.microsoftonline.cn"
    )]
    account_host_suffixes: Vec<HostRule>,

    /// Lets a session name its uploader's image.
    #[arg(long, env = "BLOBFERRY_ALLOW_POD_IMAGE")]
    allow_pod_image: bool,

    /// `ConfigMap` of each session's namespace with certificate authorities that uploaders trust besides the public ones.
    #[arg(long, env = "BLOBFERRY_UPLOADER_AUTHORITIES", default_value = "")]
    uploader_authorities: String,

    /// Proxy through which uploaders send https requests, like <http://proxy.example.com:3128>.
    #[arg(long, env = "BLOBFERRY_UPLOADER_HTTPS_PROXY", default_value = "", value_parser = proxy)]
    uploader_https_proxy: String,

    /// Hosts that uploaders reach without the proxy, with commas between them.
    #[arg(long, env = "BLOBFERRY_UPLOADER_NO_PROXY", default_value = "")]
    uploader_no_proxy: String,

    /// How running sessions get another `--uploader-image`: Rolling, a few at a time, or `OnRestart`, when their pod is replaced for
    /// another reason.
    #[arg(long, env = "BLOBFERRY_UPLOADER_UPDATE", value_enum, default_value_t = Update::Rolling)]
    uploader_update: Update,

    /// Sessions that get another image at a time.
    #[arg(long, env = "BLOBFERRY_UPLOADER_MAX_UNAVAILABLE", default_value = "1")]
    uploader_max_unavailable: std::num::NonZeroUsize,

    /// Where `/healthz`, `/readyz` and `/metrics` are served.
    #[arg(long, env = "BLOBFERRY_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,

    /// Namespace of the operator and of the Lease by which one of several operators leads. Without it there is no Lease, and the
    /// operator works as if it were alone.
    #[arg(long, env = "POD_NAMESPACE")]
    pub namespace: Option<String>,

    /// Name of the operator's pod; events and the Lease carry it.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: Option<String>,
}

/// `--uploader-update`
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[clap(rename_all = "PascalCase")]
enum Update {
    Rolling,
    OnRestart,
}

/// The parsed list of `--nfs-allowed`; a type of its own because clap would take a `Vec` for a repeated flag.
type Rules = std::sync::Arc<[NfsRule]>;

fn nfs_rules(text: &str) -> Result<Rules, serde_json::Error> {
    serde_json::from_str::<Vec<NfsRule>>(text).map(Into::into)
}

fn unless_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// A pod's definition is no place for a password, so a proxy that wants one is refused, without repeating it.
fn proxy(text: &str) -> Result<String, &'static str> {
    let hint = "write a URL like http://proxy.example.com:3128, without a user and a password";
    if text.is_empty() {
        return Ok(String::new());
    }
    let url = url::Url::parse(text).map_err(|_| hint)?;
    let plain = matches!(url.scheme(), "http" | "https") && url.host_str().is_some() && url.username().is_empty();
    if plain && url.password().is_none() { Ok(text.to_owned()) } else { Err(hint) }
}

impl Args {
    /// The operator as one of several that want to lead; none if it is alone.
    pub fn candidate(&self, client: &kube::Client, leadership: &Leadership) -> Option<Candidate> {
        let Some(namespace) = &self.namespace else {
            leadership.set(Role::Leader);
            return None;
        };
        let me = self.pod_name.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        Some(Candidate::new(client, namespace, me, leadership.clone()))
    }

    /// What sessions are checked against and pods are built from; OpenTelemetry settings of the operator hold for uploaders too.
    pub fn settings(&self, environment: impl Iterator<Item = (String, String)>) -> Settings {
        Settings {
            uploader_image: self.uploader_image.clone(),
            pull_policy: self.uploader_image_pull_policy.clone(),
            cluster_role: self.cluster_role.clone(),
            nfs_allowed: self.nfs_allowed.to_vec(),
            account_hosts: self.account_host_suffixes.clone(),
            allow_pod_image: self.allow_pod_image,
            telemetry: telemetry_variables(environment),
            network: Network {
                authorities: unless_empty(&self.uploader_authorities),
                https_proxy: unless_empty(&self.uploader_https_proxy),
                no_proxy: unless_empty(&self.uploader_no_proxy),
            },
            update: match self.uploader_update {
                Update::Rolling => Strategy::Rolling(self.uploader_max_unavailable),
                Update::OnRestart => Strategy::OnRestart,
            },
        }
    }
}

/// The `OTEL_*` variables that mean the same in every program. Headers hold credentials, which have no place in a pod's definition.
fn telemetry_variables(environment: impl Iterator<Item = (String, String)>) -> Vec<(String, String)> {
    let own = |name: &str| name.ends_with("_HEADERS") || name == "OTEL_SERVICE_NAME" || name == "OTEL_RESOURCE_ATTRIBUTES";
    let mut variables: Vec<_> = environment.filter(|(name, _)| name.starts_with("OTEL_") && !own(name)).collect();
    variables.sort();
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_the_chart_are_understood() {
        let args = Args::try_parse_from([
            "blobferry-operator",
            "--uploader-image=localhost/blobferry-uploader:dev",
            "--uploader-image-pull-policy=Never",
            "--cluster-role=release-uploader",
            r#"--nfs-allowed=[{"server":"nas","pathPrefix":"/srv"}]"#,
            "--account-host-suffixes=.blob.core.windows.net,10.0.0.9:10000",
            "--allow-pod-image",
            "--uploader-authorities=company",
            "--uploader-https-proxy=http://proxy.example.com:3128",
            "--uploader-no-proxy=",
            "--uploader-update=OnRestart",
            "--uploader-max-unavailable=3",
            "--listen=0.0.0.0:8080",
        ]);
        let settings = args.unwrap().settings(std::iter::empty());
        assert_eq!((settings.nfs_allowed.len(), settings.account_hosts.len()), (1, 2));
        assert!(settings.allow_pod_image);
        assert_eq!(settings.update, Strategy::OnRestart);
        let https_proxy = Some("http://proxy.example.com:3128".to_owned());
        assert_eq!(settings.network, Network { authorities: Some("company".to_owned()), https_proxy, no_proxy: None });
    }

    #[test]
    fn a_proxy_that_would_put_a_password_into_pods_is_refused() {
        assert_eq!(proxy(""), Ok(String::new()));
        for text in ["http://user:hunter2@proxy", "http://hunter2@proxy", "proxy:3128", "socks5://proxy"] {
            assert!(proxy(text).unwrap_err().starts_with("write a URL"), "{text}");
        }
    }

    #[test]
    fn telemetry_of_the_operator_holds_for_uploaders_without_credentials_and_names() {
        let environment = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=secret"),
            ("OTEL_SERVICE_NAME", "blobferry-operator"),
            ("PATH", "/"),
        ];
        let variables = telemetry_variables(environment.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(variables, [("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), "http://collector:4318".to_owned())]);
    }
}
