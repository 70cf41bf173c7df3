//! The real program never shows a secret, wherever a person puts one and whatever a service answers.
//!
//! Everything that the program says is looked through, with all of its libraries at their most talkative: standard output and error,
//! the termination message, `/metrics`, telemetry sent to a collector, and the status sent to an API server. The services answer a
//! request with all of it, in headers and body.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

#[path = "../support/certificates.rs"]
mod certificates;
mod marks;
mod program;
mod service;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use self::{
    certificates::Certificates,
    marks::{ACCOUNT, MARK, PEM, around, connection_string, key, sas, shows_a_secret, signed_token},
    program::{PATIENCE, Run, Running},
    service::{Log, UID, serve},
};

#[test]
fn no_secret_is_shown_wherever_it_is_put_by_mistake() {
    let (service, _) = serve(None);
    let account_url = format!("http://{service}/{ACCOUNT}");
    let secrets = [
        key(),
        sas(),
        connection_string(),
        format!("https://truck.blob.core.windows.net/data?{}", sas()),
        format!("https://user:{MARK}@truck.blob.core.windows.net"),
        MARK.to_owned(),
    ];
    for variable in [
        "APP_AZURE_ACCOUNT_URL",
        "APP_AZURE_CONTAINER",
        "APP_AZURE_PREFIX",
        "APP_AZURE_ACCOUNT_NAME",
        "APP_AZURE_ACCOUNT_KEY",
        "APP_AZURE_SAS_TOKEN",
        "APP_AZURE_CONNECTION_STRING",
        "APP_AZURE_WORKLOAD_IDENTITY",
        "AZURE_STORAGE_ACCOUNT",
        "AZURE_STORAGE_KEY",
        "AZURE_STORAGE_SAS_TOKEN",
        "AZURE_STORAGE_CONNECTION_STRING",
    ] {
        for secret in &secrets {
            // A name that follows the rules; nobody can tell that it is a secret.
            let good_name = match variable {
                "APP_AZURE_CONTAINER" | "APP_AZURE_ACCOUNT_NAME" | "AZURE_STORAGE_ACCOUNT" => secret == MARK,
                "APP_AZURE_PREFIX" => !secret.contains("//"),
                _ => false,
            };
            if good_name {
                continue;
            }
            // What a person gives beside it.
            let beside = match variable {
                "APP_AZURE_ACCOUNT_NAME" => ("APP_AZURE_ACCOUNT_KEY", "a2V5"),
                "APP_AZURE_ACCOUNT_KEY" => ("APP_AZURE_ACCOUNT_NAME", ACCOUNT),
                "AZURE_STORAGE_ACCOUNT" => ("AZURE_STORAGE_KEY", "a2V5"),
                "APP_AZURE_ACCOUNT_URL" | "APP_AZURE_CONTAINER" | "APP_AZURE_PREFIX" => ("APP_AZURE_SAS_TOKEN", "sv=1&sig=x"),
                _ => ("RUST_BACKTRACE", "1"),
            };
            let variables = [(variable, secret.as_str()), beside];
            // A run that goes on is one that has found everything in order.
            let run = Run::new(&account_url).env(&variables).env(&[("APP_NFS_PROCESSING_ROOT", "/dev/null/x")]);
            let said = run.finish();
            assert!(!said.is_empty() && !shows_a_secret(&said), "{variable}={secret} is shown:\n{}", around(&said));
        }
    }
}

/// What the account answers to every write here.
const REFUSED_WRITE: &str = "InvalidQueryParameterValue";

