//! A session as it is kept: thousands of them must fit into little memory.
//!
//! At hand is what is asked of every session of the cluster at once. The rest is packed, and unpacked for a pass over this one.

use blobferry_crds::{
    Phase, UploadSession,
    conditions::{READY, Verdict},
    names,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::{Resource, ResourceExt, core::error_boundary::InvalidObject};
use lz4_flex::block::{compress_prepend_size_with_dict, decompress_size_prepended_with_dict};

use crate::{
    decisions::{
        area::{Area, Claimant, ShareKey, Standing, index::InArea},
        deletion::may_hold_folders,
        export::Export,
        finalizer::is_let_go,
        predicates::{self, Guarded},
        rollout::is_on_trial,
        validate::validate,
    },
    place::Place,
    settings::Settings,
    state::shares::Shares,
};

/// Where `kubectl apply` keeps the whole object once more.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// What sessions have in common takes no room in them; it may be any text, and none must be unpacked with another than it was packed with.
const TYPICAL: &[u8] = include_bytes!("typical.json");

/// A session as it is kept.
#[derive(Clone, Debug)]
pub struct KeptSession {
    place: Place,
    uid: Box<str>,
    version: Option<u64>,
    generation: i64,
    waking: u64,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    Readable(Readable),
    Unreadable(Box<InvalidObject>),
}

#[derive(Clone, Debug)]
struct Readable {
    created: Option<Timestamp>,
    standing: Standing,
    phase: Option<Phase>,
    is_idle: bool,
    ready_since: Option<Timestamp>,
    unready_since: Option<Timestamp>,
    is_let_go: bool,
    is_on_trial: bool,
    account: Option<Box<str>>,
    /// The folders, as far as the session itself says where they are; none if it wants none now.
    area: Option<Box<Area>>,
    packed: Packed,
}

impl KeptSession {
    /// What is kept of `session`, where an installation has these `settings`.
    pub fn of(mut session: Guarded, settings: &Settings) -> Self {
        let waking = predicates::waking(&session);
        slim_metadata(session.meta_mut());
        let (place, uid, version) = (Place::of(&session), session.uid().unwrap_or_default().into(), version(&session));
        let generation = session.meta().generation.unwrap_or_default();
        let content = match session.0 {
            Ok(session) => Content::Readable(Readable::of(session, settings)),
            Err(unreadable) => Content::Unreadable(Box::new(unreadable)),
        };
        Self { place, uid, version, generation, waking, content }
    }

    /// The whole session, without the lists of files in its status.
    pub fn unpack(&self) -> Result<UploadSession, Box<InvalidObject>> {
        match &self.content {
            Content::Readable(session) => session.packed.unpack(self),
            Content::Unreadable(unreadable) => Err(unreadable.clone()),
        }
    }

    /// Where it is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// UID of its object.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// Which of its object's versions this is.
    pub(super) fn version(&self) -> Option<u64> {
        self.version
    }

    /// Generation of its object.
    pub fn generation(&self) -> i64 {
        self.generation
    }

    /// The hash of what wakes the reconciler.
    pub fn waking(&self) -> u64 {
        self.waking
    }

    /// Its phase; none if it has none yet or cannot be read.
    pub fn phase(&self) -> Option<Phase> {
        self.readable()?.phase
    }

    /// Whether it is known to have no file to upload.
    pub fn is_idle(&self) -> bool {
        self.readable().is_some_and(|session| session.is_idle)
    }

    /// Since when its condition `Ready` is true, if it is, by the clock of the operator that wrote it.
    pub fn ready_since(&self) -> Option<Timestamp> {
        self.readable()?.ready_since
    }

    /// Since when that condition is false, if it is.
    pub fn unready_since(&self) -> Option<Timestamp> {
        self.readable()?.unready_since
    }

    /// Whether it has something to do in its folders, and may: it wants a pod.
    pub fn wants_pod(&self) -> bool {
        self.area().is_some()
    }

    /// The folders that it wants, as far as is known where they are.
    pub fn folders(&self, shares: &Shares) -> Option<Area> {
        let area = self.area()?;
        let export = match &area.share {
            ShareKey::Claim(namespace, claim) => shares.export_of(namespace, claim),
            ShareKey::Server(_) => None,
        };
        Some(located(area, export.as_ref()))
    }

    /// Whether passes see to its pod: it can be read and is not let go.
    pub fn sees_to_pod(&self) -> bool {
        self.readable().is_some_and(|session| !session.is_let_go)
    }

    /// Whether it says that its next pod is on trial with the installation's image.
    pub fn is_on_trial(&self) -> bool {
        self.readable().is_some_and(|session| session.is_on_trial)
    }

    /// The account that it names.
    pub fn account(&self) -> Option<&str> {
        self.readable()?.account.as_deref()
    }

    /// Itself as one that may want folders, if `wanted` meets those.
    pub fn claimant_of(&self, wanted: &Area, shares: &Shares) -> Option<Claimant> {
        let session = self.readable()?;
        let (area, share) = (self.area()?, &wanted.share);
        let export = match (&area.share, share) {
            (ShareKey::Claim(namespace, claim), _) if *share == area.share || matches!(share, ShareKey::Server(_)) => {
                shares.export_of(namespace, claim)
            }
            _ => None,
        };
        let is_there = match &export {
            Some(export) => matches!(share, ShareKey::Server(server) if *server == export.server),
            None => area.share == *share,
        };
        let root = export.as_ref().map_or("", |export| &export.path);
        (is_there && area.meets_from(root, wanted)).then_some(Claimant {
            standing: session.standing,
            created: session.created?,
            uid: self.uid.to_string(),
            namespace: self.place.namespace().to_owned(),
            name: self.place.name().to_owned(),
            area: located(area, export.as_ref()),
        })
    }

    /// What identifies its object.
    fn identity(&self) -> ObjectMeta {
        ObjectMeta {
            namespace: Some(self.place.namespace().to_owned()),
            name: Some(self.place.name().to_owned()),
            uid: Some(self.uid.to_string()),
            ..ObjectMeta::default()
        }
    }

    /// Whether it cannot be read.
    pub(super) fn is_unreadable(&self) -> bool {
        self.readable().is_none()
    }

    fn readable(&self) -> Option<&Readable> {
        match &self.content {
            Content::Readable(session) => Some(session),
            Content::Unreadable(_) => None,
        }
    }
}

impl Readable {
    fn of(session: UploadSession, settings: &Settings) -> Self {
        let status = session.status.as_ref();
        let progress = status.and_then(|status| status.progress.as_ref());
        let wanted = may_hold_folders(&session).then(|| validate(&session, settings).ok()).flatten();
        Self {
            created: session.creation_timestamp().map(|time| time.0),
            standing: Standing::of(&session),
            phase: status.and_then(|status| status.phase),
            is_idle: progress.is_some_and(|progress| progress.files_active + progress.files_waiting + progress.files_retrying == 0),
            ready_since: status.and_then(|status| since(&status.conditions, Verdict::True)),
            unready_since: status.and_then(|status| since(&status.conditions, Verdict::False)),
            is_let_go: is_let_go(&session),
            is_on_trial: is_on_trial(&session, &settings.uploader_image),
            account: session.spec.pod.service_account_name.as_deref().map(Into::into),
            area: wanted.map(|session| Box::new(session.area())),
            packed: Packed::of(session),
        }
    }
}

impl InArea for KeptSession {
    fn area(&self) -> Option<&Area> {
        self.readable()?.area.as_deref()
    }
}

/// `area` on the export to which its claim leads, if that is known.
fn located(area: &Area, export: Option<&Export>) -> Area {
    export.map_or_else(|| area.clone(), |export| area.clone().on(export))
}

/// Since when the condition `Ready` has this `verdict`, if it has.
fn since(conditions: &[Condition], verdict: Verdict) -> Option<Timestamp> {
    let ready = conditions.iter().find(|condition| condition.type_ == READY && condition.status == verdict.as_str())?;
    Some(ready.last_transition_time.0)
}

/// A session that takes little room.
#[derive(Clone, Debug)]
pub(super) struct Packed(Box<[u8]>);

impl Packed {
    /// `session` without what nobody here asks for.
    pub(super) fn of(mut session: UploadSession) -> Self {
        slim(&mut session);
        let text = serde_json::to_vec(&session).expect("a resource is JSON");
        Self(compress_prepend_size_with_dict(&text, TYPICAL).into_boxed_slice())
    }

    /// The session that was packed, which is kept as `kept`; it can be unpacked, or the program is wrong.
    pub(super) fn unpack(&self, kept: &KeptSession) -> Result<UploadSession, Box<InvalidObject>> {
        let wrong = |error: String| Box::new(InvalidObject { error, metadata: kept.identity() });
        let text = decompress_size_prepended_with_dict(&self.0, TYPICAL).map_err(|error| wrong(error.to_string()))?;
        serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))
    }
}

