//! In which order the generations of a name are uploaded. (pure)

use std::collections::{HashMap, VecDeque};

use crate::formats::OrderKey;

/// Most names of which the last order key is remembered.
const REMEMBERED: usize = 100_000;
/// Keys that stay free after each, for files that are changed after they were completed. More than an inode is ever changed; less than
/// any quiet period.
const ROOM: u64 = 1_000_000;

/// The greatest order key that this process has seen of each name, of the most recent names.
#[derive(Debug, Default)]
pub struct OrderKeys {
    greatest: HashMap<Box<[u8]>, OrderKey>,
    order: VecDeque<Box<[u8]>>,
}

impl OrderKeys {
    /// Notes a key of a name.
    pub fn saw(&mut self, name: &[u8], key: OrderKey) {
        if let Some(greatest) = self.greatest.get_mut(name) {
            *greatest = key.max(*greatest);
            return;
        }
        if self.order.len() >= REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.greatest.remove(&oldest);
        }
        self.order.push_back(name.into());
        self.greatest.insert(name.into(), key);
    }

    /// The greatest key of a name, if it is remembered.
    pub fn greatest(&self, name: &[u8]) -> Option<OrderKey> {
        self.greatest.get(name).copied()
    }

    /// The key for a new generation of a name whose stable sample has this ctime: greater than any that was seen.
    pub fn next(&mut self, name: &[u8], ctime: i128) -> OrderKey {
        let sampled = OrderKey::at(ctime);
        let key = self.greatest.get(name).map_or(sampled, |greatest| sampled.max(OrderKey(greatest.0.saturating_add(ROOM))));
        self.saw(name, key);
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_keys_of_a_name_only_grow_even_when_the_servers_clock_steps_back() {
        let mut keys = OrderKeys::default();
        assert_eq!(keys.next(b"a", 100), OrderKey(100));
        assert_eq!(keys.next(b"a", 40), OrderKey(100 + ROOM));
        keys.saw(b"a", OrderKey(5 * ROOM));
        assert_eq!(keys.next(b"a", 300), OrderKey(6 * ROOM));
        assert_eq!(keys.next(b"b", 40), OrderKey(40));
    }
}
