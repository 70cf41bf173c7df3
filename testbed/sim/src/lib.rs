//! The uploader under a deterministic simulation: the loops of production on a runtime whose time is simulated, between a simulated
//! NFS server and the blob service in memory, with crashes, pauses, lost and late replies, and producers that keep no rule.
//!
//! A seed is a history. An oracle watches every effect for the invariant of DESIGN 4.2.

pub mod api;
pub mod command;
pub mod crash;
pub mod exploration;
pub mod faults;
pub mod history;
pub mod judge;
pub mod log;
pub mod oracle;
pub mod process;
pub mod producer;
pub mod random;
pub mod seeds;
pub mod server;
pub mod settings;
pub mod share;
pub mod stage;
pub mod store;
pub mod turns;
pub mod world;
