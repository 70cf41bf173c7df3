use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use axum::http::{Request, Response};
use blobferry_crds::{Activity, Check};
use kube::client::Body;
use serde_json::json;
use tower::service_fn;

use super::*;

/// What the API server does instead of answering.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Answers with this code.
    Code(u16),
    /// Never answers.
    Hang,
    /// Applies the request and then never answers.
    LoseReply,
    /// Somebody else writes just before.
    OtherWrite,
}

#[derive(Debug)]
struct Seen {
    method: String,
    uri: String,
    body: Value,
    at: time::Instant,
}

/// One object with optimistic locking, in memory.
#[derive(Clone, Debug)]
struct ApiServer(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    uid: &'static str,
    version: u64,
    spec: Value,
    status: Value,
    faults: VecDeque<Fault>,
    requests: Vec<Seen>,
}

impl ApiServer {
    fn new(status: Value) -> Self {
        let state = State {
            uid: "u-1",
            version: 7,
            spec: json!({"suspend": false}),
            status,
            faults: VecDeque::new(),
            requests: Vec::new(),
        };
        Self(Arc::new(Mutex::new(state)))
    }

    fn reporter(&self) -> KubeReporter {
        let server = self.clone();
        let service = service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        let object = SessionObject { namespace: "lab".into(), name: "truck-7".into(), uid: "u-1".into() };
        KubeReporter::new(Client::new(service, "lab"), object)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.change(|state| state.faults.extend(faults));
    }

    /// The bodies of the applied reports.
    fn reports(&self) -> Vec<Value> {
        self.change(|state| state.requests.iter().filter(|seen| seen.method == "PATCH").map(|seen| seen.body.clone()).collect())
    }

    fn status(&self) -> Value {
        self.change(|state| state.status.clone())
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let bytes = body.collect_bytes().await.unwrap();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let seen = Seen { method: parts.method.to_string(), uri: parts.uri.to_string(), body, at: time::Instant::now() };
        let fault = self.change(|state| {
            state.requests.push(seen);
            state.faults.pop_front()
        });
        match fault {
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Code(code)) => return failure(code),
            Some(Fault::OtherWrite) => self.change(|state| state.version += 1),
            Some(Fault::LoseReply) => {
                self.change(State::apply);
                std::future::pending::<()>().await;
            }
            None => {}
        }
        self.change(State::apply)
    }
}

impl State {
    fn apply(&mut self) -> Response<Body> {
        let request = self.requests.last().unwrap();
        if request.method == "PATCH" {
            if request.body["metadata"]["resourceVersion"].as_str() != Some(&self.version.to_string()) {
                return failure(409);
            }
            for part in ["progress", "activity"] {
                self.status[part] = request.body["status"][part].clone();
            }
            self.version += 1;
        }
        reply(
            200,
            &json!({
                "apiVersion": "blobferry.io/v1alpha1", "kind": "UploadSession",
                "metadata": {"name": "truck-7", "namespace": "lab", "uid": self.uid, "generation": 3, "resourceVersion": self.version.to_string()},
                "spec": self.spec, "status": self.status,
            }),
        )
    }
}

fn failure(code: u16) -> Response<Body> {
    let reason = if code == 404 { "NotFound" } else { "Other" };
    reply(
        code,
        &json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "so", "reason": reason, "code": code}),
    )
}

fn reply(code: u16, body: &Value) -> Response<Body> {
    Response::builder().status(code).body(Body::from(body.to_string().into_bytes())).unwrap()
}

fn uploaded(files: u64) -> Report {
    Report { progress: Progress { files_uploaded: files, ..Progress::default() }, ..Report::default() }
}

/// A writer at work.
struct Running {
    publish: watch::Sender<Report>,
    answers: watch::Receiver<Answer>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<Ended>,
}

impl Running {
    async fn ended(self) -> Ended {
        time::timeout(Duration::from_hours(1), self.task).await.expect("the writer ends").unwrap()
    }
}

async fn run(server: &ApiServer, first: Report) -> Running {
    let (_, writer) = server.reporter().previous().await.unwrap();
    let (publish, reports) = watch::channel(first);
    let (answers, shutdown) = (writer.answers(), CancellationToken::new());
    let task = tokio::spawn(writer.run(reports, shutdown.clone()));
    Running { publish, answers, shutdown, task }
}

