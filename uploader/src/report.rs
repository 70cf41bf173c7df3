//! Tells a person how far a session is: in the status of its object, on a terminal, or not at all.
//!
//! The core publishes a [`Report`] through a `tokio::sync::watch` channel whenever something changes and knows nothing of who reads
//! it. It never waits for a reader.

mod kube;
mod limits;
mod pace;
mod rate;
mod terminal;
pub mod text;

use blobferry_crds::{Activity, Progress};

pub use self::kube::{Answer, ConnectError, Ended, KubeReporter, SessionGone, StatusWriter};
pub use pace::{Change, Pace};
pub use rate::Rate;
pub use terminal::Terminal;

/// How far a session is and what its uploader does, as of now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The ledger, with the counters of earlier runs added.
    pub progress: Progress,
    /// What is being done.
    pub activity: Activity,
}
