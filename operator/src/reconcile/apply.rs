//! (I/O out) Carries out a plan. Children are made by POST under fixed names, which is the lock: of two operators one gets 409 and
//! looks again.

mod departure;
mod rights;
mod volumes;

use std::time::Duration;

use blobferry_crds::{UploadSession, names};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt};

use crate::{
    api::{self, CallError},
    backoff::{Attempts, Failure},
    context::Context,
    decisions::{
        Observed, Refusal, build,
        case::Outcome,
        plan::{Plan, StopReason, Wait},
        pod_state::{Slot, UploaderPod},
        reasons,
        validate::ValidSession,
    },
    place::Place,
};
pub use departure::{finalize, release_object, remember_blocked};
pub use rights::{remove_rights, update_rights};
pub use volumes::remove_claim;

/// Why the children of a session are not complete.
#[derive(Debug)]
enum Halt {
    /// Something changed meanwhile, or has to settle first: it is looked at again soon, which is no failed attempt.
    Settling,
    /// An object of ours has to go first; what people are told if it does not.
    Leaving(Failure),
    Failed(Failure),
    Call(CallError),
}

impl From<CallError> for Halt {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl Halt {
    /// An object of the name exists that the operator did not make.
    fn name_taken(object: &str) -> Self {
        let message = format!("{object} exists and was not made by Blobferry: delete or rename it.");
        Self::Failed(Failure { reason: reasons::NAME_TAKEN, message })
    }

