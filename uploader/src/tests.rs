//! The life of a file with real folders and a blob service in memory.

mod aside;
mod bench;
mod endings;
mod hazards;
mod life;
mod live;
mod recursive;
mod start;

use bench::Bench;
