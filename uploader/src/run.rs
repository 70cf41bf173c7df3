//! Runs a session: one task per loop, each a pass and a timer.

use std::{sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::Instant};

use crate::{
    blob::BlobStore,
    collect::Collector,
    ends::End,
    heartbeat,
    publish::Publisher,
    scan,
    session::{Edges, Session},
    share::{Share, ShareError},
    work,
};

/// Longest pause between two scans of a share that fails.
const SCAN_BACKOFF: Duration = Duration::from_mins(1);
/// Time between two looks at a container that fails.
const DESTINATION_CHECK: Duration = Duration::from_secs(10);
/// Time between two looks at what is published.
const PUBLISH: Duration = Duration::from_millis(500);
/// Calls on the share have not ended for so long when the session says that the share hangs.
const HANG: Duration = Duration::from_secs(10);

/// How often things are done.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Time between two scans.
    pub poll_interval: Duration,
    /// Time between two passes of the collector.
    pub collect_interval: Duration,
    /// Files at a time.
    pub workers: usize,
}

/// Takes up what earlier processes left; before this nothing is claimed.
pub async fn recover<E: Edges>(session: &Session<E>, collector: &mut Collector, session_uid: &str) -> Result<(), ShareError> {
    heartbeat::beat(session, session_uid).await?;
    session.books().ledger.count_from(session.server_now());
    collector.pass(session).await?;
    Ok(())
}

/// Starts all loops of a session; they end when the set is dropped.
pub fn start<E: Edges>(
    session: &Arc<Session<E>>,
    collector: Collector,
    pace: Pace,
    session_uid: &str,
    publisher: Publisher,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(scan_loop(Arc::clone(session), pace.poll_interval));
    tasks.spawn(collect_loop(Arc::clone(session), collector, pace.collect_interval));
    tasks.spawn(heartbeat_loop(Arc::clone(session), session_uid.to_owned()));
    tasks.spawn(destination_loop(Arc::clone(session)));
    tasks.spawn(publish_loop(Arc::clone(session), publisher));
    for _ in 0..pace.workers {
        tasks.spawn(work::worker(Arc::clone(session)));
    }
    tasks
}

async fn scan_loop<E: Edges>(session: Arc<Session<E>>, interval: Duration) {
    let mut pause = interval;
    loop {
        let started = Instant::now();
        match scan::pass(&session).await {
            Ok(()) => {
                session.books().ends.works(End::Source, "scan");
                pause = interval;
            }
            Err(error) => {
                source_fails(&session, "scan", &error);
                pause = (pause * 2).clamp(interval, SCAN_BACKOFF.max(interval));
            }
        }
        session.metrics.scanned(started.elapsed());
        tokio::time::sleep_until(started + pause).await;
    }
}

async fn collect_loop<E: Edges>(session: Arc<Session<E>>, mut collector: Collector, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        match collector.pass(&session).await {
            Ok(_) => {
                let mut books = session.books();
                books.ends.works(End::Source, "collector");
                // A claim that failed is tried again only while its file is there.
                books.ends.works(End::Source, work::FILES);
            }
            Err(error) => source_fails(&session, "collector", &error),
        }
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

/// Looks at a container that failed until it works again.
async fn destination_loop<E: Edges>(session: Arc<Session<E>>) {
    loop {
        tokio::time::sleep(DESTINATION_CHECK).await;
        if session.books().ends.is_ok(End::Destination) {
            continue;
        }
        session.store.refresh().await;
        match session.store.prepare().await {
            Ok(()) => {
                // Reading works. Whether writing does is for the next file to say, if one waits for it.
                let mut books = session.books();
                if books.ledger.failing().next().is_none() {
                    books.ends.works(End::Destination, work::FILES);
                }
            }
            Err(error) => {
                let (reason, message) = (error.reason(), error.to_string());
                session.books().ends.fails(End::Destination, work::FILES, reason, &message);
            }
        }
    }
}

async fn publish_loop<E: Edges>(session: Arc<Session<E>>, mut publisher: Publisher) {
    loop {
        let silent = session.share.silent_for();
        if silent >= HANG {
            let message = "calls on the share do not end: the NFS server does not answer";
            session.books().ends.fails(End::Source, "calls", "Hanging", message);
        } else {
            session.books().ends.works(End::Source, "calls");
        }
        publisher.publish(&mut session.books(), Instant::now());
        session.measure();
        tokio::time::sleep(PUBLISH).await;
    }
}

fn source_fails<E: Edges>(session: &Session<E>, part: &'static str, error: &ShareError) {
    let message = error.full().to_string();
    tracing::warn!(part, message, "the share fails");
    session.books().ends.fails(End::Source, part, "ShareFailed", &message);
}
