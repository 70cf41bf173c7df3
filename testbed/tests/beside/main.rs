//! The product on a real node, in tests that suffer each other, because each has a namespace, a share and a container of its own.
//! `make e2e` runs all.

mod bad_input;
mod causes;
mod claims;
mod drains;
mod endings;
mod held;
mod live;
mod outage;
mod readme;
mod tools;
mod turns;
mod workload_identity;
