//! The uploader's program: arguments, telemetry, pages, then the session until it is over.

use anyhow::Context as _;
use blobferry_crds::{
    names::{TerminationMessage, TerminationResult},
    telemetry::{Guard, Telemetry},
};
use blobferry_uploader::{
    app::{Fatal, Uploader},
    args::{Fallbacks, Settings},
    exit,
    health::{self, Health},
    metrics::Metrics,
    report::Report,
};
use tokio::sync::watch;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let settings = match Settings::read(std::env::args_os(), &Fallbacks::fresh()) {
        Ok(settings) => settings,
        Err(refused) => exit::now(exit::refuse(&refused, |name| std::env::var(name).ok())),
    };
    let telemetry = Telemetry::new("blobferry-uploader", env!("CARGO_PKG_VERSION")).session(&settings.session.name).init()?;
    let flusher = telemetry.flusher();
    exit::on_signals(move || flusher.end_within(std::time::Duration::from_millis(500))).context("cannot listen for signals")?;
    let (file, uid) = (settings.report.termination_log.clone(), settings.session.uid.clone());
    let error = run(settings, &telemetry).await;
    tracing::error!(error = format!("{error:#}"), "the uploader ends");
    let reason = match error.downcast_ref() {
        Some(Fatal::Check { reason, .. }) => reason.clone(),
        Some(_) => "InvalidConfiguration".into(),
        None => "Failed".into(),
    };
    let message = TerminationMessage {
        result: TerminationResult::Failed,
        session_uid: uid,
        mode: "watch".into(),
        reason,
        message: format!("{error:#}"),
    };
    exit::leave_message(file.as_deref(), message);
    drop(telemetry);
    exit::now(exit::code(TerminationResult::Failed))
}

/// Runs the session; it ends only by an error.
async fn run(settings: Settings, telemetry: &Guard) -> anyhow::Error {
    match session(settings, telemetry).await {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

async fn session(settings: Settings, telemetry: &Guard) -> anyhow::Result<std::convert::Infallible> {
    let patient = settings.report.object.is_some();
    let (reports, _shown) = watch::channel(Report::default());
    let (ready, is_ready) = watch::channel(false);
    let listen = settings.report.listen;
    let uploader = Uploader::new(settings, reports, Metrics::new(telemetry.meter()))?;
    if let Some(listen) = listen {
        let listener = health::bind(listen).await.context("cannot listen for health checks")?;
        tokio::spawn(Health::new(uploader.pulse(), is_ready, telemetry.metrics_text()).serve(listener));
    }
    let mut running = uploader.start(patient).await?;
    ready.send_replace(true);
    Err(running.ended().await)
}
