//! Runs one uploader pod for each `UploadSession` of a cluster.
//!
//! Of several operators one leads ([`leader`]). Two watches (sessions, and pods with our label) feed a controller that passes over each
//! session to which something happened; a pass is in [`reconcile`]. The sweep removes what the garbage collector cannot. Every decision
//! is a pure function; modules that talk to the API server say so in their first line.

pub mod admin;
pub mod agenda;
pub mod api;
pub mod args;
pub mod backoff;
pub mod clock;
pub mod context;
pub mod controller;
pub mod events;
pub mod first_listing;
#[cfg(test)]
mod fixtures;
pub mod leader;
pub mod memory;
pub mod metrics;
#[cfg(test)]
mod mock_api;
pub mod place;
pub mod pods;
pub mod predicates;
pub mod reconcile;
pub mod report;
pub mod reservations;
pub mod rollout;
pub mod sessions;
pub mod settings;
pub mod shares;
pub mod sweep;
pub mod uninstall;
pub mod waiters;
pub mod wake;
pub mod watches;
