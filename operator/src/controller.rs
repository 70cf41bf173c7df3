//! (I/O) The loop that passes over each session that something happened to.

use std::{pin::pin, sync::Arc, time::Duration};

use futures::{
    FutureExt, Stream, StreamExt,
    future::{FusedFuture, pending},
    stream::{self, FuturesUnordered},
};
use jiff::Timestamp;
use kube::Client;
use opentelemetry::metrics::Meter;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    agenda::{Agenda, SLOW_AFTER},
    api::CallError,
    backoff,
    context::Context,
    leader::{Candidate, Deposed},
    metrics::{Metrics, PassOutcome, show_sessions},
    place::Place,
    reconcile::{locate, unreadable},
    report, rollout,
    settings::Settings,
    state::{
        first_listing::Listed,
        pods::Pods,
        sessions::{KeptSession, Sessions},
    },
    sweep,
    watches::{self, Woken},
};

/// Passes at a time; a pass waits for the API server most of its time.
const CONCURRENCY: usize = 16;
/// Passes at a time with the slow ones, which do not count, because others must not wait for them: the API server does few things at a
/// time for all uploaders and operators together.
const MOST: usize = 128;
/// How long passes that have begun are waited for when the operator is stopped: half of what it usually has, so that it can give its Lease
/// back. What they have sent is carried out or not, as with every end.
const ENDS_WITHIN: Duration = Duration::from_secs(5);
/// A conflict is over as soon as the watch has shown what somebody else wrote, so the wait after many grows to eight seconds only.
const CONFLICTS_COUNTED: u32 = 4;

/// The operator before its watches have started.
pub struct Operator {
    context: Arc<Context>,
    sessions_listed: Listed,
    pods_listed: Listed,
}

impl std::fmt::Debug for Operator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operator").finish_non_exhaustive()
    }
}

impl Operator {
    /// An operator on `client`'s cluster, which counts with `meter`; its events name the pod `instance`.
    pub fn new(client: Client, settings: Settings, instance: Option<String>, meter: &Meter) -> Self {
        let ((sessions, sessions_listed), (pods, pods_listed)) = (Sessions::new(), Pods::new());
        show_sessions(meter, sessions.clone());
        let context = Context::new(client, settings, sessions, pods, instance, Metrics::new(meter));
        Self { context: Arc::new(context), sessions_listed, pods_listed }
    }

    /// This operator with another clock.
    ///
    /// # Panics
    ///
    /// If somebody has asked for its context before.
    #[must_use]
    pub fn with_clock(mut self, clock: fn() -> Timestamp) -> Self {
        Arc::get_mut(&mut self.context).expect("nobody has asked for the context yet").clock = clock;
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
        let Self { context, sessions_listed, pods_listed } = self;
        let client = context.client.clone();
        let woken = stream::select_all([
            watches::of_sessions(client.clone(), sessions_listed, Arc::clone(&context)).boxed(),
            watches::of_pods(client, pods_listed, Arc::clone(&context)).boxed(),
            context.wake.stream().map(Ok).boxed(),
        ]);
        let ready = async {
            if !context.wait_until_ready().await {
                pending::<()>().await;
            }
            locate::recall(&context).await;
        }
        .shared();
        let passes = pass_over(woken.take_until(stop), ready.clone(), |session| pass(session, &context));
        let sweeps = async {
            ready.await;
            sweep::run(&context).await;
        };
        tokio::select! {
            () = passes => {}
            () = sweeps => {}
            () = rollout::run(&context) => {}
        }
    }
}

/// Has a `pass` over each session that is `woken`, and again when its next look is due, until nobody is woken any more and the passes
/// that have begun are done, or have had a while to be. None begins before it is `ready`.
async fn pass_over<P: Future<Output = (Place, Option<Duration>)>>(
    woken: impl Stream<Item = Woken>,
    ready: impl Future<Output = ()>,
    pass: impl Fn(Place) -> P,
) {
    let (mut woken, mut ready) = (pin!(woken.fuse()), pin!(ready.fuse()));
    let free = Semaphore::new(CONCURRENCY);
    let (mut agenda, mut passes) = (Agenda::default(), FuturesUnordered::new());
    let mut ends = None;
    while !woken.is_done() || !passes.is_empty() {
        let may_begin = ready.is_terminated() && !woken.is_done() && passes.len() < MOST;
        let turn = turn(agenda.due(Instant::now()).filter(|_| may_begin), &free);
        tokio::select! {
            () = &mut ready, if !ready.is_terminated() => {}
            next = woken.next(), if !woken.is_done() => match next {
                Some(Ok(session)) => agenda.add(session, Instant::now()),
                Some(Err(error)) => report::interruption(&error),
                None => ends = Some(Instant::now() + ENDS_WITHIN),
            },
            () = sleep_until(ends.unwrap_or_else(Instant::now)), if ends.is_some() => return,
            Some((session, next_look)) = passes.next() => {
                agenda.done(&session);
                if let Some(wait) = next_look {
                    agenda.add(session, Instant::now() + wait);
                }
            }
            permit = turn => if let Some(session) = agenda.begin(Instant::now()) {
                passes.push(counted_while_quick(permit, pass(session)));
            }
        }
    }
}