async fn pass(seconds: u64) {
    time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_report_is_a_forced_apply_of_progress_and_activity_alone() {
    let server = ApiServer::new(json!({"phase": "Running", "reportInterval": 5}));
    let activity = Activity { rate: "1.0 MB/s".into(), ..Activity::default() };
    let running = run(&server, Report { activity, ..uploaded(2) }).await;
    pass(1).await;
    server.change(|state| {
        let [read, write] = &state.requests[..] else { panic!("{:?}", state.requests) };
        assert_eq!((read.method.as_str(), write.method.as_str()), ("GET", "PATCH"));
        let path = "/apis/blobferry.io/v1alpha1/namespaces/lab/uploadsessions/truck-7/status";
        assert!(read.uri.starts_with(path) && write.uri.starts_with(path), "only the status is touched: {read:?} {write:?}");
        assert!(write.uri.contains("force=true") && write.uri.contains("fieldManager=blobferry-uploader"), "{}", write.uri);
        assert_eq!(write.body["metadata"], json!({"name": "truck-7", "resourceVersion": "7"}));
        let fields: Vec<&String> = write.body["status"].as_object().unwrap().keys().collect();
        assert_eq!(fields, ["activity", "progress"]);
    });
    let status = server.status();
    assert_eq!((&status["phase"], &status["progress"]["filesUploaded"]), (&json!("Running"), &json!(2)));
    assert_eq!(status["activity"]["rate"], "1.0 MB/s");
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn the_counters_of_earlier_runs_are_read_before_anything_is_written() {
    let server = ApiServer::new(json!({"progress": {"filesUploaded": 41, "somethingNew": {}}, "conditions": "of another shape"}));
    server.fail([Fault::Code(500), Fault::Hang, Fault::Code(403)]);
    let (progress, _) = server.reporter().previous().await.unwrap();
    assert_eq!(progress.files_uploaded, 41);
    assert!(server.reports().is_empty());
    let new = ApiServer::new(json!({"observedGeneration": -1}));
    assert_eq!(new.reporter().previous().await.unwrap().0, Progress::default());
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_gone_or_another_is_told_at_once() {
    let server = ApiServer::new(json!({}));
    server.fail([Fault::Code(404)]);
    assert_eq!(server.reporter().previous().await.err(), Some(SessionGone));
    server.change(|state| state.uid = "u-2");
    assert_eq!(server.reporter().previous().await.err(), Some(SessionGone));
}

#[tokio::test(start_paused = true)]
async fn a_write_of_somebody_else_is_looked_at_and_the_report_is_sent_again() {
    let server = ApiServer::new(json!({}));
    let running = run(&server, uploaded(1)).await;
    pass(1).await;
    server.change(|state| state.version += 10);
    running.publish.send_replace(uploaded(2));
    pass(6).await;
    assert_eq!(server.status()["progress"]["filesUploaded"], 2);
    let methods: Vec<String> = server.change(|state| state.requests.iter().map(|seen| seen.method.clone()).collect());
    assert_eq!(methods, ["GET", "PATCH", "PATCH", "GET", "PATCH"]);
}

#[tokio::test(start_paused = true)]
async fn another_session_of_the_same_name_is_never_written_to() {
    let server = ApiServer::new(json!({}));
    let running = run(&server, uploaded(1)).await;
    pass(1).await;
    server.change(|state| {
        state.uid = "u-2";
        state.version = 100;
        state.status = json!({});
    });
    running.publish.send_replace(uploaded(2));
    assert_eq!(running.ended().await, Ended::SessionGone);
    assert_eq!(server.status(), json!({}));
}

#[tokio::test(start_paused = true)]
async fn a_deleted_session_ends_the_writer() {
    let server = ApiServer::new(json!({}));
    let running = run(&server, uploaded(1)).await;
    pass(1).await;
    server.fail([Fault::Code(404)]);
    running.publish.send_replace(uploaded(2));
    assert_eq!(running.ended().await, Ended::SessionGone);
}

#[tokio::test(start_paused = true)]
async fn the_newest_report_arrives_once_the_api_server_is_back() {
    let server = ApiServer::new(json!({}));
    let running = run(&server, uploaded(0)).await;
    pass(1).await;
    server.fail([Fault::Code(500), Fault::Hang, Fault::Code(403), Fault::Code(429), Fault::LoseReply]);
    for files in 1..=300 {
        running.publish.send_replace(uploaded(files));
        pass(1).await;
    }
    pass(120).await;
    assert_eq!(server.status()["progress"]["filesUploaded"], 300);
    assert!(!running.task.is_finished());
}

#[tokio::test(start_paused = true)]
async fn the_interval_in_the_reply_sets_the_pace() {
    let server = ApiServer::new(json!({"reportInterval": 100}));
    let running = run(&server, uploaded(0)).await;
    for files in 1..=1000 {
        running.publish.send_replace(uploaded(files));
        pass(1).await;
    }
    let sent = server.reports().len();
    assert!((9..=13).contains(&sent), "{sent}");
    server.change(|state| state.status["reportInterval"] = json!(5));
    pass(110).await;
    for files in 1001..=1100 {
        running.publish.send_replace(uploaded(files));
        pass(1).await;
    }
    let sent = server.reports().len() - sent;
    assert!((17..=24).contains(&sent), "{sent}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_reports_every_five_minutes() {
    let server = ApiServer::new(json!({}));
    let _running = run(&server, uploaded(0)).await;
    pass(3600).await;
    let sent = server.reports().len();
    assert!((13..=15).contains(&sent), "{sent}");
}

#[tokio::test(start_paused = true)]
async fn a_change_of_state_is_sent_at_once_and_not_more_often_than_every_five_seconds() {
    let server = ApiServer::new(json!({"reportInterval": 10}));
    let running = run(&server, uploaded(0)).await;
    // The first two reports.
    pass(60).await;
    let broken = |message: &str| {
        let check = Check { type_: "source".into(), ok: false, reason: "Missing".into(), message: message.into() };
        Report { progress: Progress { checks: vec![check], ..Progress::default() }, ..Report::default() }
    };
    let start = time::Instant::now();
    running.publish.send_replace(broken("one"));
    pass(1).await;
    running.publish.send_replace(broken("two"));
    pass(20).await;
    let times: Vec<u64> =
        server.change(|state| state.requests[3..].iter().map(|seen| seen.at.duration_since(start).as_secs()).collect());
    // Half a second is a tenth of what the interval is longer than the least one.
    assert!(matches!(times[..], [0, 5 | 6]), "{times:?}");
    assert_eq!(server.status()["progress"]["checks"][0]["message"], "two");
}

#[tokio::test(start_paused = true)]
async fn texts_that_are_too_long_are_cut_before_they_are_sent() {
    let server = ApiServer::new(json!({}));
    let progress = Progress { last_error: Some("x".repeat(5000)), ..Progress::default() };
    let _running = run(&server, Report { progress, ..Report::default() }).await;
    pass(1).await;
    assert!(server.status()["progress"]["lastError"].as_str().unwrap().len() <= 200);
}

#[tokio::test(start_paused = true)]
async fn the_core_hears_what_has_arrived_and_what_the_spec_is() {
    let server = ApiServer::new(json!({}));
    // As precise as the server's ctimes are, or files of that second would be counted twice after a SIGKILL.
    let counted: Timestamp = "2026-01-31T10:00:00.123456789Z".parse().unwrap();
    let progress = Progress { counted_through: Some(counted), ..Progress::default() };
    let mut running = run(&server, uploaded(1)).await;
    assert_eq!(running.answers.borrow_and_update().counted_through, None);
    assert_eq!(running.answers.borrow().spec["suspend"], false);
    server.change(|state| state.spec = json!({"suspend": true}));
    running.publish.send_replace(Report { progress, ..Report::default() });
    running.answers.wait_for(|answer| answer.counted_through == Some(counted)).await.unwrap();
    assert_eq!((running.answers.borrow().generation, &running.answers.borrow().spec["suspend"]), (Some(3), &json!(true)));
    assert_eq!(server.reporter().previous().await.unwrap().0.counted_through, Some(counted));
}

#[tokio::test(start_paused = true)]
async fn the_last_report_is_sent_when_the_program_ends_by_itself() {
    for end in
        [(|running| running.shutdown.cancel()) as fn(&mut Running), |running| running.publish = watch::channel(Report::default()).0]
    {
        let server = ApiServer::new(json!({"reportInterval": 100}));
        let mut running = run(&server, uploaded(1)).await;
        pass(1).await;
        running.publish.send_replace(uploaded(2));
        end(&mut running);
        assert_eq!(running.ended().await, Ended::Stopped);
        assert_eq!(server.status()["progress"]["filesUploaded"], 2);
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_does_not_wait_for_an_api_server_that_is_away() {
    let server = ApiServer::new(json!({}));
    let running = run(&server, uploaded(1)).await;
    server.fail([Fault::Hang; 9]);
    let start = time::Instant::now();
    running.publish.send_replace(uploaded(2));
    running.shutdown.cancel();
    assert_eq!(running.ended().await, Ended::Stopped);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn others_who_write_all_the_time_do_not_make_the_writer_spin() {
    let server = ApiServer::new(json!({}));
    let _running = run(&server, uploaded(1)).await;
    server.fail([Fault::OtherWrite; 400]);
    pass(60).await;
    let requests = server.change(|state| state.requests.len());
    assert!((20..150).contains(&requests), "{requests}");
}
