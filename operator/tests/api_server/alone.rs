//! Tests that bring operators of their own and suffer no other beside them: they run one after the other, after the rest.

pub(crate) mod clock;
mod deadlines;
mod exports;
mod faults;
mod leaders;
pub(crate) mod nodes;
mod orphans;
mod restart;
mod rollout;
mod webhooks;

use std::{
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use blobferry_operator::{
    controller::Operator,
    leader::{Deposed, Leadership, Role},
};
use jiff::Timestamp;
use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::{
    chart::{NAMESPACE, operator_client},
    stage::{PATIENCE, arguments},
};

/// An operator in a thread of its own, which ends with the test.
pub(crate) struct Running {
    pub(crate) leadership: Leadership,
    stop: CancellationToken,
    /// Cancelled when it has lost the Lease.
    pub(crate) deposed: CancellationToken,
    ended: mpsc::Receiver<Result<(), Deposed>>,
    /// Until it is dropped, what the operator has sent goes on its way, also when the operator has ended.
    network: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Starts the operator `name`, whose client is what `around` makes of a usual one, and which competes for the Lease.
    pub(crate) fn start(name: &str, around: impl FnOnce(Client) -> Client + Send + 'static) -> Self {
        Self::start_with(&["--pod-name", name, "--namespace", NAMESPACE], around)
    }

    /// Starts an operator whose clock is another one.
    pub(crate) fn start_at(clock: fn() -> Timestamp) -> Self {
        Self::start_all(&[], |client| client, clock)
    }

    /// Starts an operator with more arguments than the usual ones.
    pub(crate) fn start_with(more: &[&str], around: impl FnOnce(Client) -> Client + Send + 'static) -> Self {
        Self::start_all(more, around, Timestamp::now)
    }

    /// Starts an operator of which everything is another one.
    pub(crate) fn start_all(
        more: &[&str],
        around: impl FnOnce(Client) -> Client + Send + 'static,
        clock: fn() -> Timestamp,
    ) -> Self {
        let (leadership, stop, deposed) = (Leadership::default(), CancellationToken::new(), CancellationToken::new());
        let (report, ended) = mpsc::channel();
        let (network, network_ends) = mpsc::channel();
        let args = arguments(more);
        let (role, told, lost) = (leadership.clone(), stop.clone(), deposed.clone());
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
            let (Ok(runtime), Ok(args)) = (runtime, args) else { return };
            runtime.block_on(async {
                let Ok(client) = operator_client().await else { return };
                let client = around(client);
                let candidate = args.candidate(&client, &role);
                let meter = opentelemetry::global::meter("test");
                let operator =
                    Operator::new(client, args.settings(std::iter::empty()), args.pod_name.clone(), &meter).with_clock(clock);
                let how = operator.run_elected(candidate, told).await;
                if how.is_err() {
                    lost.cancel();
                }
                let _ = report.send(how);
            });
            let _ = network_ends.recv();
            // Requests that are frozen for ever must not keep the test from ending.
            runtime.shutdown_timeout(Duration::from_secs(1));
        });
        Self { leadership, stop, deposed, ended, network: Some(network), thread: Some(thread) }
    }

    /// Whether it leads.
    pub(crate) fn leads(&self) -> bool {
        self.leadership.role() == Role::Leader
    }

    /// Tells it to end, as the kubelet does, and waits until it has.
    pub(crate) fn end(mut self) -> Result<()> {
        self.stop.cancel();
        self.ended()?.map_err(|error| anyhow!(error))
    }

    /// The same when it has played its part, after which it may have lost the Lease.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.stop.cancel();
        self.ended().map(drop)
    }

    /// Waits until it has ended, and returns how.
    pub(crate) fn ended(&mut self) -> Result<Result<(), Deposed>> {
        let how = self.ended.recv_timeout(PATIENCE).context("the operator does not end")?;
        self.network = None;
        self.thread.take().map(JoinHandle::join);
        Ok(how)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
