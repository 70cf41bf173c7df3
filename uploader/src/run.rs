//! Runs a session: one task per loop, each a pass and a timer.

use std::{sync::Arc, time::Duration};

use blobferry_crds::conditions;
use tokio::{task::JoinSet, time::Instant};

use crate::{
    args::Mode,
    blob::{BlobError, BlobStore},
    books::Books,
    collect::Collector,
    ends::End,
    heartbeat,
    live::Live,
    publish::Publisher,
    scan,
    session::{Edges, Session},
    share::{Share, ShareError},
    stage::Stage,
    work,
};

/// Longest pause between two scans of a share that fails.
const SCAN_BACKOFF: Duration = Duration::from_mins(1);
/// Time between two looks at a container that fails.
const DESTINATION_CHECK: Duration = Duration::from_secs(10);
/// A blob that no file becomes.
const MAY_READ: &[u8] = b"blobferry-may-read";
/// A container that nothing was sent to for so long is looked at.
const UNUSED: Duration = Duration::from_mins(10);
/// After so long the collector looks for files that another uploader has left, or, if all others are done, that nobody knows of.
const EARLY_PASS: Duration = Duration::from_secs(30);
/// Longest time between two passes of the collector when files are only uploaded or given back.
const LAST_PASSES: Duration = Duration::from_secs(5);
/// Most files at a time, which the settings of now may use or not.
const MOST_WORKERS: usize = 64;
/// Time between two looks at what is published.
pub(crate) const PUBLISH: Duration = Duration::from_millis(500);
/// The part that says whether calls on the share end.
pub(crate) const CALLS: &str = "calls";
/// Calls on the share have not ended for so long when the session says that the share hangs.
const HANG: Duration = Duration::from_secs(8);
/// The same for a single call, while others end.
const ONE_HANGS: Duration = Duration::from_mins(1);

/// Takes up what earlier processes left; before this nothing is claimed.
pub async fn recover<E: Edges>(session: &Session<E>, collector: &mut Collector, session_uid: &str) -> Result<(), ShareError> {
    heartbeat::beat(session, session_uid).await?;
    session.books().ledger.count_from(session.since);
    collector.pass(session).await?;
    Ok(())
}

/// Starts what tells others of a session, which begins before its work: the heartbeat and the reports. It ends when the set is dropped.
pub fn attend<E: Edges>(session: &Arc<Session<E>>, session_uid: &str, publisher: Publisher) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(heartbeat_loop(Arc::clone(session), session_uid.to_owned()));
    tasks.spawn(publish_loop(Arc::clone(session), publisher));
    tasks
}

/// Starts the loops that do the work.
pub fn start<E: Edges>(session: &Arc<Session<E>>, collector: Collector, tasks: &mut JoinSet<()>) {
    if session.rules.mode == Mode::Watch {
        tasks.spawn(scan_loop(Arc::clone(session)));
    }
    tasks.spawn(collect_loop(Arc::clone(session), collector));
    tasks.spawn(destination_loop(Arc::clone(session)));
    for number in 0..MOST_WORKERS {
        tasks.spawn(work::worker(Arc::clone(session), number));
    }
}

async fn scan_loop<E: Edges>(session: Arc<Session<E>>) {
    let mut failures = 0;
    loop {
        let started = Instant::now();
        match scan::pass(&session).await {
            Ok(()) => {
                session.books().ends.works(End::Source, "scan");
                failures = 0;
            }
            Err(error) => {
                source_fails(&session, "scan", &error);
                failures += 1;
            }
        }
        session.metrics.scanned(started.elapsed());
        rest(&session, started, |live| scan_pause(live.poll_interval, failures)).await;
    }
}

/// The pause after a scan: longer after failures, up to a minute.
fn scan_pause(interval: Duration, failures: u32) -> Duration {
    let doubled = interval.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX));
    doubled.min(SCAN_BACKOFF.max(interval))
}

/// Sleeps until `pause` after `since`, by the settings of then: a change counts at once.
pub(crate) async fn rest<E: Edges>(session: &Session<E>, since: Instant, pause: impl Fn(&Live) -> Duration) {
    let mut live = session.live.clone();
    loop {
        let due = since + pause(&live.borrow_and_update());
        match tokio::time::timeout_at(due, live.changed()).await {
            Err(_) => return,
            Ok(Ok(())) => {}
            // Nobody can change them any more.
            Ok(Err(_)) => return tokio::time::sleep_until(due).await,
        }
    }
}

/// The pause before a pass of the collector: whoever waits for the end does not wait for the interval.
fn collect_pause(mode: Mode, interval: Duration) -> Duration {
    if mode == Mode::Watch { interval } else { interval.min(LAST_PASSES) }
}

