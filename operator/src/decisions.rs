//! (pure) Every decision, as a function of what is known and of the time.
//!
//! `validate` parses what a person wrote (with `identity`, `federation`, `area` and `export`); `observed` is what is there (with
//! `pod_state`, `hearing` and `completion`). From both, `plan` decides one step, and `build` makes objects for it (`volumes` says whether
//! those that are there will do). What came of it is a `case`, of which `assess` (with `diagnose` and `reasons`) and `status` say what is
//! true now, `start` whether that may wait, and `notices` what people are told. A session that is deleted is a `deletion`: its uploader
//! gets another `mode`, `finalizer` holds the object, and `end` lets it go. `predicates` says which changes wake a session, and `rollout`
//! who gets a new image.

pub mod area;
pub mod assess;
pub mod build;
pub mod case;
pub mod completion;
pub mod deletion;
pub mod diagnose;
pub mod end;
pub mod export;
pub mod federation;
pub mod finalizer;
pub mod hearing;
pub mod identity;
pub mod mode;
pub mod notices;
pub mod observed;
pub mod plan;
pub mod pod_state;
pub mod predicates;
pub mod reasons;
pub mod rollout;
pub mod start;
pub mod status;
pub mod validate;
pub mod volumes;

use blobferry_crds::UploadSession;
use jiff::Timestamp;
use kube::ResourceExt;

pub use observed::Observed;

/// Why a session cannot run until a person changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// `CamelCase` reason.
    pub reason: &'static str,
    /// What to do about it.
    pub message: String,
}

impl Refusal {
    fn new(reason: &'static str, message: String) -> Self {
        Self { reason, message }
    }

    fn invalid(field: &str, what: &str) -> Self {
        Self::new(reasons::INVALID_SPEC, format!("{field} {what}."))
    }
}

fn uid(session: &UploadSession) -> Result<&str, Refusal> {
    session.metadata.uid.as_deref().ok_or_else(|| Refusal::invalid("metadata.uid", "is missing"))
}

fn created(session: &UploadSession) -> Result<Timestamp, Refusal> {
    let time = session.creation_timestamp();
    time.map(|time| time.0).ok_or_else(|| Refusal::invalid("metadata.creationTimestamp", "is missing"))
}
