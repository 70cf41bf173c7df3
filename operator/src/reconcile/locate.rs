//! (I/O in) Where the claim of a session leads, asked while it has no pod at work: only then does anything depend on it.

use jiff::Timestamp;
use tracing::warn;

use super::{
    Observed, Refusal,
    area::{ShareKey, index::InArea},
    pod_state::{Origin, Slot},
    validate::{Share, ValidSession},
};
use crate::{context::Context, place::Place};

/// Lets it be known where the claims of the sessions lead that have pods: a pod remembers it when its operator is gone.
pub fn recall(context: &Context) {
    for pod in context.pods.shown(|pod| pod.origin != Origin::Foreign) {
        let session = context.sessions.find(&Place::new(&pod.namespace, &pod.session));
        let session = session.filter(|session| session.uid() == pod.session_uid);
        if let (Some(area), Some(claimed)) = (&pod.area, session.as_ref().and_then(|session| session.area()))
            && let ShareKey::Claim(namespace, claim) = &claimed.share
            && let Some(export) = area.export_of(claimed)
        {
            context.shares.learn(namespace, claim, export);
        }
    }
}

/// Lets `session` know its export. A look that fails is logged: what was found before counts then, or the claim itself.
pub async fn locate(session: &mut Result<ValidSession, Refusal>, observed: &Observed, context: &Context, now: Timestamp) {
    let Ok(session) = session else { return };
    let Share::Claim(claim) = &session.share else { return };
    if let Some(ending) = &observed.ending {
        session.export = context.shares.known(&session.namespace, claim);
        if !ending.may_have_claims {
            return;
        }
    }
    let wanted = match &observed.slot {
        Slot::Empty => !session.suspend && observed.creations.is_due(now),
        Slot::Ours(pod) => pod.terminating.is_none() && pod.is_unstarted(),
        _ => false,
    };
    if !wanted || observed.completed.is_some() {
        return;
    }
    match context.shares.find(&context.client, &session.namespace, claim, now).await {
        Ok(export) => session.export = export,
        Err(error) => {
            session.export = context.shares.known(&session.namespace, claim);
            warn!(error = &error as &dyn std::error::Error, "the export behind a claim cannot be looked up");
        }
    }
}
