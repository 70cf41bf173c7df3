//! (test) Sessions as production sees them: minimal YAML, read by the resource's own types.

use std::num::NonZeroUsize;

use blobferry_crds::{UploadSession, UploadSessionStatus, names};
use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time};
use kube::core::DeserializeGuard;
use serde_norway::{Mapping, Value};

use crate::{
    backoff::Attempts,
    decisions::{
        Observed,
        area::{Area, Claimant, ShareKey, Standing},
        build::uploader_pod,
        completion::completed,
        deletion,
        hearing::{Report, Reports, Run, patience},
        observed::last_report,
        pod_state::{Slot, UploaderPod},
        rollout::Upgrade,
        validate::validate,
    },
    settings::{Network, Settings, Strategy},
    state::sessions::KeptSession,
};

const MINIMAL: &str = "
apiVersion: blobferry.io/v1alpha1
kind: UploadSession
metadata:
  name: truck-7
  namespace: cameras
  uid: 6f7e0b0c-0000-4000-8000-000000000001
  resourceVersion: '7'
  generation: 1
  creationTimestamp: 2026-11-21T08:00:00Z
spec:
  source: {persistentVolumeClaim: {claimName: share}}
  destination: {azureBlob: {accountUrl: https://acct.blob.core.windows.net, container: archive}}
";

/// A minimal session whose spec has the fields of the YAML mapping `spec` as well.
pub(crate) fn session(spec: &str) -> UploadSession {
    let mut object: Value = serde_norway::from_str(MINIMAL).unwrap();
    if !spec.is_empty() {
        let more: Mapping = serde_norway::from_str(spec).unwrap();
        merge(object.get_mut("spec").unwrap().as_mapping_mut().unwrap(), more);
    }
    serde_norway::from_value(object).unwrap()
}

/// `session` as it is kept.
pub(crate) fn kept(session: &UploadSession) -> KeptSession {
    KeptSession::of(DeserializeGuard(Ok(session.clone())), &settings())
}

fn merge(base: &mut Mapping, more: Mapping) {
    for (key, value) in more {
        match (base.get_mut(&key), value) {
            (Some(Value::Mapping(base)), Value::Mapping(more)) => merge(base, more),
            (_, value) => drop(base.insert(key, value)),
        }
    }
}

/// A session that was deleted at `time` and that our finalizer holds.
pub(crate) fn deleted(spec: &str, time: &str) -> UploadSession {
    let mut session = session(spec);
    session.metadata.deletion_timestamp = Some(Time(time.parse().unwrap()));
    session.metadata.finalizers = Some(vec![names::FINALIZER.into()]);
    session
}

/// A session that has run and was deleted ten minutes ago.
pub(crate) fn deleted_after_a_run(spec: &str) -> UploadSession {
    let mut session = deleted(spec, "2026-11-21T08:20:00Z");
    session.status =
        Some(UploadSessionStatus { start_time: session.metadata.creation_timestamp.clone(), ..UploadSessionStatus::default() });
    session
}

/// A pod of `session` that has run for twenty minutes.
pub(crate) fn running_pod(session: &UploadSession) -> Pod {
    pod(session, &running("2026-11-21T08:10:00Z"))
}

/// A session of the same name that was there before `session`.
pub(crate) fn earlier(session: &UploadSession) -> UploadSession {
    let mut earlier = session.clone();
    earlier.metadata.uid = Some("earlier".into());
    earlier
}

/// A session with an inline NFS source, which [`settings`] allow.
pub(crate) fn nfs_session() -> UploadSession {
    let mut session = session("source: {nfs: {server: nas.example.com, path: /srv/drop/cameras}}");
    session.spec.source.persistent_volume_claim = None;
    session
}

/// What an operator without flags allows, and one export.
pub(crate) fn settings() -> Settings {
    Settings {
        uploader_image: "localhost/blobferry-uploader:dev".into(),
        pull_policy: "IfNotPresent".into(),
        cluster_role: "blobferry-uploader".into(),
        nfs_allowed: serde_json::from_str(r#"[{"server": "nas.example.com", "pathPrefix": "/srv/drop"}]"#).unwrap(),
        account_hosts: vec![".blob.core.windows.net".parse().unwrap()],
        allow_pod_image: false,
        telemetry: Vec::new(),
        network: Network::default(),
        update: Strategy::Rolling(NonZeroUsize::MIN),
    }
}

/// The moment of most tests, some minutes after the session was made.
pub(crate) fn now() -> jiff::Timestamp {
    "2026-11-21T08:30:00Z".parse().unwrap()
}

/// The pod that is made for `session`, with a UID and the status of the YAML mapping `status`.
pub(crate) fn pod(session: &UploadSession, status: &str) -> Pod {
    let valid = validate(session, &settings()).unwrap();
    let mut pod = uploader_pod(&valid, &settings());
    pod.metadata.uid = Some("pod-1".into());
    pod.metadata.resource_version = Some("50".into());
    pod.metadata.creation_timestamp = Some(serde_norway::from_str("2026-11-21T08:10:00Z").unwrap());
    pod.spec.as_mut().unwrap().node_name = Some("node-a".into());
    pod.status = Some(serde_norway::from_str(status).unwrap());
    pod
}

/// Status of a pod whose uploader runs and is ready since `since`.
pub(crate) fn running(since: &str) -> String {
    format!(
        "{{phase: Running, conditions: [{{type: PodScheduled, status: 'True'}}, {{type: Ready, status: 'True'}}], containerStatuses: \
         [{{name: uploader, image: '', imageID: '', ready: true, restartCount: 0, state: {{running: {{startedAt: '{since}'}}}}}}]}}"
    )
}

/// What the uploader of a session says when it is over.
pub(crate) const COMPLETED: &str = r#"{"result":"Completed","sessionUID":"6f7e0b0c-0000-4000-8000-000000000001","mode":"watch","reason":"CompletedWithLeftovers","message":"everything is uploaded: 7 files so far; on the share are left: 1 set aside"}"#;

/// Status of a pod whose uploader ended with exit code 0 and this account.
pub(crate) fn succeeded(account: &str) -> String {
    format!(
        "{{phase: Succeeded, conditions: [{{type: PodScheduled, status: 'True'}}], containerStatuses: [{{name: uploader, image: '', imageID: \
         '', ready: false, restartCount: 0, state: {{terminated: {{exitCode: 0, reason: Completed, message: '{account}'}}}}}}]}}"
    )
}

/// Lets the uploader of `session` have reported `progress` at `time`.
pub(crate) fn report(session: &mut UploadSession, time: &str, progress: &str) {
    let status = session.status.get_or_insert_default();
    status.progress = Some(serde_norway::from_str(progress).unwrap());
    session.metadata.managed_fields = Some(serde_norway::from_str(&format!(
        "[{{manager: blobferry-uploader, operation: Apply, apiVersion: blobferry.io/v1alpha1, subresource: status, time: '{time}'}}]"
    )).unwrap());
}

/// A report of an uploader to which both ends work.
pub(crate) const ALL_WELL: &str = "checks: [{type: source, ok: true, reason: Mounted, message: 'The share works.'}, {type: destination, ok: \
                                   true, reason: Writable, message: 'The container works.'}]\ncaughtUp: true\nfilesIgnored: 2";

/// What is observed of `session` at [`now`] when its pod is `pod`.
pub(crate) fn observed(session: &UploadSession, pod: Option<&Pod>) -> Observed {
    let uid = session.metadata.uid.as_deref().unwrap();
    let slot = pod.map_or(Slot::Empty, |pod| Slot::of(&UploaderPod::read(pod), session.metadata.name.as_deref().unwrap(), uid));
    let deletion = deletion::of(session, &slot, None);
    Observed {
        completed: completed(session, &slot).filter(|_| session.metadata.deletion_timestamp.is_none()),
        deletion,
        reports: Reports {
            last: last_report(session).map(|told| Report { told, seen: told }),
            run: match &slot {
                Slot::Ours(pod) if pod.runs() => Some(Run::seen(None, &pod.uid, pod.restarts, pod.created.unwrap_or_else(now))),
                _ => None,
            },
            patience: patience(session),
        },
        slot,
        is_new_spec: false,
        creations: Attempts::default(),
        node: None,
        look: None,
        sessions: 1,
        rights_due: false,
        warned: false,
        step_written: None,
        upgrade: Upgrade::None,
    }
}

/// A session that wants folders.
pub(crate) fn claimant() -> Claimant {
    let share = ShareKey::Claim("n".into(), "share".into());
    let area = Area::new(share, "", "incoming", ".processing", "s");
    let (namespace, name) = ("n".into(), "truck-7".into());
    Claimant { standing: Standing::Comes, created: Timestamp::UNIX_EPOCH, uid: "session".into(), namespace, name, area }
}
