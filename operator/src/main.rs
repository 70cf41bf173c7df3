//! The operator's program: arguments, telemetry, pages, then the loop until it is told to stop.

use std::io;

use anyhow::Context as _;
use blobferry_crds::telemetry::Telemetry;
use blobferry_operator::{
    admin, api,
    args::Args,
    clock,
    controller::Operator,
    leader::Leadership,
    metrics::{count_requests, show_role},
    uninstall::{self, UninstallArgs},
};
use clap::Parser;
use jiff::Timestamp;
use kube::{Client, Config, client::ClientBuilder};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

// One thread is enough for what waits for the API server most of its time, and keeps its memory in one place.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    if std::env::args_os().nth(1).is_some_and(|first| first == uninstall::COMMAND) {
        return before_uninstallation().await;
    }
    let args = Args::parse();
    let telemetry = Telemetry::new("blobferry-operator", env!("CARGO_PKG_VERSION")).init().context("cannot start telemetry")?;
    let stop = stop_signal().context("cannot listen for signals")?;
    let config = Config::infer().await.context("cannot find the API server")?;
    let client = ClientBuilder::try_from(api::impatient(config)).context("cannot use the API server's address")?;
    let client = client.with_layer(&count_requests(telemetry.meter())).build();
    tokio::spawn(stop_when_the_clock_is_set(stop.clone()));
    let leadership = Leadership::default();
    show_role(telemetry.meter(), leadership.clone());
    let candidate = args.candidate(&client, &leadership);
    let operator = Operator::new(client, args.settings(std::env::vars()), args.pod_name.clone(), telemetry.meter());
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    let pages = axum::serve(listener, admin::router(operator.context(), leadership, telemetry.metrics_text()));
    info!(listen = %args.listen, "started");
    tokio::select! {
        result = operator.run_elected(candidate, stop) => {
            info!("stopped");
            result.context("another operator has to go on")
        }
        result = pages => result.context("cannot serve pages any more"),
    }
}

/// The chart's hook runs this, with the program's other arguments after the first.
async fn before_uninstallation() -> anyhow::Result<()> {
    let args = UninstallArgs::parse_from(std::env::args_os().skip(1));
    let _telemetry = Telemetry::new("blobferry-uninstall", env!("CARGO_PKG_VERSION")).init().context("cannot start telemetry")?;
    let client = Client::try_default().await.context("cannot find the API server")?;
    uninstall::uninstall(&args, &client).await.context("the sessions are not let go")?;
    Ok(())
}

/// The kubelet starts the program again.
async fn stop_when_the_clock_is_set(stop: CancellationToken) {
    let set_by = clock::until_set(Timestamp::now).await;
    warn!(seconds = set_by.as_secs(), "the clock was set: what is remembered of times is wrong; starting again");
    stop.cancel();
}

/// Is cancelled when the kubelet, or a person at a terminal, wants the program to end.
fn stop_signal() -> io::Result<CancellationToken> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = CancellationToken::new();
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        told.cancel();
    });
    Ok(stop)
}
