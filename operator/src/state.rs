//! What the operator keeps in memory between passes: what its watches have shown, what it has done since, and what it remembers.
//!
//! `sessions` and `pods` are as the watches showed them (`first_listing` says whether they have shown everything), corrected by what was
//! written since; `reservations` are pods that are on their way. `shares` is where claims lead, `rights` what was found of accounts and
//! bindings, `memory` what is remembered of each session, `rollout` whose turn it is to get a new image. `waiters`, `wake` and
//! `leftovers` say what has to be looked at. All of it is lost with the process, and found again by the next one.

pub mod first_listing;
pub mod leftovers;
pub mod memory;
pub mod pods;
pub mod reservations;
pub mod rights;
pub mod rollout;
pub mod sessions;
pub mod shares;
pub mod waiters;
pub mod wake;
