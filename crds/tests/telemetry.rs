//! Telemetry of a whole process: the test starts itself again with the variables that a person would set.
// Clippy knows tests by their module, and this file has none.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Output},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use blobferry_crds::telemetry::{Console, Telemetry};
use serde_json::Value;

/// Tells the process from the tests, also when somebody runs all ignored ones.
const PROCESS: &str = "BLOBFERRY_TEST_PROCESS";

#[test]
#[ignore = "is the process that the other tests start"]
fn process() {
    if env::var_os(PROCESS).is_none() {
        return;
    }
    let telemetry = Telemetry::new("blobferry-test", "1.2.3").session("truck-7").console(Console::Json).init().unwrap();
    telemetry.meter().u64_counter("files.processed").build().add(3, &[]);
    tracing::info_span!(target: "blobferry_test", "file", file_name = "a.dat")
        .in_scope(|| tracing::info!(target: "blobferry_test", "uploaded"));
    println!("METRICS {}", telemetry.metrics_text().render().unwrap().replace('\n', "|"));
    drop(telemetry);
    println!("ENDED");
}

fn run(variables: &[(&str, &str)]) -> Output {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "process", "--ignored", "--nocapture"])
        .env(PROCESS, "1")
        .env_remove("RUST_LOG")
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn uploaded(text: &str) -> Value {
    let line = text.lines().find(|line| line.contains("\"uploaded\"")).unwrap_or_else(|| panic!("not logged: {text}"));
    serde_json::from_str(&line[line.find('{').unwrap()..]).unwrap()
}

/// Takes requests for ever and passes their path and body on; it answers after `delay`.
fn collector(delay: Duration) -> (String, mpsc::Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (seen, requests) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let seen = seen.clone();
            thread::spawn(move || serve(stream.unwrap(), &seen, delay));
        }
    });
    (endpoint, requests)
}

fn serve(mut stream: TcpStream, seen: &mpsc::Sender<(String, Vec<u8>)>, delay: Duration) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    while reader.read_line(&mut head).is_ok_and(|length| length > 0) {
        if !head.ends_with("\r\n\r\n") {
            continue;
        }
        let lower = head.to_lowercase();
        let length =
            lower.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()).map_or(0, |text| text.parse().unwrap());
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let _ = seen.send((head.split(' ').nth(1).unwrap().to_owned(), body));
        thread::sleep(delay);
        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_err() {
            return;
        }
        head.clear();
    }
}

#[test]
fn without_an_endpoint_logs_have_ids_and_metrics_can_be_read() {
    let output = run(&[]);
    let text = text(&output);
    let line = uploaded(&text);
    assert_eq!((&line["session_name"], &line["file_name"]), (&"truck-7".into(), &"a.dat".into()));
    assert_eq!(line["trace_id"].as_str().unwrap().len(), 32);
    assert!(text.contains("|files_processed_total 3|"), "{text}");
    assert!(text.contains("service_name=\"blobferry-test\""), "{text}");
}

#[test]
fn the_last_spans_logs_and_metrics_reach_the_collector_before_the_process_ends() {
    let (endpoint, requests) = collector(Duration::ZERO);
    let output = run(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint), ("OTEL_SERVICE_NAME", "renamed")]);
    let trace_id = uploaded(&text(&output))["trace_id"].as_str().unwrap().to_owned();
    let requests: Vec<(String, Vec<u8>)> = requests.try_iter().collect();
    let contains = |path: &str, needle: &[u8]| {
        requests.iter().any(|(seen, body)| seen == path && body.windows(needle.len()).any(|window| window == needle))
    };
    let raw_id: Vec<u8> = (0..32).step_by(2).map(|at| u8::from_str_radix(&trace_id[at..at + 2], 16).unwrap()).collect();
    assert!(contains("/v1/traces", &raw_id) && contains("/v1/traces", b"a.dat"), "{requests:?}");
    assert!(contains("/v1/logs", &raw_id) && contains("/v1/logs", b"uploaded"), "{requests:?}");
    assert!(contains("/v1/metrics", b"files.processed") && contains("/v1/metrics", b"renamed"), "{requests:?}");
}

#[test]
fn a_collector_that_hangs_does_not_hold_up_the_end() {
    let (endpoint, _requests) = collector(Duration::from_mins(1));
    let start = Instant::now();
    let output = run(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]);
    assert!(text(&output).contains("ENDED"));
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}

#[test]
fn a_mistake_in_the_variables_is_told_and_stops_nothing() {
    let output = run(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "not a url"), ("RUST_LOG", "info,==")]);
    let text = text(&output);
    assert!(text.contains("cannot export traces by OTLP") && text.contains("is no directive"), "{text}");
    assert!(text.contains("ENDED"));
}

#[test]
fn https_to_a_collector_uses_the_cryptography_that_was_chosen() {
    let (endpoint, requests) = collector(Duration::ZERO);
    let output = run(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint.replace("http:", "https:"))]);
    assert!(!text(&output).contains("cannot export"), "{output:?}");
    // The collector speaks no TLS: nothing arrives, and nothing fails but the export.
    assert!(requests.try_iter().next().is_none());
}
