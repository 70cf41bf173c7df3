//! `spec.transfer`, `spec.staging` and `spec.retention`: how files are sent, staged and removed.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::{Quantity, TextDuration};

/// How files are sent.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("!isQuantity(string(self.blockSize)) || !isQuantity(string(self.memoryLimit)) || quantity(string(self.blockSize)).asApproximateFloat() * double(self.concurrency) * 2.0 <= quantity(string(self.memoryLimit)).asApproximateFloat()").message("concurrency times blockSize must be at most half of memoryLimit: raise memoryLimit or lower one of the two"),
    validation = Rule::new("!isQuantity(string(self.singlePutSize)) || !isQuantity(string(self.memoryLimit)) || quantity(string(self.singlePutSize)).asApproximateFloat() * 4.0 <= quantity(string(self.memoryLimit)).asApproximateFloat()").message("singlePutSize must be at most a quarter of memoryLimit: raise memoryLimit or lower singlePutSize"),
)]
#[serde(rename_all = "camelCase")]
pub struct Transfer {
    /// Files that are uploaded at a time, 1 to 64.
    #[serde(default = "workers")]
    #[schemars(range(min = 1, max = 64))]
    pub workers: u32,

    /// Files that wait between the scan and the workers, 1 to 100000. More wait in their folder.
    #[serde(default = "queue_size")]
    #[schemars(range(min = 1, max = 100_000))]
    pub queue_size: u32,

    /// Size of a block, 64Ki to 4000Mi; it grows for files of more than 50,000 blocks. A multiple of 1Mi suits NFS.
    #[serde(default = "block_size")]
    #[x_kube(validation = Rule::new(r"string(self).matches('^[0-9]+([.][0-9]+)?(Ki|Mi|Gi|k|M|G)?$') && quantity(string(self)).compareTo(quantity('64Ki')) >= 0 && quantity(string(self)).compareTo(quantity('4000Mi')) <= 0").message("blockSize is a size from 64Ki to 4000Mi, like 4Mi"))]
    pub block_size: Quantity,

    /// A file of at most this size is sent in one request, 0 to 5000Mi.
    #[serde(default = "single_put_size")]
    #[x_kube(validation = Rule::new(r"string(self).matches('^[0-9]+([.][0-9]+)?(Ki|Mi|Gi|k|M|G)?$') && quantity(string(self)).compareTo(quantity('5000Mi')) <= 0").message("singlePutSize is a size up to 5000Mi, like 16Mi"))]
    pub single_put_size: Quantity,

    /// Blocks of one file that are sent at a time, 1 to 64.
    #[serde(default = "concurrency")]
    #[schemars(range(min = 1, max = 64))]
    pub concurrency: u32,

    /// Most bytes that are buffered for all files together, 16Mi to 64Gi. The pod's memory limit is this and 768Mi.
    #[serde(default = "memory_limit")]
    #[x_kube(validation = Rule::new(r"string(self).matches('^[0-9]+([.][0-9]+)?(Ki|Mi|Gi|k|M|G)?$') && quantity(string(self)).compareTo(quantity('16Mi')) >= 0 && quantity(string(self)).compareTo(quantity('64Gi')) <= 0").message("memoryLimit is a size from 16Mi to 64Gi, like 256Mi"))]
    pub memory_limit: Quantity,

    /// Bytes per second of all files together, 8Ki to 100G, like 12500k for 100 Mbit/s; no limit if absent. Changes apply in the middle of a
    /// file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Quantity")]
    #[x_kube(validation = Rule::new(r"string(self).matches('^[0-9]+([.][0-9]+)?(Ki|Mi|Gi|k|M|G)?$') && quantity(string(self)).compareTo(quantity('8Ki')) >= 0 && quantity(string(self)).compareTo(quantity('100G')) <= 0").message("bandwidthLimit is bytes per second from 8Ki to 100G, like 12500k for 100 Mbit/s"))]
    pub bandwidth_limit: Option<Quantity>,

    /// Failures of a file's own, like a read error, after which it is set aside as NAME.failed, 0 to 1000; 0 tries for ever. Failures of the
    /// network, the service or a credential do not count. Another runToken has the files that were set aside tried again.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    pub max_attempts: u32,
}

impl Default for Transfer {
    fn default() -> Self {
        Self {
            workers: workers(),
            queue_size: queue_size(),
            block_size: block_size(),
            single_put_size: single_put_size(),
            concurrency: concurrency(),
            memory_limit: memory_limit(),
            bandwidth_limit: None,
            max_attempts: 0,
        }
    }
}

fn workers() -> u32 {
    4
}

fn queue_size() -> u32 {
    2000
}

fn block_size() -> Quantity {
    "4Mi".into()
}

fn single_put_size() -> Quantity {
    "16Mi".into()
}

fn concurrency() -> u32 {
    8
}

fn memory_limit() -> Quantity {
    "256Mi".into()
}

/// The copy on the pod's local disk that a file has while it is uploaded, so that a retry does not read the share again.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Staging {
    /// Disk keeps a copy of a file while it is being uploaded; None streams from the share.
    #[serde(default)]
    pub mode: StagingMode,

    /// Limit of the pod's local disk for staged files, 1Gi to 100Ti, and no more than nine tenths of a lower limit of ephemeral-storage in
    /// pod.resources. A file that does not fit is streamed.
    #[serde(default = "size_limit")]
    #[x_kube(validation = Rule::new(r"string(self).matches('^[0-9]+([.][0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$') && quantity(string(self)).compareTo(quantity('1Gi')) >= 0 && quantity(string(self)).compareTo(quantity('100Ti')) <= 0").message("sizeLimit is a size from 1Gi to 100Ti, like 100Gi; mode None uses no local disk"))]
    pub size_limit: Quantity,
}

impl Default for Staging {
    fn default() -> Self {
        Self { mode: StagingMode::default(), size_limit: size_limit() }
    }
}

fn size_limit() -> Quantity {
    "100Gi".into()
}

/// Whether files are staged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum StagingMode {
    /// Staged while it is being uploaded.
    #[default]
    Disk,
    /// Streamed from the share.
    None,
}

/// What happens to files that are uploaded.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// Time between two passes of the collector, 1s to 1h.
    #[serde(default = "interval")]
    #[x_kube(validation = Rule::new(r"self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('1s') && duration(self) <= duration('1h')").message("retention.interval is a duration from 1s to 1h, like 30s"))]
    pub interval: TextDuration,

    /// How long an uploaded file stays on the share, up to 8760h. It is never deleted before it was unchanged for 60s.
    #[serde(default = "keep_completed_for")]
    #[x_kube(validation = Rule::new(r"self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) <= duration('8760h')").message("keepCompletedFor is a duration up to 8760h, like 60s or 72h"))]
    pub keep_completed_for: TextDuration,
}

impl Default for Retention {
    fn default() -> Self {
        Self { interval: interval(), keep_completed_for: keep_completed_for() }
    }
}

fn interval() -> TextDuration {
    "30s".into()
}

fn keep_completed_for() -> TextDuration {
    "60s".into()
}
