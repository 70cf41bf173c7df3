//! The uploader's program: arguments, telemetry, then the session until it is over.

use anyhow::Context as _;
use blobferry_crds::telemetry::Telemetry;
use blobferry_uploader::{
    app::Uploader,
    args::{Fallbacks, Settings},
    report::Report,
};
use tokio::sync::watch;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let settings = match Settings::read(std::env::args_os(), &Fallbacks::fresh()) {
        Ok(settings) => settings,
        Err(refused) => refused.exit(),
    };
    let _guard = Telemetry::new("blobferry-uploader", env!("CARGO_PKG_VERSION")).session(&settings.session.name).init()?;
    let patient = settings.report.object.is_some();
    let (reports, _shown) = watch::channel(Report::default());
    let uploader = Uploader::new(settings, reports)?;
    let mut running = uploader.start(patient).await.context("cannot start")?;
    Err(running.ended().await)
}
