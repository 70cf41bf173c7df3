//! The way to the account: proxies, authorities, connections, addresses, and how often a refused request is sent.

use std::{
    fs,
    io::Read as _,
    net::SocketAddr,
    os::unix::fs::symlink,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use blobferry_blob_server::{ACCOUNT, BlobServer, Fault, KEY, Operation, Settings};
use blobferry_uploader::blob::BlobStore as _;
use tempfile::TempDir;

use crate::{
    backend::Backend as _,
    certificates::Certificates,
    child::{FOLDER, Remote},
    front::{Front, Proxy},
    server::{Server, store_at},
    suite::name,
};

/// A name that no resolver knows: only a proxy can find it.
const HOST: &str = "account.blob.test.invalid";
/// Longest wait for what is done within seconds.
const PATIENCE: Duration = Duration::from_mins(2);

/// A server that verifies signatures, behind TLS, and who may use it.
struct Account {
    _server: BlobServer,
    certificates: Certificates,
    front: Front,
    secret: TempDir,
}

impl Account {
    async fn start() -> Self {
        let key = blobferry_blob_server::AccountKey::new(KEY).unwrap();
        let server = BlobServer::start(Settings { key: Some(key), ..Settings::default() }).await.unwrap();
        server.create_container("data");
        let certificates = Certificates::make(&[HOST]);
        let front = Front::start(Some(Arc::clone(&certificates.server)), server.address()).await;
        let secret = tempfile::tempdir().unwrap();
        fs::write(secret.path().join("accountName"), ACCOUNT).unwrap();
        fs::write(secret.path().join("accountKey"), KEY).unwrap();
        Self { _server: server, certificates, front, secret }
    }

    /// Writes a blob in a process with these variables: what came of it.
    fn write(&self, host: &str, authority: &Path, variables: &[(&str, &str)]) -> String {
        let folder = self.secret.path().to_str().unwrap();
        let variables = [&[(FOLDER, folder)], variables].concat();
        let variables: Vec<_> = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let url = format!("https://{host}:{}/{ACCOUNT}", self.front.address.port());
        let reply = tokio::task::block_in_place(|| Remote::start(&url, "data", authority, &variables).prepare_and_write());
        format!("{} {}", reply.reason, reply.message).trim_end().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxy_is_used_for_the_account_and_not_for_what_is_excepted() {
    let account = Account::start().await;
    let authority = account.certificates.path("authority.pem");
    let proxy = Proxy::start(account.front.address).await;
    let url = format!("http://{}", proxy.address);
    assert_eq!(account.write(HOST, &authority, &[("HTTPS_PROXY", &url)]), "Ok");
    let line = format!("CONNECT {HOST}:{} HTTP/1.1", account.front.address.port());
    // A connection that is not given back yet when the next request comes is joined by a second one.
    let asked = proxy.asked();
    assert!((1..=2).contains(&asked.len()) && asked.iter().all(|asked| *asked == line), "{asked:?}");

    assert_eq!(account.write("localhost", &authority, &[("HTTPS_PROXY", &url), ("NO_PROXY", "localhost,.invalid")]), "Ok");
    let outcome = account.write(HOST, &authority, &[("HTTPS_PROXY", &url), ("NO_PROXY", "localhost,.invalid")]);
    assert!(outcome.starts_with(&format!("Transient cannot connect to {HOST}: ")), "{outcome}");
    assert_eq!(proxy.asked(), asked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authorities_of_a_file_and_of_a_mounted_config_map_are_trusted_and_no_others() {
    let (account, stranger) = (Account::start().await, Certificates::make(&[]));
    let authority = account.certificates.path("authority.pem");
    assert_eq!(account.write("localhost", &authority, &[]), "Ok");
    let outcome = account.write("localhost", &stranger.path("authority.pem"), &[]);
    assert!(outcome.starts_with("Transient cannot connect to localhost: invalid peer certificate"), "{outcome}");
    assert!(outcome.contains("SSL_CERT_FILE"), "{outcome}");

    // As the kubelet mounts it; any key will do.
    let mounted = tempfile::tempdir().unwrap();
    fs::create_dir(mounted.path().join("..1")).unwrap();
    fs::copy(&authority, mounted.path().join("..1/company")).unwrap();
    symlink("..1", mounted.path().join("..data")).unwrap();
    symlink("..data/company", mounted.path().join("company")).unwrap();
    let (folder, public) = (mounted.path().display().to_string(), tempfile::tempdir().unwrap());
    let both = format!("{}:{folder}", public.path().display());
    assert_eq!(account.write("localhost", &stranger.path("authority.pem"), &[("SSL_CERT_DIR", &both)]), "Ok");
}

#[tokio::test]
async fn connections_are_used_again_and_are_few_more_than_requests_at_a_time() {
    let server = Server::start().await;
    let front = Front::start(None, server.server.address()).await;
    let store = store_at(&format!("http://{}/{ACCOUNT}", front.address));
    for _ in 0..20 {
        store.look(&name("a")).await.unwrap();
    }
    // One that is not given back yet when the next request comes is joined by another.
    let one_at_a_time = front.connections();
    assert!(one_at_a_time <= 3, "{one_at_a_time} connections for 20 requests, one at a time");
    for _ in 0..5 {
        futures::future::join_all((0..8).map(|_| async { store.look(&name("a")).await.unwrap() })).await;
    }
    let eight_at_a_time = front.connections();
    assert!((2..=12).contains(&eight_at_a_time), "{eight_at_a_time} connections for 40 requests, 8 at a time");
}

#[tokio::test]
async fn account_may_have_an_ipv6_address() {
    let listen = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 0));
    let server = match BlobServer::start(Settings { listen, ..Settings::default() }).await {
        Err(error) if error.kind() == std::io::ErrorKind::AddrNotAvailable => {
            eprintln!("this machine has no IPv6: nothing was tried");
            return;
        }
        server => server.unwrap(),
    };
    server.create_container("data");
    let store = store_at(&server.account_url());
    store.prepare().await.unwrap();
    assert_eq!(store.look(&name("a")).await.unwrap(), None);
    assert!(server.account_url().starts_with("http://[::1]:"), "{}", server.account_url());
}

/// The program with one file to send; it ends with this value.
struct Uploader(Child, #[allow(dead_code, reason = "is removed with it")] TempDir);

impl Uploader {
    /// Starts it with these variables, and no others.
    fn start(account_url: &str, variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        fs::create_dir_all(path("share/incoming/s")).unwrap();
        fs::write(path("share/incoming/s/a.dat"), "content").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_blobferry-uploader"));
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        command.envs(variables.iter().copied()).envs([
            ("APP_SESSION_NAME", "s".to_owned()),
            ("APP_AZURE_ACCOUNT_URL", account_url.to_owned()),
            ("APP_AZURE_CONTAINER", "data".to_owned()),
            ("APP_NFS_INCOMING_DIR", path("share/incoming")),
            ("APP_NFS_PROCESSING_ROOT", path("share/.processing")),
            ("APP_LOCAL_STAGING_ROOT", path("stage")),
            ("APP_MIN_FILE_AGE_S", "1".to_owned()),
            ("APP_POLL_INTERVAL_S", "0.2".to_owned()),
        ]);
        Self(command.spawn().unwrap(), folder)
    }

    /// Waits for its end: its code, and all that it said.
    fn end(&mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        (self.0.wait().unwrap().code(), said)
    }
}

impl Drop for Uploader {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// When a file was sent that the service refuses three times.
async fn sent(wait: Option<Duration>) -> Vec<SystemTime> {
    let key = blobferry_blob_server::AccountKey::new(KEY).unwrap();
    let server = BlobServer::start(Settings { key: Some(key), ..Settings::default() }).await.unwrap();
    server.create_container("data");
    for nth in 1..=3 {
        server.faults().script(Operation::PutBlob, nth, Fault::Busy(503, wait));
    }
    let _uploader = Uploader::start(&server.account_url(), &[("APP_AZURE_ACCOUNT_NAME", ACCOUNT), ("APP_AZURE_ACCOUNT_KEY", KEY)]);
    let sent = || server.records(|record| record.operation == Some(Operation::PutBlob));
    let start = Instant::now();
    while sent().last().is_none_or(|record| record.wrote.is_none()) {
        assert!(start.elapsed() < PATIENCE, "the file does not arrive: {:?}", sent());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    sent().iter().map(|record| record.at).collect()
}

/// Retries of the library's would come sooner than ours, which wait longer each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_that_is_refused_is_sent_again_by_us_alone_and_never_before_the_service_allows_it() {
    for (wait, least) in [(None, [500, 1000, 2000]), (Some(Duration::from_secs(3)), [3000; 3])] {
        let sent = sent(wait).await;
        assert_eq!(sent.len(), least.len() + 1);
        for (pair, least) in sent.windows(2).zip(least) {
            let pause = pair[1].duration_since(pair[0]).unwrap();
            assert!(pause >= Duration::from_millis(least), "asked to wait {wait:?} and sent again after {pause:?}, of {least} ms");
        }
    }
}

#[test]
fn program_without_a_credential_ends_at_once_and_names_all_that_was_tried() {
    let certificates = Certificates::make(&[]);
    let authority = certificates.path("authority.pem").display().to_string();
    let start = Instant::now();
    let (code, said) = Uploader::start(&format!("https://{HOST}"), &[("SSL_CERT_FILE", &authority)]).end();
    assert_eq!(code, Some(1), "{said}");
    for part in ["environment (no", "workload identity (no", "managed identity", "Azure CLI (no az in PATH)", "AZURE_STORAGE_*"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
}
