//! What a worker does: take a task, claim the file if it is not ours yet, make one attempt, and put down how it went.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::Instrument;

use crate::{
    args::Mode,
    aside::set_aside,
    books::Books,
    claim::{Claim, claim},
    ends::{End, Ends},
    file::ClaimedFile,
    formats::BlobName,
    metrics::Method,
    release::release,
    retry::backoff,
    scan::StableFile,
    schedule::{Delay, Task},
    session::{Edges, Session},
    share::{Share, ShareError},
    transfer::{Finish, Setback, attempt, cause},
};

/// Attempts that end with "look again" before they are spaced out.
const QUICK_LOOKS: u32 = 3;

/// The part of our work that these findings about the ends come from.
pub const FILES: &str = "files";

/// Works until it is dropped, while there are more than `number` workers by the settings of now.
pub async fn worker<E: Edges>(session: Arc<Session<E>>, number: usize) {
    let mut live = session.live.clone();
    loop {
        // An error says that nobody can change the settings any more; then those of now stay.
        if live.wait_for(|live| live.workers > number).await.is_err() {
            return std::future::pending().await;
        }
        let (blob, task) = tokio::select! {
            biased;
            Ok(_) = live.wait_for(|live| live.workers <= number) => continue,
            task = session.next_task() => task,
        };
        // On the heap while there is one: most workers only wait to be asked for.
        Box::pin(pass(&session, &blob, task)).await;
        session.finished(&blob);
    }
}

/// One task.
pub async fn pass<E: Edges>(session: &Session<E>, blob: &BlobName, task: Task) {
    let name = match &task {
        Task::Incoming(stable) => String::from_utf8_lossy(&stable.name).into_owned(),
        Task::Claimed(file) => file.display_name(),
    };
    let span = tracing::info_span!("file", file_name = %name);
    async {
        let (file, opened) = match task {
            Task::Claimed(file) => (file, None),
            Task::Incoming(stable) => match take(session, blob, &stable).await {
                Some((file, opened)) => (file, Some(opened)),
                None => return,
            },
        };
        upload(session, file, opened).await;
    }
    .instrument(span)
    .await;
}

/// Claims a stable file; what does not become ours goes back to the table.
async fn take<E: Edges>(
    session: &Session<E>,
    blob: &BlobName,
    stable: &StableFile,
) -> Option<(Box<ClaimedFile>, <E::Share as Share>::File)> {
    let result = claim(session, stable, blob).instrument(tracing::info_span!("claim")).await;
    let mut books = session.books();
    match result {
        Ok(Claim::Ours(file, opened)) => {
            books.claimed(&stable.name, stable.since);
            books.ledger.started(&file);
            return Some((file, opened));
        }
        Ok(Claim::Gone) => books.table.absent(&stable.name),
        Ok(Claim::Changed) => books.not_claimed(stable),
        Ok(Claim::Held(held)) => {
            tracing::warn!(reason = held.reason, message = %held.message, "the file is not taken");
            books.table.hold(&stable.name, held);
        }
        // If it was claimed all the same, the collector's next pass finds it.
        Err(error) => {
            books.not_claimed(stable);
            books.ledger.loses_track(stable.since);
            share_failed(&mut books.ends, &error);
        }
    }
    None
}

fn share_failed(ends: &mut Ends, error: &ShareError) {
    let message = error.full().to_string();
    tracing::warn!(%message, "the share fails");
    ends.fails(End::Source, FILES, "ShareFailed", &message);
}

async fn upload<E: Edges>(session: &Session<E>, mut file: Box<ClaimedFile>, opened: Option<<E::Share as Share>::File>) {
    let started = Instant::now();
    let sent = session.books().ledger.started(&file);
    let blob = file.blob.clone();
    file.attempts = file.attempts.saturating_add(1);
    let attempted = async {
        match session.rules.mode {
            Mode::Watch | Mode::Drain => attempt(session, &mut file, opened, &sent).await,
            Mode::Release => release(session, &mut file, &sent).await,
        }
    };
    let result = attempted.instrument(tracing::info_span!("upload")).await;
    let result = match result {
        Err(setback) => give_up(session, &mut file, setback).await,
        finished => finished,
    };
    let mut books = session.books();
    books.ledger.ended(&blob);
    match result {
        Ok(finish) => {
            let seconds = started.elapsed().as_secs_f64();
            tracing::info!(?finish, size = file.size, seconds, blob = %blob, "the file is done");
            books.ledger.failures.recovered(&blob);
            if finish == Finish::Gone {
                // Another uploader has it, or the client is wrong about its absence.
                books.ledger.loses_track(file.since);
            }
            if finish == Finish::Completed {
                let method = if file.size <= session.rules.single_put_size { Method::Single } else { Method::Blocks };
                session.metrics.file_processed(method, file.size, started.elapsed());
                books.destination_works();
                books.source_works();
            }
        }
        Err(setback) => {
            let (due, delay) = put_down(session, &mut books, &mut file, setback);
            books.schedule.add(&blob, Task::Claimed(file), due, delay);
        }
    }
}

/// Sets the file aside if that was the last of its attempts; otherwise the setback stands.
async fn give_up<E: Edges>(session: &Session<E>, file: &mut ClaimedFile, setback: Setback) -> Result<Finish, Setback> {
    let Setback::Failed { reason, message, own: true, .. } = &setback else { return Err(setback) };
    file.own_failures = file.own_failures.saturating_add(1);
    let most = session.rules.max_attempts;
    if most == 0 || file.own_failures < most {
        return Err(setback);
    }
    set_aside(session, file, reason, message).await?.ok_or(setback)
}

/// Puts down why an attempt did not finish; says when the next one is due.
fn put_down<E: Edges>(session: &Session<E>, books: &mut Books, file: &mut ClaimedFile, setback: Setback) -> (Instant, Delay) {
    let now = Instant::now();
    match setback {
        Setback::NotQuiet(at) => (at, Delay::Waiting),
        Setback::LookAgain => {
            file.looks_again += 1;
            let spaced = file.looks_again.checked_sub(QUICK_LOOKS).map(|looks| backoff(looks.max(1), session.jitter(), None));
            (now + spaced.unwrap_or_default(), Delay::Waiting)
        }
        Setback::Failed { reason, message, own, retry_after, end } => {
            file.failures = file.failures.saturating_add(1);
            let wait = backoff(file.failures, session.jitter(), retry_after);
            tracing::warn!(reason, message, failures = file.failures, wait_seconds = wait.as_secs_f64(), "the attempt failed");
            let cause = cause(&reason, own, end);
            if file.failures == 1 {
                session.metrics.file_failed(cause);
            }
            session.metrics.retried(cause);
            books.ledger.failures.add(file, &reason, &message, end);
            if end == Some(End::Destination) {
                books.brake.fails();
            }
            match (end, &mut file.sent) {
                (Some(end), _) => books.ends.fails(end, FILES, &reason, &message),
                // The others go on meanwhile.
                (None, Some(sent)) => sent.unstage(),
                (None, None) => {}
            }
            (now + wait, Delay::Failed(own))
        }
    }
}
