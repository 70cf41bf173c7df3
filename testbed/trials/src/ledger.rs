//! The oracle: what the producers did, and what may become of it. (pure but for the descriptors that it holds)
//!
//! A producer says what it is about to do before it does it. Every version that the server commits must be the state of a generation
//! that was announced, in their order and each once. A file must not lose its last name before its last state was committed.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, OwnedFd},
    time::SystemTime,
};

use rustix::fs::fstat;

use crate::contents::Fingerprint;

/// One drop of a name.
#[derive(Debug)]
struct Generation {
    id: u64,
    /// What it looked like, or is going to, each time it is left alone.
    states: Vec<Fingerprint>,
    /// Its producer took it back, or wrote over it.
    withdrawn: bool,
    /// The file, without having it open; `None` before it exists and after it was seen to be gone rightly.
    file: Option<OwnedFd>,
    committed: Vec<usize>,
}

impl Generation {
    fn is_committed(&self) -> bool {
        self.committed.last().is_some_and(|state| state + 1 == self.states.len())
    }
}

/// All drops of one name.
#[derive(Debug, Default)]
struct Name {
    generations: Vec<Generation>,
    /// Place of the last committed state: generation, and state of it.
    last: Option<(usize, usize)>,
    history: Vec<(SystemTime, String)>,
}

/// What a test checks against.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    names: BTreeMap<String, Name>,
}

/// Sums over everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) generations: usize,
    pub(crate) committed: usize,
    pub(crate) withdrawn: usize,
    pub(crate) superseded: usize,
}

impl Sums {
    /// Adds those of another lane.
    pub(crate) fn add(&mut self, other: Self) {
        self.generations += other.generations;
        self.committed += other.committed;
        self.withdrawn += other.withdrawn;
        self.superseded += other.superseded;
    }
}

/// The oracle says no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// The file's name.
    pub(crate) name: String,
    /// What is wrong.
    pub(crate) what: String,
}

impl Ledger {
    /// A state that generation `id` of a name is about to have. A new id is a new generation, later than all before.
    pub(crate) fn announce(&mut self, name: &str, id: u64, state: Fingerprint) {
        let name = self.names.entry(name.to_owned()).or_default();
        name.history.push((SystemTime::now(), format!("producer: generation {id} is going to have {} bytes", state.size)));
        match name.generations.iter_mut().find(|generation| generation.id == id) {
            Some(generation) => generation.states.push(state),
            None => {
                name.generations.push(Generation { id, states: vec![state], withdrawn: false, file: None, committed: Vec::new() });
            }
        }
    }

    /// The file of a generation, by a descriptor that only names it.
    pub(crate) fn made(&mut self, name: &str, id: u64, file: OwnedFd) {
        if let Some(generation) = self.generation(name, id) {
            generation.file = Some(file);
        }
        self.note(name, format!("producer: the file of generation {id} exists"));
    }

    /// The producer has taken a generation back before it was claimed.
    pub(crate) fn withdraw(&mut self, name: &str, id: u64) {
        if let Some(generation) = self.generation(name, id) {
            generation.withdrawn = true;
            generation.file = None;
        }
        self.note(name, format!("producer: generation {id} is withdrawn"));
    }

    /// Whether the file of a generation is this inode.
    pub(crate) fn is_file(&mut self, name: &str, id: u64, inode: u64) -> bool {
        let file = self.generation(name, id).and_then(|generation| generation.file.as_ref());
        file.and_then(|file| fstat(file).ok()).is_some_and(|stat| stat.st_ino == inode)
    }

    /// Something else that happened to a name.
    pub(crate) fn note(&mut self, name: &str, what: String) {
        if let Some(name) = self.names.get_mut(name) {
            name.history.push((SystemTime::now(), what));
        }
    }

    fn generation(&mut self, name: &str, id: u64) -> Option<&mut Generation> {
        self.names.get_mut(name)?.generations.iter_mut().find(|generation| generation.id == id)
    }

