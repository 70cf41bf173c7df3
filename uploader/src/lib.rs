//! Ferries the files of one session from a share to a container of Azure Blob Storage.
//!
//! A scan finds names and watches them until they are quiet; a worker claims a file by one rename, reads it once, sends its blocks
//! and commits them under a condition, proves the result and renames the file to completed; a collector deletes completed files
//! later. Everything that must survive a crash is in names on the share and in the blob service.

pub mod args;
pub mod blob;
pub mod exit;
pub mod formats;
pub mod health;
pub mod metrics;
pub mod report;
pub mod share;
