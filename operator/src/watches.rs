//! (I/O in) The two watches: what they bring is kept, and names the sessions that have to be looked at.

use std::sync::Arc;

use blobferry_crds::names;
use futures::{Stream, StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Resource,
    runtime::{
        WatchStreamExt,
        watcher::{self, watcher},
    },
};

use crate::{
    context::Context,
    decisions::{
        build::pod_name,
        observed::last_report,
        pod_state::{Origin, UploaderPod},
        predicates::Guarded,
    },
    place::Place,
    state::{first_listing::Listed, pods::News, sessions::KeptSession},
};

/// Objects in one answer of a first listing. While it is read, a pod takes 80 kB, of which 1 kB is kept, and a session 50 kB.
const PAGE: u32 = 25;

/// A session that has to be looked at, or why a watch was interrupted.
pub type Woken = Result<Place, watcher::Error>;

/// The sessions that something happened to, as the watch of sessions shows it.
pub fn of_sessions(client: Client, listed: Listed, context: Arc<Context>) -> impl Stream<Item = Woken> {
    let all = Api::<Guarded>::all(client);
    watcher(all, watcher::Config::default().page_size(PAGE)).default_backoff().flat_map(move |event| match event {
        Ok(event) => stream::iter(note_session(event, &listed, &context)).map(Ok).left_stream(),
        Err(error) => stream::iter([Err(error)]).right_stream(),
    })
}

/// Keeps what the watch of sessions brings; the sessions that have to be looked at.
pub(crate) fn note_session(event: watcher::Event<Guarded>, listed: &Listed, context: &Context) -> Vec<Place> {
    let sessions = &context.sessions;
    let keep = |session: Guarded| {
        note_report(&session, context);
        KeptSession::of(session, &context.settings)
    };
    match event {
        watcher::Event::Apply(session) => {
            let session = keep(session);
            let waiting = if session.wants_pod() { Vec::new() } else { waiting_for(session.place(), context) };
            return sessions.saw(session).into_iter().chain(waiting).collect();
        }
        watcher::Event::Delete(session) => {
            let session = KeptSession::of(session, &context.settings);
            let waiting = waiting_for(session.place(), context);
            forget(&session, context);
            return waiting;
        }
        watcher::Event::Init => sessions.listing_begins(),
        watcher::Event::InitApply(session) => sessions.listing_shows(keep(session)),
        watcher::Event::InitDone => {
            let news = sessions.listing_ends();
            retain(context);
            listed.everything();
            return news;
        }
    }
    Vec::new()
}

/// The sessions that wait for the folders which the session at `place` has wanted until now. Its pod may have left them before.
fn waiting_for(place: &Place, context: &Context) -> Vec<Place> {
    let folders = context.sessions.find(place).and_then(|session| session.folders(&context.shares));
    folders.map(|area| context.waiters.of(&area)).unwrap_or_default()
}

fn note_report(session: &Guarded, context: &Context) {
    if let Some(told) = session.0.as_ref().ok().and_then(last_report) {
        context.memory.heard(session.meta().uid.as_deref().unwrap_or_default(), told, (context.clock)());
    }
}

fn forget(session: &KeptSession, context: &Context) {
    context.sessions.lost(session.place());
    context.memory.forget(session.uid());
    context.waiters.forget(session.uid());
    forget_claim(session, context);
    context.leftovers.mark_deleted(session);
    // Whoever deletes with `--cascade=orphan` has its owner taken from it.
    let place = session.place();
    if let Some(pod) = context.pods.find(place.namespace(), &pod_name(place.name()), session.uid(), (context.clock)()) {
        note_orphan(&pod, context);
    }
}

/// Where the claim of `session` leads, which is gone or wants no other pod, concerns nobody any more, unless another one is on it. People
/// make a claim again while nothing runs on it.
fn forget_claim(session: &KeptSession, context: &Context) {
    let source = session.unpack().ok().and_then(|session| session.spec.source.persistent_volume_claim);
    let namespace = session.place().namespace();
    match source.map(|source| source.claim_name) {
        Some(claim) if context.sessions.are_on(namespace, &claim) => context.shares.doubt(namespace, &claim),
        Some(claim) => context.shares.forget(namespace, &claim),
        None => {}
    }
}

/// Deletions during a break of the watch are seen only as absences.
fn retain(context: &Context) {
    let uids = context.sessions.uids();
    context.memory.retain(&uids);
    context.waiters.retain(&uids);
    for (namespace, claim) in context.shares.volume_claims() {
        if !context.sessions.are_on(&namespace, &claim) {
            context.shares.forget(&namespace, &claim);
        }
    }
    context.leftovers.mark_everything();
}

