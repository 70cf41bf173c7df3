//! The uploader's program: arguments, telemetry, pages, then the session until it is over.

use std::{convert::Infallible, time::Duration};

use anyhow::Context as _;
use blobferry_crds::{
    Progress,
    names::{TerminationMessage, TerminationResult},
    telemetry::{Guard, Telemetry},
};
use blobferry_uploader::{
    app::{Fatal, Uploader},
    args::{Fallbacks, SessionObject, Settings},
    books::SharedBooks,
    exit,
    health::{self, Health},
    metrics::Metrics,
    report::{KubeReporter, Report, SessionGone, Terminal},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// For how long the last telemetry may be sent after a signal.
const LAST_FLUSH: Duration = Duration::from_millis(500);
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
    let (flusher, bars) = (telemetry.flusher(), terminal.clone());
    let last_words = move || {
        bars.iter().for_each(Terminal::leave);
        flusher.end_within(LAST_FLUSH);
    };
    exit::on_signals(last_words).context("cannot listen for signals")?;
    let (file, uid) = (settings.report.termination_log.clone(), settings.session.uid.clone());
    let error = match run(settings, &telemetry, terminal).await {
        Ok(never) => match never {},
        Err(error) => error,
    };
    tracing::error!(error = format!("{error:#}"), "the uploader ends");
    exit::leave_message(file.as_deref(), last_message(uid, &error));
    drop(telemetry);
    exit::now(exit::code(TerminationResult::Failed))
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

fn last_message(session_uid: String, error: &anyhow::Error) -> TerminationMessage {
    let reason = match error.downcast_ref() {
        Some(Fatal::Check { reason, .. }) => reason.as_str(),
        Some(_) => "InvalidConfiguration",
        None if error.is::<SessionGone>() => "SessionGone",
        None => "Failed",
    };
    TerminationMessage {
        result: TerminationResult::Failed,
        session_uid,
        mode: "watch".into(),
        reason: reason.into(),
        message: format!("{error:#}"),
    }
}

/// Runs the session; it ends only by an error.
async fn run(settings: Settings, telemetry: &Guard, terminal: Option<Terminal>) -> anyhow::Result<Infallible> {
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
        if let Some(terminal) = terminal {
            tokio::spawn(terminal.run(shown, CancellationToken::new()));
        }
        return session(uploader, false, &ready).await;
    };
    // Until somebody has taken a report, nothing is in one.
    uploader.books().lock().ledger.reported_through = Some(i128::MIN);
    let (resumed, mut is_resumed) = watch::channel(false);
    let reporting = tokio::spawn(report(object, uploader.books(), shown, resumed));
    let waited = tokio::time::timeout(OLD_COUNTERS, is_resumed.wait_for(|resumed| *resumed)).await;
    if waited.is_err() {
        tracing::warn!("the API server does not answer; files are ferried meanwhile");
    }
    tokio::select! {
        ended = session(uploader, true, &ready) => ended,
        ended = reporting => Err(ended.context("reporting failed").and_then(|gone| Err(gone?.into())).unwrap_or_else(|error| error)),
    }
}

async fn session(uploader: Uploader, patient: bool, ready: &watch::Sender<bool>) -> anyhow::Result<Infallible> {
    let mut running = uploader.start(patient).await?;
    ready.send_replace(true);
    Err(running.ended().await)
}

/// Reads the old counters, adds them to ours, and reports from then on; resolves when the session's object is gone.
async fn report(
    object: SessionObject,
    books: SharedBooks,
    mut reports: watch::Receiver<Report>,
    resumed: watch::Sender<bool>,
) -> anyhow::Result<SessionGone> {
    let reporter = KubeReporter::connect(object).await?;
    let (old, writer) = match reporter.previous().await {
        Ok(previous) => previous,
        Err(gone) => return Ok(gone),
    };
    books.lock().ledger.resume(&old);
    resumed.send_replace(true);
    let mut answers = writer.answers();
    tokio::spawn(async move {
        while answers.changed().await.is_ok() {
            let counted = answers.borrow_and_update().counted_through.map(jiff::Timestamp::as_nanosecond);
            books.lock().ledger.reported_through = Some(counted.unwrap_or(i128::MIN));
        }
    });
    // The first report is the first one with the old counters in it.
    reports.changed().await.context("nothing is published")?;
    writer.run(reports, CancellationToken::new()).await;
    Ok(SessionGone)
}
