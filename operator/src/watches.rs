//! (I/O in) The two watches: what they bring is kept, and names the sessions that have to be looked at.

use std::sync::Arc;

use blobferry_crds::names;
use futures::{Stream, StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    runtime::{
        WatchStreamExt,
        reflector::{ObjectRef, store::Writer},
        watcher::{self, watcher},
    },
};

use crate::{
    context::Context,
    pods::{Listed, News},
    reconcile::{
        observe::last_report,
        pod_state::{Origin, UploaderPod},
    },
    sessions::{Guarded, KeptSession},
};

/// Objects in one answer of a first listing. While it is read, a pod takes 80 kB, of which 1 kB is kept, and a session 50 kB.
const PAGE: u32 = 10;

/// A session that has to be looked at, or why a watch was interrupted.
pub type Woken = Result<ObjectRef<KeptSession>, watcher::Error>;

/// The sessions that something happened to, as the watch of sessions shows it.
pub fn of_sessions(client: Client, mut writer: Writer<KeptSession>, context: Arc<Context>) -> impl Stream<Item = Woken> {
    let all = Api::<Guarded>::all(client);
    watcher(all, watcher::Config::default().page_size(PAGE)).default_backoff().flat_map(move |event| match event {
        Ok(event) => stream::iter(note_session(&read_session(event, &context), &mut writer, &context)).map(Ok).left_stream(),
        Err(error) => stream::iter([Err(error)]).right_stream(),
    })
}

/// `event` with what is kept of the session.
fn read_session(event: watcher::Event<Guarded>, context: &Context) -> watcher::Event<KeptSession> {
    let keep = |session: Guarded| {
        note_report(&session, context);
        KeptSession::of(session, &context.settings)
    };
    match event {
        watcher::Event::Apply(session) => watcher::Event::Apply(keep(session)),
        watcher::Event::Delete(session) => watcher::Event::Delete(KeptSession::of(session, &context.settings)),
        watcher::Event::Init => watcher::Event::Init,
        watcher::Event::InitApply(session) => watcher::Event::InitApply(keep(session)),
        watcher::Event::InitDone => watcher::Event::InitDone,
    }
}

fn note_report(session: &Guarded, context: &Context) {
    if let Some(told) = session.0.as_ref().ok().and_then(last_report) {
        context.heard.note(&session.uid().unwrap_or_default(), told, (context.clock)());
    }
}

/// Keeps what the watch of sessions brings; the sessions that have to be looked at. A listing is in force when it is complete, and no
/// session of it is looked at before that.
pub(crate) fn note_session(
    event: &watcher::Event<KeptSession>,
    writer: &mut Writer<KeptSession>,
    context: &Context,
) -> Vec<ObjectRef<KeptSession>> {
    let sessions = &context.sessions;
    match event {
        watcher::Event::Apply(session) => {
            let is_news = sessions.is_news(session);
            writer.apply_watcher_event(event);
            sessions.saw(session);
            is_news.then(|| session.place()).into_iter().collect()
        }
        watcher::Event::Delete(session) => {
            writer.apply_watcher_event(event);
            forget(session, context);
            Vec::new()
        }
        watcher::Event::Init => {
            writer.apply_watcher_event(event);
            sessions.listing_begins();
            Vec::new()
        }
        watcher::Event::InitApply(_) => {
            writer.apply_watcher_event(event);
            Vec::new()
        }
        watcher::Event::InitDone => {
            let before = sessions.waking();
            writer.apply_watcher_event(event);
            sessions.listing_ends();
            retain(context);
            sessions.news_since(&before)
        }
    }
}

fn forget(session: &KeptSession, context: &Context) {
    let uid = session.uid().unwrap_or_default();
    context.sessions.forget(&uid);
    context.memory.forget(&uid);
    context.heard.forget(&uid);
    context.waiters.forget(&uid);
    context.sweeper.mark_deleted(session);
}

/// Deletions during a break of the watch are seen only as absences.
fn retain(context: &Context) {
    let uids = context.sessions.uids();
    context.memory.retain(&uids);
    context.heard.retain(&uids);
    context.waiters.retain(&uids);
    context.sweeper.mark_everything();
}