/// The sessions that something happened to, as the watch of our pods shows it.
pub fn of_pods(client: Client, listed: Listed, context: Arc<Context>) -> impl Stream<Item = Woken> {
    let ours = format!("{}={},{}={}", names::MANAGED_BY_LABEL, names::OPERATOR, names::APP_NAME_LABEL, names::UPLOADER_APP);
    watcher(Api::<Pod>::all(client), watcher::Config::default().labels(&ours).page_size(PAGE)).default_backoff().flat_map(
        move |event| match event {
            Ok(event) => {
                let is_last = matches!(event, watcher::Event::InitDone);
                let woken = note_pod(read_pod(event), &context);
                if is_last {
                    listed.everything();
                }
                stream::iter(woken).map(Ok).left_stream()
            }
            Err(error) => stream::iter([Err(error)]).right_stream(),
        },
    )
}

/// Keeps what the watch of our pods brings; the sessions that have to be looked at.
pub(crate) fn note_pod(event: watcher::Event<UploaderPod>, context: &Context) -> Vec<Place> {
    context.pods.note(event).into_iter().flat_map(|news| concerned(&news, context)).collect()
}

/// `event` with what matters of the pod.
fn read_pod(event: watcher::Event<Pod>) -> watcher::Event<UploaderPod> {
    match event {
        watcher::Event::Apply(pod) => watcher::Event::Apply(UploaderPod::read(&pod)),
        watcher::Event::Delete(pod) => watcher::Event::Delete(UploaderPod::read(&pod)),
        watcher::Event::Init => watcher::Event::Init,
        watcher::Event::InitApply(pod) => watcher::Event::InitApply(UploaderPod::read(&pod)),
        watcher::Event::InitDone => watcher::Event::InitDone,
    }
}

/// The sessions that have to be looked at: that of the pod, and those that wait for the folders which it has left.
fn concerned(news: &News, context: &Context) -> Vec<Place> {
    let mut sessions = Vec::new();
    let pod = match news {
        News::Changed(pod) => {
            note_orphan(pod, context);
            pod
        }
        News::Gone(pod) => {
            sessions.extend(pod.area.iter().flat_map(|area| context.waiters.of(area)));
            let session = context.sessions.of_uid(&pod.session_place(), &pod.session_uid);
            if let Some(session) = session.filter(|session| !session.wants_pod()) {
                forget_claim(&session, context);
            }
            pod
        }
    };
    if !pod.session.is_empty() {
        sessions.push(pod.session_place());
    }
    sessions
}

/// A pod without an owner whose creation was carried out after its session had gone.
fn note_orphan(pod: &UploaderPod, context: &Context) {
    let is_orphan = pod.origin == Origin::Unowned && pod.terminating.is_none();
    if is_orphan && !context.sessions.has(&pod.session_place(), &pod.session_uid) {
        context.leftovers.mark_children();
    }
}

#[cfg(test)]
mod tests {
    use blobferry_crds::{UploadSession, UploadSessionStatus, names};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use kube::{ResourceExt, core::DeserializeGuard, runtime::watcher::Event};

    use crate::{
        decisions::{area::Claimant, validate::validate},
        fixtures,
        mock_api::Cluster,
    };

    fn session(name: &str, generation: i64) -> UploadSession {
        let mut session = fixtures::session("");
        (session.metadata.name, session.metadata.uid) = (Some(name.into()), Some(format!("uid of {name}")));
        session.metadata.generation = Some(generation);
        session
    }

    /// The names that are woken by an event.
    fn brings(cluster: &Cluster, event: Event<UploadSession>) -> Vec<String> {
        let guard = |session| DeserializeGuard(Ok(session));
        let event = match event {
            Event::Apply(session) => Event::Apply(guard(session)),
            Event::Delete(session) => Event::Delete(guard(session)),
            Event::Init => Event::Init,
            Event::InitApply(session) => Event::InitApply(guard(session)),
            Event::InitDone => Event::InitDone,
        };
        let mut woken: Vec<_> = cluster.brings(event).iter().map(|session| session.name().to_owned()).collect();
        woken.sort();
        woken
    }

    /// The names that are woken by a listing of `sessions`, which must be none before it is complete.
    fn woken_by(cluster: &Cluster, sessions: &[UploadSession]) -> Vec<String> {
        let shown = sessions.iter().cloned().map(Event::InitApply);
        for event in std::iter::once(Event::Init).chain(shown) {
            assert_eq!(brings(cluster, event), [""; 0]);
        }
        brings(cluster, Event::InitDone)
    }

