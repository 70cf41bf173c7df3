//! Files that failed: which are tried again, which failed last, and the one error that a person is told first. (pure)

use std::collections::{BTreeMap, VecDeque};

use blobferry_crds::{Check, FileProblem, conditions::shorten};

use crate::{ends::End, file::ClaimedFile, formats::BlobName};

const RECENT: usize = 3;
const MESSAGE: usize = 200;
/// Bytes of a file's name in the status.
pub(super) const NAME: usize = 256;
/// Reasons of waiting files that waiting does not help.
const NEEDS_A_PERSON: [&str; 3] = ["BadName", "OtherSession", "Unreadable"];

/// Files that failed and are tried again, and the last failures.
#[derive(Debug, Default)]
pub struct Failures {
    recent: VecDeque<FileProblem>,
    failing: BTreeMap<BlobName, Failing>,
}

/// A file that failed and is tried again.
#[derive(Clone, Debug)]
struct Failing {
    problem: FileProblem,
    /// Since when the file waits (server clock).
    since: i128,
    /// The end that is to blame, if one is.
    end: Option<End>,
}

impl Failures {
    /// An attempt failed, for the sake of an end or not.
    pub fn add(&mut self, file: &ClaimedFile, reason: &str, message: &str, end: Option<End>) {
        let problem = problem(&file.display_name(), reason, message);
        self.failing.insert(file.blob.clone(), Failing { problem: problem.clone(), since: file.since, end });
        self.recent.retain(|recent| recent.name != problem.name);
        self.recent.push_front(problem);
        self.recent.truncate(RECENT);
    }

    /// The file is not failing any more, for whatever reason.
    pub fn recovered(&mut self, blob: &BlobName) {
        self.failing.remove(blob);
    }

    /// The last failures, whether they are over or not.
    pub fn recent(&self) -> Vec<FileProblem> {
        self.recent.iter().cloned().collect()
    }

    /// The files that are tried again, the oldest first.
    pub fn failing(&self) -> impl Iterator<Item = &FileProblem> {
        let mut all: Vec<_> = self.failing.values().collect();
        all.sort_by_key(|failing| failing.since);
        all.into_iter().map(|failing| &failing.problem)
    }

    /// True if a file is tried again because of this end.
    pub fn wait_for(&self, end: End) -> bool {
        self.failing.values().any(|failing| failing.end == Some(end))
    }

    /// What a person is told first: an end that does not work, then a file that failed, then one that needs a person.
    pub(super) fn last_error(&self, checks: &[Check], held_back: &[FileProblem]) -> Option<String> {
        let check = checks.iter().find(|check| !check.ok).map(|check| check.message.clone());
        let file = || self.failing.values().max_by_key(|failing| failing.since).map(|failing| in_words(&failing.problem));
        let held = || held_back.iter().find(|file| NEEDS_A_PERSON.contains(&file.reason.as_str())).map(in_words);
        check.or_else(file).or_else(held).map(|text| shorten(&text, MESSAGE))
    }
}

/// A file and what is wrong with it, cut to what the schema takes.
pub fn problem(name: &str, reason: &str, message: &str) -> FileProblem {
    FileProblem { name: shorten(name, NAME), reason: reason.into(), message: shorten(message, MESSAGE) }
}

fn in_words(problem: &FileProblem) -> String {
    format!("{}: {}", problem.name, problem.message)
}