/// The sessions that something happened to, as the watch of our pods shows it.
pub fn of_pods(client: Client, listed: Listed, context: Arc<Context>) -> impl Stream<Item = Woken> {
    let ours = format!("{}={},{}={}", names::MANAGED_BY_LABEL, names::OPERATOR, names::APP_NAME_LABEL, names::UPLOADER_APP);
    watcher(Api::<Pod>::all(client), watcher::Config::default().labels(&ours).page_size(PAGE)).default_backoff().flat_map(
        move |event| match event {
            Ok(event) => stream::iter(note_pod(event, &listed, &context)).map(Ok).left_stream(),
            Err(error) => stream::iter([Err(error)]).right_stream(),
        },
    )
}

fn note_pod(event: watcher::Event<Pod>, listed: &Listed, context: &Context) -> Vec<ObjectRef<KeptSession>> {
    let is_last = matches!(event, watcher::Event::InitDone);
    let news = context.pods.note(read_pod(event));
    if is_last {
        listed.everything();
    }
    news.into_iter().flat_map(|news| concerned(&news, context)).collect()
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
fn concerned(news: &News, context: &Context) -> Vec<ObjectRef<KeptSession>> {
    let mut sessions = Vec::new();
    let pod = match news {
        News::Changed(pod) => {
            note_orphan(pod, context);
            pod
        }
        News::Gone(pod) => {
            let waiting = pod.area.as_ref().map(|area| context.waiters.of(area)).unwrap_or_default();
            sessions.extend(waiting.into_iter().map(|(namespace, name)| ObjectRef::new(&name).within(&namespace)));
            pod
        }
    };
    if !pod.session.is_empty() {
        sessions.push(ObjectRef::new(&pod.session).within(&pod.namespace));
    }
    sessions
}

/// A pod without an owner whose creation was carried out after its session had gone.
fn note_orphan(pod: &UploaderPod, context: &Context) {
    let is_orphan = pod.origin == Origin::Unowned && pod.terminating.is_none();
    if is_orphan && !context.sessions.has(&pod.namespace, &pod.session, &pod.session_uid) {
        context.sweeper.mark_children();
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;

    use super::*;
    use crate::{fixtures, mock_api::Cluster};

    fn session(name: &str, generation: i64) -> KeptSession {
        let mut session = fixtures::session("");
        (session.metadata.name, session.metadata.uid) = (Some(name.into()), Some(format!("uid of {name}")));
        session.metadata.generation = Some(generation);
        fixtures::kept(&session)
    }

    /// The names that are woken by a listing, which must be none before it is complete.
    fn woken_by(cluster: &mut Cluster, listing: &[KeptSession]) -> Vec<String> {
        let mut before = cluster.brings(&Event::Init);
        before.extend(listing.iter().flat_map(|session| cluster.brings(&Event::InitApply(session.clone()))));
        assert_eq!(before, []);
        let mut woken: Vec<_> = cluster.brings(&Event::InitDone).into_iter().map(|session| session.name).collect();
        woken.sort();
        woken
    }

    #[tokio::test]
    async fn sessions_are_looked_at_when_a_listing_is_complete_and_only_those_that_are_new_or_changed() {
        let mut cluster = Cluster::new(fixtures::settings());
        let (one, two) = (session("one", 1), session("two", 1));
        assert_eq!(woken_by(&mut cluster, std::slice::from_ref(&one)), ["one"]);
        assert_eq!(woken_by(&mut cluster, &[one, two]), ["two"], "made while the watch was interrupted");
        assert_eq!(woken_by(&mut cluster, &[session("one", 2), session("two", 1)]), ["one"], "changed meanwhile");
        assert_eq!(cluster.brings(&Event::Apply(session("two", 1))), []);
        assert_eq!(cluster.brings(&Event::Apply(session("two", 2))).len(), 1);
        assert_eq!(cluster.brings(&Event::Delete(session("two", 2))), []);
        assert_eq!(cluster.brings(&Event::Apply(session("two", 2))).len(), 1, "made again");
    }
}
