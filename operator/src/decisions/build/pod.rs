//! The uploader's pod. It fits the restricted Pod Security Standard and has no fsGroup, because the kubelet would re-own the whole
//! share and change every file's ctime.

use std::collections::BTreeMap;

use blobferry_crds::names;
use k8s_openapi::{
    api::core::v1::{
        Capabilities, Container, ContainerPort, EmptyDirVolumeSource, HTTPGetAction, LocalObjectReference,
        PersistentVolumeClaimVolumeSource, Pod, PodSecurityContext, PodSpec, Probe, SeccompProfile, SecretVolumeSource,
        SecurityContext, Volume, VolumeMount,
    },
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};

use super::{
    environment::environment,
    federation,
    meta::{child, pod_name, session_labels, volume_name},
    network,
    resources::resources,
    spec_hash,
};
use crate::{
    decisions::{
        mode::Mode,
        validate::{Share, ValidSession},
    },
    settings::Settings,
};

/// The owner of the documented export.
const NOBODY: i64 = 65534;
/// SIGTERM ends the uploader at once; this is for a kernel that is slow.
const GRACE_SECONDS: i64 = 2;
const SAFE_TO_EVICT: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict";

/// The pod of `session`.
pub fn uploader_pod(session: &ValidSession, settings: &Settings) -> Pod {
    let mut labels = session.template.labels.clone();
    labels.extend(session_labels(session));
    labels.insert(names::APP_NAME_LABEL.into(), names::UPLOADER_APP.into());
    let mut metadata = child(session, pod_name(&session.name), labels);
    metadata.annotations = Some(annotations(session, settings));
    Pod { metadata, spec: Some(pod_spec(session, settings)), status: None }
}

fn annotations(session: &ValidSession, settings: &Settings) -> BTreeMap<String, String> {
    let mut all = BTreeMap::from([(SAFE_TO_EVICT.to_owned(), "true".to_owned())]);
    all.extend(session.template.annotations.clone());
    all.insert(names::SPEC_HASH_ANNOTATION.into(), spec_hash(session));
    if session.mode == Mode::Watch {
        all.remove(names::MODE_ANNOTATION);
    } else {
        all.insert(names::MODE_ANNOTATION.into(), session.mode.as_str().into());
    }
    all.remove(names::TRIAL_ANNOTATION);
    all.remove(names::IMAGE_ANNOTATION);
    if session.template.image.is_none() {
        all.insert(names::IMAGE_ANNOTATION.into(), settings.uploader_image.clone());
    }
    if let Ok(area) = serde_json::to_string(&session.area()) {
        all.insert(names::AREA_ANNOTATION.into(), area);
    }
    all
}

fn pod_spec(session: &ValidSession, settings: &Settings) -> PodSpec {
    let template = &session.template;
    PodSpec {
        containers: vec![container(session, settings)],
        volumes: Some(volumes(session, settings)),
        restart_policy: Some("OnFailure".into()),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        service_account_name: Some(account_name(session)),
        automount_service_account_token: Some(true),
        enable_service_links: Some(false),
        security_context: Some(pod_security(session)),
        node_selector: filled(template.node_selector.clone()),
        tolerations: Some(template.tolerations.clone()).filter(|all| !all.is_empty()),
        affinity: template.affinity.clone(),
        priority_class_name: template.priority_class_name.clone(),
        image_pull_secrets: Some(
            template.image_pull_secrets.iter().map(|secret| LocalObjectReference { name: secret.name.clone() }).collect::<Vec<_>>(),
        )
        .filter(|all| !all.is_empty()),
        ..PodSpec::default()
    }
}

/// The account under which the pod of a session runs.
fn account_name(session: &ValidSession) -> String {
    session.template.service_account_name.clone().unwrap_or_else(|| names::UPLOADER_ACCOUNT.into())
}

fn filled(map: BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    Some(map).filter(|map| !map.is_empty())
}

fn pod_security(session: &ValidSession) -> PodSecurityContext {
    let wished = &session.template.security_context;
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(wished.run_as_user.unwrap_or(NOBODY)),
        run_as_group: Some(wished.run_as_group.unwrap_or(NOBODY)),
        supplemental_groups: Some(wished.supplemental_groups.clone()).filter(|groups| !groups.is_empty()),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None }),
        ..PodSecurityContext::default()
    }
}

