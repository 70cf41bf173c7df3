//! The life of a file with real folders and a blob service in memory.

mod bench;
mod hazards;
mod life;
mod start;

use bench::Bench;
