//! (pure) From what a person wrote and what the installation allows to a session that can be built, or a reason why not.

use std::{collections::BTreeMap, time::Duration};

use blobferry_crds::{AccessTier, DeletionPolicy, Overwrite, PodTemplate, Quantity, StagingMode, TextDuration, UploadSession};
use jiff::Timestamp;
use kube::ResourceExt;
use url::Url;

use super::{
    Refusal,
    area::{Area, Claimant, ShareKey, Standing},
    export::Export,
    federation::Federation,
    finalizer::is_left,
    identity::Identity,
    mode::Mode,
    reasons,
};
use crate::settings::{Settings, components};

/// A session whose every part is parsed and allowed; builders take only this.
#[derive(Clone, Debug)]
pub struct ValidSession {
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// UID of the object.
    pub uid: String,
    /// Generation of the object.
    pub generation: i64,
    /// When the object was made.
    pub created: Timestamp,
    /// How much it has to do with its folders by now.
    pub standing: Standing,
    /// What folders and blobs are named after.
    pub identity: Identity,
    /// True if no uploader may run.
    pub suspend: bool,
    /// What its uploader is to do.
    pub mode: Mode,
    /// Whether its objects go with it at once, by their owner.
    pub owns: bool,
    /// What is mounted.
    pub share: Share,
    /// Where the claim leads, once that is known.
    pub export: Option<Export>,
    /// Folder of producers on the share.
    pub incoming_dir: String,
    /// Folder of claimed files on the share.
    pub processing_dir: String,
    /// Where files go.
    pub container: Container,
    /// How files are taken and sent.
    pub tuning: Tuning,
    /// Bytes of the stage, or none if files are streamed.
    pub stage: Option<u64>,
    /// How the pod is made.
    pub template: PodTemplate,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Share {
    /// A claim that a person made.
    Claim(String),
    /// An export for which the operator makes a volume and a claim.
    Nfs {
        /// Host name or address.
        server: String,
        /// Exported path.
        path: String,
        /// Mount options.
        options: Vec<String>,
    },
}

/// Where files go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// The account's blob service, as written.
    pub account_url: String,
    /// Name of the container.
    pub name: String,
    /// What blob names start with.
    pub prefix: String,
    /// What happens when a blob exists.
    pub overwrite: Overwrite,
    /// How blobs are stored.
    pub access_tier: Option<AccessTier>,
    /// Metadata of every blob.
    pub metadata: BTreeMap<String, String>,
    /// Index tags of every blob.
    pub tags: BTreeMap<String, String>,
    /// MIME type of every blob.
    pub content_type: Option<String>,
    /// Secret with the credentials.
    pub secret: Option<String>,
    /// Identity that trusts the pod's token, in place of a Secret.
    pub federation: Option<Federation>,
}

/// How files are taken and sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of the resource, in seconds and bytes")]
pub struct Tuning {
    pub poll_interval: Duration,
    pub min_file_age: Duration,
    pub recursive: bool,
    pub file_extensions: Vec<String>,
    pub ignore: Vec<String>,
    pub workers: u32,
    pub queue_size: u32,
    pub block_size: u64,
    pub single_put_size: u64,
    pub concurrency: u32,
    pub memory_limit: u64,
    pub max_attempts: u32,
    pub bandwidth_limit: Option<u64>,
    pub gc_interval: Duration,
    pub keep_completed_for: Duration,
    pub idle_timeout: Option<Duration>,
    pub run_token: Option<String>,
}

impl ValidSession {
    /// The folders that the session works in.
    pub fn area(&self) -> Area {
        let (key, root) = match &self.share {
            Share::Claim(claim) => (ShareKey::Claim(self.namespace.clone(), claim.clone()), ""),
            Share::Nfs { server, path, .. } => (ShareKey::Server(server.to_ascii_lowercase()), path.as_str()),
        };
        let area = Area::new(key, root, &self.incoming_dir, &self.processing_dir, &self.identity.session_name);
        match &self.export {
            Some(export) => area.on(export),
            None => area,
        }
    }

    /// The session as one of several that may want the same folders.
    pub fn claimant(&self) -> Claimant {
        Claimant {
            standing: self.standing,
            created: self.created,
            uid: self.uid.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            area: self.area(),
        }
    }
}

