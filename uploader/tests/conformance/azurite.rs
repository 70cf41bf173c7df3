//! Azurite, started for the tests, and a plain client of it that shares no code with the store.

use std::{
    env,
    fs::File,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, Weak},
    time::{Duration, Instant},
};

use azure_core::credentials::Secret;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use blobferry_uploader::{
    azure::{AccountUrl, AzureSettings, AzureStore, CredentialSource},
    formats::BlobName,
};
use bytes::Bytes;
use reqwest::{Client, Method, Url};
use tempfile::TempDir;
use uuid::Uuid;

use crate::backend::{Backend, Given};

/// The emulator's published account.
pub(crate) const ACCOUNT: &str = "devstoreaccount1";
/// The emulator's published key.
pub(crate) const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A running program. Tests that run at the same time share one; it ends with the last of them.
pub(crate) struct Process {
    child: Child,
    arguments: Vec<String>,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    folder: TempDir,
}

static RUNNING: Mutex<Weak<Process>> = Mutex::new(Weak::new());

impl Process {
    fn shared() -> Arc<Self> {
        let mut running = RUNNING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(process) = running.upgrade() {
            return process;
        }
        let process = Arc::new(Self::start(&["--silent"], KEY));
        *running = Arc::downgrade(&process);
        process
    }

    /// A program of one's own, with `key` as the account's.
    pub(crate) fn start(arguments: &[&str], key: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let arguments: Vec<_> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Self { child: spawn(&arguments, address, folder.path(), key), arguments, address, folder }
    }

    /// Ends it and starts it again, with what it holds and with another key.
    pub(crate) fn restart(&mut self, key: &str) {
        // It writes down what it holds when it is asked to end.
        let process = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap();
        self.child = spawn(&self.arguments, self.address, self.folder.path(), key);
    }

    /// How many requests had `part` in their URL, unless it is silent.
    pub(crate) fn requests(&self, part: &str) -> usize {
        std::fs::read_to_string(self.folder.path().join(LOG)).unwrap().lines().filter(|line| line.contains(part)).count()
    }
}

/// Where Azurite prints a line for each request.
const LOG: &str = "requests.log";

/// Returns when it answers.
fn spawn(arguments: &[String], address: SocketAddr, folder: &Path, key: &str) -> Child {
    let program = env::var_os("BLOBFERRY_AZURITE").expect("set BLOBFERRY_AZURITE to the azurite-blob program");
    let log = File::options().create(true).append(true).open(folder.join(LOG)).unwrap();
    let child = Command::new(program)
        .args(["--disableTelemetry", "--blobHost", "127.0.0.1", "--blobPort", &address.port().to_string()])
        .arg("--location")
        .arg(folder)
        .args(arguments)
        .env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{key}"))
        .stdin(Stdio::null())
        .stdout(log)
        .spawn()
        .unwrap();
    let start = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(start.elapsed() < Duration::from_mins(5), "Azurite does not answer on {address}");
        std::thread::sleep(Duration::from_millis(50));
    }
    child
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A container of the shared Azurite.
pub(crate) struct Azurite {
    process: Arc<Process>,
    client: Client,
    container: String,
    store: AzureStore,
}

impl Azurite {
    /// A store of the container with another credential.
    pub(crate) fn store_with(&self, credential: CredentialSource) -> AzureStore {
        store(&self.process, &self.container, credential)
    }

    /// The container's name.
    pub(crate) fn container(&self) -> &str {
        &self.container
    }

    /// The URL of a blob or of the container, with the right to all.
    fn url(&self, segments: &[&str], query: &str) -> Url {
        let mut url = Url::parse(&account_url(&self.process)).unwrap();
        // A slash in a segment is escaped, so a name is one segment.
        url.path_segments_mut().unwrap().push(&self.container).extend(segments);
        url.set_query(Some(&format!("{query}{}", account_sas("rwdlact", "sco"))));
        url
    }

    async fn request(&self, method: Method, url: Url, body: &'static str) -> Option<Bytes> {
        let response = self.client.request(method, url).body(body).send().await.unwrap();
        let ok = response.status().is_success();
        let content = response.bytes().await.unwrap();
        ok.then_some(content)
    }
}

/// A SAS token for the account's blob service that never ends.
pub(crate) fn account_sas(permissions: &str, types: &str) -> String {
    Sas { permissions, ..Sas::default() }.of_account(types)
}

/// What a SAS token allows.
#[derive(Clone, Copy)]
pub(crate) struct Sas<'a> {
    pub(crate) permissions: &'a str,
    pub(crate) end: &'a str,
    pub(crate) key: &'a str,
}

