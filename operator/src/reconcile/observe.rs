//! (I/O in) What is there: the pod from the watch, and on demand its node and its events.

use blobferry_crds::UploadSession;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, ResourceExt};

use super::pod_events;
use crate::{
    api,
    context::Context,
    decisions::{
        build::pod_name,
        completion::completed,
        deletion,
        diagnose::worth_a_look,
        hearing::{Hearing, Report, Reports, Run, patience},
        observed::{Look, NodeHealth, Observed, is_new_spec, last_report},
        pod_state::{Slot, UploaderPod},
        rollout::Upgrade,
    },
    report,
};

/// Looks at everything that concerns `session`. A look on demand that fails is logged and shows nothing: it must not keep the rest of
/// the pass from being done.
pub async fn observe(session: &UploadSession, context: &Context, now: Timestamp) -> Observed {
    let (namespace, name) = (session.namespace().unwrap_or_default(), session.name_any());
    let uid = session.uid().unwrap_or_default();
    let pod = context.pods.find(&namespace, &pod_name(&name), &uid, now);
    let slot = pod.map_or(Slot::Empty, |pod| Slot::of(&pod, &name, &uid));
    let recollection = context.memory.recall(&uid);
    let pod = match &slot {
        Slot::Ours(pod) => Some(pod),
        _ => None,
    };
    let reports = Reports {
        last: last_report(session).map(|told| Report::taken(told, recollection.report)),
        run: pod.filter(|pod| pod.runs()).map(|pod| remember_run(&uid, pod, context, now)),
        patience: patience(session),
    };
    let seen_of_pod = match pod {
        Some(pod) => observe_pod(pod, &reports, (&uid, &namespace), context, now).await,
        None => SeenOfPod::default(),
    };
    let deletion = deletion::of(session, &slot, recollection.blocked);
    Observed {
        is_new_spec: is_new_spec(session),
        completed: completed(session, &slot).filter(|_| session.metadata.deletion_timestamp.is_none()),
        deletion,
        creations: recollection.creations,
        node: seen_of_pod.node,
        look: seen_of_pod.look,
        reports,
        sessions: context.sessions.count(),
        rights_due: recollection.rights_due.is_none_or(|due| due <= now),
        warned: recollection.warned,
        step_written: recollection.step_written,
        upgrade: seen_of_pod.upgrade,
        slot,
    }
}

/// What matters only where there is a pod.
#[derive(Default)]
struct SeenOfPod {
    node: Option<NodeHealth>,
    look: Option<Box<Look>>,
    upgrade: Upgrade,
}

async fn observe_pod(
    pod: &UploaderPod,
    reports: &Reports,
    (uid, namespace): (&str, &str),
    context: &Context,
    now: Timestamp,
) -> SeenOfPod {
    let hearing = reports.hearing(pod, now);
    let look = pod_events::look(worth_a_look(pod, hearing), (uid, namespace), pod, context, now).await;
    let late = pod.held_by.is_none() && pod.terminating.is_some_and(|deadline| deadline < now);
    let silent = !pod.ready && hearing == Hearing::Silent;
    let doubtful = pod.terminating.is_none() && pod.runs() && (pod.forsaken || silent);
    SeenOfPod {
        node: if late || doubtful { node_health(pod, context).await } else { None },
        look,
        upgrade: context.rollout.upgrade(pod, &context.settings.uploader_image, context.settings.update, now),
    }
}

fn remember_run(uid: &str, pod: &UploaderPod, context: &Context, now: Timestamp) -> Run {
    let run = Run::seen(context.memory.recall(uid).run, &pod.uid, pod.restarts, now);
    context.memory.update(uid, |it| it.run = Some(run.clone()));
    run
}

/// The node is asked about only when something is wrong that it can explain: its pod does not end, or is silent.
pub(crate) async fn node_health(pod: &UploaderPod, context: &Context) -> Option<NodeHealth> {
    let node = pod.node.as_ref()?;
    let found: Option<Node> = report::seen(api::get(&Api::all(context.client.clone()), node).await)?;
    let ready = found
        .and_then(|node| node.status?.conditions)
        .is_some_and(|all| all.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"));
    Some(if ready { NodeHealth::Ready } else { NodeHealth::Lost })
}
