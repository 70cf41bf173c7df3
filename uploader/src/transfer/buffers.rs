//! One budget of bytes for all files, and buffers that are used again.
//!
//! A buffer is taken for the length of one block, filled from the share, checksummed, and handed to the service without a copy; when
//! the last reader of its bytes is done it comes back. Waiters are served in order, and nobody waits while holding a buffer, so the
//! budget cannot deadlock.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of one permit.
const UNIT: u64 = 4096;

/// The budget.
#[derive(Clone, Debug)]
pub struct Buffers {
    budget: Arc<Semaphore>,
    units: u32,
    spare: Arc<Mutex<Spare>>,
}

/// Memory that is allocated and not in use.
#[derive(Debug, Default)]
struct Spare {
    buffers: Vec<BytesMut>,
    /// Bytes of all buffers, in use or not.
    allocated: u64,
}

/// A buffer with its share of the budget.
#[derive(Debug)]
pub struct Buffer {
    /// The memory.
    pub bytes: BytesMut,
    capacity: u64,
    spare: Arc<Mutex<Spare>>,
    _permit: OwnedSemaphorePermit,
}

impl Buffers {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Self {
        let units = u32::try_from(limit / UNIT).unwrap_or(u32::MAX).max(1);
        Self { budget: Arc::new(Semaphore::new(units as usize)), units, spare: Arc::default() }
    }

    /// Bytes that are allocated now, in use or not.
    pub fn allocated(&self) -> u64 {
        lock(&self.spare).allocated
    }

    /// A buffer for `length` bytes, as soon as the budget allows it. A length above the whole budget gets the whole budget.
    pub async fn take(&self, length: usize) -> Buffer {
        let units = u32::try_from((length as u64).div_ceil(UNIT)).unwrap_or(u32::MAX).clamp(1, self.units);
        let permit = Arc::clone(&self.budget).acquire_many_owned(units).await;
        // The semaphore is never closed.
        let permit = permit.unwrap_or_else(|_| unreachable!("the budget is never closed"));
        let capacity = u64::from(units) * UNIT;
        let bytes = lock(&self.spare).reuse(capacity, u64::from(self.units) * UNIT);
        Buffer { bytes, capacity, spare: Arc::clone(&self.spare), _permit: permit }
    }
}

impl Spare {
    /// A spare buffer of exactly this capacity, or a new one; spare ones of other sizes go when the limit would be exceeded.
    fn reuse(&mut self, capacity: u64, limit: u64) -> BytesMut {
        if let Some(position) = self.buffers.iter().rposition(|buffer| buffer.capacity() as u64 == capacity) {
            return self.buffers.swap_remove(position);
        }
        while self.allocated + capacity > limit
            && let Some(buffer) = self.buffers.pop()
        {
            self.allocated -= buffer.capacity() as u64;
        }
        self.allocated += capacity;
        BytesMut::with_capacity(usize::try_from(capacity).unwrap_or(usize::MAX))
    }
}

impl Buffer {
    /// The bytes, without a copy; the buffer comes back when the last clone is dropped.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut spare = lock(&self.spare);
        if bytes.capacity() as u64 == self.capacity {
            spare.buffers.push(bytes);
        } else {
            spare.allocated -= self.capacity;
        }
    }
}

fn lock(spare: &Mutex<Spare>) -> std::sync::MutexGuard<'_, Spare> {
    spare.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn budget_is_never_exceeded_and_waiters_go_on_when_bytes_are_dropped() {
        let buffers = Buffers::new(16 * UNIT);
        let first = buffers.take(10 * 4096).await.freeze();
        let copy = first.clone();
        assert!(buffers.take(10 * 4096).now_or_never().is_none());
        drop(first);
        assert!(buffers.take(10 * 4096).now_or_never().is_none(), "a clone still holds the buffer");
        drop(copy);
        assert!(buffers.take(10 * 4096).now_or_never().is_some());
    }

    #[tokio::test]
    async fn buffers_are_used_again_and_other_sizes_go_when_memory_is_short() {
        let buffers = Buffers::new(4 * UNIT);
        drop(buffers.take(3 * 4096).await);
        drop(buffers.take(3 * 4096).await);
        assert_eq!(lock(&buffers.spare).allocated, 3 * UNIT);
        drop(buffers.take(2 * 4096).await);
        assert_eq!(lock(&buffers.spare).allocated, 2 * UNIT);
    }
}