/// What lets the pass begin that is `due`, once it is and not too many others count; none ever does if none is due.
async fn turn(due: Option<Instant>, free: &Semaphore) -> SemaphorePermit<'_> {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
    match free.acquire().await {
        Ok(permit) => permit,
        Err(_closed) => pending().await,
    }
}

/// `pass`, which gives its `permit` back when it is done, or slow.
async fn counted_while_quick<P: Future>(permit: SemaphorePermit<'_>, pass: P) -> P::Output {
    let mut pass = pin!(pass);
    match timeout(SLOW_AFTER, &mut pass).await {
        Ok(done) => done,
        Err(_elapsed) => {
            drop(permit);
            pass.await
        }
    }
}

/// One pass over the session at `place` as it is known now, and how long until the next one.
pub(crate) async fn pass(place: Place, context: &Context) -> (Place, Option<Duration>) {
    let Some(session) = context.sessions.find(&place) else { return (place, None) };
    let result = counted_pass(&session, context).await;
    report::passed(&place, &result);
    if is_gone(&session, context) {
        see_off(&session, result.is_err(), context);
        return (place, None);
    }
    let failures = context.memory.count_failure(session.uid(), result.is_err());
    let next_look = result.unwrap_or_else(|error| {
        if error.is_conflict() {
            context.sessions.conflicted(&place);
        }
        let attempt = if error.is_conflict() { failures.min(CONFLICTS_COUNTED) } else { failures };
        Some(backoff::delay(attempt, rand::random()))
    });
    (place, next_look)
}

/// One pass over `session`, which is counted.
pub(crate) async fn counted_pass(session: &KeptSession, context: &Context) -> Result<Option<Duration>, CallError> {
    let begun = Instant::now();
    let (result, outcome) = match context.sessions.newest(session) {
        Ok(readable) => {
            let result = Box::pin(crate::reconcile::reconcile(&readable, context, (context.clock)())).await;
            let outcome = match &result {
                Ok(_) => PassOutcome::Done,
                Err(error) if error.is_conflict() => PassOutcome::Conflict,
                Err(_) => PassOutcome::Failed,
            };
            (result, outcome)
        }
        Err(unreadable) => {
            let seen_to = unreadable::see_to(&unreadable, context, (context.clock)()).await;
            (seen_to.map(|()| None), PassOutcome::Unreadable)
        }
    };
    context.metrics.passed(outcome, begun.elapsed());
    result
}

fn is_gone(session: &KeptSession, context: &Context) -> bool {
    !context.sessions.has(session.place(), session.uid())
}

