//! The operator against a real API server and its controllers, without nodes: the tests play the kubelet and the uploader.
//!
//! One operator serves all tests but those in `alone`, each of which has a namespace of its own. `make e2e`, or `testbed/api-tests`, gives them a
//! control plane.

mod alone;
mod around;
mod attacks;
mod calls;
mod changes;
mod chaos;
mod chart;
mod children;
mod conditions;
mod conflicts;
mod endings;
mod first;
mod life;
mod matrix;
mod props;
mod situations;
mod stage;