    /// The server has committed a version.
    pub(crate) fn commit(&mut self, name: &str, version: Fingerprint) -> Result<(), Violation> {
        let violation = |what: String| Violation { name: name.to_owned(), what };
        let Some(entry) = self.names.get_mut(name) else { return Err(violation("a blob that nobody dropped".to_owned())) };
        let states = entry.generations.iter().enumerate().flat_map(|(place, generation)| {
            generation.states.iter().enumerate().filter(|(_, state)| **state == version).map(move |(state, _)| (place, state))
        });
        let places: Vec<_> = states.collect();
        let Some(first) = places.first() else {
            return Err(violation(format!("a version of {} bytes that is no state of any generation", version.size)));
        };
        // Empty contents are all alike: the least that is allowed.
        let Some((place, state)) = places.iter().find(|place| entry.last.is_none_or(|last| **place > last)) else {
            let id = entry.generations[first.0].id;
            let again = if Some(*first) == entry.last { "once more" } else { "over a later one" };
            return Err(violation(format!("generation {id} with {} bytes is committed {again}", version.size)));
        };
        entry.last = Some((*place, *state));
        let generation = &mut entry.generations[*place];
        generation.committed.push(*state);
        let text = format!("oracle: generation {} is committed with {} bytes", generation.id, version.size);
        if generation.withdrawn {
            return Err(violation(format!("generation {} is committed after its producer took it back", generation.id)));
        }
        entry.history.push((SystemTime::now(), text));
        Ok(())
    }

    /// Looks for files that lost their last name before their last state was committed.
    pub(crate) fn check_deletions(&mut self) -> Result<(), Violation> {
        self.check_deletions_by(|file| fstat(file.as_fd()).map_or(0, |stat| stat.st_nlink))
    }

    fn check_deletions_by(&mut self, links: impl Fn(&OwnedFd) -> u64) -> Result<(), Violation> {
        for (name, entry) in &mut self.names {
            for generation in &mut entry.generations {
                let gone = generation.file.as_ref().is_some_and(|file| links(file) == 0);
                if !gone {
                    continue;
                }
                if !generation.is_committed() {
                    let what = format!("the file of generation {} was deleted before it was committed", generation.id);
                    return Err(Violation { name: name.clone(), what });
                }
                generation.file = None;
                entry.history.push((SystemTime::now(), format!("oracle: the file of generation {} is gone", generation.id)));
            }
        }
        Ok(())
    }

    /// Everything has come to rest: each generation must be committed, withdrawn, or kept as superseded with its bytes. `kept` finds
    /// where a file is and what is in it.
    pub(crate) fn check_end(&self, kept: impl Fn(&OwnedFd) -> Option<(String, Fingerprint)>) -> Result<Sums, Violation> {
        let mut sums = Sums::default();
        for (name, entry) in &self.names {
            for (place, generation) in entry.generations.iter().enumerate() {
                sums.generations += 1;
                sums.withdrawn += usize::from(generation.withdrawn);
                sums.committed += generation.committed.len();
                let violation = |what: &str| Violation { name: name.clone(), what: format!("generation {} {what}", generation.id) };
                if generation.withdrawn || generation.is_committed() {
                    continue;
                }
                let (path, content) = generation.file.as_ref().and_then(&kept).ok_or_else(|| violation("is lost"))?;
                if !path.ends_with(".superseded") {
                    return Err(violation(&format!("was never committed; it is still {path}")));
                }
                if generation.states.last() != Some(&content) {
                    return Err(violation("is kept as superseded with other bytes"));
                }
                if entry.last.is_none_or(|last| last.0 <= place) {
                    return Err(violation("is superseded by nothing"));
                }
                sums.superseded += 1;
            }
        }
        Ok(sums)
    }

    /// Files that are there, not withdrawn.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &OwnedFd)> {
        self.names.iter().flat_map(|(name, entry)| {
            entry.generations.iter().filter_map(move |generation| Some((name.as_str(), generation.file.as_ref()?)))
        })
    }

    /// What happened to a name, with times.
    pub(crate) fn history(&self, name: &str) -> Vec<(SystemTime, String)> {
        self.names.get(name).map(|entry| entry.history.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
