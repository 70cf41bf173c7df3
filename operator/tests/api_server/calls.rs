//! What the operators of this process asked of the API server.

use std::{
    fmt::{self, Display, Formatter},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Result;
use http::{HeaderMap, Method, Request, header::CONTENT_TYPE, request::Parts};
use jiff::Timestamp;
use kube::{Client, client::Body};
use serde_json::Value;

use crate::{
    around::{around, line},
    stage::{PAUSE, Stage},
};

/// Two looks are further apart only if this process had no time.
const STANDSTILL: Duration = Duration::from_millis(500);

/// One call. What keeps a Lease is none.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    by: &'static str,
    /// Method and path.
    pub(crate) line: String,
    /// In the words of Kubernetes: a verb and a resource; of an event, `tell` and its reason.
    pub(crate) what: String,
    /// Name of the object that was to be made.
    made: Option<String>,
    at: Timestamp,
    /// The code of the answer, once it is there.
    answer: Option<u16>,
    /// Whether the operator waits for the answer.
    is_open: bool,
}

impl Display for Call {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { by, line, what, at, answer, .. } = self;
        write!(f, "{at:.3} {what}: {line} by {by}, {}", answer.map_or_else(|| "not answered".to_owned(), |code| code.to_string()))
    }
}

impl Call {
    /// Whether it is about something of this name: an object, or all of a namespace.
    fn is_about(&self, name: &str) -> bool {
        self.line.split('/').any(|part| part == name) || self.made.as_deref() == Some(name)
    }
}

static CALLS: Mutex<Vec<Call>> = Mutex::new(Vec::new());

fn written() -> MutexGuard<'static, Vec<Call>> {
    CALLS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The calls so far of the operators `by` about something of these `names`.
pub(crate) fn calls_about(by: &[&str], names: &[String]) -> Vec<Call> {
    let is_one = |call: &&Call| by.contains(&call.by) && names.iter().any(|name| call.is_about(name));
    written().iter().filter(is_one).cloned().collect()
}

/// Whether the operator `by` has made such a call about anything.
pub(crate) fn has_made(by: &str, what: &str) -> bool {
    times(by, what) > 0
}

/// How often the operator `by` has made such a call.
pub(crate) fn times(by: &str, what: &str) -> usize {
    written().iter().filter(|call| call.by == by && call.what == what).count()
}

/// Whether an operator has made the call `line`.
pub(crate) fn was_asked(line: &str) -> bool {
    written().iter().any(|call| call.line == line)
}

impl Stage {
    /// Calls of the operator `name` that named this namespace so far.
    pub(crate) fn calls(&self, name: &str) -> Vec<String> {
        let within = format!("/namespaces/{}/", self.namespace);
        let here = |call: &&Call| call.by == name && call.line.contains(&within);
        written().iter().filter(here).map(|call| call.line.clone()).collect()
    }

    /// What the operator `name` was answered whenever it was to make a pod in this namespace.
    pub(crate) fn attempts(&self, name: &str) -> Vec<Option<u16>> {
        let pods = format!("POST /api/v1/namespaces/{}/pods", self.namespace);
        written().iter().filter(|call| call.by == name && call.line == pods).map(|call| call.answer).collect()
    }

    /// Whether the operator `name` waits for an answer to a call that names this namespace, or something that is called after it.
    fn awaits_answer(&self, name: &str) -> bool {
        written().iter().any(|call| call.is_open && call.by == name && call.line.contains(&self.namespace))
    }

    /// Waits until the operator `name` makes no more calls for this namespace, and returns how many it made.
    pub(crate) async fn until_quiet(&self, name: &str) -> Result<usize> {
        self.until_quiet_for(name, Duration::from_secs(2)).await
    }

    /// The same, quiet for so long. That is counted in looks: while this process stands still, the operator does, too.
    pub(crate) async fn until_quiet_for(&self, name: &str, time: Duration) -> Result<usize> {
        let (mut calls, mut looks, mut last) = (0, 0, Instant::now());
        self.until("the operator is quiet", async || {
            let (count, now) = (self.calls(name).len(), Instant::now());
            if count != calls || self.awaits_answer(name) || now - last > STANDSTILL {
                (calls, looks) = (count, 0);
            }
            (looks, last) = (looks + 1, now);
            Ok(PAUSE * looks > time)
        })
        .await?;
        Ok(calls)
    }
}

/// The call with this number waits for its answer, until this is dropped.
struct Open(usize);

impl Drop for Open {
    fn drop(&mut self) {
        written()[self.0].is_open = false;
    }
}

/// `client`, whose calls are written down as those of the operator `by`.
pub(crate) fn write_down(by: &'static str, client: Client) -> Client {
    around(client, move |request, client| async move {
        let line = line(&request);
        if line.contains("/leases") {
            return client.send(request).await;
        }
        let (head, body) = request.into_parts();
        let body = body.collect_bytes().await?;
        let call = note(by, line, &head, &body);
        let answer = client.send(Request::from_parts(head, Body::from(body))).await?;
        written()[call.0].answer = Some(answer.status().as_u16());
        Ok(answer)
    })
}

/// Writes down a call that begins.
fn note(by: &'static str, line: String, head: &Parts, body: &[u8]) -> Open {
    let sent: Value = serde_json::from_slice(body).unwrap_or_default();
    let made = sent["metadata"]["name"].as_str().filter(|_| head.method == Method::POST).map(str::to_owned);
    let what = in_words(&head.method, head.uri.path(), &head.headers, &sent);
    let mut all = written();
    all.push(Call { by, line, what, made, at: Timestamp::now(), answer: None, is_open: true });
    Open(all.len() - 1)
}

fn in_words(method: &Method, path: &str, headers: &HeaderMap, sent: &Value) -> String {
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
    let parts = &parts[if parts.first() == Some(&"api") { 2 } else { 3 }.min(parts.len())..];
    let parts = if parts.first() == Some(&"namespaces") && parts.len() > 2 { &parts[2..] } else { parts };
    let (resource, is_named) = (parts.first().copied().unwrap_or_default(), parts.len() > 1);
    if resource == "events" && *method != Method::GET {
        // One that repeats itself changes the one before; when it does depends on what else was told meanwhile.
        return format!("tell {}", sent["reason"].as_str().unwrap_or_default());
    }
    let is_apply = headers.get(CONTENT_TYPE).is_some_and(|type_| type_.as_bytes().starts_with(b"application/apply-patch"));
    let verb = match method.as_str() {
        "GET" if is_named => "get",
        "GET" => "list",
        "POST" => "create",
        "PATCH" if is_apply => "apply",
        "PATCH" => "patch",
        "DELETE" => "delete",
        other => other,
    };
    let part = parts.get(2).map(|part| format!("/{part}")).unwrap_or_default();
    format!("{verb} {resource}{part}")
}
