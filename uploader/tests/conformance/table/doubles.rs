//! Those who give tokens on the machine itself: a metadata service, and an Azure CLI that prints what a file has.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::entra::access_token;

/// A metadata service whose answers, status and body, are in a file.
pub(super) struct Metadata {
    pub(super) address: SocketAddr,
    requests: Arc<AtomicUsize>,
}

impl Metadata {
    pub(super) fn start(answer: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, requests) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let counter = Arc::clone(&requests);
        thread::spawn(move || {
            for mut socket in listener.incoming().map_while(Result::ok) {
                let mut lines = BufReader::new(socket.try_clone().unwrap()).lines().map_while(Result::ok);
                while lines.next().is_some_and(|line| !line.is_empty()) {}
                counter.fetch_add(1, Ordering::Relaxed);
                let answer = fs::read_to_string(&answer).unwrap();
                let (status, body) = answer.split_once('\n').unwrap();
                let _ = write!(socket, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
            }
        });
        Self { address, requests }
    }

    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

/// A program `az` that prints `answer`, or fails with it if that does not begin with a brace; each call adds a line to `calls`.
pub(super) fn make_cli(folder: &Path) {
    let script = format!(
        "#!/bin/sh\nfolder='{}'\necho \"$@\" >>\"$folder/calls\"\nread -r answer <\"$folder/answer\"\n\
         case $answer in '{{'*) printf '%s' \"$answer\";; *) printf '%s' \"$answer\" >&2; exit 1;; esac\n",
        folder.display()
    );
    fs::write(folder.join("az"), script).unwrap();
    fs::set_permissions(folder.join("az"), fs::Permissions::from_mode(0o755)).unwrap();
}

/// A token that is accepted for so long, as a metadata service gives it.
pub(super) fn metadata_token(seconds: i64) -> String {
    let (token, end) = token(seconds);
    format!("200 OK\n{{\"access_token\":\"{token}\",\"expires_on\":\"{end}\",\"resource\":\"r\",\"token_type\":\"Bearer\"}}")
}

/// The same, as the Azure CLI prints it.
pub(super) fn cli_token(seconds: i64) -> String {
    let (token, end) = token(seconds);
    format!("{{\"accessToken\":\"{token}\",\"expires_on\":{end},\"tokenType\":\"Bearer\"}}\n")
}

fn token(seconds: i64) -> (String, i64) {
    (access_token(seconds), jiff::Timestamp::now().as_second() + seconds)
}
