//! Names that more than one program uses: labels, annotations, field managers, object names, folders and variables.

/// Label with the name of the session's object; also the way to its logs (`kubectl logs -l blobferry.io/session=truck-7`).
pub const SESSION_LABEL: &str = "blobferry.io/session";
/// Label with the UID of the session's object.
pub const SESSION_UID_LABEL: &str = "blobferry.io/session-uid";
/// Label with the namespace of the session's object, on cluster-scoped children.
pub const SESSION_NAMESPACE_LABEL: &str = "blobferry.io/session-namespace";
/// Standard label of what an object belongs to.
pub const APP_NAME_LABEL: &str = "app.kubernetes.io/name";
/// Standard label of what manages an object.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Value of [`APP_NAME_LABEL`] on uploader pods.
pub const UPLOADER_APP: &str = "blobferry-uploader";
/// Value of [`MANAGED_BY_LABEL`] on everything that the operator creates.
pub const OPERATOR: &str = "blobferry-operator";

/// Annotation that keeps the session name through a restore from backup, which drops the status.
pub const SESSION_NAME_ANNOTATION: &str = "blobferry.io/session-name";
/// Annotation that keeps the date prefix through a restore from backup, which drops the status.
pub const DATE_PREFIX_ANNOTATION: &str = "blobferry.io/date-prefix";
/// Annotation of a pod with the versioned hash of what the person meant when it was built.
pub const SPEC_HASH_ANNOTATION: &str = "blobferry.io/spec-hash";
/// Annotation of a pod with the folders that it works in, so that another session waits even when this one's object is gone.
pub const AREA_ANNOTATION: &str = "blobferry.io/area";
/// Annotation of a pod whose uploader only drains or releases; one that watches has none.
pub const MODE_ANNOTATION: &str = "blobferry.io/mode";
/// Annotation of a pod with the installation's image when it was built; absent if its session names one.
pub const IMAGE_ANNOTATION: &str = "blobferry.io/image";
/// Annotation of a pod whose session was well before it got the pod's image, so that the image has to work for it; the generation of
/// the session of which this is said. On a session, from before its earlier pod is deleted: the generation and the image.
pub const TRIAL_ANNOTATION: &str = "blobferry.io/trial";

/// Finalizer of sessions whose claimed files are seen to before they go.
pub const FINALIZER: &str = "blobferry.io/claimed-files";

/// Field manager of the operator.
pub const OPERATOR_MANAGER: &str = "blobferry-operator";
/// Field manager of the uploader: `status.progress` and `status.activity`, nothing else.
pub const UPLOADER_MANAGER: &str = "blobferry-uploader";

/// The ServiceAccount and RoleBinding that all uploaders of a namespace share.
pub const UPLOADER_ACCOUNT: &str = "blobferry-uploader";
/// Name of the only container of an uploader pod.
pub const UPLOADER_CONTAINER: &str = "uploader";
/// Port of `/healthz`, `/readyz` and `/metrics` on both programs.
pub const HTTP_PORT: u16 = 8080;

/// Where an uploader pod mounts the share.
pub const SHARE_MOUNT: &str = "/mnt/nfs";
/// Where an uploader pod mounts its stage.
pub const STAGING_MOUNT: &str = "/mnt/staging";
/// Where an uploader pod mounts the Secret with its credentials.
pub const CREDENTIALS_MOUNT: &str = "/etc/blobferry/credentials";
/// Where an uploader pod with a workload identity mounts its token, and the file's name there. Neither this nor the volume's name
/// is that of the identity webhook, which so finds nothing to do.
pub const IDENTITY_MOUNT: &str = "/etc/blobferry/identity";
/// Name of the token's file in [`IDENTITY_MOUNT`].
pub const IDENTITY_TOKEN: &str = "token";
/// For whom that token is, as a federated credential names it.
pub const IDENTITY_AUDIENCE: &str = "api://AzureADTokenExchange";
/// Where an uploader pod mounts the certificate authorities of the chart's choice.
pub const AUTHORITIES_MOUNT: &str = "/etc/blobferry/authorities";
/// Where the uploader's image has the certificate authorities of the public.
pub const PUBLIC_AUTHORITIES: &str = "/etc/ssl/certs";

