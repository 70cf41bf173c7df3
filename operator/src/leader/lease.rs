//! (pure) What a candidate does about a Lease that it has seen, and what it writes into it.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use tokio::time::Instant;

use super::LEASE;

/// Seconds after which a lease that nobody renews may be taken.
pub(super) const TERM_SECONDS: i32 = 30;

/// A Lease as it was seen, and since when it is like that by our own clock.
#[derive(Clone, Debug)]
pub(super) struct Sighting {
    lease: Lease,
    since: Instant,
}

impl Sighting {
    /// `lease` as it is seen at `now`, after `before`.
    pub(super) fn of(lease: Lease, before: Option<Self>, now: Instant) -> Self {
        let version = |lease: &Lease| (lease.metadata.uid.clone(), lease.metadata.resource_version.clone());
        let same = before.filter(|before| version(&before.lease) == version(&lease));
        Self { since: same.map_or(now, |before| before.since), lease }
    }

    /// The Lease.
    pub(super) fn lease(&self) -> &Lease {
        &self.lease
    }

    /// The Lease.
    pub(super) fn into_lease(self) -> Lease {
        self.lease
    }

    /// Whether `candidate` holds it.
    pub(super) fn is_held_by(&self, candidate: &str) -> bool {
        holder(&self.lease) == Some(candidate)
    }

    fn term(&self) -> Duration {
        let seconds = self.lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or(TERM_SECONDS);
        Duration::from_secs(seconds.max(1).unsigned_abs().into())
    }
}

/// What a candidate does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// There is no Lease: make one.
    Create,
    /// It is free, ours, or was not renewed for its term.
    Claim,
    /// Another one holds it.
    Wait,
}

/// What the candidate `me` does at `now`.
pub(super) fn decide(seen: Option<&Sighting>, me: &str, now: Instant) -> Move {
    let Some(seen) = seen else { return Move::Create };
    match holder(&seen.lease) {
        Some(other) if other != me && now.duration_since(seen.since) < seen.term() => Move::Wait,
        _ => Move::Claim,
    }
}

fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

/// The Lease with which the candidate `me` claims, or renews, `lease`. The times in it are for people.
pub(super) fn claimed(lease: Option<&Lease>, me: &str, now: Timestamp) -> Lease {
    let mut claimed = lease.cloned().unwrap_or_else(unheld);
    let renewal = holder(&claimed) == Some(me);
    let spec = claimed.spec.get_or_insert_default();
    spec.lease_duration_seconds = Some(TERM_SECONDS);
    spec.renew_time = Some(MicroTime(now));
    if !renewal {
        let before = spec.holder_identity.replace(me.to_owned());
        spec.acquire_time = Some(MicroTime(now));
        let transitions = spec.lease_transitions.unwrap_or(0);
        spec.lease_transitions = Some(if before.is_some() { transitions.saturating_add(1) } else { transitions });
    }
    claimed
}

/// `lease` without a holder.
pub(super) fn released(mut lease: Lease, now: Timestamp) -> Lease {
    let spec = lease.spec.get_or_insert_default();
    // Other implementations read an empty holder as "free" and none as "broken".
    spec.holder_identity = Some(String::new());
    spec.renew_time = Some(MicroTime(now));
    lease
}

fn unheld() -> Lease {
    Lease { metadata: ObjectMeta { name: Some(LEASE.to_owned()), ..ObjectMeta::default() }, spec: Some(LeaseSpec::default()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(by: &str, version: &str) -> Lease {
        let mut lease = claimed(None, by, Timestamp::UNIX_EPOCH);
        lease.metadata.resource_version = Some(version.to_owned());
        lease
    }

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn lease_that_does_not_exist_is_made() {
        assert_eq!(decide(None, "a", Instant::now()), Move::Create);
    }

    #[test]
    fn lease_of_another_is_taken_only_when_it_was_not_renewed_for_its_term() {
        let start = Instant::now();
        let first = Sighting::of(held("b", "1"), None, start);
        assert_eq!(decide(Some(&first), "a", after(start, 29)), Move::Wait);
        assert_eq!(decide(Some(&first), "a", after(start, 30)), Move::Claim);
        let renewed = Sighting::of(held("b", "2"), Some(first), after(start, 29));
        assert_eq!(decide(Some(&renewed), "a", after(start, 58)), Move::Wait);
        let same = Sighting::of(held("b", "2"), Some(renewed), after(start, 58));
        assert_eq!(decide(Some(&same), "a", after(start, 59)), Move::Claim, "another look does not prolong it");
    }

    #[test]
    fn times_in_the_lease_mean_nothing() {
        let start = Instant::now();
        for time in ["1970-01-01T00:00:00Z", "2999-01-01T00:00:00Z"] {
            let mut lease = held("b", "1");
            lease.spec.as_mut().unwrap().renew_time = Some(MicroTime(time.parse().unwrap()));
            assert_eq!(decide(Some(&Sighting::of(lease, None, start)), "a", start), Move::Wait, "{time}");
        }
    }

    #[test]
    fn own_lease_is_renewed_and_a_free_one_taken_at_once() {
        let start = Instant::now();
        assert_eq!(decide(Some(&Sighting::of(held("a", "1"), None, start)), "a", start), Move::Claim);
        let free = released(held("b", "1"), Timestamp::UNIX_EPOCH);
        assert_eq!(decide(Some(&Sighting::of(free, None, start)), "a", start), Move::Claim);
    }

    #[test]
    fn renewing_keeps_the_time_of_acquisition_and_taking_over_counts_a_transition() {
        let later = "2026-11-21T08:30:00Z".parse().unwrap();
        let renewed = claimed(Some(&held("a", "1")), "a", later).spec.unwrap();
        assert_eq!((renewed.acquire_time, renewed.lease_transitions), (Some(MicroTime(Timestamp::UNIX_EPOCH)), Some(0)));
        assert_eq!(renewed.renew_time, Some(MicroTime(later)));
        let taken = claimed(Some(&held("b", "7")), "a", later);
        assert_eq!(taken.metadata.resource_version.as_deref(), Some("7"), "a faster candidate makes this write fail");
        let taken = taken.spec.unwrap();
        assert_eq!((taken.holder_identity.as_deref(), taken.lease_transitions), (Some("a"), Some(1)));
    }
}