/// Checks `session` against the installation's `settings` and parses it.
pub fn validate(session: &UploadSession, settings: &Settings) -> Result<ValidSession, Refusal> {
    let mode = Mode::of(session);
    let namespace = session.namespace().ok_or_else(|| Refusal::invalid("metadata.namespace", "is missing"))?;
    let spec = &session.spec;
    if is_left(session) {
        return Err(Refusal::new(reasons::DELETED, left(session)));
    }
    if spec.pod.image.is_some() && !settings.allow_pod_image {
        return Err(Refusal::new(
            reasons::IMAGE_NOT_ALLOWED,
            "spec.pod.image is not allowed here: remove it, or install the chart with allowPodImage=true.".into(),
        ));
    }
    Ok(ValidSession {
        name: session.name_any(),
        uid: super::uid(session)?.to_owned(),
        generation: session.metadata.generation.unwrap_or_default(),
        created: super::created(session)?,
        standing: Standing::of(session),
        identity: Identity::of(session)?,
        // A session that is deleted must not wait for somebody to resume it.
        suspend: spec.suspend && mode == Mode::Watch,
        mode,
        owns: spec.deletion_policy == DeletionPolicy::Stop,
        share: share(session, &namespace, settings)?,
        export: None,
        incoming_dir: folder("spec.source.incomingDir", &spec.source.incoming_dir)?,
        processing_dir: folder("spec.source.processingDir", &spec.source.processing_dir)?,
        container: container(session, settings)?,
        tuning: tuning(session)?,
        stage: match spec.staging.mode {
            StagingMode::Disk => Some(bytes("spec.staging.sizeLimit", &spec.staging.size_limit)?),
            StagingMode::None => None,
        },
        template: spec.pod.clone(),
        namespace,
    })
}

fn left(session: &UploadSession) -> String {
    let finalizers = session.finalizers().join(", ");
    format!(
        "The session is deleted and has no uploader any more. Its object goes when whoever has set its finalizers {finalizers} removes them."
    )
}

fn share(session: &UploadSession, namespace: &str, settings: &Settings) -> Result<Share, Refusal> {
    let source = &session.spec.source;
    match (&source.persistent_volume_claim, &source.nfs) {
        (Some(claim), None) => Ok(Share::Claim(claim.claim_name.clone())),
        (None, Some(nfs)) if settings.nfs_allowed.iter().any(|rule| rule.allows(&nfs.server, &nfs.path, namespace)) => {
            Ok(Share::Nfs { server: nfs.server.clone(), path: nfs.path.clone(), options: nfs.mount_options.clone() })
        }
        (None, Some(nfs)) => Err(Refusal::new(
            reasons::NFS_NOT_ALLOWED,
            format!(
                "The export {}:{} is not allowed for namespace {namespace}: an administrator adds it to the chart value nfs.allowed, or \
                 name a claim in spec.source.persistentVolumeClaim.",
                nfs.server, nfs.path
            ),
        )),
        _ => Err(Refusal::invalid("spec.source", "names not exactly one of persistentVolumeClaim and nfs")),
    }
}

fn container(session: &UploadSession, settings: &Settings) -> Result<Container, Refusal> {
    let blob = &session.spec.destination.azure_blob;
    let field = "spec.destination.azureBlob.accountUrl";
    let url = Url::parse(&blob.account_url).map_err(|error| Refusal::invalid(field, &format!("is no URL ({error})")))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Refusal::invalid(field, "holds a credential"));
    }
    if !settings.account_hosts.iter().any(|rule| rule.allows(&url)) {
        return Err(Refusal::new(
            reasons::ACCOUNT_HOST_NOT_ALLOWED,
            format!(
                "The host {} of accountUrl is not allowed here: an administrator adds it to the chart value accountHostSuffixes.",
                url.host_str().unwrap_or_default()
            ),
        ));
    }
    Ok(Container {
        account_url: blob.account_url.clone(),
        name: blob.container.clone(),
        prefix: blob.prefix.clone(),
        overwrite: blob.overwrite,
        access_tier: blob.access_tier,
        metadata: blob.metadata.clone(),
        tags: blob.tags.clone(),
        content_type: blob.content_type.clone(),
        secret: blob.credentials_secret_ref.as_ref().map(|secret| secret.name.clone()),
        federation: Federation::of(blob, &url, settings)?,
    })
}

fn tuning(session: &UploadSession) -> Result<Tuning, Refusal> {
    let (watch, transfer, retention) = (&session.spec.watch, &session.spec.transfer, &session.spec.retention);
    let idle_timeout = session.spec.completion.as_ref().and_then(|completion| completion.idle_timeout.as_ref());
    Ok(Tuning {
        poll_interval: duration("spec.watch.pollInterval", &watch.poll_interval)?,
        min_file_age: duration("spec.watch.minFileAge", &watch.min_file_age)?,
        recursive: watch.recursive,
        file_extensions: list("spec.watch.fileExtensions", &watch.file_extensions)?,
        ignore: list("spec.watch.ignore", &watch.ignore)?,
        workers: transfer.workers,
        queue_size: transfer.queue_size,
        block_size: bytes("spec.transfer.blockSize", &transfer.block_size)?,
        single_put_size: bytes("spec.transfer.singlePutSize", &transfer.single_put_size)?,
        concurrency: transfer.concurrency,
        memory_limit: bytes("spec.transfer.memoryLimit", &transfer.memory_limit)?,
        max_attempts: transfer.max_attempts,
        bandwidth_limit: transfer.bandwidth_limit.as_ref().map(|limit| bytes("spec.transfer.bandwidthLimit", limit)).transpose()?,
        gc_interval: duration("spec.retention.interval", &retention.interval)?,
        keep_completed_for: duration("spec.retention.keepCompletedFor", &retention.keep_completed_for)?,
        idle_timeout: idle_timeout.map(|timeout| duration("spec.completion.idleTimeout", timeout)).transpose()?,
        run_token: session.spec.run_token.clone(),
    })
}

