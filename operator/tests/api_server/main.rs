//! The operator against a real API server and its controllers, without nodes: the tests play the kubelet and the uploader.
//!
//! One operator serves all tests, each of which has a namespace of its own. `make e2e`, or `testbed/api-tests`, gives them a
//! control plane.

mod children;
mod conditions;
mod endings;
mod life;
mod restarts;
mod stage;
