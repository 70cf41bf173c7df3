//! Which call meets which fate.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::{BlobError, BlockListKind, Condition, Properties};
use crate::formats::{BlobName, BlockId};

/// The calls of [`BlobStore`](super::super::BlobStore).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// `look`
    Look,
    /// `put_block`
    PutBlock,
    /// `put_blob`
    PutBlob,
    /// `commit`
    Commit,
    /// `blocks`
    Blocks,
    /// `prepare`
    Prepare,
    /// `refresh`, which never fails
    Refresh,
}

/// A call with its arguments.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the fields are the arguments of the trait's methods")]
pub enum Request {
    /// `look`
    Look { name: BlobName },
    /// `put_block`
    PutBlock { name: BlobName, id: BlockId, body: Bytes, crc64: u64 },
    /// `put_blob`
    PutBlob { name: BlobName, body: Bytes, crc64: u64, condition: Condition, properties: Properties },
    /// `commit`
    Commit { name: BlobName, blocks: Vec<BlockId>, condition: Condition, properties: Properties },
    /// `blocks`
    Blocks { name: BlobName, kind: BlockListKind },
    /// `prepare`
    Prepare,
}

impl Request {
    /// Which call it is.
    pub fn operation(&self) -> Operation {
        match self {
            Self::Look { .. } => Operation::Look,
            Self::PutBlock { .. } => Operation::PutBlock,
            Self::PutBlob { .. } => Operation::PutBlob,
            Self::Commit { .. } => Operation::Commit,
            Self::Blocks { .. } => Operation::Blocks,
            Self::Prepare => Operation::Prepare,
        }
    }
}

/// What becomes of a call.
#[derive(Debug)]
pub(super) enum Fate {
    Normal,
    FailBefore(BlobError),
    FailAfter(BlobError),
    Late,
}

/// The faults of one client that are still to come, and what it did so far.
#[derive(Debug, Default)]
pub(super) struct Script {
    calls: BTreeMap<Operation, usize>,
    planned: BTreeMap<(Operation, usize), Fate>,
    late: Vec<Request>,
}

impl Script {
    pub(super) fn plan(&mut self, operation: Operation, nth: usize, fate: Fate) {
        self.planned.insert((operation, self.calls(operation) + nth), fate);
    }

    pub(super) fn fate_of(&mut self, request: &Request) -> Fate {
        let number = self.count(request.operation());
        self.planned.remove(&(request.operation(), number)).unwrap_or(Fate::Normal)
    }

    pub(super) fn count(&mut self, operation: Operation) -> usize {
        let calls = self.calls.entry(operation).or_default();
        *calls += 1;
        *calls
    }

    pub(super) fn calls(&self, operation: Operation) -> usize {
        self.calls.get(&operation).copied().unwrap_or_default()
    }

    pub(super) fn keep_late(&mut self, request: Request) {
        self.late.push(request);
    }

    pub(super) fn take_late(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.late)
    }
}
