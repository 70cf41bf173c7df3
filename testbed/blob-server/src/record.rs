//! What was asked of the server.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{Fault, Operation, Refusal, Version};

/// One request.
#[derive(Clone, Debug)]
pub struct Record {
    /// Place among all requests, from 1.
    pub number: u64,
    /// When its head had arrived.
    pub at: SystemTime,
    /// What was asked; `None` if that was not understood.
    pub operation: Option<Operation>,
    /// The container.
    pub container: Arc<str>,
    /// The blob's name.
    pub blob: Arc<str>,
    /// Bytes of the body that arrived.
    pub received: u64,
    /// What was done to it.
    pub fault: Option<Fault>,
    /// What became of it: the status of the reply, with the service's code; `None` if it was not done.
    pub outcome: Option<Result<u16, Refusal>>,
    /// What a write made: its checksum and size.
    pub wrote: Option<(u64, u64)>,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        write!(f, "{:.6} #{} ", since.as_secs_f64(), self.number)?;
        match self.operation {
            Some(operation) => write!(f, "{operation:?}")?,
            None => f.write_str("?")?,
        }
        write!(f, " {} {} bytes", self.blob, self.received)?;
        if let Some((crc64, size)) = self.wrote {
            write!(f, " made {crc64:016x} of {size} bytes")?;
        }
        if let Some(fault) = &self.fault {
            write!(f, " [{fault:?}]")?;
        }
        match &self.outcome {
            None => f.write_str(" -> not done"),
            Some(Ok(status)) => write!(f, " -> {status}"),
            Some(Err(refusal)) => write!(f, " -> {} {}", refusal.status, refusal.code),
        }
    }
}

/// Something that an observer is told.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// The head of a request has arrived.
    Arrived(&'a Record),
    /// A request was applied, and with it perhaps a version committed; told in the order in which it happened, under the server's lock.
    Applied(&'a Record, Option<&'a Version>),
}

/// Sums over all requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests by operation.
    pub requests: BTreeMap<Operation, u64>,
    /// Bytes of all bodies.
    pub received: u64,
    /// Requests that met a fault.
    pub faults: u64,
}

impl Totals {
    pub(crate) fn add(&mut self, record: &Record) {
        if let Some(operation) = record.operation {
            *self.requests.entry(operation).or_default() += 1;
        }
        self.received += record.received;
        self.faults += u64::from(record.fault.is_some());
    }

    /// All requests.
    pub fn count(&self) -> u64 {
        self.requests.values().sum()
    }
}

/// What the server keeps of its requests.
#[derive(Debug, Default)]
pub(crate) struct Log {
    next: u64,
    totals: Totals,
    records: Vec<Record>,
    keeps_records: bool,
}

impl Log {
    pub(crate) fn new(keeps_records: bool) -> Self {
        Self { keeps_records, ..Self::default() }
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(crate) fn add(&mut self, record: Record) {
        self.totals.add(&record);
        if self.keeps_records {
            self.records.push(record);
        }
    }

    pub(crate) fn totals(&self) -> Totals {
        self.totals.clone()
    }

    pub(crate) fn records(&self) -> &[Record] {
        &self.records
    }

    pub(crate) fn forget(&mut self, before: Duration, now: SystemTime) {
        self.records.retain(|record| now.duration_since(record.at).unwrap_or_default() <= before);
    }
}
