//! What an uploader may do on the share, and what each of its renames and removals says.

use std::{
    ffi::OsStr,
    io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    time::Duration,
};

use blobferry_uploader::formats::{ClaimId, ProcessingName, State};
use tokio::time::Instant;

use super::{Claim, Oracle};
use crate::server::{Body, Node, Owner, Server};

/// A changing operation on the share.
#[derive(Clone, Debug)]
pub enum Change {
    /// `rename`
    Rename(PathBuf, PathBuf),
    /// `link`
    Link(PathBuf, PathBuf),
    /// `remove`
    Remove(PathBuf),
    /// `make_folder`
    MakeFolder(PathBuf),
    /// `remove_folder`
    RemoveFolder(PathBuf),
    /// `create_small`
    Create(PathBuf, Vec<u8>),
    /// `touch`
    Touch(PathBuf),
}

impl Change {
    /// The path whose absence the client may remember.
    pub fn source(&self) -> &Path {
        match self {
            Self::Rename(path, _)
            | Self::Link(path, _)
            | Self::Remove(path)
            | Self::MakeFolder(path)
            | Self::RemoveFolder(path)
            | Self::Create(path, _)
            | Self::Touch(path) => path,
        }
    }

    /// The path that exists afterwards.
    pub fn made(&self) -> Option<&Path> {
        match self {
            Self::Rename(_, path) | Self::Link(_, path) | Self::MakeFolder(path) | Self::Create(path, _) | Self::Touch(path) => {
                Some(path)
            }
            Self::Remove(_) | Self::RemoveFolder(_) => None,
        }
    }
}

/// What a path is to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A producer's name with its folders.
    Incoming(Vec<u8>),
    /// A producer's name with its folders, in the folder of a date and session, with what was made of its last part.
    Processing(Vec<u8>, ProcessingName),
    Elsewhere,
}

impl Place {
    /// The producer's name with its folders.
    pub(super) fn producer(self) -> Option<Vec<u8>> {
        match self {
            Self::Incoming(producer) | Self::Processing(producer, _) => Some(producer),
            Self::Elsewhere => None,
        }
    }
}

impl Oracle {
    /// Does what the process asks, and judges it.
    pub fn apply(&mut self, server: &mut Server, life: u32, change: &Change) -> io::Result<()> {
        match change {
            Change::Rename(from, to) => self.rename(server, life, from, to),
            Change::Remove(path) => self.remove(server, life, path),
            Change::Link(from, to) => self.link(server, from, to),
            Change::MakeFolder(path) => server.make_folders(path, Owner::Uploader),
            Change::RemoveFolder(path) => self.remove_folder(server, path),
            Change::Create(path, content) => server.create(path, Body::File(content.clone()), Owner::Uploader).map(drop),
            Change::Touch(path) => {
                let node = server.lookup(path)?;
                if server.inode(node).owner != Owner::Uploader {
                    self.violated(format!("an uploader touched {}, which is not its own", path.display()));
                }
                server.set_mtime(node, None);
                Ok(())
            }
        }
    }

    pub(super) fn place(&self, path: &Path) -> Place {
        if let Ok(below) = path.strip_prefix(&self.folders.incoming) {
            return Place::Incoming(below.as_os_str().as_bytes().to_vec());
        }
        self.claimed_place(path).unwrap_or(Place::Elsewhere)
    }

    fn claimed_place(&self, path: &Path) -> Option<Place> {
        let mut below = path.strip_prefix(&self.folders.processing).ok()?.components();
        below.next()?;
        let is_ours = below.next()?.as_os_str().as_bytes() == self.folders.session.as_bytes();
        let name = ProcessingName::parse(path.file_name()?.as_bytes())?;
        let producer = below.as_path().with_file_name(OsStr::from_bytes(&name.producer));
        is_ours.then(|| Place::Processing(producer.into_os_string().into_vec(), name))
    }

