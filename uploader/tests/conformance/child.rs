//! A store in another process: proxy, authorities and Microsoft's variables are those of a process. The other process is this program
//! again, and does what it reads.

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use blobferry_uploader::{
    azure::{AccountUrl, AzureSettings, AzureStore, NamedCredential},
    blob::{BlobError, BlobStore as _, Condition, Properties},
    formats::blob_name,
};
use bytes::Bytes;

const ACCOUNT_URL: &str = "BLOBFERRY_TEST_ACCOUNT_URL";
const CONTAINER: &str = "BLOBFERRY_TEST_CONTAINER";
/// The folder of a Secret, if the store is to use one.
pub(crate) const FOLDER: &str = "BLOBFERRY_TEST_CREDENTIALS";
/// Set if the store is to use the workload identity of the variables.
pub(crate) const WORKLOAD_IDENTITY: &str = "BLOBFERRY_TEST_WORKLOAD_IDENTITY";
const REPLY: &str = "reply: ";

/// A running store. The process ends with this value.
pub(crate) struct Remote {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// What came of a command.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    /// `Ok`, or the error's class.
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) time: Duration,
}

impl Reply {
    pub(crate) fn is_ok(&self) -> bool {
        self.reason == "Ok"
    }
}

impl Remote {
    /// A store of a container, in a process with these variables and no others; it trusts `authority` only.
    pub(crate) fn start(account_url: &str, container: &str, authority: &Path, variables: &[(String, String)]) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "child::store_of_another_test", "--ignored", "--nocapture"]).env_clear();
        command.env("SSL_CERT_FILE", authority).env(ACCOUNT_URL, account_url).env(CONTAINER, container);
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, input, output }
    }

    /// Has it done: `prepare`, `write`, or `refresh`.
    pub(crate) fn ask(&mut self, command: &str) -> Reply {
        let start = Instant::now();
        writeln!(self.input, "{command}").unwrap();
        let mut line = String::new();
        while !line.contains(REPLY) {
            line.clear();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "the other process has ended");
        }
        let (_, reply) = line.trim_end().split_once(REPLY).unwrap();
        let (reason, message) = reply.split_once(' ').unwrap_or((reply, ""));
        Reply { reason: reason.to_owned(), message: message.to_owned(), time: start.elapsed() }
    }

    /// A start and a first blob.
    pub(crate) fn prepare_and_write(&mut self) -> Reply {
        let prepared = self.ask("prepare");
        if prepared.is_ok() { self.ask("write") } else { prepared }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs in the process that other tests start; on its own it has nothing to do"]
async fn store_of_another_test() {
    let Ok(account_url) = env::var(ACCOUNT_URL) else { return };
    let credential = NamedCredential {
        folder: env::var_os(FOLDER).map(Into::into),
        workload_identity: env::var_os(WORKLOAD_IDENTITY).is_some(),
        ..NamedCredential::default()
    };
    let (account_url, container) = (AccountUrl::parse(&account_url).unwrap(), env::var(CONTAINER).unwrap());
    let settings = AzureSettings { account_url, container, prefix: String::new(), credential: credential.source() };
    let store = AzureStore::new(settings).unwrap();
    let mut lines = std::io::stdin().lines();
    while let Some(Ok(command)) = tokio::task::block_in_place(|| lines.next()) {
        let outcome = act(&store, &command).await;
        println!("\n{REPLY}{}", outcome.map_or_else(|error| format!("{} {error}", class(&error)), |()| "Ok".to_owned()));
    }
}

async fn act(store: &AzureStore, command: &str) -> Result<(), BlobError> {
    let name = blob_name("", "20261121", "s", uuid::Uuid::new_v4().to_string().as_bytes()).unwrap();
    let crc64 = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, b"x");
    match command {
        "prepare" => store.prepare().await,
        "refresh" => {
            store.refresh().await;
            Ok(())
        }
        _ => store.put_blob(&name, Bytes::from_static(b"x"), crc64, &Condition::Absent, &Properties::default()).await.map(|_| ()),
    }
}

/// The name of an error's class, as a status has it.
fn class(error: &BlobError) -> String {
    format!("{error:?}").split([' ', '{']).next().unwrap_or_default().to_owned()
}
