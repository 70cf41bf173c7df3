//! The driver: one pass over one session, as a list of named steps.
//!
//! `observe` reads what is there, `finalize` sees to our finalizer, `validate` parses what a person wrote, `locate` finds the export behind
//! a claim, `plan` decides one step, `reserve` takes the folders for it, `build` makes objects, `apply` sends them, `assess` and `status`
//! say what is true now, `publish` writes it if it differs (`start` lets it wait a little), `notices` tells people. What decides is in
//! [`crate::decisions`]; here is what reads and writes. A session that cannot be read is seen to by `unreadable`.

pub mod apply;
pub mod locate;
pub mod observe;
pub mod pod_events;
pub mod publish;
#[cfg(test)]
mod scenarios;
pub mod unreadable;

use std::{pin::Pin, time::Duration};

use blobferry_crds::UploadSession;
use jiff::Timestamp;
use kube::{
    ResourceExt,
    runtime::events::{Event, EventType},
};
use tracing::warn;

use crate::{
    api::CallError,
    context::Context,
    decisions::{Observed, assess, case, finalizer, mode::Mode, notices, observed, plan, start, status, validate},
};

/// How long passes fail, with no other in between, until people are told: what passes by itself within a quarter of a minute is no news.
const TOLD_AFTER: Duration = Duration::from_secs(15);

/// Brings the cluster one step nearer to what `session` means; how long until the next look, if nothing happens before.
pub async fn reconcile(session: &UploadSession, context: &Context, now: Timestamp) -> Result<Option<Duration>, CallError> {
    if finalizer::is_let_go(session) {
        return Ok(None);
    }
    if observed::is_new_spec(session) {
        context.memory.begin(&session.uid().unwrap_or_default(), session.metadata.generation);
    }
    let observed = observe::observe(session, context, now).await;
    let finalized = match apply::finalize(session, &observed.slot, context).await {
        Ok(finalized) => finalized,
        Err(error) => return Err(told(error, session, &observed, context, now).await),
    };
    let session = finalized.as_deref().unwrap_or(session);
    let mut valid = validate::validate(session, &context.settings);
    locate::locate(&mut valid, &observed, context, now).await;
    let plan = apply::reserve(plan::plan(&valid, &observed, now), &valid, context, now);
    let outcome = match apply::apply(&plan, session, &valid, &observed, context, now).await {
        Ok(outcome) => outcome,
        Err(error) => return Err(told(error, session, &observed, context, now).await),
    };
    let case = case::Case { session, valid: &valid, observed: &observed, plan: &plan, outcome: &outcome, now };
    tell(notices::of_action(&case), session, context).await;
    if outcome == case::Outcome::Gone {
        return Ok(None);
    }
    apply::remember_blocked(&case, context);
    let assessment = assess::assess(&case);
    let status = status::compute(&case, &assessment);
    if let Some(wait) = start::hold(&case, &status) {
        return Ok(Some(wait));
    }
    let version = publish::publish(&case, &status, context).await?;
    // Nothing that fails after it may keep it from being told: the next pass finds nothing new.
    tell(notices::of_change(session, observed.warned, &status), session, context).await;
    publish::remove_stale_activity(&case, version, context).await?;
    Ok(assessment.next_look)
}

/// `error`, because of which nothing could be done for `session`. If passes have failed for a while, the status says so.
fn told<'a>(
    error: CallError,
    session: &'a UploadSession,
    observed: &'a Observed,
    context: &'a Context,
    now: Timestamp,
) -> Pin<Box<dyn Future<Output = CallError> + Send + 'a>> {
    Box::pin(async move {
        let uid = session.uid().unwrap_or_default();
        // The call itself may have taken long.
        let ended = now.max((context.clock)());
        if error.is_conflict() || ended < context.memory.call_failed(&uid, now) + TOLD_AFTER {
            return error;
        }
        let mut failure = apply::call_failed(&error);
        if let Some(ends) = observed.deletion.as_ref().and_then(|deletion| deletion.how_it_ends(Mode::of(session).fate())) {
            failure.message = format!("{} {ends}", failure.message);
        }
        let status = status::failing(session, &failure, now);
        match publish::write_status(session, &status, session.metadata.resource_version.clone(), context, now).await {
            Ok(_) => tell(notices::of_change(session, observed.warned, &status), session, context).await,
            Err(second) => warn!(error = &second as &dyn std::error::Error, "people are not told either that calls fail"),
        }
        error
    })
}

/// Tells people of `event`, and remembers whether they wait to hear that all is well again.
async fn tell(event: Option<Event>, session: &UploadSession, context: &Context) {
    let Some(event) = event else { return };
    let is_warning = event.type_ == EventType::Warning;
    if is_warning || notices::is_relief(&event) {
        context.memory.update(&session.uid().unwrap_or_default(), |it| it.warned = is_warning);
    }
    context.tell(session, event).await;
}
