//! The real program never shows a secret, wherever a person puts one and whatever a service answers.
//!
//! Everything that the program says is looked through, with all of its libraries at their most talkative: standard output and error,
//! the termination message, `/metrics`, telemetry sent to a collector, and the status sent to an API server. The service answers
//! a request that writes with all of it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tempfile::TempDir;

/// Longest wait for something that the program does at once.
const PATIENCE: Duration = Duration::from_mins(1);
/// The mark that all secrets here have, in clear or in base64.
const MARK: &str = "hunter2hunter2hunter2";
const ACCOUNT: &str = "devstoreaccount1";
const UID: &str = "6f7e0b0c-0000-4000-8000-000000000001";

fn key() -> String {
    STANDARD.encode(MARK)
}

/// A token whose signature has characters that are escaped.
fn sas() -> String {
    format!("sv=2020-08-04&ss=b&srt=o&sp=rw&se=2099-01-01T00%3A00%3A00Z&sig={MARK}%2Bx%3D")
}

fn connection_string() -> String {
    format!("DefaultEndpointsProtocol=https;AccountName={ACCOUNT};AccountKey={};EndpointSuffix=core.windows.net", key())
}

/// Whether `text` has a secret in any of its spellings.
fn shows_a_secret(text: &str) -> bool {
    // Base64 of the mark at each of the three offsets, without what depends on its neighbours.
    let inner = |padding: &str| {
        let code = STANDARD.encode(format!("{padding}{MARK}"));
        code[4..code.len() - 4].to_owned()
    };
    [MARK.to_owned(), inner(""), inner("x"), inner("xx")].iter().any(|secret| text.contains(secret.as_str()))
}

/// What a server was sent, and how it answers.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(String, String)>>>);

impl Log {
    fn push(&self, line: &str, body: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((line.to_owned(), body));
    }

    /// Bodies of the requests whose first line has `part`.
    fn bodies(&self, part: &str) -> Vec<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|(line, _)| line.contains(part)).map(|(_, body)| body.clone()).collect()
    }
}

/// A storage account that answers with the whole request, a collector of telemetry, and an API server; one address for all.
fn serve() -> (SocketAddr, Log) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let log = Log::default();
    let shared = log.clone();
    thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let log = shared.clone();
            thread::spawn(move || while answer(&socket, &log).is_some() {});
        }
    });
    (address, log)
}

fn answer(mut socket: &TcpStream, log: &Log) -> Option<()> {
    let mut reader = BufReader::new(socket);
    let mut head = String::new();
    while reader.read_line(&mut head).ok()? > 2 {}
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    let line = head.lines().next()?.to_owned();
    let body = String::from_utf8_lossy(&body).into_owned();
    log.push(&line, body.clone());
    let reply = if line.contains("/apis/") {
        let session = format!(
            r#"{{"apiVersion":"blobferry.io/v1alpha1","kind":"UploadSession","metadata":{{"name":"s","namespace":"n","uid":"{UID}",
            "resourceVersion":"1","generation":1}},"spec":{{}},"status":{{}}}}"#
        );
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{session}", session.len())
    } else if line.contains(" /v1/") {
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned()
    } else if line.starts_with("HEAD") {
        "HTTP/1.1 404 Not Found\r\nx-ms-error-code: BlobNotFound\r\n\r\n".to_owned()
    } else {
        let echo = format!("<?xml version=\"1.0\"?><Error><Message>{} {body}</Message></Error>", head.replace("\r\n", " "));
        format!(
            "HTTP/1.1 400 Bad Request\r\nx-ms-error-code: InvalidQueryParameterValue\r\nContent-Length: {}\r\n\r\n{echo}",
            echo.len()
        )
    };
    socket.write_all(reply.as_bytes()).ok()
}

/// A share with a file on it, and the program's variables.
struct Run {
    folder: TempDir,
    command: Command,
}

impl Run {
    fn new(service: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("share/incoming/s")).unwrap();
        fs::write(folder.path().join("share/incoming/s/a.dat"), "content").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_blobferry-uploader"));
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let path = |name: &str| folder.path().join(name).display().to_string();
        command.envs([
            ("APP_SESSION_NAME", "s".to_owned()),
            ("APP_AZURE_ACCOUNT_URL", format!("http://{service}/{ACCOUNT}")),
            ("APP_AZURE_CONTAINER", "data".to_owned()),
            ("APP_NFS_INCOMING_DIR", path("share/incoming")),
            ("APP_NFS_PROCESSING_ROOT", path("share/.processing")),
            ("APP_LOCAL_STAGING_ROOT", path("stage")),
            ("APP_TERMINATION_LOG", path("termination")),
            ("APP_MIN_FILE_AGE_S", "1".to_owned()),
            ("APP_POLL_INTERVAL_S", "0.2".to_owned()),
            ("PATH", "/nowhere".to_owned()),
            ("RUST_LOG", everything()),
        ]);
        fs::write(folder.path().join("termination"), "").unwrap();
        Self { folder, command }
    }

    fn env(mut self, pairs: &[(&str, &str)]) -> Self {
        self.command.envs(pairs.iter().copied());
        self
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Runs to the program's end; all that it said.
    fn finish(mut self) -> String {
        let mut child = Running::start(&mut self.command);
        let start = Instant::now();
        while child.child.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < PATIENCE, "the program does not end:\n{}", child.said());
            thread::sleep(Duration::from_millis(20));
        }
        let said = child.end();
        format!("{said}\n{}", fs::read_to_string(self.path().join("termination")).unwrap())
    }
}

