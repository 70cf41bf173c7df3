//! Files that may be on the share although this process holds none of them: a name that was gone when it was looked at, a file that
//! another uploader may have claimed, a claim whose name did not answer. (pure)
//!
//! A doubt is over when a scan and a pass of the collector, both begun after it arose, have ended: whatever is there is known then.

/// When rounds of looking began and which of them ended.
#[derive(Clone, Copy, Debug, Default)]
struct Rounds {
    begun: u64,
    ended: u64,
}

/// What one doubt waits for.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    /// No file that it is about is older than this (server clock).
    since: i128,
    scan: u64,
    pass: u64,
    /// Whether one of them may be claimed, so that no scan shows it.
    is_of_claims: bool,
}

/// All doubts.
#[derive(Debug, Default)]
pub struct Doubts {
    open: Vec<Doubt>,
    scans: Rounds,
    passes: Rounds,
}

impl Doubts {
    /// Something may be there that came to its name at `since` (server clock) or later, and may be claimed by now.
    pub fn add(&mut self, since: i128) {
        self.put(since, true);
    }

    /// The same of something that is in the incoming folder, if anywhere.
    pub fn add_incoming(&mut self, since: i128) {
        self.put(since, false);
    }

    fn put(&mut self, since: i128, is_of_claims: bool) {
        let (scan, pass) = (self.scans.begun, self.passes.begun);
        match self.open.last_mut() {
            Some(last) if (last.scan, last.pass) == (scan, pass) => {
                last.since = last.since.min(since);
                last.is_of_claims |= is_of_claims;
            }
            _ => self.open.push(Doubt { since, scan, pass, is_of_claims }),
        }
    }

    /// A scan begins.
    pub fn scan_begins(&mut self) {
        self.scans.begun += 1;
    }

    /// The scan was complete.
    pub fn scan_ends(&mut self) {
        self.scans.ended = self.scans.begun;
        self.settle();
    }

    /// A pass of the collector begins.
    pub fn pass_begins(&mut self) {
        self.passes.begun += 1;
    }

    /// The pass was complete.
    pub fn pass_ends(&mut self) {
        self.passes.ended = self.passes.begun;
        self.settle();
    }

    fn settle(&mut self) {
        let (scans, passes) = (self.scans.ended, self.passes.ended);
        self.open.retain(|doubt| doubt.scan >= scans || doubt.pass >= passes);
    }

    /// True as long as it is not known what one of them is about.
    pub fn are_open(&self) -> bool {
        self.open.iter().any(|doubt| doubt.is_of_claims || doubt.scan >= self.scans.ended)
    }

    /// True as long as a pass of the collector may show what one is about.
    pub fn wait_for_pass(&self) -> bool {
        self.open.iter().any(|doubt| doubt.is_of_claims && doubt.pass >= self.passes.ended)
    }

    /// The greatest time since when a file may be there.
    pub fn newest(&self) -> Option<i128> {
        self.open.iter().map(|doubt| doubt.since).max()
    }

    /// The least time of a file that may be there; `None` without any doubt.
    pub fn oldest(&self) -> Option<i128> {
        self.open.iter().map(|doubt| doubt.since).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubt_about_the_incoming_folder_is_open_until_a_later_scan_and_holds_the_time_back_until_a_later_pass() {
        let mut doubts = Doubts::default();
        doubts.scan_begins();
        doubts.add_incoming(7);
        doubts.scan_ends();
        assert!(doubts.are_open());
        doubts.scan_begins();
        doubts.scan_ends();
        assert_eq!((doubts.are_open(), doubts.oldest()), (false, Some(7)));
        // Of the same time, but about claims.
        doubts.add_incoming(9);
        doubts.add(8);
        doubts.scan_begins();
        doubts.scan_ends();
        assert!(doubts.are_open());
    }

    #[test]
    fn doubt_is_over_when_a_later_scan_and_a_later_pass_have_ended() {
        let mut doubts = Doubts::default();
        doubts.scan_begins();
        doubts.pass_begins();
        doubts.add(7);
        doubts.scan_ends();
        doubts.pass_ends();
        assert_eq!(doubts.oldest(), Some(7), "both had begun before");
        assert!(doubts.are_open());
        doubts.scan_begins();
        doubts.scan_ends();
        assert_eq!(doubts.oldest(), Some(7), "nobody has looked for claims yet");
        doubts.pass_begins();
        doubts.pass_ends();
        assert_eq!((doubts.oldest(), doubts.are_open()), (None, false));
    }
}
