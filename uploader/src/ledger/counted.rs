//! Which completed files are in the counts, so that a crash between a rename and the next report neither loses nor doubles one. (pure)

use std::collections::BTreeMap;

/// Up to which time (server clock, nanoseconds since 1970) completed files are counted.
#[derive(Debug, Default)]
pub(super) struct Counted {
    /// Renames to completed that are under way, by ticket, with the server's time before them.
    completing: BTreeMap<u64, i128>,
    next_ticket: u64,
    through: Option<i128>,
    earlier: Earlier,
}

/// What is known of the counts of earlier processes.
#[derive(Debug)]
enum Earlier {
    /// Nothing yet; completed files of earlier processes that were found meanwhile, as ctime and bytes.
    Unknown(Vec<(i128, u64)>),
    /// There are none: what was completed before is not ours to count.
    Nothing,
    /// Files completed up to this time (server clock) are in them.
    CountedThrough(i128),
}

impl Default for Earlier {
    fn default() -> Self {
        Self::Unknown(Vec::new())
    }
}

impl Counted {
    /// The counts of earlier processes are in, up to a time if they say one; returns completed files that were found before, as ctime
    /// and bytes.
    pub(super) fn resume(&mut self, through: Option<i128>) -> Vec<(i128, u64)> {
        self.through = self.through.max(through);
        let earlier = through.map_or(Earlier::Nothing, Earlier::CountedThrough);
        match std::mem::replace(&mut self.earlier, earlier) {
            Earlier::Unknown(found) => found,
            Earlier::Nothing | Earlier::CountedThrough(_) => Vec::new(),
        }
    }

    /// True once the counts of earlier processes are in.
    pub(super) fn is_resumed(&self) -> bool {
        !matches!(self.earlier, Earlier::Unknown(_))
    }

    /// Without counts of earlier processes, counting begins now.
    pub(super) fn begin(&mut self, server_now: i128) {
        self.through.get_or_insert(server_now);
    }

    /// A completed file of an earlier process was found; true if it is to be counted.
    pub(super) fn found(&mut self, bytes: u64, ctime: i128) -> bool {
        match &mut self.earlier {
            Earlier::Unknown(found) => {
                found.push((ctime, bytes));
                false
            }
            Earlier::CountedThrough(through) if ctime > *through => {
                self.reach(ctime);
                true
            }
            Earlier::CountedThrough(_) | Earlier::Nothing => false,
        }
    }

    /// Before a rename to completed: a ticket for what comes of it.
    pub(super) fn completing(&mut self, server_now: i128) -> u64 {
        self.next_ticket += 1;
        self.completing.insert(self.next_ticket, server_now);
        self.next_ticket
    }

    /// The rename of the ticket did not take place.
    pub(super) fn not_completed(&mut self, ticket: u64) {
        self.completing.remove(&ticket);
    }

    /// The rename of the ticket took place.
    pub(super) fn completed(&mut self, ticket: u64, ctime: i128) {
        self.completing.remove(&ticket);
        self.reach(ctime);
    }

    /// Completed files with a ctime up to this time are counted.
    pub(super) fn through(&self) -> Option<i128> {
        let in_flight = self.completing.values().min().map(|lower| lower - 1);
        match (self.through, in_flight) {
            (Some(through), Some(in_flight)) => Some(through.min(in_flight)),
            (through, _) => through,
        }
    }

    fn reach(&mut self, ctime: i128) {
        self.through = Some(self.through.map_or(ctime, |through| through.max(ctime)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counted_through_stays_below_renames_that_are_under_way() {
        let mut counted = Counted::default();
        counted.begin(5);
        let first = counted.completing(10);
        let second = counted.completing(20);
        counted.completed(second, 21);
        assert_eq!(counted.through(), Some(9));
        counted.completed(first, 15);
        assert_eq!(counted.through(), Some(21));
    }
}