/// What a pass has made and remembered since the watch showed that `session` is gone, nobody has looked at.
fn see_off(session: &KeptSession, failed: bool, context: &Context) {
    context.memory.forget(session.uid());
    context.waiters.forget(session.uid());
    context.leftovers.mark_deleted(session);
    if failed {
        context.leftovers.mark_deleted_late(session);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use http::{Request, Response};
    use kube::client::Body;
    use tokio::{sync::mpsc, time::sleep};

    use super::*;
    use crate::fixtures;

    /// Seconds of the beginning and the end of each pass over sessions that take `lasts` seconds and are looked at again after `again`.
    /// They are woken at the seconds `woken`; everything is ready from the second `ready` on, and stopped at the second `stop`.
    async fn passes(woken: &[(u64, &str)], lasts: u64, again: Option<u64>, times: (u64, u64)) -> Vec<(String, u64, u64)> {
        passes_in(|name| Place::new("cameras", name), woken, lasts, again, times).await
    }

    /// The same of sessions that are elsewhere.
    async fn passes_in(
        place: impl Fn(&str) -> Place,
        woken: &[(u64, &str)],
        lasts: u64,
        again: Option<u64>,
        (ready, stop): (u64, u64),
    ) -> Vec<(String, u64, u64)> {
        let (begun, seen) = (Instant::now(), Mutex::new(Vec::new()));
        let (sender, receiver) = mpsc::unbounded_channel();
        let (seen, second) = (&seen, || begun.elapsed().as_secs());
        let events = async {
            for (time, name) in woken {
                sleep_until(begun + Duration::from_secs(*time)).await;
                sender.send(place(name)).unwrap();
            }
            sleep_until(begun + Duration::from_secs(stop)).await;
            drop(sender);
        };
        let places = stream::unfold(receiver, |mut receiver| async { Some((Ok(receiver.recv().await?), receiver)) });
        // An interrupted watch wakes nobody and keeps nobody from work.
        let broken = stream::iter([Err(kube::runtime::watcher::Error::NoResourceVersion)]);
        let ready = sleep_until(begun + Duration::from_secs(ready));
        let work = pass_over(broken.chain(places), ready, async |place: Place| {
            let start = second();
            sleep(Duration::from_secs(lasts)).await;
            seen.lock().unwrap().push((place.name().to_owned(), start, second()));
            (place, again.map(Duration::from_secs))
        });
        tokio::join!(events, work);
        let seen = seen.lock().unwrap().clone();
        let last = seen.iter().map(|(_, _, end)| *end).max();
        assert_eq!(Some(second()), last.max(Some(stop)), "it ends as soon as nothing is under way");
        seen
    }

    fn at(name: &str, start: u64, end: u64) -> (String, u64, u64) {
        (name.into(), start, end)
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_is_looked_at_when_it_is_woken_and_when_its_next_look_is_due_whichever_is_sooner() {
        let seen = passes(&[(0, "a"), (5, "a")], 1, Some(9), (0, 30)).await;
        assert_eq!(seen, [at("a", 0, 1), at("a", 5, 6), at("a", 15, 16), at("a", 25, 26)]);
        assert_eq!(passes(&[(0, "a")], 1, None, (0, 30)).await, [at("a", 0, 1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_wakes_a_session_during_its_pass_leads_to_one_more_afterwards() {
        let seen = passes(&[(0, "a"), (1, "a"), (1, "b"), (2, "a")], 3, None, (0, 30)).await;
        assert_eq!(seen, [at("a", 0, 3), at("b", 1, 4), at("a", 3, 6)]);
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_beyond_the_bound_wait_until_others_are_done() {
        let names: Vec<String> = (0..=CONCURRENCY).map(|number| number.to_string()).collect();
        let woken: Vec<_> = names.iter().map(|name| (0, name.as_str())).collect();
        let seen = passes(&woken, 1, None, (0, 30)).await;
        let starts: Vec<u64> = seen.iter().map(|(_, start, _)| *start).collect();
        assert_eq!(starts, [vec![0; CONCURRENCY], vec![1]].concat());
    }

    #[tokio::test(start_paused = true)]
    async fn passes_that_get_no_answer_keep_others_from_work_for_a_moment_only() {
        let names: Vec<String> = (0..=CONCURRENCY).map(|number| format!("{number:02}")).collect();
        let woken: Vec<_> = names.iter().map(|name| (0, name.as_str())).collect();
        let seen = passes(&woken, 60, None, (0, 90)).await;
        let starts: Vec<u64> = seen.iter().map(|(_, start, _)| *start).collect();
        assert_eq!(starts, [vec![0; CONCURRENCY], vec![SLOW_AFTER.as_secs()]].concat());
    }

    #[tokio::test(start_paused = true)]
    async fn passes_of_many_namespaces_that_get_no_answer_are_not_all_there_are() {
        let names: Vec<String> = (0..=MOST).map(|number| format!("{number:03}")).collect();
        let woken: Vec<_> = names.iter().map(|name| (0, name.as_str())).collect();
        let seen = passes_in(|name| Place::new(name, name), &woken, 60, None, (0, 130)).await;
        let starts: Vec<u64> = seen.iter().map(|(_, start, _)| *start).collect();
        assert_eq!(starts[MOST - 1..], [SLOW_AFTER.as_secs() * (MOST / CONCURRENCY - 1) as u64, 60]);
    }

    #[tokio::test(start_paused = true)]
    async fn no_pass_begins_before_the_watches_have_shown_everything() {
        assert_eq!(passes(&[(0, "a")], 1, None, (3, 30)).await, [at("a", 3, 4)]);
        assert_eq!(passes(&[(0, "a")], 1, None, (30, 3)).await, [], "it is stopped before");
    }

    #[tokio::test(start_paused = true)]
    async fn passes_that_have_begun_are_done_before_the_end_and_no_other_begins() {
        let seen = passes(&[(0, "a"), (5, "a")], 4, Some(1), (0, 6)).await;
        assert_eq!(seen, [at("a", 0, 4), at("a", 5, 9)]);
    }

    #[tokio::test(start_paused = true)]
    async fn pass_that_gets_no_answer_is_not_waited_for_at_the_end() {
        let stopped = tokio::time::timeout(Duration::from_secs(11), async {
            let (sender, receiver) = mpsc::unbounded_channel();
            sender.send(Place::new("cameras", "a")).unwrap();
            let places = stream::unfold(receiver, |mut receiver| async { Some((Ok(receiver.recv().await?), receiver)) });
            let stop = sleep_until(Instant::now() + Duration::from_secs(5));
            pass_over(places.take_until(stop), std::future::ready(()), |_| pending()).await;
            drop(sender);
        });
        assert!(stopped.await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn operator_that_is_stopped_before_its_watches_have_shown_everything_ends() {
        let (service, _silent) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let meter = opentelemetry::global::meter("test");
        let operator = Operator::new(Client::new(service, "default"), fixtures::settings(), None, &meter);
        let stopped = tokio::time::timeout(Duration::from_mins(1), operator.run(std::future::ready(()))).await;
        assert!(stopped.is_ok(), "it waits for the watches");
    }
}
