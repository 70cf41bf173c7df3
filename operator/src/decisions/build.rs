//! (pure) The objects of a session, one kind per file.

mod account;
mod binding;
mod environment;
mod federation;
mod meta;
mod network;
mod pod;
mod resources;
mod spec_hash;
mod volume;
mod volume_claim;

pub use account::uploader_account;
pub use binding::{binding_is_ours, uploader_binding};
pub use meta::{is_managed, managed_labels, pod_name, volume_name};
pub use pod::uploader_pod;
pub use spec_hash::{is_comparable, spec_hash};
pub use volume::{volume, volume_differs};
pub use volume_claim::{is_claim_of, volume_claim};
