//! (test) An API server that answers each call as told and writes down what was asked.

use std::{
    collections::{HashMap, HashSet},
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use blobferry_crds::UploadSession;
use http::{Request, Response};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{Client, Resource, ResourceExt, client::Body, core::DeserializeGuard, runtime::watcher::Event};
use serde_json::{Value, json};
use tower_test::mock::{self, SendResponse};

use crate::{
    api::CallError,
    context::Context,
    controller,
    decisions::{pod_state::UploaderPod, predicates::Guarded},
    fixtures,
    metrics::Metrics,
    place::Place,
    reconcile::reconcile,
    settings::Settings,
    state::{first_listing::Listed, pods::Pods, sessions::Sessions},
    watches,
};

/// A call that was made.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// Method and path, like `POST /api/v1/namespaces/cameras/pods`.
    pub line: String,
    /// The query.
    pub query: String,
    /// The body.
    pub body: Value,
}

type Answers = Arc<Mutex<HashMap<String, (u16, Value)>>>;
type Calls = Arc<Mutex<Vec<Call>>>;
/// Calls that are not answered for now, and those of them that were made, with their answers.
type Held = Arc<Mutex<(HashSet<String>, Vec<(SendResponse<Response<Body>>, (u16, Value))>)>>;
/// Sessions as the API server has them, by path.
type Stored = Arc<Mutex<HashMap<String, Value>>>;

/// A cluster of which the test says what the watches have shown and what calls are answered.
pub(crate) struct Cluster {
    pub context: Context,
    listed: Listed,
    answers: Answers,
    calls: Calls,
    held: Held,
    stored: Stored,
}

impl Cluster {
    /// A cluster with nothing in it.
    pub(crate) fn new(settings: Settings) -> Self {
        let (service, handle) = mock::pair::<Request<Body>, Response<Body>>();
        let (answers, calls, held, stored) = (Answers::default(), Calls::default(), Held::default(), Stored::default());
        tokio::spawn(serve(handle, Arc::clone(&answers), Arc::clone(&calls), Arc::clone(&held), Arc::clone(&stored)));
        let ((sessions_shown, listed), (pods_shown, pods)) = (Sessions::new(), Pods::new());
        listed.everything();
        pods.everything();
        let client = Client::new(service, "default");
        let metrics = Metrics::new(&opentelemetry::global::meter("test"));
        let mut context = Context::new(client, settings, sessions_shown, pods_shown, Some("operator-0".into()), metrics);
        context.clock = fixtures::now;
        Self { context, listed, answers, calls, held, stored }
    }

    /// The watch shows `session`, which is what the API server has.
    pub(crate) fn shows(&mut self, session: &UploadSession) {
        self.stored.lock().unwrap().insert(path(session), serde_json::to_value(session).unwrap());
        self.brings(Event::Apply(guarded(session)));
    }

    /// The watch shows that `session` is gone.
    pub(crate) fn loses(&mut self, session: &UploadSession) {
        self.brings(Event::Delete(guarded(session)));
    }

    /// The watch of sessions brings `event`; the sessions that have to be looked at.
    pub(crate) fn brings(&self, event: Event<Guarded>) -> Vec<Place> {
        watches::note_session(event, &self.listed, &self.context)
    }

    /// The watch shows `pod`.
    pub(crate) fn shows_pod(&mut self, pod: &Pod) {
        watches::note_pod(Event::Apply(UploaderPod::read(pod)), &self.context);
    }

    /// The watch shows that no pod is there any more.
    pub(crate) fn loses_pods(&mut self) {
        for pod in self.context.pods.shown(|_| true) {
            watches::note_pod(Event::Delete(UploaderPod::clone(&pod)), &self.context);
        }
    }

    /// The call `line` is answered like this from now on. Else reading finds nothing and writing works.
    pub(crate) fn answers(&self, line: &str, code: u16, body: Value) {
        self.answers.lock().unwrap().insert(line.to_owned(), (code, body));
    }

    /// The call `line` is answered as usual again.
    pub(crate) fn works_again(&self, line: &str) {
        self.answers.lock().unwrap().remove(line);
    }

    /// The call `line` is not answered from now on.
    pub(crate) fn holds(&self, line: &str) {
        self.held.lock().unwrap().0.insert(line.to_owned());
    }

    /// What was not answered is answered now.
    pub(crate) fn lets_go(&self) {
        for (send, told) in self.held.lock().unwrap().1.drain(..) {
            answer(send, told);
        }
    }

