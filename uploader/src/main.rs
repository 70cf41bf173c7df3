//! The uploader's program: arguments, telemetry, pages, then the session until it is over.

use std::time::Duration;

use anyhow::Context as _;
use blobferry_crds::{
    Progress,
    names::{TerminationMessage, TerminationResult},
    telemetry::{Guard, Telemetry},
};
use blobferry_uploader::{
    app::{Fatal, Uploader},
    args::{Fallbacks, Mode, SessionObject, Settings},
    books::SharedBooks,
    ending::Conclusion,
    exit,
    health::{self, Health},
    live::Live,
    metrics::Metrics,
    report::{Answer, KubeReporter, Report, SessionGone, Terminal},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// For how long the last telemetry may be sent after a signal.
const LAST_FLUSH: Duration = Duration::from_millis(500);
/// For how long the last report may take when the session is over.
const LAST_REPORT: Duration = Duration::from_secs(5);
/// For how long the start waits for the old counters; an API server that is away does not keep files waiting.
const OLD_COUNTERS: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let settings = match Settings::read(std::env::args_os(), &Fallbacks::fresh()) {
        Ok(settings) => settings,
        Err(refused) => exit::now(exit::refuse(&refused, |name| std::env::var(name).ok())),
    };
    let terminal = Terminal::is_wanted(&settings.report).then(|| Terminal::new(&settings.session.name));
    let telemetry = start_telemetry(&settings, terminal.as_ref())?;
    raise_limit_of_open_files();
    let (flusher, bars) = (telemetry.flusher(), terminal.clone());
    let last_words = move || {
        bars.iter().for_each(Terminal::leave);
        flusher.end_within(LAST_FLUSH);
    };
    exit::on_signals(last_words).context("cannot listen for signals")?;
    let (file, uid, mode) = (settings.report.termination_log.clone(), settings.session.uid.clone(), settings.session.mode);
    let conclusion = match run(settings, &telemetry, terminal).await {
        Ok(conclusion) => conclusion,
        Err(error) => failure(&error),
    };
    match conclusion.result {
        TerminationResult::Failed => tracing::error!(error = conclusion.message, "the uploader ends"),
        result => tracing::info!(?result, message = conclusion.message, "the session is over"),
    }
    let code = exit::code(conclusion.result);
    exit::leave_message(file.as_deref(), last_message(uid, mode, conclusion));
    drop(telemetry);
    exit::now(code)
}

/// Each file that is sent has one, and another on the local disk; a shell often gives no more than 1,024 of up to a million.
fn raise_limit_of_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, ?limit, "cannot raise the limit of open files");
    }
}

/// Logs go above the bar if there is one.
fn start_telemetry(settings: &Settings, terminal: Option<&Terminal>) -> anyhow::Result<Guard> {
    let telemetry = Telemetry::new("blobferry-uploader", env!("CARGO_PKG_VERSION")).session(&settings.session.name);
    let telemetry = match terminal {
        Some(terminal) => telemetry.console(terminal.console()),
        None => telemetry,
    };
    Ok(telemetry.init()?)
}

fn failure(error: &anyhow::Error) -> Conclusion {
    let reason = match error.downcast_ref() {
        Some(Fatal::Check { reason, .. }) => reason.as_str(),
        Some(_) => "InvalidConfiguration",
        None if error.is::<SessionGone>() => "SessionGone",
        None => "Failed",
    };
    Conclusion { result: TerminationResult::Failed, reason: reason.to_owned(), run_token: None, message: format!("{error:#}") }
}

fn last_message(session_uid: String, mode: Mode, conclusion: Conclusion) -> TerminationMessage {
    let Conclusion { result, run_token, reason, message } = conclusion;
    TerminationMessage { result, session_uid, mode: mode.to_string(), run_token, reason, message }
}

