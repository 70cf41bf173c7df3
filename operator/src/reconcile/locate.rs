//! (I/O in) Where the claim of a session leads, asked while it has no pod at work: only then does anything depend on it.

use jiff::Timestamp;
use tracing::warn;

use super::{
    Observed, Refusal,
    pod_state::Slot,
    validate::{Share, ValidSession},
};
use crate::context::Context;

/// Lets `session` know its export. A look that fails is logged: what was found before counts then, or the claim itself.
pub async fn locate(session: &mut Result<ValidSession, Refusal>, observed: &Observed, context: &Context, now: Timestamp) {
    let Ok(session) = session else { return };
    let Share::Claim(claim) = &session.share else { return };
    if observed.ending.is_some() {
        // It ran before, so this is mostly known; a session that goes is not worth a call.
        session.export = context.shares.known(&session.namespace, claim);
        return;
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
