//! Which files are set aside, as far as is known. (pure)

use std::collections::{BTreeMap, BTreeSet, HashSet};

use blobferry_crds::FileProblem;

use crate::formats::ClaimId;

/// A file that is set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    /// What the status says of it.
    pub problem: FileProblem,
    /// The `runToken` under which it was set aside.
    pub run_token: Option<String>,
}

/// The files that are set aside. The collector's look at the share is the truth; what workers set aside meanwhile is added.
#[derive(Debug, Default)]
pub struct Shelf {
    files: BTreeMap<ClaimId, (Aside, u64)>,
    look: u64,
    looked: bool,
}

impl Shelf {
    /// A look at the share begins: what is put from now on may be missing in it.
    pub fn begin(&mut self) {
        self.look += 1;
    }

    /// A file was set aside, or found aside.
    pub fn put(&mut self, claim: ClaimId, aside: Aside) {
        self.files.insert(claim, (aside, self.look));
    }

    /// A file was taken back.
    pub fn take(&mut self, claim: ClaimId) {
        self.files.remove(&claim);
    }

    /// The look ended and saw these, and no others that were there when it began. Returns the least time (server clock) from which on
    /// one of those that are gone waited: another uploader may have taken it back.
    pub fn retain(&mut self, seen: impl Iterator<Item = ClaimId>) -> Option<i128> {
        let seen: BTreeSet<ClaimId> = seen.collect();
        let look = self.look;
        let gone = self.files.extract_if(.., |claim, (_, put)| *put != look && !seen.contains(claim));
        let oldest = gone.map(|(claim, _)| claim.waits_since()).min();
        self.looked = true;
        oldest
    }

    /// Those that were aside when the look began and are claimed by what it saw.
    pub fn taken_by_others(&self, claimed: &HashSet<ClaimId>) -> Vec<ClaimId> {
        let is_taken = |claim: &ClaimId| claimed.contains(claim) && !self.is_of_this_look(*claim);
        self.files.keys().copied().filter(is_taken).collect()
    }

    /// Whether a worker set the file aside, or a look found it aside for the first time, since the look began.
    pub fn is_of_this_look(&self, claim: ClaimId) -> bool {
        self.files.get(&claim).is_some_and(|(_, put)| *put == self.look)
    }

    /// The claims of all.
    pub fn claims(&self) -> BTreeSet<ClaimId> {
        self.files.keys().copied().collect()
    }

    /// True if the file goes back to work: it was set aside before the `runToken` of now was given.
    pub fn is_due(&self, claim: ClaimId, token: Option<&str>) -> bool {
        let before = |aside: &Aside| aside.run_token.as_deref() != token;
        token.is_some() && self.files.get(&claim).is_some_and(|(aside, _)| before(aside))
    }

    /// How many go back to work.
    pub fn due(&self, token: Option<&str>) -> u64 {
        self.files.keys().filter(|claim| self.is_due(**claim, token)).count() as u64
    }

    /// How many there are; `None` before the first look.
    pub fn files(&self) -> Option<u64> {
        self.looked.then_some(self.files.len() as u64)
    }

    /// The least time (server clock) from which on one of them was not uploaded.
    pub fn oldest(&self) -> Option<i128> {
        self.files.keys().map(ClaimId::waits_since).min()
    }

    /// The greatest such time.
    pub fn newest(&self) -> Option<i128> {
        self.files.keys().map(ClaimId::waits_since).max()
    }

    /// The oldest, for the status.
    pub fn problems(&self) -> impl Iterator<Item = &FileProblem> {
        self.files.values().map(|(aside, _)| &aside.problem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        formats::{OrderKey, ProcessId},
        ledger::problem,
    };

    fn claim(key: u64) -> ClaimId {
        ClaimId::new(OrderKey(key), ProcessId::new(1), 1)
    }

    fn aside(token: Option<&str>) -> Aside {
        Aside { problem: problem("a", "SetAside", "m"), run_token: token.map(str::to_owned) }
    }

    #[test]
    fn files_that_are_set_aside_during_a_look_are_kept_and_those_that_vanished_are_not() {
        let mut shelf = Shelf::default();
        assert_eq!(shelf.files(), None);
        shelf.put(claim(1), aside(None));
        shelf.begin();
        shelf.put(claim(2), aside(None));
        assert_eq!(shelf.retain([].into_iter()), Some(1));
        assert_eq!((shelf.files(), shelf.oldest()), (Some(1), Some(2)));
        shelf.begin();
        assert_eq!(shelf.retain([].into_iter()), Some(2));
        assert_eq!((shelf.files(), shelf.oldest()), (Some(0), None));
    }

    #[test]
    fn only_a_token_that_is_given_and_new_takes_a_file_back() {
        let mut shelf = Shelf::default();
        shelf.put(claim(1), aside(None));
        shelf.put(claim(2), aside(Some("monday")));
        let due = |token| [1, 2].map(|key| shelf.is_due(claim(key), token));
        assert_eq!(due(None), [false, false]);
        assert_eq!(due(Some("monday")), [true, false]);
        assert_eq!(due(Some("tuesday")), [true, true]);
        assert_eq!([None, Some("monday"), Some("tuesday")].map(|token| shelf.due(token)), [0, 1, 2]);
    }
}