    #[tokio::test]
    async fn sessions_are_looked_at_when_a_listing_is_complete_and_only_those_that_are_new_or_changed() {
        let cluster = Cluster::new(fixtures::settings());
        let (one, two) = (session("one", 1), session("two", 1));
        assert_eq!(woken_by(&cluster, std::slice::from_ref(&one)), ["one"]);
        assert_eq!(woken_by(&cluster, &[one, two]), ["two"], "made while the watch was interrupted");
        assert_eq!(woken_by(&cluster, &[session("one", 2), session("two", 1)]), ["one"], "changed meanwhile");
        assert_eq!(brings(&cluster, Event::Apply(session("two", 1))), [""; 0]);
        assert_eq!(brings(&cluster, Event::Apply(session("two", 2))), ["two"]);
        assert_eq!(brings(&cluster, Event::Delete(session("two", 2))), [""; 0]);
        assert_eq!(brings(&cluster, Event::Apply(session("two", 2))), ["two"], "made again");
        let mut restored = session("two", 2);
        restored.metadata.resource_version = Some("6".into());
        assert_eq!(brings(&cluster, Event::Apply(restored)), ["two"], "from a backup");
    }

    #[tokio::test]
    async fn news_of_a_listing_that_was_interrupted_is_not_lost() {
        let cluster = Cluster::new(fixtures::settings());
        for event in [Event::Init, Event::InitApply(session("one", 1)), Event::Init] {
            assert_eq!(brings(&cluster, event), [""; 0]);
        }
        assert_eq!(woken_by(&cluster, &[session("one", 1)]), ["one"]);
        assert_eq!(woken_by(&cluster, &[session("one", 1)]), [""; 0]);
    }

    #[tokio::test]
    async fn sessions_that_a_listing_does_not_show_are_gone_when_it_is_complete() {
        let cluster = Cluster::new(fixtures::settings());
        let (one, two) = (session("one", 1), session("two", 1));
        woken_by(&cluster, &[one.clone(), two.clone()]);
        for event in [Event::Init, Event::InitApply(one)] {
            brings(&cluster, event);
        }
        assert_eq!(cluster.context.sessions.count(), 2, "the other one may be on the next page");
        // The listing is interrupted, and begins anew.
        assert_eq!(woken_by(&cluster, std::slice::from_ref(&two)), [""; 0]);
        assert_eq!(cluster.context.sessions.uids(), ["uid of two".to_owned()].into());
    }

    #[tokio::test]
    async fn whoever_waits_for_folders_is_looked_at_when_the_session_that_wants_them_goes_or_wants_them_no_more() {
        let drained = |deleted: bool| {
            let mut session = session("one", 1);
            session.spec.deletion_policy = blobferry_crds::DeletionPolicy::Drain;
            session.status = Some(UploadSessionStatus { start_time: Some(Time(fixtures::now())), ..Default::default() });
            session.metadata.deletion_timestamp = deleted.then(|| Time(fixtures::now()));
            session.metadata.finalizers = Some(vec![names::FINALIZER.into()]);
            session
        };
        let mut suspended = session("one", 2);
        suspended.spec.suspend = true;
        let woken = |before: UploadSession, event: Event<UploadSession>| {
            let cluster = Cluster::new(fixtures::settings());
            let area = validate(&before, &fixtures::settings()).unwrap().area();
            cluster.context.waiters.wait(Claimant { area, ..fixtures::claimant() });
            brings(&cluster, Event::Apply(before));
            brings(&cluster, event)
        };
        assert_eq!(woken(session("one", 1), Event::Apply(suspended.clone())), ["one", "truck-7"]);
        assert_eq!(woken(session("one", 1), Event::Delete(session("one", 1))), ["truck-7"]);
        assert_eq!(woken(drained(true), Event::Delete(drained(true))), ["truck-7"]);
        assert_eq!(woken(drained(false), Event::Apply(drained(true))), ["one"]);
        assert_eq!(woken(suspended.clone(), Event::Delete(suspended)), [""; 0]);
    }

    #[tokio::test]
    async fn nothing_is_remembered_of_a_session_that_is_gone() {
        let cluster = Cluster::new(fixtures::settings());
        let waits = |session: &UploadSession| {
            let waiting = Claimant { uid: session.uid().unwrap(), ..fixtures::claimant() };
            cluster.context.memory.update(&waiting.uid, |it| it.failures = 1);
            cluster.context.waiters.wait(waiting);
        };
        let is_remembered = |session: &UploadSession| {
            let uid = session.uid().unwrap();
            let waiting = cluster.context.waiters.of(&fixtures::claimant().area).len();
            (cluster.context.memory.recall(&uid).failures, waiting)
        };
        let (one, two) = (session("one", 1), session("two", 1));
        woken_by(&cluster, &[one.clone(), two.clone()]);
        waits(&one);
        assert_eq!(is_remembered(&one), (1, 1));
        brings(&cluster, Event::Delete(one.clone()));
        assert_eq!(is_remembered(&one), (0, 0));
        waits(&two);
        woken_by(&cluster, &[]);
        assert_eq!(is_remembered(&two), (0, 0), "it went while the watch was interrupted");
    }
}
