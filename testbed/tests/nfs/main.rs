//! The product on real NFS: kernels of virtual machines are server and client, and a kubelet mounts the volume. `make faults` runs all.

mod cost;
mod document;
mod export;
mod hang;
mod main_job;
mod nodes;
mod outages;
mod producers;
mod short;
mod trouble;
mod volumes;
mod wire;