    /// A refusal of the API server in its own words; every other failure is tried again as it is.
    fn refused(reason: &'static str, error: CallError) -> Self {
        match error.refusal() {
            Some(words) if error.is_of_ending_namespace() => {
                Self::Failed(Failure { reason: reasons::NAMESPACE_ENDING, message: format!("The API server says: {words}") })
            }
            Some(words) => Self::Failed(Failure { reason, message: format!("The API server says: {words}") }),
            None => Self::Call(error),
        }
    }
}

/// Between two looks at what settles, at first and after so many.
const SOON: Duration = Duration::from_secs(1);
const LATER: Duration = Duration::from_secs(15);
const SOON_LOOKS: u32 = 30;
/// Between two looks at the rights of a silent uploader.
const RIGHTS_PAUSE: Duration = Duration::from_mins(5);

/// Reserves the folders that a new pod would work in; who holds them already is waited for.
pub fn reserve(plan: Plan, session: &Result<ValidSession, Refusal>, context: &Context, now: Timestamp) -> Plan {
    let Ok(session) = session else { return plan };
    if plan != Plan::Create {
        context.waiters.forget(&session.uid);
        return plan;
    }
    let me = session.claimant();
    // Whoever leaves meanwhile finds this one waiting.
    context.waiters.wait(me.clone());
    let others = context.sessions.claimants(&me, &context.shares);
    match context.pods.reserve(&me, others, now) {
        Ok(()) => {
            context.waiters.forget(&me.uid);
            plan
        }
        Err(rival) => Plan::Wait(Wait::Rival(rival)),
    }
}

/// What people are told when a call fails again and again.
pub fn call_failed(error: &CallError) -> Failure {
    let message =
        format!("The operator {}. It tries again; if it stays so, look at the API server and its webhooks.", error.words());
    Failure { reason: reasons::CALL_FAILED, message }
}

/// Does what `plan` says, one step.
pub async fn apply(
    plan: &Plan,
    object: &UploadSession,
    session: &Result<ValidSession, Refusal>,
    observed: &Observed,
    context: &Context,
    now: Timestamp,
) -> Result<Outcome, CallError> {
    match (plan, session, &observed.slot) {
        (Plan::Expire, _, _) => departure::expire(object, context).await,
        (Plan::LetGo(_), _, slot) => departure::let_go(object, slot, observed.deletion.as_ref(), context, now).await,
        (Plan::Create, Ok(session), _) => create(session, context, now).await,
        (Plan::Stop(reason), _, Slot::Ours(pod)) => {
            delete(pod, None, context).await?;
            // What is lost, or comes out of the API server as something else than was sent, must not go round and round.
            if !matches!(reason, StopReason::Lost | StopReason::Changed | StopReason::NewMode) {
                context.memory.update(&pod.session_uid, |it| it.creations = Attempts::default());
            }
            Ok(Outcome::Deleted)
        }
        (Plan::ForceDelete, _, Slot::Ours(pod)) => delete(pod, Some(0), context).await,
        (Plan::RestoreRights, Ok(session), Slot::Ours(pod)) => restore_rights(session, pod, context, now).await,
        _ => Ok(Outcome::Nothing),
    }
}

async fn create(session: &ValidSession, context: &Context, now: Timestamp) -> Result<Outcome, CallError> {
    match create_children(session, context, now).await {
        Ok(pod) => {
            context.pods.created(&session.uid, UploaderPod::read(&pod), (context.clock)());
            context.metrics.created_pod();
            attempted(session, context, now, None);
            Ok(Outcome::Created(pod.metadata.name.unwrap_or_default(), pod.metadata.uid.unwrap_or_default()))
        }
        Err(halt) => {
            context.pods.not_created(&session.uid, matches!(halt, Halt::Failed(_)), (context.clock)());
            outcome(halt, session, context, now)
        }
    }
}

fn outcome(halt: Halt, session: &ValidSession, context: &Context, now: Timestamp) -> Result<Outcome, CallError> {
    match halt {
        Halt::Call(error) => Err(error),
        Halt::Settling => Ok(settling(session, None, context)),
        Halt::Leaving(failure) => Ok(settling(session, Some(failure), context)),
        Halt::Failed(failure) => {
            let wait = attempted(session, context, now, Some(failure.clone()));
            Ok(Outcome::Failed(failure, wait))
        }
    }
}

/// What is being made or removed is done within a second or two; what is not waits for a person, and a look is cheap.
fn settling(session: &ValidSession, lasting: Option<Failure>, context: &Context) -> Outcome {
    let mut looks = 0;
    context.memory.update(&session.uid, |it| {
        it.settling = it.settling.saturating_add(1);
        looks = it.settling;
    });
    let usual = || Failure { reason: reasons::STARTING, message: "The uploader's objects are being made.".into() };
    if looks <= SOON_LOOKS { Outcome::Failed(usual(), SOON) } else { Outcome::Failed(lasting.unwrap_or_else(usual), LATER) }
}

/// Remembers an attempt and returns how long the next one has to wait.
fn attempted(session: &ValidSession, context: &Context, now: Timestamp, failure: Option<Failure>) -> Duration {
    let mut wait = Duration::ZERO;
    context.memory.update(&session.uid, |it| {
        it.settling = 0;
        it.creations = it.creations.next(now, failure, rand::random());
        wait = it.creations.wait(now);
    });
    wait
}

async fn create_children(session: &ValidSession, context: &Context, now: Timestamp) -> Result<Pod, Halt> {
    rights::ensure_rights(session, context, now).await?;
    // The objects of volumes are large, and most sessions have none.
    Box::pin(volumes::ensure_volumes(session, context)).await?;
    create_pod(session, context).await
}

async fn create_pod(session: &ValidSession, context: &Context) -> Result<Pod, Halt> {
    let pods: Api<Pod> = api::namespaced(&context.client, &session.namespace);
    let mut pod = build::uploader_pod(session, &context.settings);
    let told = context.sessions.of_uid(&Place::new(&session.namespace, &session.name), &session.uid);
    let begun_before = told.is_some_and(|told| told.is_on_trial() && told.generation() == session.generation);
    if begun_before || context.rollout.is_trial(&session.uid, session.generation) {
        pod.annotations_mut().insert(names::TRIAL_ANNOTATION.into(), session.generation.to_string());
    }
    context.pods.asked(&session.uid);
    match api::create(&pods, &pod).await {
        Ok(Some(created)) => return Ok(created),
        Ok(None) => {}
        Err(error) => {
            // Its account may be gone; with its namespace that is as it should be.
            if !error.is_of_ending_namespace() {
                rights::doubt_rights(&session.namespace, context);
            }
            return Err(Halt::refused(reasons::POD_REFUSED, error));
        }
    }
    let name = build::pod_name(&session.name);
    match api::get(&pods, &name).await? {
        Some(found) if Slot::of(&UploaderPod::read(&found), &session.name, &session.uid) == Slot::Foreign => {
            Err(Halt::name_taken(&format!("The pod {name}")))
        }
        _ => Err(Halt::Settling),
    }
}

async fn delete(pod: &UploaderPod, grace: Option<u32>, context: &Context) -> Result<Outcome, CallError> {
    let pods: Api<Pod> = api::namespaced(&context.client, &pod.namespace);
    api::delete(&pods, &pod.name, &pod.uid, grace).await?;
    Ok(Outcome::Deleted)
}

/// An uploader that runs and does not report may have lost its rights by somebody's hand. Those of an account that was made anew do
/// not help it: it gets another pod.
async fn restore_rights(
    session: &ValidSession,
    pod: &UploaderPod,
    context: &Context,
    now: Timestamp,
) -> Result<Outcome, CallError> {
    context.memory.update(&session.uid, |it| it.rights_due = Some(now + RIGHTS_PAUSE));
    rights::doubt_rights(&session.namespace, context);
    match rights::ensure_rights(session, context, now).await {
        Ok(()) if rights::is_account_younger(session, pod.created, context).await? => delete(pod, None, context).await,
        Ok(()) | Err(Halt::Settling | Halt::Leaving(_)) => Ok(Outcome::Nothing),
        Err(Halt::Failed(failure)) => Ok(Outcome::Failed(failure, RIGHTS_PAUSE)),
        Err(Halt::Call(error)) => Err(error),
    }
}