/// Services that answer with all that they are sent, and a Secret's folder.
struct Scene {
    certificates: Certificates,
    secret: tempfile::TempDir,
    variables: Vec<(&'static str, String)>,
}

impl Scene {
    fn new(files: &[(&str, &str)]) -> Self {
        let scene = Self { certificates: Certificates::make(&[]), secret: tempfile::tempdir().unwrap(), variables: Vec::new() };
        for (name, value) in files {
            fs::write(scene.path(name), value).unwrap();
        }
        scene
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.secret.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn with(mut self, variables: &[(&'static str, &str)]) -> Self {
        self.variables.extend(variables.iter().map(|(name, value)| (*name, (*value).to_owned())));
        self
    }

    /// Uses the Secret's folder.
    fn with_secret(self) -> Self {
        let folder = self.secret.path().display().to_string();
        self.with(&[("APP_CREDENTIALS_DIR", &folder)])
    }

    /// An identity of a tenant of the token service; that of the tenant `refusing` is refused.
    fn with_identity(self, tenant: &str) -> Self {
        self.with(&[("AZURE_TENANT_ID", tenant), ("AZURE_CLIENT_ID", "client"), ("AZURE_AUTHORITY_HOST", "https://SERVICE")])
    }

    /// Runs the uploader against an account over plain HTTP until `cause` was reported.
    fn play(self, cause: &str) {
        let (service, log) = serve(None);
        watch(&self, Run::new(&format!("http://{service}/{ACCOUNT}")), &log, &service.to_string(), cause);
    }

    /// The same over TLS.
    fn play_over_tls(self, cause: &str) {
        let (account, _) = serve(Some(Arc::clone(&self.certificates.server)));
        let (service, log) = serve(None);
        let authority = self.certificates.path("authority.pem").display().to_string();
        let run = Run::new(&format!("https://{account}/{ACCOUNT}")).env(&[("SSL_CERT_FILE", &authority)]);
        let variables = self.variables.iter().map(|(name, value)| (*name, value.replace("SERVICE", &account.to_string())));
        let variables = variables.map(|(name, value)| (name, value.replace("PROXY", &service.to_string()))).collect();
        watch(&Self { variables, ..self }, run, &log, &service.to_string(), cause);
    }
}

#[test]
fn no_account_key_is_shown_whatever_the_service_answers() {
    Scene::new(&[("accountName", ACCOUNT), ("accountKey", &key())]).with_secret().play(REFUSED_WRITE);
}

#[test]
fn no_sas_token_is_shown_whatever_the_service_answers() {
    Scene::new(&[("sasToken", &sas())]).with_secret().play(REFUSED_WRITE);
}

#[test]
fn no_connection_string_is_shown_whatever_the_service_answers() {
    Scene::new(&[("connectionString", &connection_string())]).with_secret().play(REFUSED_WRITE);
}

#[test]
fn no_client_secret_is_shown_whatever_the_services_answer() {
    for (tenant, cause) in [("tenant", REFUSED_WRITE), ("refusing", "AADSTS7000215")] {
        Scene::new(&[]).with_identity(tenant).with(&[("AZURE_CLIENT_SECRET", MARK)]).play_over_tls(cause);
    }
}

#[test]
fn no_client_certificate_is_shown_whatever_the_services_answer() {
    for (tenant, cause) in [("tenant", REFUSED_WRITE), ("refusing", "AADSTS7000215")] {
        let scene = Scene::new(&[("tls.pem", PEM)]);
        let path = scene.text("tls.pem");
        scene.with_identity(tenant).with(&[("AZURE_CLIENT_CERTIFICATE_PATH", &path)]).play_over_tls(cause);
    }
}

#[test]
fn no_token_of_a_workload_identity_is_shown_whatever_the_services_answer() {
    for (tenant, cause) in [("tenant", REFUSED_WRITE), ("refusing", "AADSTS7000215")] {
        let scene = Scene::new(&[("token", &signed_token())]);
        let path = scene.text("token");
        let named = [("AZURE_FEDERATED_TOKEN_FILE", path.as_str()), ("APP_AZURE_WORKLOAD_IDENTITY", "true")];
        scene.with_identity(tenant).with(&named).play_over_tls(cause);
    }
}

#[test]
fn no_token_of_a_managed_identity_or_of_the_azure_cli_is_shown_whatever_the_services_answer() {
    let managed = [("IDENTITY_ENDPOINT", "http://PROXY/metadata/token"), ("IDENTITY_HEADER", MARK)];
    Scene::new(&[]).with(&managed).play_over_tls(REFUSED_WRITE);

    let answer = format!(r#"{{"accessToken":"{}","expires_on":4070908800,"tokenType":"Bearer"}}"#, signed_token());
    let scene = Scene::new(&[("az", &format!("#!/bin/sh\nprintf '%s' '{answer}'\n"))]);
    fs::set_permissions(scene.path("az"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", scene.secret.path().display());
    scene.with(&[("PATH", &path)]).play_over_tls(REFUSED_WRITE);
}

#[test]
fn no_password_of_a_proxy_is_shown_whatever_it_answers() {
    let proxy = format!("http://user:{MARK}@PROXY");
    Scene::new(&[("sasToken", &sas())]).with_secret().with(&[("HTTPS_PROXY", &proxy)]).play_over_tls("cannot connect");
}

fn watch(scene: &Scene, run: Run, log: &Log, service: &str, cause: &str) {
    let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let cluster = kubeconfig(run.path(), service);
    let endpoint = format!("http://{service}");
    let mut run = run.env(&[
        ("APP_POD_NAME", "s-uploader"),
        ("APP_POD_UID", "pod-1"),
        ("APP_SESSION_NAMESPACE", "n"),
        ("APP_SESSION_OBJECT", "s"),
        ("APP_SESSION_UID", UID),
        ("APP_LISTEN", &listen),
        ("KUBECONFIG", &cluster),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        ("OTEL_BLRP_SCHEDULE_DELAY", "200"),
        ("OTEL_BSP_SCHEDULE_DELAY", "200"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "500"),
    ]);
    run.command.envs(scene.variables.iter().map(|(name, value)| (name, value)));
    let mut running = Running::start(&mut run.command);
    // Until the failure has reached everybody who is told.
    let told = |what: &str, part: &str| log.bodies(what).iter().any(|body| body.contains(part));
    let start = Instant::now();
    while !(told("PATCH /apis/", cause) && told("/v1/logs", cause) && told("/v1/metrics", "files.")) {
        assert!(start.elapsed() < PATIENCE, "{cause} was not reported:\n{}", running.said());
        thread::sleep(Duration::from_millis(50));
    }
    let metrics = get(&listen, "/metrics");
    assert!(metrics.contains("files"), "{metrics}");
    let said = running.end();
    assert!(said.contains(cause), "{said}");
    assert!(said.contains("<== "), "the SDK was not asked to talk:\n{said}");
    let reports = [log.bodies("/apis/"), log.bodies("/v1/")].concat();
    for (what, text) in [
        ("log", said),
        ("metrics", metrics),
        ("reports", reports.join("\n")),
        ("message", fs::read_to_string(run.path().join("termination")).unwrap()),
    ] {
        assert!(!shows_a_secret(&text), "the {what} has a secret:\n{}", around(&text));
        assert!(!text.contains("SharedKey devstoreaccount1:"), "the {what} has a signature");
    }
}

/// Where the session is.
fn kubeconfig(folder: &Path, service: &str) -> String {
    let path = folder.join("kubeconfig");
    let config = format!(
        "{{apiVersion: v1, kind: Config, current-context: c, clusters: [{{name: c, cluster: {{server: 'http://{service}'}}}}], \
         users: [{{name: c, user: {{}}}}], contexts: [{{name: c, context: {{cluster: c, user: c}}}}]}}"
    );
    fs::write(&path, config).unwrap();
    path.display().to_string()
}

fn get(address: &str, path: &str) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut reply = String::new();
    socket.read_to_string(&mut reply).unwrap();
    reply
}
