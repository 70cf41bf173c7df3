//! What is wrong with the two ends of the ferry, the share and the container, by the part of our work that found it. (pure)

use std::collections::BTreeMap;

use blobferry_crds::{Check, conditions::shorten};

/// Long enough for what was tried and what to do about it.
const MESSAGE: usize = 1000;

/// The two ends that are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// The share.
    Source,
    /// The container.
    Destination,
    /// The local disk between them, which is named only while it fails: files do not need it.
    Stage,
}

#[derive(Debug)]
struct Problem {
    reason: String,
    message: String,
}

/// The ends that were tried so far, with their problems.
#[derive(Debug, Default)]
pub struct Ends {
    problems: BTreeMap<End, BTreeMap<&'static str, Problem>>,
}

impl Ends {
    /// `part` of our work found that an end works.
    pub fn works(&mut self, end: End, part: &'static str) {
        self.problems.entry(end).or_default().remove(part);
    }

    /// The same of an end that was tried by others.
    pub fn mends(&mut self, end: End, part: &'static str) {
        if let Some(problems) = self.problems.get_mut(&end) {
            problems.remove(part);
        }
    }

    /// `part` of our work found that an end does not work; it stands until the same part says that it works.
    pub fn fails(&mut self, end: End, part: &'static str, reason: &str, message: &str) {
        let problem = Problem { reason: reason.to_owned(), message: shorten(message, MESSAGE) };
        self.problems.entry(end).or_default().insert(part, problem);
    }

    /// The end is not worth mentioning.
    pub fn forget(&mut self, end: End) {
        self.problems.remove(&end);
    }

    /// True if an end was tried and nothing is wrong with it.
    pub fn is_ok(&self, end: End) -> bool {
        self.problems.get(&end).is_some_and(BTreeMap::is_empty)
    }

    /// The ends as the status shows them.
    pub fn checks(&self) -> Vec<Check> {
        let check = |(end, problems): (&End, &BTreeMap<_, Problem>)| {
            let (type_, fine) = match end {
                End::Source => ("source", "the share is read and written"),
                End::Destination => ("destination", "the container takes files"),
                End::Stage => ("staging", "files are staged"),
            };
            let problem = problems.values().next();
            Check {
                type_: type_.to_owned(),
                ok: problem.is_none(),
                reason: problem.map_or("Reachable", |problem| &problem.reason).to_owned(),
                message: problem.map_or(fine, |problem| &problem.message).to_owned(),
            }
        };
        self.problems.iter().map(check).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_that_was_not_tried_yet_is_not_called_good_because_no_call_hangs() {
        let mut ends = Ends::default();
        ends.mends(End::Source, "calls");
        assert_eq!(ends.checks(), []);
        ends.fails(End::Source, "calls", "Hanging", "no answer");
        ends.mends(End::Source, "calls");
        assert!(ends.is_ok(End::Source));
    }

    #[test]
    fn problem_of_an_end_stands_until_the_part_that_found_it_says_otherwise() {
        let mut ends = Ends::default();
        assert!(!ends.is_ok(End::Destination), "it was not tried yet");
        ends.fails(End::Destination, "files", "Unreachable", "no route");
        ends.works(End::Destination, "check");
        assert!(!ends.is_ok(End::Destination), "another part found the problem");
        let checks = ends.checks();
        assert_eq!((checks[0].ok, checks[0].reason.as_str(), checks[0].message.as_str()), (false, "Unreachable", "no route"));
        ends.works(End::Destination, "files");
        assert!(ends.is_ok(End::Destination));
        assert!(ends.checks()[0].ok);
    }
}
