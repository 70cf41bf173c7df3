//! The real program, and all that it says.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// Longest wait for something that the program does at once.
pub(crate) const PATIENCE: Duration = Duration::from_mins(5);

/// A share with a file on it, and the program's variables.
pub(crate) struct Run {
    folder: TempDir,
    pub(crate) command: Command,
}

impl Run {
    pub(crate) fn new(account_url: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("share/incoming/s")).unwrap();
        fs::write(folder.path().join("share/incoming/s/a.dat"), "content").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_blobferry-uploader"));
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let path = |name: &str| folder.path().join(name).display().to_string();
        command.envs([
            ("APP_SESSION_NAME", "s".to_owned()),
            ("APP_AZURE_ACCOUNT_URL", account_url.to_owned()),
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

    pub(crate) fn env(mut self, pairs: &[(&str, &str)]) -> Self {
        self.command.envs(pairs.iter().copied());
        self
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Runs to the program's end; all that it said.
    pub(crate) fn finish(mut self) -> String {
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
pub(crate) struct Running {
    child: Child,
    said: Arc<Mutex<String>>,
    readers: Vec<thread::JoinHandle<()>>,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
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

    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends it as Kubernetes does; all that it said.
    pub(crate) fn end(&mut self) -> String {
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
