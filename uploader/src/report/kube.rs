//! Reports into the status of the session's object.
//!
//! [`KubeReporter`] reads the old counters and turns into a [`StatusWriter`], so that nothing can be written before they are known.
//! The writer sends `status.progress` and `status.activity` by server-side apply, with the resourceVersion of the last reply: when
//! somebody else has written, it reads and looks whether this still is the session it works for, because the API server does not
//! compare the UID on a status. Only the status is read and written, which the right to `uploadsessions/status` allows.

mod session;

use std::time::{Duration, Instant};

use blobferry_crds::{Progress, tls};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Client;
use serde_json::Value;
use tokio::{
    sync::watch,
    time::{self, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Change, Pace, Report, limits};
use crate::args::SessionObject;
use session::{Seen, SessionStatus, Trouble};

/// How many times in a row somebody else may be faster before a report waits for its next turn.
const CONFLICTS: u32 = 5;
/// How long the last report may take when the program ends by itself.
const LAST_REPORT: Duration = Duration::from_secs(3);

/// The API server cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Neither a service account nor a kubeconfig was found.
    #[error("cannot find out how to reach the API server")]
    Config(#[from] kube::config::InferConfigError),
    /// The configuration cannot be used.
    #[error("cannot make a client for the API server")]
    Client(#[from] kube::Error),
}

/// The object does not exist any more, or another session has its name: there is nothing left to do for this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session's object is gone or belongs to another session")]
pub struct SessionGone;

/// Why a writer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// See [`SessionGone`].
    SessionGone,
    /// It was told to stop, or nothing more will be published.
    Stopped,
}

/// What the API server said last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// `countedThrough` as the API server has it: completed files up to it may be collected.
    pub counted_through: Option<Timestamp>,
    /// Generation of `spec`.
    pub generation: Option<i64>,
    /// The session's spec, for what changes live.
    pub spec: Value,
}

/// A connection to the session's object, before its counters are known.
#[derive(Debug)]
pub struct KubeReporter {
    status: SessionStatus,
}

impl KubeReporter {
    /// A client for the API server, from the pod's service account or a kubeconfig. It sends nothing yet.
    pub async fn connect(object: SessionObject) -> Result<Self, ConnectError> {
        tls::install();
        let mut config = kube::Config::infer().await?;
        // The proxy of the environment is the way to Azure; the API server is near, and an error would repeat the proxy's password.
        config.proxy_url = None;
        Ok(Self::new(Client::try_from(config)?, object))
    }

    /// Reports through `client`.
    pub fn new(client: Client, object: SessionObject) -> Self {
        Self { status: SessionStatus::new(client, object) }
    }

    /// The counters of earlier runs, and the writer that may follow. Tries until the API server answers.
    pub async fn previous(self) -> Result<(Progress, StatusWriter), SessionGone> {
        let mut pace = Pace::default();
        loop {
            let problem = match self.status.read().await {
                Ok(seen) => {
                    let progress = seen.progress().unwrap_or_default();
                    return Ok((progress, StatusWriter::new(self.status, &seen)));
                }
                Err(Trouble::Gone) => return Err(SessionGone),
                Err(Trouble::Conflict) => "the session was changed meanwhile".to_owned(),
                Err(Trouble::Failed(problem)) => problem,
            };
            pace.failed(now(), rand::random());
            if pace.failures() == 1 {
                tracing::warn!(problem, "cannot read the session's old counters, trying again");
            }
            time::sleep_until(pace.due(Change::Nothing, now(), now()).into()).await;
        }
    }
}

/// Writes reports into the status.
#[derive(Debug)]
pub struct StatusWriter {
    status: SessionStatus,
    resource_version: Option<String>,
    pace: Pace,
    answers: watch::Sender<Answer>,
}

impl StatusWriter {
    fn new(status: SessionStatus, seen: &Seen) -> Self {
        let (answers, _) = watch::channel(seen.answer());
        Self { status, resource_version: seen.resource_version(), pace: Pace::default(), answers }
    }

    /// What the API server says, as of its last reply.
    pub fn answers(&self) -> watch::Receiver<Answer> {
        self.answers.subscribe()
    }

    /// Sends reports when they are due, until the session is gone, `shutdown` is cancelled or their sender is dropped. In the last
    /// two cases the newest report is still sent, if that is quick. While the API server is away it keeps trying.
    pub async fn run(mut self, mut reports: watch::Receiver<Report>, shutdown: CancellationToken) -> Ended {
        let mut latest = reports.clone();
        tokio::select! {
            ended = self.send_when_due(&mut reports) => if ended == Ended::SessionGone { return ended },
            () = shutdown.cancelled() => {}
        }
        let report = latest.borrow_and_update().clone();
        match timeout(LAST_REPORT, self.send(&report)).await {
            Ok(Err(Trouble::Gone)) => Ended::SessionGone,
            _ => Ended::Stopped,
        }
    }

    async fn send_when_due(&mut self, reports: &mut watch::Receiver<Report>) -> Ended {
        let mut arrived: Option<Report> = None;
        let (mut last, mut since) = (Change::Nothing, now());
        loop {
            let change = change(arrived.as_ref(), &reports.borrow_and_update());
            if change != last {
                (last, since) = (change, now());
            }
            tokio::select! {
                () = time::sleep_until(self.pace.due(change, since, now()).into()) => {
                    let report = reports.borrow_and_update().clone();
                    match self.send(&report).await {
                        Ok(seen) => {
                            self.told_again();
                            self.pace.sent(change, seen.report_interval(), now(), rand::random());
                            arrived = Some(report);
                        }
                        Err(Trouble::Gone) => return Ended::SessionGone,
                        Err(trouble) => self.failed(&trouble),
                    }
                }
                changed = reports.changed() => if changed.is_err() { return Ended::Stopped },
            }
        }
    }

    /// Applies `report` to the object as it is now.
    async fn send(&mut self, report: &Report) -> Result<Seen, Trouble> {
        let mut report = limits::fitted(report);
        // A write that changes nothing leaves no trace, and the operator would call the uploader silent.
        report.activity.report_time = Some(Time(Timestamp::now()));
        for _ in 0..CONFLICTS {
            match self.status.apply(&report, self.resource_version.as_deref()).await {
                Err(Trouble::Conflict) => self.resource_version = self.status.read().await?.resource_version(),
                Ok(seen) => {
                    self.resource_version = seen.resource_version();
                    self.answers.send_replace(seen.answer());
                    return Ok(seen);
                }
                Err(trouble) => return Err(trouble),
            }
        }
        Err(Trouble::Conflict)
    }

    fn failed(&mut self, trouble: &Trouble) {
        self.pace.failed(now(), rand::random());
        if self.pace.failures() == 1 {
            tracing::warn!(problem = %trouble, "cannot report progress, trying again; uploading goes on");
        }
    }

    fn told_again(&self) {
        if self.pace.failures() > 0 {
            tracing::info!(failures = self.pace.failures(), "progress is reported again");
        }
    }
}

fn change(arrived: Option<&Report>, latest: &Report) -> Change {
    arrived.map_or(Change::State, |arrived| Change::between(arrived, latest))
}

fn now() -> Instant {
    time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