fn container(session: &ValidSession, settings: &Settings) -> Container {
    Container {
        name: names::UPLOADER_CONTAINER.into(),
        image: Some(session.template.image.clone().unwrap_or_else(|| settings.uploader_image.clone())),
        image_pull_policy: Some(settings.pull_policy.clone()),
        env: Some(environment(session, settings)),
        ports: Some(vec![ContainerPort {
            name: Some("http".into()),
            container_port: names::HTTP_PORT.into(),
            ..ContainerPort::default()
        }]),
        startup_probe: Some(probe("/healthz", 5, 24)),
        liveness_probe: Some(probe("/healthz", 10, 3)),
        readiness_probe: Some(probe("/readyz", 5, 3)),
        resources: Some(resources(session)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
            ..SecurityContext::default()
        }),
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        volume_mounts: Some(mounts(session, settings)),
        ..Container::default()
    }
}

fn probe(path: &str, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::String("http".into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(5),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

fn volumes(session: &ValidSession, settings: &Settings) -> Vec<Volume> {
    let claim_name = match &session.share {
        Share::Claim(name) => name.clone(),
        Share::Nfs { .. } => volume_name(&session.uid),
    };
    let claim = PersistentVolumeClaimVolumeSource { claim_name, read_only: None };
    let mut all = vec![Volume { name: "share".into(), persistent_volume_claim: Some(claim), ..Volume::default() }];
    if let Some(limit) = session.stage {
        let stage = EmptyDirVolumeSource { size_limit: Some(Quantity(limit.to_string())), medium: None };
        all.push(Volume { name: "staging".into(), empty_dir: Some(stage), ..Volume::default() });
    }
    if let Some(name) = &session.container.secret {
        let secret = SecretVolumeSource { secret_name: Some(name.clone()), optional: Some(true), ..SecretVolumeSource::default() };
        all.push(Volume { name: "credentials".into(), secret: Some(secret), ..Volume::default() });
    }
    all.extend(session.container.federation.iter().map(|_| federation::volume()));
    all.extend(network::volume(&settings.network));
    all
}

fn mounts(session: &ValidSession, settings: &Settings) -> Vec<VolumeMount> {
    let mount = |name: &str, path: &str| VolumeMount { name: name.into(), mount_path: path.into(), ..VolumeMount::default() };
    let mut all = vec![mount("share", names::SHARE_MOUNT)];
    if session.stage.is_some() {
        all.push(mount("staging", names::STAGING_MOUNT));
    }
    if session.container.secret.is_some() {
        all.push(VolumeMount { read_only: Some(true), ..mount("credentials", names::CREDENTIALS_MOUNT) });
    }
    all.extend(session.container.federation.iter().map(|_| federation::mount()));
    all.extend(network::mount(&settings.network));
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{decisions::validate::validate, fixtures, settings::Network};

    /// The chart's policy for what the operator makes.
    const POLICY: &str = include_str!("../../../../charts/blobferry/templates/policy-operator-pods.yaml");

    fn yaml(spec: &str) -> String {
        let session = validate(&fixtures::session(spec), &fixtures::settings()).unwrap();
        serde_norway::to_string(&uploader_pod(&session, &fixtures::settings())).unwrap()
    }

    #[test]
    fn pod_of_a_minimal_session() {
        insta::assert_snapshot!(yaml(""));
    }

    #[test]
    fn pod_of_a_session_that_names_everything() {
        insta::assert_snapshot!(yaml(
            "
            sessionName: truck-7
            source: {incomingDir: camera/incoming, processingDir: .camera}
            runToken: again
            completion: {idleTimeout: 10m}
            ttlSecondsAfterFinished: 3600
            destination: {azureBlob: {prefix: site-3/raw, overwrite: Never, accessTier: Cool, metadata: {site: '3'}, tags: {a b: c},
              contentType: video/mp4, credentialsSecretRef: {name: azure}}}
            watch: {pollInterval: 500ms, minFileAge: 1m, recursive: true, fileExtensions: [.bin, mp4], ignore: ['*.tmp']}
            transfer: {workers: 2, queueSize: 10, blockSize: 8Mi, singlePutSize: 1Mi, concurrency: 4, memoryLimit: 128Mi,
              bandwidthLimit: 12500k, maxAttempts: 5}
            staging: {mode: None}
            retention: {interval: 10s, keepCompletedFor: 72h}
            pod:
              resources: {requests: {cpu: 1}, limits: {memory: 2Gi}}
              nodeSelector: {disk: fast}
              tolerations: [{key: dedicated, operator: Exists}]
              affinity: {nodeAffinity: {}}
              priorityClassName: high
              serviceAccountName: own
              labels: {team: vision, app.kubernetes.io/managed-by: me}
              annotations: {note: mine, blobferry.io/spec-hash: forged}
              imagePullSecrets: [{name: registry}]
              securityContext: {runAsUser: 1000, runAsGroup: 1001, supplementalGroups: [1002]}
            "
        ));
    }

    #[test]
    fn pod_of_a_session_with_a_workload_identity_behind_a_proxy() {
        let network = Network {
            authorities: Some("company".into()),
            https_proxy: Some("http://proxy.example.com:3128".into()),
            no_proxy: Some(".svc,10.0.0.0/8".into()),
        };
        let settings = Settings { network, ..fixtures::settings() };
        let identity = "clientId: 11111111-2222-3333-4444-555555555555, tenantId: 99999999-2222-3333-4444-555555555555";
        let spec = format!("destination: {{azureBlob: {{workloadIdentity: {{{identity}}}}}}}");
        let session = validate(&fixtures::session(&spec), &settings).unwrap();
        let pod = uploader_pod(&session, &settings);
        let labels = pod.metadata.labels.as_ref().unwrap();
        assert!(!labels.keys().any(|label| label.starts_with("azure.workload.identity")), "the webhook would act: {labels:?}");
        insta::assert_snapshot!(serde_norway::to_string(&pod).unwrap());
    }

    #[test]
    fn pod_of_a_deleted_session_drains_and_belongs_to_nobody() {
        let session = fixtures::deleted("deletionPolicy: Drain", "2026-11-21T08:20:00Z");
        let pod = uploader_pod(&validate(&session, &fixtures::settings()).unwrap(), &fixtures::settings());
        assert_eq!(pod.metadata.owner_references, None);
        assert_eq!(pod.metadata.annotations.as_ref().unwrap()[names::MODE_ANNOTATION], "drain");
        let environment = pod.spec.unwrap().containers.remove(0).env.unwrap();
        let mode = environment.iter().find(|variable| variable.name == names::variables::MODE).unwrap();
        assert_eq!(mode.value.as_deref(), Some("drain"));
        let watching = validate(&fixtures::session("deletionPolicy: Drain"), &fixtures::settings()).unwrap();
        assert_eq!(spec_hash(&watching), pod.metadata.annotations.unwrap()[names::SPEC_HASH_ANNOTATION], "it means the same");
    }

    #[test]
    fn every_variable_is_one_that_the_policy_of_the_chart_takes() {
        macro_rules! snapshot {
            ($name:literal) => {
                include_str!(concat!("snapshots/blobferry_operator__decisions__build__pod__tests__pod_of_a_", $name, ".snap"))
            };
        }
        let pods = [
            snapshot!("minimal_session"),
            snapshot!("session_that_names_everything"),
            snapshot!("session_with_a_workload_identity_behind_a_proxy"),
        ];
        let variables: BTreeSet<_> =
            pods.iter().flat_map(|pod| pod.lines()).filter_map(|line| line.strip_prefix("    - name: ")).collect();
        assert!(variables.len() > 40, "{variables:?}");
        for variable in variables {
            assert!(POLICY.contains(&format!("'{variable}'")), "the policy refuses pods with {variable}");
        }
    }

    #[test]
    fn labels_and_annotations_of_ours_cannot_be_forged() {
        let yaml = yaml(
            "pod: {labels: {blobferry.io/session-uid: x}, annotations: {blobferry.io/area: x, blobferry.io/mode: x, blobferry.io/trial: x}}",
        );
        assert!(!yaml.contains(": x\n"), "{yaml}");
    }
}
