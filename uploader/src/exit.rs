//! How the program ends: at once on a signal, with a message that the operator reads when it ends by itself.
//!
//! Nothing is drained and no thread is joined: everything that matters survives a SIGKILL, and a thread that hangs in a call to the
//! share cannot be joined.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    path::{Path, PathBuf},
    process,
    sync::mpsc,
    thread,
    time::Duration,
};

use blobferry_crds::{
    conditions::shorten,
    names::{TerminationMessage, TerminationResult, variables},
};
use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
};

use crate::args::TERMINATION_LOG;

/// 128 and the signal's number, as shells and Kubernetes know it.
const TERMINATED: i32 = 128 + 15;
const INTERRUPTED: i32 = 128 + 2;
/// The arguments cannot be used.
const USAGE: i32 = 2;
/// Anything else that a person has to change.
const FAILED: i32 = 1;

/// For how long last words may take, so that the whole end takes less than a second.
const LAST_WORDS: Duration = Duration::from_millis(400);

/// Longest termination message that the kubelet takes.
const MESSAGE_BYTES: usize = 4096;

/// From now on SIGTERM ends the process with 143 and SIGINT with 130, within a second, whatever its other threads do.
///
/// The signals have a thread and a runtime of their own, so that a busy runtime delays nothing; as process 1 of a container the
/// process would not get them without handlers. `last_words` gets a little time to send what is left of telemetry, say.
pub fn on_signals(last_words: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    let (terminate, interrupt) = {
        let _context = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    thread::Builder::new().name("signals".into()).spawn(move || {
        let code = runtime.block_on(first_of(terminate, interrupt));
        briefly(move || {
            tracing::info!(code, "ended by a signal");
            last_words();
        });
        now(code);
    })?;
    Ok(())
}

async fn first_of(mut terminate: Signal, mut interrupt: Signal) -> i32 {
    tokio::select! {
        _ = terminate.recv() => TERMINATED,
        _ = interrupt.recv() => INTERRUPTED,
    }
}

/// Runs `words`, and gives up on them after a while: they may hang on a network or a pipe that nobody reads.
fn briefly(words: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel();
    let started = thread::Builder::new().spawn(move || {
        words();
        done.send(())
    });
    if started.is_ok() {
        // Too late or ended: the process ends either way.
        let _ = ended.recv_timeout(LAST_WORDS);
    }
}

/// Ends the process without waiting for any thread.
#[allow(clippy::exit)]
pub fn now(code: i32) -> ! {
    process::exit(code)
}

/// The exit code of a run that ended by itself. Kubernetes takes 0 for success, and so does the operator together with the message.
pub fn code(result: TerminationResult) -> i32 {
    match result {
        TerminationResult::Completed | TerminationResult::Drained | TerminationResult::Released => 0,
        TerminationResult::Failed => FAILED,
    }
}

/// Says why the arguments cannot be used, on standard error and in the termination message, and gives the exit code; for `--help` and
/// `--version` it prints those.
///
/// What the message says of itself comes from `variable`, which reads the environment, since there are no settings.
pub fn refuse(error: &clap::Error, variable: impl Fn(&str) -> Option<String>) -> i32 {
    // Nobody reads it: there is nothing else to do.
    let _ = error.print();
    if !error.use_stderr() {
        return 0;
    }
    let message = TerminationMessage {
        result: TerminationResult::Failed,
        session_uid: variable(variables::SESSION_UID).unwrap_or_default(),
        mode: variable(variables::MODE).unwrap_or_else(|| "watch".into()),
        run_token: None,
        reason: "InvalidArguments".into(),
        message: one_line(&error.to_string()),
    };
    let in_pod = variable(variables::POD_NAME).is_some_and(|name| !name.is_empty());
    let file = variable(variables::TERMINATION_LOG).map(PathBuf::from).or_else(|| in_pod.then(|| TERMINATION_LOG.into()));
    leave_message(file.as_deref(), message);
    USAGE
}

/// What clap says, without its hint about `--help`, which nobody in a pod can call.
fn one_line(text: &str) -> String {
    let lines =
        text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"));
    let words: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    words.join(" ").trim_start_matches("error: ").to_owned()
}

/// Writes `message` to `file`, which the kubelet has made; elsewhere there is none, and nothing is written.
pub fn leave_message(file: Option<&Path>, message: TerminationMessage) {
    let Some(file) = file else { return };
    let opened = OpenOptions::new().write(true).truncate(true).open(file);
    let written = opened.and_then(|mut opened| opened.write_all(&fitted(message)));
    if let Err(error) = written
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(error = &error as &dyn std::error::Error, file = %file.display(), "cannot write the termination message");
    }
}

/// The message as JSON of at most 4,096 bytes, its sentence shortened as far as need be.
fn fitted(mut message: TerminationMessage) -> Vec<u8> {
    loop {
        // Strings and an enumeration always are JSON.
        let json = serde_json::to_vec(&message).unwrap_or_default();
        let surplus = json.len().saturating_sub(MESSAGE_BYTES);
        if surplus == 0 || message.message.is_empty() {
            return json;
        }
        // Half of it at least, because a character may be one byte here and six as JSON; or what is too much, if that is little.
        let length = message.message.len();
        let shorter = length.saturating_sub(surplus + '…'.len_utf8()).max(length / 2).min(length - 1);
        message.message = shorten(&message.message, shorter);
    }
}

#[cfg(test)]
mod tests;
