//! The product on a real node, in tests that change what all sessions have in common: the operator and its chart. `make e2e` runs all.

mod helm;
mod sessions;
mod uninstall;
