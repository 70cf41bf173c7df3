use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus, Stdio},
    time::Instant,
};

use clap::{CommandFactory, Parser};
use rustix::process::{Pid, Signal as Kill, kill_process};

use super::*;

fn message(text: &str) -> TerminationMessage {
    TerminationMessage {
        result: TerminationResult::Failed,
        session_uid: "u-1".into(),
        mode: "watch".into(),
        run_token: None,
        reason: "BadAccount".into(),
        message: text.into(),
    }
}

/// Tells the processes from the tests, also when somebody runs all ignored ones.
const PROCESS: &str = "BLOBFERRY_TEST_PROCESS";

/// Starts this test again as a process of its own.
fn start(test: &str) -> (Child, BufReader<process::ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("exit::tests::{test}"), "--ignored", "--nocapture"])
        .env(PROCESS, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("READY") {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0, "the process did not start");
    }
    (child, output)
}

/// Ends the process before the kubelet would lose its patience.
fn end(mut child: Child, signal: Kill) -> ExitStatus {
    let start = Instant::now();
    kill_process(Pid::from_child(&child), signal).unwrap();
    while start.elapsed() < Duration::from_secs(25) {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    panic!("the process does not end");
}

#[test]
#[ignore = "is the process that the tests below start"]
fn process_in_which_everything_hangs() {
    if std::env::var_os(PROCESS).is_none() {
        return;
    }
    let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    on_signals(|| thread::sleep(Duration::from_hours(1))).unwrap();
    for _ in 0..8 {
        runtime.spawn(async { thread::sleep(Duration::from_hours(1)) });
        runtime.spawn_blocking(|| thread::sleep(Duration::from_hours(1)));
        thread::spawn(|| thread::sleep(Duration::from_hours(1)));
    }
    println!("READY");
    runtime.block_on(async { thread::sleep(Duration::from_hours(1)) });
}

#[test]
#[ignore = "is the process that the tests below start"]
fn process_with_last_words() {
    if std::env::var_os(PROCESS).is_none() {
        return;
    }
    on_signals(|| println!("LAST WORDS")).unwrap();
    println!("READY");
    thread::sleep(Duration::from_hours(1));
}

#[test]
fn sigterm_ends_a_process_in_which_everything_hangs() {
    let (child, _output) = start("process_in_which_everything_hangs");
    let status = end(child, Kill::TERM);
    assert_eq!((status.code(), status.signal()), (Some(143), None));
}

#[test]
fn sigint_ends_the_process_with_its_own_code() {
    let (child, _output) = start("process_in_which_everything_hangs");
    assert_eq!(end(child, Kill::INT).code(), Some(130));
}

#[test]
fn last_words_are_heard() {
    let (child, output) = start("process_with_last_words");
    assert_eq!(end(child, Kill::TERM).code(), Some(143));
    assert!(output.lines().any(|line| line.unwrap().contains("LAST WORDS")));
}

#[test]
fn only_what_is_done_is_success() {
    use TerminationResult::{Completed, Drained, Failed, Released};
    assert_eq!([Completed, Drained, Released, Failed].map(code), [0, 0, 0, 1]);
}

#[test]
fn a_message_is_written_over_an_earlier_one_and_can_be_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("termination-log");
    fs::write(&file, "x".repeat(5000)).unwrap();
    leave_message(Some(&file), message("the account does not exist"));
    let read: TerminationMessage = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(read, message("the account does not exist"));
}

#[test]
fn no_file_is_made_where_the_kubelet_made_none() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("termination-log");
    leave_message(Some(&file), message("gone"));
    assert!(!file.exists());
}

#[test]
fn a_long_message_is_shortened_until_it_fits() {
    for text in ["a".repeat(10_000), "ä\u{1}".repeat(4000), "\u{1}".repeat(4090), "b".repeat(4050)] {
        let json = fitted(message(&text));
        assert!(json.len() <= MESSAGE_BYTES && json.len() > MESSAGE_BYTES / 3, "{}", json.len());
        let read: TerminationMessage = serde_json::from_slice(&json).unwrap();
        assert!(read.message.ends_with('…'));
    }
    assert_eq!(fitted(message("short")), serde_json::to_vec(&message("short")).unwrap());
}

#[derive(Debug, Parser)]
struct Sample {
    #[arg(long)]
    number: u8,
}

#[test]
fn arguments_that_cannot_be_used_leave_a_message_and_exit_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("termination-log");
    fs::write(&file, "").unwrap();
    let error = Sample::try_parse_from(["sample", "--number=many"]).unwrap_err();
    let code = refuse(&error, |name| match name {
        variables::TERMINATION_LOG => file.to_str().map(str::to_owned),
        variables::SESSION_UID => Some("u-1".into()),
        _ => None,
    });
    assert_eq!(code, 2);
    let read: TerminationMessage = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!((read.result, read.session_uid.as_str(), read.mode.as_str()), (TerminationResult::Failed, "u-1", "watch"));
    assert_eq!(read.message, "invalid value 'many' for '--number <NUMBER>': invalid digit found in string");
}

#[test]
fn help_is_no_failure() {
    let error = Sample::command().try_get_matches_from(["sample", "--help"]).unwrap_err();
    assert_eq!(refuse(&error, |_| None), 0);
}
