//! What end-to-end tests and the demonstration share: the bed they run on, files with contents that can be made again, the blobs that
//! came out, and a namespace for each test that tells what happened when the test fails.
//!
//! A test is a [`scenario`]: it gets a [`Stage`] of its own, drops [`files`] into the stage's share, applies sessions, waits with
//! [`wait::until`] and compares [`blobs`].

pub mod authority;
pub mod azurite;
pub mod bed;
pub mod blobs;
mod commits;
pub mod entra;
mod evidence;
pub mod figures;
pub mod files;
pub mod line;
pub mod processes;
pub mod release;
mod shared_key;
pub mod stage;
pub mod vm;
pub mod wait;

pub use bed::Bed;
pub use blobs::Blobs;
pub use files::{Contents, Delivery, Fingerprint};
pub use line::Line;
pub use stage::{Stage, scenario};
pub use vm::Machine;
