//! (I/O in) Where the claim of a session leads, asked while it has no pod at work: only then does anything depend on it. A new operator
//! asks once of all claims of which no pod tells it.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::Api;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::warn;

use crate::{
    api::{self, CallError},
    context::Context,
    decisions::{
        Observed, Refusal,
        area::{Area, ShareKey, index::InArea},
        export::{Export, bound_volume, export},
        pod_state::{Origin, Slot, UploaderPod},
        validate::{Share, ValidSession},
    },
    report,
};

/// Claims that are asked about at a time.
const AT_A_TIME: usize = 16;
/// For how long those are asked about again of which a new operator cannot be told, and how often: what it does not know then, the
/// uploaders find out.
const ASKED_FOR: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_secs(1);

/// Lets it be known where the claims of sessions lead before any of them gets a pod: who has the folders may have lost its own pod a
/// moment ago, and is met only where its claim is known to lead. A pod remembers it when its operator is gone, unless its claim was
/// bound since; the others are asked.
pub async fn recall(context: &Context) {
    let pods = context.pods.shown(|pod| pod.origin != Origin::Foreign);
    learn(&pods, context);
    let with_pods: HashSet<_> = pods.iter().map(|pod| pod.session_uid.as_str()).collect();
    let mut claims = context.sessions.volume_claims(|uid| !with_pods.contains(uid));
    let on_claims: Vec<_> = pods.iter().filter_map(|pod| Some((pod, started_on_claim(pod)?))).collect();
    claims.extend(on_claims.iter().map(|(_, (_, namespace, claim))| ((*namespace).to_owned(), (*claim).to_owned())));
    claims.retain(|(namespace, claim)| !context.shares.is_known(namespace, claim));
    ask(claims, context).await;
    for (pod, (area, namespace, claim)) in on_claims {
        if let Some(export) = context.shares.export_of(namespace, claim) {
            context.pods.locate(pod, area.clone().on(&export));
        }
    }
}

/// Asks where `claims` lead, and again those of which it cannot be told for a while: no pass begins before.
async fn ask(mut claims: BTreeSet<(String, String)>, context: &Context) {
    let deadline = Instant::now() + ASKED_FOR;
    // Those that it comes to no answer for are asked about when something depends on them.
    for (namespace, claim) in &claims {
        context.shares.leave_open(namespace, claim);
    }
    loop {
        let answers = stream::iter(claims).map(|(namespace, claim)| async move {
            let found = find(&namespace, &claim, context, (context.clock)()).await;
            report::seen(found).is_none().then_some((namespace, claim))
        });
        let unanswered = answers.buffer_unordered(AT_A_TIME).filter_map(std::future::ready).collect();
        match timeout_at(deadline, unanswered).await {
            Ok(unanswered) if !BTreeSet::is_empty(&unanswered) => claims = unanswered,
            _ => return,
        }
        sleep(PAUSE).await;
    }
}

/// The folders of `pod` on a claim, its namespace and its name, if the pod has started: one that has not is made anew when its claim is bound.
fn started_on_claim(pod: &UploaderPod) -> Option<(&Area, &str, &str)> {
    match pod.area.as_ref().filter(|_| !pod.is_unstarted()) {
        Some(area @ Area { share: ShareKey::Claim(namespace, claim), .. }) => Some((area, namespace, claim)),
        _ => None,
    }
}

fn learn(pods: &[Arc<UploaderPod>], context: &Context) {
    for pod in pods {
        let session = context.sessions.find(&pod.session_place());
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
    if let Some(deletion) = &observed.deletion {
        session.export = context.shares.export_of(&session.namespace, claim);
        if !deletion.may_have_claimed_files {
            return;
        }
    }
    let wanted = match &observed.slot {
        Slot::Empty => !session.suspend && observed.creations.is_due(now),
        Slot::Ours(pod) => pod.terminating.is_none() && pod.is_unstarted(),
        _ => false,
    };
    if !wanted || observed.completed.is_some() {
        if let Slot::Ours(pod) = &observed.slot {
            locate_pod(pod, context, now).await;
        }
        return;
    }
    match find(&session.namespace, claim, context, now).await {
        Ok(export) => session.export = export,
        Err(error) => {
            session.export = context.shares.export_of(&session.namespace, claim);
            warn!(error = &error as &dyn std::error::Error, "the export behind a claim cannot be looked up");
        }
    }
}

/// Lets it be known where `pod` works that has started before anybody could tell where its claim leads.
async fn locate_pod(pod: &UploaderPod, context: &Context, now: Timestamp) {
    let Some((area, namespace, claim)) = started_on_claim(pod) else { return };
    if !context.shares.is_open(namespace, claim) {
        return;
    }
    match report::seen(find(namespace, claim, context, now).await) {
        Some(Some(export)) => context.pods.locate(pod, area.clone().on(&export)),
        // It is gone since.
        Some(None) if context.shares.is_open(namespace, claim) => context.shares.forget(namespace, claim),
        Some(None) | None => {}
    }
}

/// The export that a claim leads to; none if it is not bound, or to another kind of volume.
async fn find(namespace: &str, claim: &str, context: &Context, now: Timestamp) -> Result<Option<Export>, CallError> {
    if let Some(export) = context.shares.believed(namespace, claim, now) {
        return Ok(export);
    }
    let found = ask_for(namespace, claim, context).await;
    match &found {
        Ok(Claim::Missing) => context.shares.forget(namespace, claim),
        Ok(Claim::Unbound) => {
            context.shares.forget(namespace, claim);
            context.shares.leave_open(namespace, claim);
        }
        Ok(Claim::Bound(export)) => context.shares.found(namespace, claim, export.clone(), now),
        Err(_) => context.shares.leave_open(namespace, claim),
    }
    match found? {
        Claim::Bound(export) => Ok(export),
        Claim::Missing | Claim::Unbound => Ok(None),
    }
}

/// A claim as the API server knows it.
enum Claim {
    Missing,
    Unbound,
    /// To a volume with this export, or of another kind.
    Bound(Option<Export>),
}

async fn ask_for(namespace: &str, claim: &str, context: &Context) -> Result<Claim, CallError> {
    let claims: Api<PersistentVolumeClaim> = api::namespaced(&context.client, namespace);
    let Some(claim) = api::get(&claims, claim).await? else { return Ok(Claim::Missing) };
    let Some(volume) = bound_volume(&claim) else { return Ok(Claim::Unbound) };
    let volume = api::get(&Api::<PersistentVolume>::all(context.client.clone()), &volume).await?;
    Ok(volume.and_then(|volume| volume.spec).map_or(Claim::Unbound, |spec| Claim::Bound(export(&spec))))
}