/// Versions of one custom resource are numbers that grow, promised since Kubernetes 1.35 and so with etcd ever before:
/// <https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions>.
pub(super) fn version(session: &impl Resource) -> Option<u64> {
    session.meta().resource_version.as_ref()?.parse().ok()
}

/// Leaves of the managed fields only the time of the uploader's last report.
fn slim_metadata(metadata: &mut ObjectMeta) {
    if let Some(managed) = &mut metadata.managed_fields {
        managed.retain(|entry| entry.manager.as_deref() == Some(names::UPLOADER_MANAGER));
        for entry in managed {
            entry.fields_v1 = None;
        }
    }
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove(LAST_APPLIED);
    }
}

/// Leaves no lists of files either.
fn slim(session: &mut UploadSession) {
    slim_metadata(&mut session.metadata);
    let Some(status) = &mut session.status else { return };
    if let Some(progress) = &mut status.progress {
        (progress.held_back, progress.recent_failures) = (Vec::new(), Vec::new());
    }
    if let Some(activity) = &mut status.activity {
        activity.active_files = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use blobferry_crds::{ActiveFile, Activity, FileProblem};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
    use kube::core::DeserializeGuard;

    use super::*;
    use crate::{decisions::export::Export, fixtures, mock_api::Cluster};

    /// A session whose uploader runs and has reported.
    async fn running() -> UploadSession {
        let mut session = fixtures::session("sessionName: truck-7");
        fixtures::report(&mut session, "2026-11-21T08:20:00Z", fixtures::ALL_WELL);
        let mut cluster = Cluster::new(fixtures::settings());
        cluster.shows(&session);
        cluster.shows_pod(&fixtures::pod(&session, &fixtures::running("2026-11-21T08:11:00Z")));
        cluster.pass(&session).await;
        let calls = cluster.calls();
        let written = calls.iter().find(|call| call.line.ends_with("/status")).unwrap();
        let reported = session.status.take().unwrap();
        session.status = serde_json::from_value(written.body["status"].clone()).unwrap();
        session.status.as_mut().unwrap().progress = reported.progress;
        session
    }

    #[tokio::test]
    async fn what_is_kept_is_the_whole_session_without_what_nobody_here_asks_for() {
        let mut whole = running().await;
        let mut shown = whole.clone();
        whole.status.as_mut().unwrap().activity = Some(Activity::default());
        let progress = shown.status.as_mut().unwrap().progress.as_mut().unwrap();
        let file = FileProblem { name: "a.bin".into(), reason: "TooYoung".into(), message: "It waits.".into() };
        (progress.held_back, progress.recent_failures) = (vec![file.clone()], vec![file]);
        let active = ActiveFile { name: "b.bin".into(), bytes_sent: 1, size: 2 };
        shown.status.as_mut().unwrap().activity = Some(Activity { active_files: vec![active], ..Activity::default() });
        shown.metadata.annotations = Some([(LAST_APPLIED.to_owned(), "{}".to_owned())].into());
        let managed = shown.metadata.managed_fields.as_mut().unwrap();
        managed[0].fields_v1 = Some(serde_norway::from_str("{f:status: {}}").unwrap());
        managed.push(ManagedFieldsEntry { manager: Some("kubectl".into()), ..Default::default() });
        let mut kept = fixtures::kept(&shown).unpack().unwrap();
        assert_eq!(kept.metadata.annotations.take(), Some(BTreeMap::new()));
        assert_eq!(kept, whole);
    }

    #[tokio::test]
    async fn a_running_session_takes_little_room() {
        let mut session = running().await;
        (session.metadata.name, session.metadata.uid) = (Some("crane-3".into()), Some(uuid::Uuid::new_v4().to_string()));
        let text = serde_json::to_string(&session).unwrap();
        let room = Packed::of(session).0.len();
        assert!(room < 400, "{room} bytes: sessions do not resemble typical.json any more; they are like this one: {text}");
    }

    #[test]
    fn what_cannot_be_unpacked_is_an_unreadable_session() {
        let mut kept = fixtures::kept(&fixtures::session(""));
        let Content::Readable(session) = &mut kept.content else { panic!("it can be read") };
        session.packed = Packed(Box::default());
        let unreadable = kept.unpack().unwrap_err();
        assert_eq!(unreadable.metadata.name.as_deref(), Some("truck-7"));
    }

    #[test]
    fn an_unreadable_session_keeps_the_reason_and_its_metadata() {
        let mut metadata = fixtures::deleted("", "2026-11-21T08:20:00Z").metadata;
        metadata.annotations = Some([(LAST_APPLIED.to_owned(), "{}".to_owned())].into());
        let unreadable = InvalidObject { error: "no spec".into(), metadata: metadata.clone() };
        let kept = KeptSession::of(DeserializeGuard(Err(unreadable)), &fixtures::settings());
        let unreadable = kept.unpack().unwrap_err();
        metadata.annotations = Some(BTreeMap::new());
        assert_eq!((unreadable.error.as_str(), &unreadable.metadata), ("no spec", &metadata));
        assert!(!kept.sees_to_pod() && kept.phase().is_none());
    }

    #[test]
    fn sessions_want_folders_where_their_claims_lead() {
        let shares = Shares::default();
        let wanted = |share: &ShareKey, root, session| Area::new(share.clone(), root, "incoming", ".processing", session);
        let claim = ShareKey::Claim("cameras".into(), "share".into());
        let on_claim = fixtures::kept(&fixtures::session("sessionName: truck-7"));
        let found = on_claim.claimant_of(&wanted(&claim, "", "truck-7"), &shares).unwrap();
        assert!(found.area.incoming.parts().eq(["incoming", "truck-7"]) && found.name == "truck-7");
        assert!(on_claim.claimant_of(&wanted(&claim, "", "truck-8"), &shares).is_none(), "other folders");
        let server = ShareKey::Server("nas.example.com".into());
        let on_server = |kept: &KeptSession| kept.claimant_of(&wanted(&server, "/srv/drop/cameras", "truck-7"), &shares);
        assert!(on_server(&on_claim).is_none());
        let inline = fixtures::nfs_session();
        let inline = fixtures::kept(&UploadSession {
            spec: blobferry_crds::UploadSessionSpec { session_name: Some("truck-7".into()), ..inline.spec },
            ..inline
        });
        assert!(on_server(&inline).is_some() && inline.claimant_of(&wanted(&claim, "", "truck-7"), &shares).is_none());
        shares.learn("cameras", "share", Export { server: "nas.example.com".into(), path: "/srv/drop/cameras".into() });
        let found = on_server(&on_claim).unwrap();
        assert!(found.area.incoming.parts().eq(["srv", "drop", "cameras", "incoming", "truck-7"]));
        assert!(on_claim.claimant_of(&wanted(&claim, "", "truck-7"), &shares).is_none(), "it is known to lead to the server");
        let suspended = fixtures::kept(&fixtures::session("{sessionName: truck-7, suspend: true}"));
        assert!(suspended.claimant_of(&wanted(&claim, "", "truck-7"), &Shares::default()).is_none());
    }
}
