//! The product on real NFS: kernels of virtual machines are server and client, and a kubelet mounts the volume.
//!
//! `main_job` and `outages` are part of `make test`; `make faults` runs all.

mod export;
mod main_job;
mod outages;
mod trouble;
