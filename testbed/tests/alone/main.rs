//! The product on a real node, in tests that change what all sessions have in common: the operator, its chart, the node. They run one
//! after another; `make e2e` runs all.

mod helm;
mod images;
mod pressure;
mod sessions;
mod silence;
mod uninstall;