/// Runs the session until it is over.
async fn run(settings: Settings, telemetry: &Guard, terminal: Option<Terminal>) -> anyhow::Result<Conclusion> {
    tracing::info!(
        incoming = %settings.folders.incoming_root.join(&settings.session.name).display(),
        container = %settings.destination.container,
        version = env!("CARGO_PKG_VERSION"),
        "starting"
    );
    let object = settings.report.object.clone();
    let (reports, shown) = watch::channel(Report::default());
    let (ready, is_ready) = watch::channel(false);
    let listen = settings.report.listen;
    let uploader = Uploader::new(settings, reports, Metrics::new(telemetry.meter()))?;
    if let Some(listen) = listen {
        let listener = health::bind(listen).await.context("cannot listen for health checks")?;
        tokio::spawn(Health::new(uploader.pulse(), is_ready, telemetry.metrics_text()).serve(listener));
    }
    let Some(object) = object else {
        uploader.books().lock().ledger.resume(&Progress::default());
        let shutdown = CancellationToken::new();
        let bars = terminal.map(|terminal| tokio::spawn(terminal.run(shown, shutdown.clone())));
        let ended = session(uploader, false, &ready).await;
        shutdown.cancel();
        if let Some(bars) = bars {
            let _ = tokio::time::timeout(LAST_REPORT, bars).await;
        }
        return ended;
    };
    // Until somebody has taken a report, nothing is in one.
    uploader.books().lock().ledger.reported_through = Some(i128::MIN);
    let (resumed, mut is_resumed) = watch::channel(false);
    let shutdown = CancellationToken::new();
    let mut reporting = tokio::spawn(report(object, uploader.books(), uploader.live(), shown, resumed, shutdown.clone()));
    let waited = tokio::time::timeout(OLD_COUNTERS, is_resumed.wait_for(|resumed| *resumed)).await;
    if waited.is_err() {
        tracing::warn!("the API server does not answer; files are ferried meanwhile");
    }
    tokio::select! {
        ended = session(uploader, true, &ready) => {
            // The last report has the last numbers, if the API server takes it soon.
            shutdown.cancel();
            let _ = tokio::time::timeout(LAST_REPORT, reporting).await;
            ended
        }
        ended = &mut reporting => Err(ended.context("reporting failed").and_then(|gone| Err(gone?.into())).unwrap_or_else(|error| error)),
    }
}

async fn session(uploader: Uploader, patient: bool, ready: &watch::Sender<bool>) -> anyhow::Result<Conclusion> {
    let mut running = uploader.start(patient).await?;
    ready.send_replace(true);
    running.ended().await
}

/// Reads the old counters, adds them to ours, and reports from then on; resolves when the session's object is gone.
async fn report(
    object: SessionObject,
    books: SharedBooks,
    live: watch::Sender<Live>,
    mut reports: watch::Receiver<Report>,
    resumed: watch::Sender<bool>,
    shutdown: CancellationToken,
) -> anyhow::Result<SessionGone> {
    let reporter = KubeReporter::connect(object).await?;
    let (old, writer) = match reporter.previous().await {
        Ok(previous) => previous,
        Err(gone) => return Ok(gone),
    };
    books.lock().ledger.resume(&old);
    let mut answers = writer.answers();
    follow(&live, &answers.borrow_and_update());
    resumed.send_replace(true);
    tokio::spawn(async move {
        while answers.changed().await.is_ok() {
            let answer = answers.borrow_and_update().clone();
            let counted = answer.counted_through.map(jiff::Timestamp::as_nanosecond);
            follow(&live, &answer);
            books.lock().ledger.reported(counted.unwrap_or(i128::MIN));
        }
    });
    // The first report is the first one with the old counters in it.
    reports.changed().await.context("nothing is published")?;
    writer.run(reports, shutdown).await;
    Ok(SessionGone)
}

/// Applies the spec that came with an answer.
fn follow(live: &watch::Sender<Live>, answer: &Answer) {
    let Some(new) = Live::follow(&answer.spec, answer.generation) else {
        tracing::warn!("the session's spec cannot be read; what changes live stays as it is");
        return;
    };
    live.send_if_modified(|old| {
        let changes = *old != new;
        *old = new;
        changes
    });
}