/// All libraries at their most talkative.
fn everything() -> String {
    let libraries = [
        "azure_core",
        "azure_identity",
        "azure_storage_blob",
        "h2",
        "hyper",
        "hyper_util",
        "kube_client",
        "opentelemetry",
        "reqwest",
        "opentelemetry_otlp",
        "opentelemetry_sdk",
        "rustls",
        "tower",
        "typespec_client_core",
    ];
    libraries.iter().fold("trace".to_owned(), |all, library| format!("{all},{library}=trace"))
}

/// A program that runs, and what it has said so far. It ends with this value.
struct Running {
    child: Child,
    said: Arc<Mutex<String>>,
    readers: Vec<thread::JoinHandle<()>>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let outputs: [Box<dyn std::io::Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        let readers = outputs.map(|output| {
            let said = Arc::clone(&said);
            thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                    said.push_str(&line);
                    said.push('\n');
                }
            })
        });
        Self { child, said, readers: readers.into() }
    }

    fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends it as Kubernetes does; all that it said.
    fn end(&mut self) -> String {
        if self.child.try_wait().unwrap().is_none() {
            let process = rustix::process::Pid::from_child(&self.child);
            rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
            self.child.wait().unwrap();
        }
        self.readers.drain(..).for_each(|reader| reader.join().unwrap());
        self.said()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_search_finds_a_secret_in_each_of_its_spellings() {
    for text in [key(), sas(), connection_string(), STANDARD.encode(format!("truck:{MARK}")), format!("x{MARK}")] {
        assert!(shows_a_secret(&text), "{text}");
    }
    assert!(!shows_a_secret("(hidden)"));
}

#[test]
fn no_secret_is_shown_wherever_it_is_put_by_mistake() {
    let (service, _) = serve();
    let secrets =
        [key(), sas(), connection_string(), format!("https://truck.blob.core.windows.net/data?{}", sas()), MARK.to_owned()];
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
            let run = Run::new(service).env(&variables).env(&[("APP_NFS_PROCESSING_ROOT", "/dev/null/x")]);
            let said = run.finish();
            assert!(!said.is_empty() && !shows_a_secret(&said), "{variable}={secret} is shown:\n{}", around(&said));
        }
    }
}

/// The lines that show a secret.
fn around(said: &str) -> String {
    said.lines().filter(|line| shows_a_secret(line)).take(5).collect::<Vec<_>>().join("\n")
}

#[test]
fn no_secret_is_shown_by_a_running_uploader_whose_service_answers_with_all_that_it_is_sent() {
    for keys in [
        vec![("accountName", ACCOUNT.to_owned()), ("accountKey", key())],
        vec![("sasToken", sas())],
        vec![("connectionString", connection_string())],
    ] {
        watch_a_running_uploader(&secret_folder(&keys));
    }
}

fn secret_folder(keys: &[(&str, String)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in keys {
        fs::write(folder.path().join(name), value).unwrap();
    }
    folder
}

fn watch_a_running_uploader(secret: &TempDir) {
    let (service, log) = serve();
    let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut run = Run::new(service);
    let cluster = run.path().join("kubeconfig");
    let config = format!(
        "{{apiVersion: v1, kind: Config, current-context: c, clusters: [{{name: c, cluster: {{server: 'http://{service}'}}}}], \
         users: [{{name: c, user: {{}}}}], contexts: [{{name: c, context: {{cluster: c, user: c}}}}]}}"
    );
    fs::write(&cluster, config).unwrap();
    let (endpoint, uid) = (format!("http://{service}"), UID.to_owned());
    run = run.env(&[
        ("APP_CREDENTIALS_DIR", secret.path().to_str().unwrap()),
        ("APP_POD_NAME", "s-uploader"),
        ("APP_POD_UID", "pod-1"),
        ("APP_SESSION_NAMESPACE", "n"),
        ("APP_SESSION_OBJECT", "s"),
        ("APP_SESSION_UID", &uid),
        ("APP_LISTEN", &listen),
        ("KUBECONFIG", cluster.to_str().unwrap()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        ("OTEL_BLRP_SCHEDULE_DELAY", "200"),
        ("OTEL_BSP_SCHEDULE_DELAY", "200"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "500"),
    ]);
    let mut running = Running::start(&mut run.command);
    // Until the failure has reached everybody who is told.
    let told = |what: &str, part: &str| log.bodies(what).iter().any(|body| body.contains(part));
    let start = Instant::now();
    while !(told("PATCH /apis/", "InvalidQueryParameterValue")
        && told("/v1/logs", "InvalidQueryParameterValue")
        && told("/v1/metrics", "files.failed"))
    {
        assert!(start.elapsed() < PATIENCE, "the failure was not reported:\n{}", running.said());
        thread::sleep(Duration::from_millis(50));
    }
    let metrics = get(&listen, "/metrics");
    assert!(metrics.contains("files"), "{metrics}");
    let said = running.end();
    assert!(said.contains("InvalidQueryParameterValue"), "{said}");
    let reports = [log.bodies("/apis/"), log.bodies("/v1/")].concat();
    for (what, text) in [
        ("log", said),
        ("metrics", metrics),
        ("reports", reports.join("\n")),
        ("message", fs::read_to_string(run.path().join("termination")).unwrap()),
    ] {
        assert!(!shows_a_secret(&text), "the {what} has a secret:\n{}", around(&text));
        assert!(!text.contains("SharedKey devstoreaccount1:") || text.contains("SharedKey (hidden)"), "the {what} has a signature");
    }
}

fn get(address: &str, path: &str) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut reply = String::new();
    socket.read_to_string(&mut reply).unwrap();
    reply
}