    fn rename(&mut self, server: &mut Server, life: u32, from: &Path, to_path: &Path) -> io::Result<()> {
        let renamed = server.rename(from, to_path)?;
        self.tick();
        let shown = || format!("{} -> {}", from.display(), to_path.display());
        if renamed.replaced.is_some_and(|replaced| server.inode(replaced).owner != Owner::Uploader && !is_folder(server, replaced))
        {
            self.violated(format!("a rename replaced another file: {}", shown()));
        }
        if server.inode(renamed.node).owner == Owner::Uploader {
            return Ok(());
        }
        match (self.place(from), self.place(to_path)) {
            (Place::Incoming(name), Place::Processing(producer, to)) if to.state == State::Claimed && producer == name => {
                self.claimed(renamed.node, producer, &to);
            }
            (Place::Processing(producer, from), Place::Processing(same, to)) if producer == same => {
                let is_explained = has_reason(server, to_path, &to);
                self.moved(life, renamed.node, producer, &from, &to, is_explained);
            }
            // A folder that was claimed instead of the file of its name.
            (Place::Processing(producer, from), Place::Incoming(name))
                if producer == name && from.state == State::Claimed && is_folder(server, renamed.node) => {}
            _ => self.violated(format!("a rename that no rule allows: {}", shown())),
        }
        Ok(())
    }

    fn claimed(&mut self, node: Node, producer: Vec<u8>, name: &ProcessingName) {
        let arrived = self.files.get(&node).map_or(0, |truth| truth.arrived);
        let claim = Claim { node, producer, at: self.now, taken: self.now, arrived, proven: false, released: false };
        if self.claims.insert(name.claim, claim).is_some() {
            self.violated(format!("two claims have one id: {}", name.claim));
        }
    }

    fn moved(&mut self, life: u32, node: Node, producer: Vec<u8>, from: &ProcessingName, to: &ProcessingName, is_explained: bool) {
        match (from.state, to.state) {
            (State::Claimed, State::Completed(_)) if from.claim == to.claim => self.proven(node, &from.claim),
            (State::Claimed, State::Superseded) if from.claim == to.claim => self.overtaken(node, &producer, from),
            // A late rename may come after another uploader has taken the file back; then it is taken back once more.
            (State::Claimed, State::Failed) if from.claim == to.claim && (is_explained || self.is_shared) => {}
            (State::Failed, State::Claimed) if from.claim == to.claim && self.may_take_back(is_explained) => {
                // What another uploader takes back nobody can know of in time.
                if let Some(claim) = self.claims.get_mut(&from.claim).filter(|_| self.is_shared) {
                    claim.taken = self.now;
                }
            }
            (State::Claimed | State::Completed(_), State::Claimed) if from.claim != to.claim => {
                self.claimed(node, producer, to);
                if let (Some(old), Some(truth)) = (self.claims.get(&from.claim), self.files.get(&node)) {
                    let arrived = old.arrived.min(truth.arrived);
                    if let Some(new) = self.claims.get_mut(&to.claim) {
                        new.arrived = arrived;
                    }
                }
            }
            _ => self.violated(format!("process {life}: no rule leads from {:?} to {:?}", from.state, to.state)),
        }
    }

    /// Whether a file that is aside may be tried again: somebody asked for it, or another uploader's late rename set it aside.
    fn may_take_back(&self, is_explained: bool) -> bool {
        self.may_take_back || (self.is_shared && !is_explained)
    }

    fn proven(&mut self, node: Node, claim: &ClaimId) {
        if self.versions_of(claim).all(|version| version.node != node) {
            self.violated(format!("{claim} was called completed and was never committed"));
        }
        if let Some(known) = self.claims.get_mut(claim) {
            known.proven = true;
        }
        if let Some(truth) = self.files.get_mut(&node) {
            truth.completed = Some(Instant::now());
        }
        let size = self.versions_of(claim).find(|version| version.node == node).map_or(0, |version| version.content.len() as u64);
        self.completed = (self.completed.0 + 1, self.completed.1 + size);
    }

    /// A superseded file was provably followed: a file that came later to its name was committed under a greater claim.
    fn overtaken(&mut self, node: Node, producer: &[u8], name: &ProcessingName) {
        self.superseded += 1;
        let arrived = self.claims.get(&name.claim).map_or(0, |known| known.arrived);
        let versions = self.blobs.values().flat_map(|blob| &blob.versions);
        let mut later = versions.filter(|version| version.producer == *producer && version.claim > name.claim).peekable();
        if later.peek().is_none() {
            return self.violated(format!("{} was called superseded and nothing followed it", name.claim));
        }
        let is_known = !self.clock_stepped && self.files.get(&node).is_none_or(|truth| !truth.came_with_folder);
        if is_known && later.all(|version| version.generation.0 < arrived) {
            self.violated(format!("{} was called superseded and came last to its name", name.claim));
        }
    }