async fn collect_loop<E: Edges>(session: Arc<Session<E>>, mut collector: Collector) {
    let mut took = Duration::ZERO;
    loop {
        let begun = Instant::now();
        let pause = |live: &Live| collect_pause(session.rules.mode, live.collect_interval);
        // Seldom enough for a folder whose listing takes long.
        let step = EARLY_PASS.max(10 * took);
        let mut early = step;
        loop {
            rest(&session, begun, |live| pause(live).min(early)).await;
            if begun.elapsed() >= pause(&session.live()) || session.books().waits_for_pass() {
                break;
            }
            early += step;
        }
        let passes = Instant::now();
        match collector.pass(&session).await {
            Ok(_) => {
                let mut books = session.books();
                books.ends.works(End::Source, "collector");
                // A claim that failed is tried again only while its file is there.
                books.source_works();
            }
            Err(error) => source_fails(&session, "collector", &error),
        }
        took = passes.elapsed();
        if let Ok(free) = session.share.free_bytes(&session.folders.processing).await {
            session.books().ledger.share_free(free);
            session.metrics.share_free(free);
        }
    }
}

async fn heartbeat_loop<E: Edges>(session: Arc<Session<E>>, session_uid: String) {
    loop {
        tokio::time::sleep(heartbeat::INTERVAL).await;
        match heartbeat::beat(&session, &session_uid).await {
            Ok(()) => session.books().ends.works(End::Source, "heartbeat"),
            Err(error) => source_fails(&session, "heartbeat", &error),
        }
    }
}

/// Looks at a container that failed until it works again, and now and then at one that nothing is sent to: a credential expires, and nobody
/// would know before the next file comes.
pub(crate) async fn destination_loop<E: Edges>(session: Arc<Session<E>>) {
    let (mut unused, mut fails_idle) = (Duration::ZERO, false);
    loop {
        tokio::time::sleep(DESTINATION_CHECK).await;
        let (is_ok, is_idle) = {
            let mut books = session.books();
            (books.ends.is_ok(End::Destination), books.is_idle())
        };
        unused = if is_idle { unused + DESTINATION_CHECK } else { Duration::ZERO };
        if is_ok && unused < UNUSED && !fails_idle {
            continue;
        }
        unused = Duration::ZERO;
        if !is_ok {
            session.store.refresh().await;
        }
        // A container that somebody deleted is made again when a file needs it.
        let found = if is_idle { look_at_container(&session).await } else { session.store.prepare().await };
        match found {
            Ok(()) => {
                fails_idle = false;
                if !is_ok {
                    session.books().destination_answers();
                    session.wake();
                }
            }
            // One answer may get lost.
            Err(_) if is_ok && !fails_idle => fails_idle = true,
            Err(error) => {
                fails_idle = false;
                let (reason, message) = (error.reason(), error.to_string());
                session.books().ends.fails(End::Destination, work::FILES, reason, &message);
            }
        }
    }
}

/// Whether the container can be read.
async fn look_at_container<E: Edges>(session: &Session<E>) -> Result<(), BlobError> {
    let name = session.folders.blob(&session.folders.date, MAY_READ);
    let name = name.map_err(|error| BlobError::Rejected { code: "InvalidUri".into(), message: error.to_string() })?;
    session.store.look(&name).await.map(drop)
}

async fn publish_loop<E: Edges>(session: Arc<Session<E>>, mut publisher: Publisher) {
    loop {
        look_whether_it_hangs(&session.share, &mut session.books());
        look_at_stage(&session);
        session.books().ledger.saw_server_time(session.server_now());
        publisher.publish(&mut session.books(), Instant::now());
        session.measure();
        tokio::time::sleep(PUBLISH).await;
    }
}

/// Says that the share hangs, or that it does not any more.
pub(crate) fn look_whether_it_hangs<S: Share>(share: &S, books: &mut Books) {
    let ends = &mut books.ends;
    if share.silent_for() >= HANG {
        let message = "calls on the share do not end: the NFS server does not answer";
        ends.fails(End::Source, CALLS, conditions::HANGING, message);
    } else if share.slowest_for() >= ONE_HANGS {
        let message = "a call on the share does not end, though others do: look at the disk of the NFS server, or at an export inside \
                       the export";
        ends.fails(End::Source, CALLS, conditions::HANGING, message);
    } else {
        // That no call hangs does not say that any was made.
        ends.mends(End::Source, CALLS);
    }
}

/// A local disk that fails stops nothing, but the session says so.
pub(crate) fn look_at_stage<E: Edges>(session: &Session<E>) {
    session.stage.let_go();
    let ends = &mut session.books().ends;
    match session.stage.trouble() {
        Some(problem) => ends.fails(End::Stage, "disk", "StagingFailed", &format!("{problem}; files are streamed from the share")),
        None => ends.forget(End::Stage),
    }
}

/// Says that the share fails, until the same part says that it works.
pub fn source_fails<E: Edges>(session: &Session<E>, part: &'static str, error: &ShareError) {
    let message = error.full().to_string();
    tracing::warn!(part, message, "the share fails");
    session.books().ends.fails(End::Source, part, "ShareFailed", &message);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scans_of_a_share_that_fails_are_spaced_out_up_to_a_minute_or_the_interval() {
        let seconds = |interval, failures| scan_pause(Duration::from_secs(interval), failures).as_secs();
        assert_eq!([0, 1, 2, 5, 40].map(|failures| seconds(2, failures)), [2, 4, 8, 60, 60]);
        assert_eq!([0, 1].map(|failures| seconds(300, failures)), [300, 300]);
    }
}
