//! Who is told how it goes.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use blobferry_crds::names::HTTP_PORT;

use super::{Fallbacks, value};

/// Where the kubelet looks for the message of a container that ended.
pub(crate) const TERMINATION_LOG: &str = "/dev/termination-log";

#[derive(Clone, Debug, clap::Args)]
pub(super) struct ReportArguments {
    /// Namespace of the session's object; with it and the next one, progress is reported to the object
    #[arg(long, env = "APP_SESSION_NAMESPACE", value_name = "NAMESPACE")]
    session_namespace: Option<String>,

    /// Name of the session's object
    #[arg(long, env = "APP_SESSION_OBJECT", value_name = "NAME")]
    session_object: Option<String>,

    /// Name of this pod
    #[arg(long, env = "APP_POD_NAME", value_name = "NAME")]
    pod_name: Option<String>,

    /// UID of this pod [default: random]
    #[arg(long, env = "APP_POD_UID", value_name = "UID", value_parser = value::plain_name)]
    pod_uid: Option<String>,

    /// Address and port, or port alone, of /healthz, /readyz and /metrics [default: 8080 in a pod, none elsewhere]
    #[arg(long, env = "APP_LISTEN", value_name = "ADDRESS")]
    listen: Option<String>,

    /// File that takes the reason for which the program ended [default: /dev/termination-log in a pod, none elsewhere]
    #[arg(long, env = "APP_TERMINATION_LOG", value_name = "FILE", value_parser = value::path())]
    termination_log: Option<PathBuf>,
}

/// Who is told how it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportSettings {
    /// The session's object, which takes the progress.
    pub object: Option<SessionObject>,
    /// Name of this pod; `None` when the program runs from a shell.
    pub pod_name: Option<String>,
    /// UID of this pod, or a random one.
    pub pod_uid: String,
    /// Where `/healthz`, `/readyz` and `/metrics` are served.
    pub listen: Option<Listen>,
    /// File that takes the termination message.
    pub termination_log: Option<PathBuf>,
}

impl ReportSettings {
    /// Whether this is a pod, which stays up and tries again where a run from a shell says why and ends.
    pub fn in_pod(&self) -> bool {
        self.pod_name.is_some()
    }
}

/// An `UploadSession` in Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionObject {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID; an object with another UID is another session.
    pub uid: String,
}

/// Where to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// On one address.
    Address(SocketAddr),
    /// On all addresses, of both families where the machine has both.
    Port(u16),
}

impl Listen {
    /// The addresses to try, in this order, until one can be bound.
    pub fn candidates(self) -> Vec<SocketAddr> {
        match self {
            Self::Address(address) => vec![address],
            Self::Port(port) => {
                [IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)].map(|ip| SocketAddr::new(ip, port)).to_vec()
            }
        }
    }
}

impl ReportArguments {
    pub(super) fn check(self, session_uid: Option<&str>, fallbacks: &Fallbacks) -> Result<ReportSettings, String> {
        let namespace = value::unless_empty(self.session_namespace);
        let name = value::unless_empty(self.session_object);
        let uid = value::unless_empty(session_uid.map(str::to_owned));
        let pod_name = value::unless_empty(self.pod_name);
        let in_pod = pod_name.is_some();
        let listen = value::unless_empty(self.listen).map(|text| listen(&text)).transpose()?;
        Ok(ReportSettings {
            object: session_object(namespace, name, uid)?,
            pod_name,
            pod_uid: value::unless_empty(self.pod_uid).unwrap_or_else(|| fallbacks.pod_uid.to_string()),
            listen: listen.or_else(|| in_pod.then_some(Listen::Port(HTTP_PORT))),
            termination_log: self
                .termination_log
                .filter(|path| !path.as_os_str().is_empty())
                .or_else(|| in_pod.then(|| TERMINATION_LOG.into())),
        })
    }
}

fn session_object(namespace: Option<String>, name: Option<String>, uid: Option<String>) -> Result<Option<SessionObject>, String> {
    match (namespace, name, uid) {
        (None, None, _) => Ok(None),
        (Some(namespace), Some(name), Some(uid)) => Ok(Some(SessionObject { namespace, name, uid })),
        _ => Err(
            "to report to a session's object, write --session-namespace, --session-object and --session-uid; to run without one, \
                  leave out the first two"
                .into(),
        ),
    }
}

fn listen(text: &str) -> Result<Listen, String> {
    let text = text.trim();
    let port = text.strip_prefix(':').unwrap_or(text);
    let address = text.parse().map(Listen::Address);
    address
        .or_else(|_| port.parse().map(Listen::Port))
        .map_err(|_| "--listen: write an address and a port, like 127.0.0.1:8080, or a port alone".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_means_all_addresses_of_both_families() {
        assert_eq!(listen("8080").unwrap(), listen(":8080").unwrap());
        let tried: Vec<String> = listen("8080").unwrap().candidates().iter().map(ToString::to_string).collect();
        assert_eq!(tried, ["[::]:8080", "0.0.0.0:8080"]);
        assert_eq!(listen("[::1]:0").unwrap().candidates().len(), 1);
        for text in ["localhost", "127.0.0.1", "70000"] {
            assert!(listen(text).is_err(), "{text}");
        }
    }
}