    /// One pass over `session` at `now`.
    pub(crate) async fn pass_at(&self, session: &UploadSession, now: Timestamp) -> Result<Option<Duration>, CallError> {
        reconcile(session, &self.context, now).await
    }

    /// One pass of the controller over the session as it is known, which must work.
    pub(crate) async fn pass_over_what_is_known_of(&self, session: &UploadSession) -> Option<Duration> {
        let known = self.context.sessions.find(&Place::of(session)).unwrap();
        controller::counted_pass(&known, &self.context).await.unwrap()
    }

    /// One pass over `session` at the usual time, which must work.
    pub(crate) async fn pass(&self, session: &UploadSession) -> Option<Duration> {
        self.pass_at(session, fixtures::now()).await.unwrap()
    }

    /// The calls since the last time, without those that only send events.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls_and_events().into_iter().filter(|call| !call.line.contains("events.k8s.io")).collect()
    }

    /// All calls since the last time.
    pub(crate) fn calls_and_events(&self) -> Vec<Call> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    /// Methods and paths of the calls since the last time.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.calls().into_iter().map(|call| call.line).collect()
    }

    /// Reasons of the events since the last time; forgets all other calls.
    pub(crate) fn events(&self) -> Vec<String> {
        let events = self.calls_and_events().into_iter().filter(|call| call.line.contains("events.k8s.io"));
        events.map(|call| call.body["reason"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

fn guarded(session: &UploadSession) -> Guarded {
    DeserializeGuard(Ok(session.clone()))
}

/// Where the API server has `session`.
fn path(session: &UploadSession) -> String {
    UploadSession::url_path(&(), session.namespace().as_deref()) + "/" + &session.name_any()
}

async fn serve(handle: mock::Handle<Request<Body>, Response<Body>>, answers: Answers, calls: Calls, held: Held, stored: Stored) {
    let mut handle = pin!(handle);
    while let Some((request, send)) = handle.next_request().await {
        let line = format!("{} {}", request.method(), request.uri().path());
        let query = request.uri().query().unwrap_or_default().to_owned();
        let body = request.into_body().collect_bytes().await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let told = answers.lock().unwrap().get(&line).cloned();
        let told = told.unwrap_or_else(|| usual(&line, &body, &mut stored.lock().unwrap()));
        match &mut *held.lock().unwrap() {
            (lines, held) if lines.contains(&line) => held.push((send, told)),
            _ => answer(send, told),
        }
        calls.lock().unwrap().push(Call { line, query, body });
    }
}

fn answer(send: SendResponse<Response<Body>>, (code, body): (u16, Value)) {
    let body = Body::from(serde_json::to_vec(&body).unwrap());
    send.send_response(Response::builder().status(code).body(body).unwrap());
}

fn usual(line: &str, body: &Value, stored: &mut HashMap<String, Value>) -> (u16, Value) {
    let (method, path) = line.split_once(' ').unwrap();
    match method {
        "POST" => {
            let mut created = body.clone();
            created["metadata"]["uid"] = json!("created-uid");
            created["metadata"]["resourceVersion"] = json!("100");
            (201, created)
        }
        "PATCH" if path.contains("/uploadsessions/") => {
            let any = || serde_json::to_value(fixtures::session("")).unwrap();
            let session = stored.entry(path.trim_end_matches("/status").to_owned()).or_insert_with(any);
            let version = session["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
            merge(session, body);
            session["metadata"]["resourceVersion"] = json!((version + 1).to_string());
            (200, session.clone())
        }
        "PATCH" if path.contains("/events/") => (200, json!({"metadata": {}, "series": body["series"]})),
        "DELETE" => (200, status(200, "Success", "")),
        _ => (404, status(404, "NotFound", "there is no such object")),
    }
}

/// Changes `base` as `patch` says: <https://www.rfc-editor.org/rfc/rfc7396>.
fn merge(base: &mut Value, patch: &Value) {
    match (base, patch) {
        (Value::Object(base), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
            base.retain(|_, value| !value.is_null());
        }
        (base, patch) => *base = patch.clone(),
    }
}

/// A `Status` object.
pub(crate) fn status(code: u16, reason: &str, message: &str) -> Value {
    let kind = if code < 400 { "Success" } else { "Failure" };
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": kind, "code": code, "reason": reason, "message": message})
}