impl Default for Sas<'_> {
    fn default() -> Self {
        Self { permissions: "rw", end: "2099-01-01T00:00:00Z", key: KEY }
    }
}

impl Sas<'_> {
    const VERSION: &'static str = "2020-08-04";

    /// For the account's blob service: <https://learn.microsoft.com/rest/api/storageservices/create-account-sas>.
    pub(crate) fn of_account(self, types: &str) -> String {
        let Self { permissions, end, key } = self;
        let text = format!("{ACCOUNT}\n{permissions}\nb\n{types}\n\n{end}\n\nhttps,http\n{}\n", Self::VERSION);
        Self::token(&text, key, &[("ss", "b"), ("srt", types), ("sp", permissions), ("se", end), ("spr", "https,http")])
    }

    /// For the blobs of one container: <https://learn.microsoft.com/rest/api/storageservices/create-service-sas>.
    pub(crate) fn of_container(self, container: &str) -> String {
        let Self { permissions, end, key } = self;
        let resource = format!("/blob/{ACCOUNT}/{container}");
        let text = format!("{permissions}\n\n{end}\n{resource}\n\n\nhttps,http\n{}\nc\n\n\n\n\n\n", Self::VERSION);
        Self::token(&text, key, &[("sr", "c"), ("sp", permissions), ("se", end), ("spr", "https,http")])
    }

    fn token(text: &str, key: &str, fields: &[(&str, &str)]) -> String {
        let signature = azure_core::hmac::hmac_sha256(text, &Secret::new(key.to_owned())).unwrap();
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("sv", Self::VERSION).extend_pairs(fields).append_pair("sig", &signature).finish()
    }
}

fn account_url(process: &Process) -> String {
    format!("http://{}/{ACCOUNT}", process.address)
}

fn store(process: &Process, container: &str, credential: CredentialSource) -> AzureStore {
    let account_url = AccountUrl::parse(&account_url(process)).unwrap();
    AzureStore::new(AzureSettings { account_url, container: container.to_owned(), prefix: String::new(), credential }).unwrap()
}

impl Backend for Azurite {
    type Store = AzureStore;

    const PUT_BLOB_TAKES_UNCOMMITTED_BLOCKS_FOR_A_BLOB: bool = true;
    const PUT_BLOB_LEAVES_UNCOMMITTED_BLOCKS: bool = true;

    async fn start_without_container() -> Self {
        let process = tokio::task::spawn_blocking(Process::shared).await.unwrap();
        let container = format!("c{}", Uuid::new_v4().simple());
        let store = store(&process, &container, CredentialSource::AccountKey { account: None, key: Secret::new(KEY) });
        Self { process, client: Client::builder().no_proxy().build().unwrap(), container, store }
    }

    fn store(&self) -> &AzureStore {
        &self.store
    }

    async fn list(&self) -> Vec<String> {
        let page = self.request(Method::GET, self.url(&[], "restype=container&comp=list&"), "").await.unwrap();
        let page = String::from_utf8(page.to_vec()).unwrap();
        let names = page.split("<Name>").skip(1).map(|rest| rest.split("</Name>").next().unwrap());
        names.map(unescape).collect()
    }

    async fn read(&self, name: &BlobName) -> Option<Bytes> {
        self.request(Method::GET, self.url(&[name.as_str()], ""), "").await
    }

    async fn given(&self, name: &BlobName) -> Given {
        let head = self.client.head(self.url(&[name.as_str()], "")).send().await.unwrap();
        let header = |header: &str| head.headers()[header].to_str().unwrap().to_owned();
        let tags = self.request(Method::GET, self.url(&[name.as_str()], "comp=tags&"), "").await.unwrap();
        let tags = String::from_utf8(tags.to_vec()).unwrap();
        let text = |part: &str, tag: &str| unescape(part.split(&format!("<{tag}>")).nth(1).unwrap().split('<').next().unwrap());
        let pairs = tags.split("<Tag>").skip(1).map(|tag| (text(tag, "Key"), text(tag, "Value")));
        Given { access_tier: header("x-ms-access-tier"), content_type: header("content-type"), tags: pairs.collect() }
    }

    async fn plant_block(&self, name: &BlobName, id: &[u8]) {
        let id: String = url::form_urlencoded::byte_serialize(STANDARD.encode(id).as_bytes()).collect();
        let url = self.url(&[name.as_str()], &format!("comp=block&blockid={id}&"));
        self.request(Method::PUT, url, "foreign").await.unwrap();
    }
}

/// Text of XML.
fn unescape(text: &str) -> String {
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'");
    text.replace("&#39;", "'").replace("&amp;", "&")
}
