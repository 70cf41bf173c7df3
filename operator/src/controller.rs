//! (I/O) The loop that passes over each session that something happened to.

use std::{sync::Arc, time::Duration};

use blobferry_crds::names;
use futures::{FutureExt, StreamExt, future::pending, stream};
use jiff::Timestamp;
use kube::{
    Client, Resource, ResourceExt,
    core::error_boundary::InvalidObject,
    runtime::{
        applier,
        controller::{Action, Config},
        events::{Event, EventType},
        reflector::{self, store::Writer},
    },
};
use opentelemetry::metrics::Meter;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    api::CallError,
    backoff,
    context::Context,
    leader::{Candidate, Deposed},
    metrics::{Metrics, PassOutcome, show_sessions},
    pods::{Listed, Pods},
    reconcile::apply::release_object,
    report, rollout,
    sessions::{KeptSession, Sessions},
    settings::Settings,
    sweep, watches,
};

/// Passes at a time; a pass waits for the API server most of its time.
const CONCURRENCY: u16 = 16;
const AFTER_CONFLICT: Duration = Duration::from_secs(1);

/// The operator before its watches have started.
pub struct Operator {
    context: Arc<Context>,
    sessions: Writer<KeptSession>,
    pods: Listed,
}

impl std::fmt::Debug for Operator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operator").finish_non_exhaustive()
    }
}

impl Operator {
    /// An operator on `client`'s cluster, which counts with `meter`; its events name the pod `instance`.
    pub fn new(client: Client, settings: Settings, instance: Option<String>, meter: &Meter) -> Self {
        let (session_reader, sessions) = reflector::store();
        let (sessions_shown, (pods_shown, pods)) = (Sessions::new(session_reader), Pods::new());
        show_sessions(meter, sessions_shown.clone());
        let context = Context::new(client, settings, sessions_shown, pods_shown, instance, Metrics::new(meter));
        Self { context: Arc::new(context), sessions, pods }
    }

    /// This operator with another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: fn() -> Timestamp) -> Self {
        if let Some(context) = Arc::get_mut(&mut self.context) {
            context.clock = clock;
        }
        self
    }

    /// What the operator's passes share.
    pub fn context(&self) -> Arc<Context> {
        Arc::clone(&self.context)
    }

    /// Stands by until `candidate` leads, works until `stop` is cancelled, and lets the next one take over. Without a candidate it
    /// works at once.
    pub async fn run_elected(self, candidate: Option<Candidate>, stop: CancellationToken) -> Result<(), Deposed> {
        let Some(mut candidate) = candidate else {
            self.run(stop.cancelled_owned()).await;
            return Ok(());
        };
        tokio::select! {
            () = candidate.acquire() => {}
            () = stop.cancelled() => return Ok(()),
        }
        // After a pause, that the lease is over is seen before any work goes on.
        tokio::select! {
            biased;
            deposed = candidate.keep() => return Err(deposed),
            () = self.run(stop.cancelled_owned()) => {}
        }
        candidate.release().await;
        Ok(())
    }

    /// Works until `stop` resolves and the passes that have begun are done.
    pub async fn run(self, stop: impl Future<Output = ()> + Send + Sync + 'static) {
        let Self { context, sessions, pods } = self;
        let stop = stop.shared();
        let reader = sessions.as_reader();
        let client = context.client.clone();
        let woken = stream::select_all([
            watches::of_sessions(client.clone(), sessions, Arc::clone(&context)).boxed(),
            watches::of_pods(client, pods, Arc::clone(&context)).boxed(),
            context.wake.stream().map(Ok).boxed(),
        ]);
        let passes = applier(
            |session, context| async move { pass(&session, &context).await }.boxed(),
            |session, error, context| retry(&session, error, &context),
            Arc::clone(&context),
            reader,
            woken.take_until(stop.clone()),
            Config::default().concurrency(CONCURRENCY),
        )
        .for_each(|result| async { report::outcome(result) });
        context.sweeper.mark_everything();
        let sweeps = async {
            if context.wait_until_ready().await {
                sweep::run(&context).await;
            }
        };
        // Passes wait for the watches, which bring nothing any more after that.
        let stopped_early = async {
            stop.await;
            if context.is_ready().await {
                pending::<()>().await;
            }
        };
        tokio::select! {
            () = passes => {}
            () = sweeps => {}
            () = rollout::run(&context) => {}
            () = stopped_early => {}
        }
    }
}

