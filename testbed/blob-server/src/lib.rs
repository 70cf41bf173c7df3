//! A blob service for tests: the part of Azure's REST API that block blobs need, with the service's rules as law, a record of every
//! request, and faults by seed or by script.
//!
//! A request is taken by [`connection`], read as a [`call`], checked by [`authorize`], meets its fate in [`faults`], has its body checksummed
//! on the way in by [`body`], and is applied by [`account`], which keeps every version that a blob ever had. `Content-MD5`, leases,
//! snapshots, and ranges of a download are not implemented; nothing here asks for them.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use blobferry_blob_server::{BlobServer, Fault, Operation, Settings};
//! let server = BlobServer::start(Settings::default()).await?;
//! server.faults().script(Operation::PutBlockList, 1, Fault::LoseReply);
//! println!("{}", server.account_url());
//! # Ok(())
//! # }
//! ```

mod account;
mod authorize;
mod block_list;
mod body;
mod call;
mod connection;
mod faults;
mod listing;
mod record;
mod refusal;
mod server;

pub use account::{Block, Keep, Version};
pub use authorize::{ACCOUNT, AccountKey, KEY};
pub use call::Operation;
pub use faults::{Fault, Faults};
pub use record::{Event, Record, Totals};
pub use refusal::Refusal;
pub use server::{BlobServer, Observer, Settings};
