//! (I/O) One operator at a time leads, by a Lease; the others stand by.
//!
//! Not for safety: children are made by POST under fixed names, deletes carry the UID and status writes the version, so a leader that
//! was paused and wakes up changes nothing. It spares the API server the calls of a second operator. Clocks of nodes may differ by
//! any amount: nothing here compares a time in the Lease with a clock (the libraries for this do).

mod lease;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, api::PostParams};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tracing::{info, warn};

use crate::api::{self, CallError};
use lease::{Move, Sighting, claimed, decide, released};

/// Name of the Lease in the operator's namespace.
pub const LEASE: &str = "blobferry-operator";

/// Between two renewals by the leader.
const RENEW_EVERY: Duration = Duration::from_secs(8);
/// A leader that could not renew for this long leads no more; less than the time after which others take over.
const GIVE_UP_AFTER: Duration = Duration::from_secs(20);
/// Between two looks of a candidate, and between two attempts to renew.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// For giving the Lease back at the end.
const RELEASE_WITHIN: Duration = Duration::from_secs(3);

/// The lease was lost: another operator leads, or the API server did not answer for too long.
#[derive(Debug, thiserror::Error)]
#[error("the lease was lost to another operator, or could not be renewed within {} seconds", GIVE_UP_AFTER.as_secs())]
pub struct Deposed;

/// What this operator is to the others; shared with the pages and the metrics.
#[derive(Clone, Debug, Default)]
pub struct Leadership(Arc<AtomicU8>);

/// What an operator is to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It has not seen the Lease yet.
    Unknown,
    /// Another one leads.
    Standby,
    /// It leads.
    Leader,
}

impl Leadership {
    /// The role as of now.
    pub fn role(&self) -> Role {
        match self.0.load(Ordering::Relaxed) {
            0 => Role::Unknown,
            1 => Role::Standby,
            _ => Role::Leader,
        }
    }

    /// Tells everybody who asks.
    pub fn set(&self, role: Role) {
        self.0.store(role as u8, Ordering::Relaxed);
    }
}

/// An operator that wants to lead.
#[derive(Debug)]
pub struct Candidate {
    leases: Api<Lease>,
    me: String,
    seen: Option<Sighting>,
    /// When the write was sent by which the lease is ours: it counts from then on, however long the reply takes.
    claimed: Instant,
    leadership: Leadership,
}

impl Candidate {
    /// The candidate `me` for the Lease in `namespace`.
    pub fn new(client: &Client, namespace: &str, me: String, leadership: Leadership) -> Self {
        Self { leases: api::namespaced(client, namespace), me, seen: None, claimed: Instant::now(), leadership }
    }

    /// Waits until the lease is ours. What fails is logged and tried again.
    pub async fn acquire(&mut self) {
        info!(candidate = self.me, "standing by");
        while !self.logged_step().await {
            if self.seen.is_some() {
                self.leadership.set(Role::Standby);
            }
            sleep(LOOK_EVERY).await;
        }
        info!(candidate = self.me, "leading");
        self.leadership.set(Role::Leader);
    }

    /// Renews the lease for as long as it is ours.
    pub async fn keep(&mut self) -> Deposed {
        loop {
            let deadline = self.claimed + GIVE_UP_AFTER;
            let renewed = timeout_at(deadline, self.renew()).await == Ok(true);
            // After a pause of the process, a reply that came meanwhile is seen before the deadline is.
            if !renewed || Instant::now() > deadline {
                break;
            }
        }
        self.leadership.set(Role::Standby);
        Deposed
    }

