//! How files are sent.

use std::num::NonZeroUsize;

use super::value;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct TransferArguments {
    /// Files that are uploaded at a time
    #[arg(long, env = "APP_WORKER_CONCURRENCY", value_name = "NUMBER", default_value = "4", value_parser = |text: &str| value::count(text, 64))]
    worker_concurrency: NonZeroUsize,

    /// Files that wait between the scan and the workers
    #[arg(long, env = "APP_MAX_QUEUE_SIZE", value_name = "NUMBER", default_value = "2000", value_parser = |text: &str| value::count(text, 100_000))]
    max_queue_size: NonZeroUsize,

    /// Size of a block; it grows for files of more than 50,000 blocks
    #[arg(long, env = "APP_AZURE_MAX_BLOCK_SIZE", value_name = "SIZE", default_value = "4Mi", value_parser = |text: &str| value::size(text, "64Ki", "4000Mi"))]
    azure_max_block_size: u64,

    /// A file of at most this size is sent in one request
    #[arg(long, env = "APP_AZURE_MAX_SINGLE_PUT_SIZE", value_name = "SIZE", default_value = "16Mi", value_parser = |text: &str| value::size(text, "0", "5000Mi"))]
    azure_max_single_put_size: u64,

    /// Blocks of one file that are sent at a time
    #[arg(long, env = "APP_AZURE_MAX_CONCURRENCY", value_name = "NUMBER", default_value = "8", value_parser = |text: &str| value::count(text, 64))]
    azure_max_concurrency: NonZeroUsize,

    /// Failures of a file's own after which it is set aside, 0 for never; those of the network, the service or a credential do not count
    #[arg(long, env = "APP_MAX_ATTEMPTS", value_name = "NUMBER", default_value = "0", value_parser = clap::value_parser!(u32).range(0..=1000))]
    max_attempts: u32,

    /// Bytes per second of all files together [default: no limit]
    #[arg(long, env = "APP_BANDWIDTH_LIMIT", value_name = "SIZE", value_parser = bandwidth)]
    bandwidth_limit: Option<Bandwidth>,

    /// Most bytes that are buffered for all files together
    #[arg(long, env = "APP_MEMORY_LIMIT", value_name = "SIZE", default_value = "256Mi", value_parser = |text: &str| value::size(text, "16Mi", "64Gi"))]
    memory_limit: u64,
}

/// A rate, or none for a variable that is set to nothing.
#[derive(Clone, Copy, Debug)]
struct Bandwidth(Option<u64>);

fn bandwidth(text: &str) -> Result<Bandwidth, String> {
    if text.trim().is_empty() {
        return Ok(Bandwidth(None));
    }
    value::size(text, "8Ki", "100G").map(|rate| Bandwidth(Some(rate)))
}

/// How files are sent. `concurrency` blocks take at most half of `memory_limit`, a single put a quarter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferSettings {
    /// Files at a time.
    pub workers: NonZeroUsize,
    /// Files that wait between the scan and the workers.
    pub queue_size: NonZeroUsize,
    /// Bytes of a block, at least 64 KiB.
    pub block_size: u64,
    /// Bytes up to which a file is one Put Blob; may be 0.
    pub single_put_size: u64,
    /// Blocks of one file in flight.
    pub concurrency: NonZeroUsize,
    /// Most bytes buffered for all files together.
    pub memory_limit: u64,
    /// Bytes per second of all files together.
    pub bandwidth_limit: Option<u64>,
    /// Failures of its own after which a file is set aside; 0 for never.
    pub max_attempts: u32,
}

impl TransferArguments {
    pub(super) fn check(self) -> Result<TransferSettings, String> {
        let in_flight = u128::from(self.azure_max_block_size) * self.azure_max_concurrency.get() as u128;
        if in_flight * 2 > u128::from(self.memory_limit) {
            return Err("--azure-max-concurrency times --azure-max-block-size must be at most half of --memory-limit: raise --memory-limit or \
                        lower one of the two"
                .into());
        }
        if u128::from(self.azure_max_single_put_size) * 4 > u128::from(self.memory_limit) {
            return Err("--azure-max-single-put-size must be at most a quarter of --memory-limit: raise --memory-limit or lower \
                        --azure-max-single-put-size"
                .into());
        }
        Ok(TransferSettings {
            workers: self.worker_concurrency,
            queue_size: self.max_queue_size,
            block_size: self.azure_max_block_size,
            single_put_size: self.azure_max_single_put_size,
            concurrency: self.azure_max_concurrency,
            memory_limit: self.memory_limit,
            bandwidth_limit: self.bandwidth_limit.and_then(|limit| limit.0),
            max_attempts: self.max_attempts,
        })
    }
}
