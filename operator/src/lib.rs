//! Runs one uploader pod for each `UploadSession` of a cluster.
//!
//! Of several operators one leads ([`leader`]). Two watches (sessions, and pods with our label) feed a controller that passes over each
//! session to which something happened; a pass is in [`reconcile`]. The sweep removes what the garbage collector cannot, and the rollout
//! brings a new image. What they have seen is kept in [`state`], and every decision is a pure function of it in [`decisions`], which
//! knows neither of them. Modules whose own calls go to the API server say so in their first line.

pub mod admin;
pub mod agenda;
pub mod api;
pub mod args;
pub mod backoff;
pub mod clock;
pub mod context;
pub mod controller;
pub mod decisions;
pub mod events;
#[cfg(test)]
mod fixtures;
pub mod leader;
pub mod metrics;
#[cfg(test)]
mod mock_api;
pub mod place;
pub mod reconcile;
pub mod report;
pub mod rollout;
pub mod settings;
pub mod state;
pub mod sweep;
pub mod uninstall;
pub mod watches;