    /// Renews once, after the usual pause; false if another one holds the lease.
    async fn renew(&mut self) -> bool {
        sleep_until(self.claimed + RENEW_EVERY).await;
        loop {
            if self.logged_step().await {
                return true;
            }
            if self.seen.as_ref().is_some_and(|seen| !seen.is_held_by(&self.me)) {
                return false;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Lets the next candidate take over at once.
    pub async fn release(mut self) {
        self.leadership.set(Role::Standby);
        let Some(seen) = self.seen.take().filter(|seen| seen.is_held_by(&self.me)) else { return };
        let lease = released(seen.into_lease(), Timestamp::now());
        match timeout(RELEASE_WITHIN, self.replace(&lease)).await {
            Ok(Ok(_)) => info!("the lease is given back"),
            Ok(Err(error)) => warn!(error = &error as &dyn std::error::Error, "the lease could not be given back"),
            Err(_) => warn!("the lease could not be given back in time"),
        }
    }

    async fn logged_step(&mut self) -> bool {
        let step = timeout(GIVE_UP_AFTER, self.step()).await;
        match step {
            Ok(Ok(ours)) => ours,
            Ok(Err(error)) => {
                warn!(error = &error as &dyn std::error::Error, "the lease could not be looked at");
                false
            }
            Err(_) => {
                warn!("the API server does not answer a question for the lease");
                false
            }
        }
    }

    /// One look, and what it leads to; whether the lease is ours afterwards.
    async fn step(&mut self) -> Result<bool, CallError> {
        let found = api::get(&self.leases, LEASE).await?;
        let before = self.seen.take();
        self.seen = found.map(|lease| Sighting::of(lease, before, Instant::now()));
        let lease = claimed(self.seen.as_ref().map(Sighting::lease), &self.me, Timestamp::now());
        let asked = Instant::now();
        let written = match decide(self.seen.as_ref(), &self.me, asked) {
            Move::Wait => None,
            Move::Create => api::create(&self.leases, &lease).await?,
            Move::Claim => self.replace(&lease).await?,
        };
        let ours = written.is_some();
        if let Some(lease) = written {
            self.seen = Some(Sighting::of(lease, None, Instant::now()));
            self.claimed = asked;
        }
        Ok(ours)
    }

    /// Writes over the version that was read; nothing if somebody else was faster.
    async fn replace(&self, lease: &Lease) -> Result<Option<Lease>, CallError> {
        match api::call("write the lease", self.leases.replace(LEASE, &PostParams::default(), lease)).await {
            Ok(written) => Ok(Some(written)),
            Err(error) if error.is_conflict() || error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::{
        fixtures,
        mock_api::{Cluster, status},
    };

    const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/blobferry/leases";

    /// A leader, and the time since it began to lead.
    async fn leader(cluster: &Cluster) -> (Candidate, Instant) {
        let mut candidate = Candidate::new(&cluster.context.client, "blobferry", "a".into(), Leadership::default());
        candidate.acquire().await;
        assert_eq!(candidate.leadership.role(), Role::Leader);
        (candidate, Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn leader_that_cannot_renew_gives_up_before_another_takes_over() {
        let cluster = Cluster::new(fixtures::settings());
        let (mut leader, since) = leader(&cluster).await;
        cluster.answers(&format!("GET {PATH}/{LEASE}"), 500, status(500, "InternalError", "away"));
        let _deposed = leader.keep().await;
        let term = Duration::from_secs(lease::TERM_SECONDS.unsigned_abs().into());
        assert!(since.elapsed() >= GIVE_UP_AFTER && since.elapsed() < term, "{:?}", since.elapsed());
        assert_eq!(leader.leadership.role(), Role::Standby);
    }

    #[tokio::test(start_paused = true)]
    async fn leader_whose_lease_another_holds_gives_up_at_its_next_look() {
        let cluster = Cluster::new(fixtures::settings());
        let (mut leader, since) = leader(&cluster).await;
        let other = json!({"metadata": {"name": LEASE, "resourceVersion": "8"}, "spec": {"holderIdentity": "b"}});
        cluster.answers(&format!("GET {PATH}/{LEASE}"), 200, other);
        let _deposed = leader.keep().await;
        assert!(since.elapsed() < GIVE_UP_AFTER, "{:?}", since.elapsed());
        assert!(!cluster.lines().iter().any(|line| line.starts_with("PUT")), "it took nothing back");
    }

    /// A leader that keeps its lease, whose renewals are not answered for now.
    async fn kept(cluster: &Cluster) -> JoinHandle<Deposed> {
        let (mut leader, _) = leader(cluster).await;
        cluster.holds(&format!("POST {PATH}"));
        cluster.calls();
        tokio::spawn(async move { leader.keep().await })
    }

    async fn until_renewed(cluster: &Cluster) {
        while !cluster.lines().contains(&format!("POST {PATH}")) {
            sleep(Duration::from_millis(100)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn leader_that_was_paused_gives_up_although_its_renewal_was_answered_meanwhile() {
        let cluster = Cluster::new(fixtures::settings());
        let kept = kept(&cluster).await;
        until_renewed(&cluster).await;
        cluster.lets_go();
        tokio::time::advance(Duration::from_mins(1)).await;
        timeout(Duration::from_millis(1), kept).await.expect("it gives up at once").unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn leader_whose_renewals_take_long_leads_on() {
        let cluster = Cluster::new(fixtures::settings());
        let kept = kept(&cluster).await;
        for _ in 0..5 {
            timeout(Duration::from_secs(10), until_renewed(&cluster)).await.expect("it renews");
            sleep(Duration::from_secs(9)).await;
            cluster.lets_go();
        }
        assert!(!kept.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn leader_that_ends_gives_the_lease_back() {
        let cluster = Cluster::new(fixtures::settings());
        let (leader, _) = leader(&cluster).await;
        cluster.calls();
        leader.release().await;
        let calls = cluster.calls();
        assert_eq!(calls[0].line, format!("PUT {PATH}/{LEASE}"));
        assert_eq!(
            (&calls[0].body["spec"]["holderIdentity"], &calls[0].body["metadata"]["resourceVersion"]),
            (&json!(""), &json!("100"))
        );
    }
}
