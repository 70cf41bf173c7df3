//! What the operator and the uploader agree on: the `UploadSession` resource, the names both programs use, the vocabulary of
//! conditions and the telemetry set-up.
//!
//! The Rust types are the source; `uploadsessions.yaml` beside this crate is generated from them by `make generate` and a test
//! fails when it drifts.

pub mod changes;
pub mod conditions;
pub mod manifest;
pub mod names;
mod quantity;
// `derive(KubeSchema)` makes a hidden copy of each type, which the first lint sees; doc comments are plain text for `kubectl explain`.
#[allow(unreachable_pub, clippy::doc_markdown)]
mod session;
pub mod telemetry;
mod text_duration;
pub mod tls;

pub use quantity::{Quantity, QuantityError};
pub use session::{
    AccessTier, ActiveFile, Activity, AzureBlob, Check, Completion, DEFAULT_MOUNT_OPTIONS, DeletionPolicy, Destination,
    FileProblem, NfsSource, Overwrite, Phase, PodResources, PodSecurity, PodTemplate, Progress, PvcSource, Retention,
    SecretReference, Source, Staging, StagingMode, Transfer, UploadSession, UploadSessionSpec, UploadSessionStatus, Watch,
    WorkloadIdentity,
};
pub use text_duration::{DurationError, TextDuration};

/// API group of the resource.
pub const GROUP: &str = "blobferry.io";
/// The only served version.
pub const VERSION: &str = "v1alpha1";