/// Variables by which the operator configures an uploader (DESIGN section 8). Each is also a flag of the uploader.
pub mod variables {
    /// Name of the session, and of its folder below the incoming folder.
    pub const SESSION_NAME: &str = "APP_SESSION_NAME";
    /// `YYYYMMDD` in folders and blob names.
    pub const DATE_PREFIX: &str = "APP_DATE_PREFIX";
    /// `watch`, `drain` or `release`.
    pub const MODE: &str = "APP_MODE";
    /// URL of the storage account's blob service.
    pub const AZURE_ACCOUNT_URL: &str = "APP_AZURE_ACCOUNT_URL";
    /// Name of the container.
    pub const AZURE_CONTAINER: &str = "APP_AZURE_CONTAINER";
    /// What blob names start with.
    pub const AZURE_PREFIX: &str = "APP_AZURE_PREFIX";
    /// `OwnSource`, `Never` or `Any`.
    pub const AZURE_OVERWRITE: &str = "APP_AZURE_OVERWRITE";
    /// `Hot`, `Cool`, `Cold` or `Archive`.
    pub const AZURE_ACCESS_TIER: &str = "APP_AZURE_ACCESS_TIER";
    /// Metadata of every blob, a JSON object.
    pub const AZURE_METADATA: &str = "APP_AZURE_METADATA";
    /// Index tags of every blob, a JSON object.
    pub const AZURE_TAGS: &str = "APP_AZURE_TAGS";
    /// MIME type of every blob.
    pub const AZURE_CONTENT_TYPE: &str = "APP_AZURE_CONTENT_TYPE";
    /// Connection string of the account.
    pub const AZURE_CONNECTION_STRING: &str = "APP_AZURE_CONNECTION_STRING";
    /// Name of the account, for its key.
    pub const AZURE_ACCOUNT_NAME: &str = "APP_AZURE_ACCOUNT_NAME";
    /// Key of the account, base64.
    pub const AZURE_ACCOUNT_KEY: &str = "APP_AZURE_ACCOUNT_KEY";
    /// Shared access signature.
    pub const AZURE_SAS_TOKEN: &str = "APP_AZURE_SAS_TOKEN";
    /// Folder of a mounted Secret with credentials; what it names is used alone.
    pub const CREDENTIALS_DIR: &str = "APP_CREDENTIALS_DIR";
    /// `true`: the workload identity of the four `AZURE_*` variables is used alone.
    pub const AZURE_WORKLOAD_IDENTITY: &str = "APP_AZURE_WORKLOAD_IDENTITY";
    /// Client id of the identity, as Microsoft's libraries read it.
    pub const IDENTITY_CLIENT: &str = "AZURE_CLIENT_ID";
    /// Tenant of the identity.
    pub const IDENTITY_TENANT: &str = "AZURE_TENANT_ID";
    /// File with the pod's token.
    pub const IDENTITY_TOKEN_FILE: &str = "AZURE_FEDERATED_TOKEN_FILE";
    /// Where tokens come from.
    pub const IDENTITY_AUTHORITY: &str = "AZURE_AUTHORITY_HOST";
    /// Folders of certificate authorities, with colons between them.
    pub const AUTHORITIES: &str = "SSL_CERT_DIR";
    /// Proxy for https.
    pub const HTTPS_PROXY: &str = "HTTPS_PROXY";
    /// Hosts that are reached without a proxy.
    pub const NO_PROXY: &str = "NO_PROXY";
    /// Least size of a block, in bytes.
    pub const AZURE_MAX_BLOCK_SIZE: &str = "APP_AZURE_MAX_BLOCK_SIZE";
    /// Up to this many bytes a file is one Put Blob.
    pub const AZURE_MAX_SINGLE_PUT_SIZE: &str = "APP_AZURE_MAX_SINGLE_PUT_SIZE";
    /// Blocks in flight per file.
    pub const AZURE_MAX_CONCURRENCY: &str = "APP_AZURE_MAX_CONCURRENCY";
    /// Where producers put files; the session's folder is below it.
    pub const NFS_INCOMING_DIR: &str = "APP_NFS_INCOMING_DIR";
    /// Where claimed files live.
    pub const NFS_PROCESSING_ROOT: &str = "APP_NFS_PROCESSING_ROOT";
    /// Where staged files live.
    pub const LOCAL_STAGING_ROOT: &str = "APP_LOCAL_STAGING_ROOT";
    /// `Disk` or `None`.
    pub const STAGING_MODE: &str = "APP_STAGING_MODE";
    /// Most bytes on the stage.
    pub const STAGING_SIZE_LIMIT: &str = "APP_STAGING_SIZE_LIMIT";
    /// Seconds between scans.
    pub const POLL_INTERVAL: &str = "APP_POLL_INTERVAL_S";
    /// Seconds of observed quiet before a claim.
    pub const MIN_FILE_AGE: &str = "APP_MIN_FILE_AGE_S";
    /// `true` or `false`: whether files in folders below the session's are taken too.
    pub const RECURSIVE: &str = "APP_RECURSIVE";
    /// Comma-separated extensions; empty means all files.
    pub const FILE_EXTENSIONS: &str = "APP_FILE_EXTENSIONS";
    /// Comma-separated globs of names that are left alone.
    pub const IGNORE: &str = "APP_IGNORE";
    /// Files waiting between the scan and the workers.
    pub const MAX_QUEUE_SIZE: &str = "APP_MAX_QUEUE_SIZE";
    /// Files at a time.
    pub const WORKER_CONCURRENCY: &str = "APP_WORKER_CONCURRENCY";
    /// Bytes per second of all files together.
    pub const BANDWIDTH_LIMIT: &str = "APP_BANDWIDTH_LIMIT";
    /// Failures of a file's own after which it is set aside; 0 for never.
    pub const MAX_ATTEMPTS: &str = "APP_MAX_ATTEMPTS";
    /// Another value takes back files that were set aside.
    pub const RUN_TOKEN: &str = "APP_RUN_TOKEN";
    /// Most bytes buffered for all files together.
    pub const MEMORY_LIMIT: &str = "APP_MEMORY_LIMIT";
    /// Seconds between passes of the collector.
    pub const GC_INTERVAL: &str = "APP_GC_INTERVAL_S";
    /// Seconds for which a completed file is kept.
    pub const KEEP_COMPLETED_FOR: &str = "APP_KEEP_COMPLETED_FOR_S";
    /// Seconds without anything new after which a session is completed; never if absent.
    pub const IDLE_TIMEOUT: &str = "APP_IDLE_TIMEOUT_S";
    /// Namespace of the session's object; with the next two, progress is reported to it.
    pub const SESSION_NAMESPACE: &str = "APP_SESSION_NAMESPACE";
    /// Name of the session's object.
    pub const SESSION_OBJECT: &str = "APP_SESSION_OBJECT";
    /// UID of the session's object.
    pub const SESSION_UID: &str = "APP_SESSION_UID";
    /// Name of this pod.
    pub const POD_NAME: &str = "APP_POD_NAME";
    /// UID of this pod.
    pub const POD_UID: &str = "APP_POD_UID";
    /// Where `/healthz`, `/readyz` and `/metrics` listen.
    pub const LISTEN: &str = "APP_LISTEN";
    /// File that takes the termination message.
    pub const TERMINATION_LOG: &str = "APP_TERMINATION_LOG";
}

/// What an uploader leaves in its termination message, as JSON; the operator believes an exit code 0 only together with it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TerminationMessage {
    /// How the run ended.
    pub result: TerminationResult,
    /// UID of the session for which it ran.
    #[serde(rename = "sessionUID")]
    pub session_uid: String,
    /// `watch`, `drain` or `release`.
    pub mode: String,
    /// The session's `runToken` when it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_token: Option<String>,
    /// `CamelCase` reason for a condition.
    pub reason: String,
    /// Sentence that a person can act on.
    pub message: String,
}

/// How a run of the uploader ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum TerminationResult {
    /// Everything was uploaded and nothing more is expected.
    Completed,
    /// Claimed files were uploaded.
    Drained,
    /// Claimed files were given back.
    Released,
    /// The configuration cannot become right by waiting.
    Failed,
}