/// One pass over `session`, which may have changed since it was woken.
pub(crate) async fn pass(session: &KeptSession, context: &Context) -> Result<Action, CallError> {
    if !context.pods.wait_until_ready().await {
        return Ok(Action::requeue(AFTER_CONFLICT));
    }
    let Some(session) = context.sessions.find(&session.namespace().unwrap_or_default(), &session.name_any()) else {
        return Ok(Action::await_change());
    };
    let begun = Instant::now();
    let (result, outcome) = match context.sessions.newest(&session) {
        Ok(readable) => {
            let result = crate::reconcile::reconcile(&readable, context, (context.clock)()).await;
            let outcome = match &result {
                Ok(_) => PassOutcome::Done,
                Err(error) if error.is_conflict() => PassOutcome::Conflict,
                Err(_) => PassOutcome::Failed,
            };
            (result, outcome)
        }
        Err(unreadable) => {
            tell_unreadable(&unreadable, context).await;
            (let_go_unreadable(&unreadable, context).await, PassOutcome::Unreadable)
        }
    };
    context.metrics.passed(outcome, begun.elapsed());
    see_off(&session, result.is_err(), context);
    if result.is_ok() {
        context.memory.update(&session.uid().unwrap_or_default(), |it| it.failures = 0);
    }
    result
}

/// What a pass has made since the watch showed that `session` is gone, the sweep has not seen.
fn see_off(session: &KeptSession, failed: bool, context: &Context) {
    if context.sessions.has(&session.namespace().unwrap_or_default(), &session.name_any(), &session.uid().unwrap_or_default()) {
        return;
    }
    context.sweeper.mark_deleted(session);
    if failed {
        context.sweeper.mark_deleted_late(session);
    }
}

/// A conflict is over when the watch has shown what somebody else wrote; everything else is tried again later and later.
fn retry(session: &KeptSession, error: &CallError, context: &Context) -> Action {
    if error.is_conflict() {
        return Action::requeue(AFTER_CONFLICT);
    }
    let mut failures = 0;
    context.memory.update(&session.uid().unwrap_or_default(), |it| {
        it.failures = it.failures.saturating_add(1);
        failures = it.failures;
    });
    Action::requeue(backoff::delay(failures, rand::random()))
}

/// A session that nobody can read cannot be drained; its deletion must not wait for a person.
async fn let_go_unreadable(session: &InvalidObject, context: &Context) -> Result<Action, CallError> {
    let held = session.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == names::FINALIZER);
    if held && session.metadata.deletion_timestamp.is_some() {
        release_object(&session.metadata, &context.client).await?;
    }
    Ok(Action::await_change())
}

/// One session that cannot be read keeps no other waiting.
async fn tell_unreadable(session: &InvalidObject, context: &Context) {
    let note = format!("The session cannot be read: {}. Correct it, or update the CustomResourceDefinition.", session.error);
    let event = Event {
        type_: EventType::Warning,
        reason: "Unreadable".into(),
        note: Some(blobferry_crds::conditions::shorten(&note, 1000)),
        action: "Read".into(),
        secondary: None,
    };
    let regarding = k8s_openapi::api::core::v1::ObjectReference {
        api_version: Some(blobferry_crds::UploadSession::api_version(&()).into_owned()),
        kind: Some(blobferry_crds::UploadSession::kind(&()).into_owned()),
        namespace: session.metadata.namespace.clone(),
        name: session.metadata.name.clone(),
        uid: session.metadata.uid.clone(),
        ..Default::default()
    };
    context.events.tell(&regarding, event).await;
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use kube::client::Body;

    use super::*;
    use crate::fixtures;

    #[tokio::test(start_paused = true)]
    async fn operator_that_is_stopped_before_its_watches_have_shown_everything_ends() {
        let (service, _silent) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let meter = opentelemetry::global::meter("test");
        let operator = Operator::new(Client::new(service, "default"), fixtures::settings(), None, &meter);
        let stopped = tokio::time::timeout(Duration::from_mins(1), operator.run(std::future::ready(()))).await;
        assert!(stopped.is_ok(), "it waits for the watches");
    }
}