/// A relative folder without `..`; it becomes part of a path in the pod.
fn folder(field: &str, path: &str) -> Result<String, Refusal> {
    let plain = !path.is_empty() && !path.starts_with('/') && components(path).all(|component| component != "..");
    if plain { Ok(path.to_owned()) } else { Err(Refusal::invalid(field, "is no relative path without ..")) }
}

fn duration(field: &str, text: &TextDuration) -> Result<Duration, Refusal> {
    text.parse().map_err(|error| Refusal::invalid(field, &format!("cannot be used: {error}")))
}

fn bytes(field: &str, text: &Quantity) -> Result<u64, Refusal> {
    text.bytes().map_err(|error| Refusal::invalid(field, &format!("cannot be used: {error}")))
}

/// A list that survives being joined with commas.
fn list(field: &str, items: &[String]) -> Result<Vec<String>, Refusal> {
    if items.iter().any(|item| item.contains(',') || item.is_empty()) {
        return Err(Refusal::invalid(field, "has an empty entry or one with a comma"));
    }
    Ok(items.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    fn refusal(spec: &str) -> Refusal {
        validate(&fixtures::session(spec), &fixtures::settings()).unwrap_err()
    }

    #[test]
    fn minimal_session_is_valid_with_the_documented_defaults() {
        let valid = validate(&fixtures::session(""), &fixtures::settings()).unwrap();
        assert_eq!(valid.share, Share::Claim("share".into()));
        assert_eq!(valid.tuning.poll_interval, Duration::from_secs(2));
        assert_eq!(valid.tuning.memory_limit, 256 << 20);
        assert_eq!(valid.stage, Some(100 << 30));
    }

    #[test]
    fn staging_mode_none_has_no_stage() {
        let session = fixtures::session("staging: {mode: None}");
        assert_eq!(validate(&session, &fixtures::settings()).unwrap().stage, None);
    }

    #[test]
    fn export_that_is_not_allowed_is_refused_with_the_value_to_change() {
        let settings = Settings { nfs_allowed: Vec::new(), ..fixtures::settings() };
        let refusal = validate(&fixtures::nfs_session(), &settings).unwrap_err();
        assert_eq!(refusal.reason, "NfsNotAllowed");
        assert!(refusal.message.contains("nfs.allowed") && refusal.message.contains("nas.example.com:/srv/drop/cameras"));
        assert!(validate(&fixtures::nfs_session(), &fixtures::settings()).is_ok());
    }

    #[test]
    fn account_host_that_is_not_allowed_is_refused_with_the_value_to_change() {
        let refusal = refusal("destination: {azureBlob: {accountUrl: 'https://evil.example.com'}}");
        assert_eq!(refusal.reason, "AccountHostNotAllowed");
        assert!(refusal.message.contains("accountHostSuffixes") && refusal.message.contains("evil.example.com"));
    }

    #[test]
    fn pod_image_is_refused_unless_the_chart_allows_it() {
        let spec = "pod: {image: 'evil/image'}";
        assert_eq!(refusal(spec).reason, "ImageNotAllowed");
        let settings = Settings { allow_pod_image: true, ..fixtures::settings() };
        assert!(validate(&fixtures::session(spec), &settings).is_ok());
    }

    #[test]
    fn what_the_schema_would_have_refused_is_refused_here_too() {
        for (spec, field) in [
            ("watch: {pollInterval: often}", "pollInterval"),
            ("watch: {ignore: ['a,b']}", "ignore"),
            ("transfer: {blockSize: 4 MB}", "blockSize"),
            ("source: {incomingDir: ../other}", "incomingDir"),
            ("source: {processingDir: /etc}", "processingDir"),
            ("source: {nfs: {server: a, path: /b}}", "spec.source"),
            ("destination: {azureBlob: {accountUrl: 'https://a:b@acct.blob.core.windows.net'}}", "accountUrl"),
        ] {
            let refusal = refusal(spec);
            assert_eq!(refusal.reason, "InvalidSpec", "{spec}");
            assert!(refusal.message.contains(field), "{refusal:?}");
        }
    }
}