    /// A claimed file gets its producer's name again, and no other.
    fn link(&mut self, server: &mut Server, from: &Path, to: &Path) -> io::Result<()> {
        let node = server.link(from, to)?;
        let now = self.tick();
        if server.inode(node).owner == Owner::Uploader {
            return Ok(());
        }
        match (self.place(from), self.place(to)) {
            (Place::Processing(producer, name), Place::Incoming(same)) if producer == same && name.state == State::Claimed => {
                // Another uploader may have claimed the name that an earlier link gave back: it is one file, and each of its claims may go.
                let same = |claim: &&mut Claim| claim.node == node && !claim.proven;
                self.claims.values_mut().filter(same).for_each(|claim| claim.released = true);
                if let Some(truth) = self.files.get_mut(&node) {
                    // It comes to its name anew, for a session that knows nothing of before.
                    truth.arrived = now;
                    truth.clock = server.inode(node).ctime;
                }
            }
            _ => self.violated(format!("a link that no rule allows: {} -> {}", from.display(), to.display())),
        }
        Ok(())
    }

    /// True if the claimed file was given back, by whichever process.
    pub(super) fn was_released(&self, claim: &ClaimId) -> bool {
        self.claims.get(claim).is_some_and(|claim| claim.released)
    }

    fn remove_folder(&mut self, server: &mut Server, path: &Path) -> io::Result<()> {
        if !path.starts_with(&self.folders.processing) {
            self.violated(format!("an uploader removed {}, which is not its own", path.display()));
        }
        server.remove_folder(path)
    }

    /// For how long a completed file had been left alone when that process looked at it last.
    fn rested(&self, life: u32, node: Node) -> Option<Duration> {
        let (look, truth) = (self.looks.get(&(life, node))?, self.files.get(&node)?);
        let changed = Some(truth.moved).filter(|moved| *moved <= look.at);
        let since = truth.completed.into_iter().chain(changed).max()?;
        Some(look.at.saturating_duration_since(since))
    }

    fn remove(&mut self, server: &mut Server, life: u32, path: &Path) -> io::Result<()> {
        let node = server.remove(path)?;
        self.tick();
        if server.inode(node).owner == Owner::Uploader {
            return Ok(());
        }
        let Place::Processing(_, name) = self.place(path) else {
            self.violated(format!("{} was deleted and is no completed file", path.display()));
            return Ok(());
        };
        if name.state == State::Claimed && self.was_released(&name.claim) {
            if let Some(truth) = self.files.get_mut(&node) {
                truth.clock = server.inode(node).ctime;
            }
            return Ok(());
        }
        let State::Completed(_) = name.state else {
            self.violated(format!("{} was deleted before it was completed", path.display()));
            return Ok(());
        };
        if let Some(rested) = self.rested(life, node).filter(|rested| *rested < UNCHANGED) {
            self.violated(format!("{} was deleted {} ms after it changed last", path.display(), rested.as_millis()));
        }
        // What reached the server after the last look is outside the promise.
        let content = match (self.looks.get(&(life, node)), self.files.get(&node)) {
            (Some(look), Some(truth)) => truth.contents.get(look.content).map(|(_, content)| content.clone()),
            _ => None,
        };
        let committed = content
            .is_some_and(|content| self.versions_of(&name.claim).any(|version| version.node == node && version.content == content));
        if !committed {
            self.violated(format!("{} was deleted and what it held was never committed", path.display()));
        }
        Ok(())
    }
}

/// A completed file is deleted a minute after its last change, or a tick of the server's clock less: within one nobody sees a change.
const UNCHANGED: Duration = Duration::from_secs(55);

fn is_folder(server: &Server, node: Node) -> bool {
    matches!(server.inode(node).body, Body::Folder(_))
}

/// Whether there is a reason for a file of this name to be set aside.
fn has_reason(server: &Server, path: &Path, name: &ProcessingName) -> bool {
    let reason = name.with(State::FailedReason).to_bytes();
    server.lookup(&path.with_file_name(OsStr::from_bytes(&reason))).is_ok()
}
