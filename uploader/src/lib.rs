//! Ferries the files of one session from a share to a container of Azure Blob Storage.
//!
//! A scan finds names and watches them until they are quiet; a worker claims a file by one rename, reads it once, sends its blocks
//! and commits them under a condition, proves the result and renames the file to completed; a collector deletes completed files
//! later. Everything that must survive a crash is in names on the share and in the blob service.

pub mod app;
pub mod args;
pub mod aside;
pub mod azure;
pub mod blob;
pub mod books;
pub mod brake;
pub mod claim;
pub mod claims;
pub mod collect;
pub mod complete;
pub mod ending;
pub mod ends;
pub mod exit;
pub mod file;
pub mod formats;
pub mod health;
pub mod heartbeat;
pub mod ledger;
pub mod live;
pub mod metrics;
pub mod moves;
pub mod pacer;
pub mod publish;
pub mod release;
pub mod report;
pub mod retry;
pub mod run;
pub mod scan;
pub mod schedule;
pub mod session;
pub mod share;
pub mod stage;
pub mod start;
pub mod transfer;
pub mod work;

#[cfg(test)]
mod tests;
