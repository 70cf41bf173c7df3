//! What an uploader may do on the share, and what each of its renames and removals says.

use std::{
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use blobferry_uploader::formats::{ClaimId, ProcessingName, State};

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
enum Place {
    Incoming(Vec<u8>),
    Processing(ProcessingName),
    Elsewhere,
}

impl Oracle {
    /// Does what the process asks, and judges it.
    pub fn apply(&mut self, server: &mut Server, life: u32, change: &Change) -> io::Result<()> {
        match change {
            Change::Rename(from, to) => self.rename(server, life, from, to),
            Change::Remove(path) => self.remove(server, life, path),
            Change::Link(from, to) => server.link(from, to).map(drop),
            Change::MakeFolder(path) => server.make_folders(path, Owner::Uploader),
            Change::RemoveFolder(path) => server.remove_folder(path),
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

    fn place(&self, path: &Path) -> Place {
        let name = path.file_name().unwrap_or_default().as_bytes();
        let Some(folder) = path.parent() else { return Place::Elsewhere };
        if folder == self.folders.incoming {
            return Place::Incoming(name.to_vec());
        }
        let is_ours = folder.file_name().is_some_and(|name| name.as_bytes() == self.folders.session.as_bytes());
        let above = folder.parent().and_then(Path::parent);
        match ProcessingName::parse(name) {
            Some(name) if is_ours && above == Some(&self.folders.processing) => Place::Processing(name),
            _ => Place::Elsewhere,
        }
    }

    fn rename(&mut self, server: &mut Server, life: u32, from: &Path, to: &Path) -> io::Result<()> {
        let renamed = server.rename(from, to)?;
        self.tick();
        let shown = || format!("{} -> {}", from.display(), to.display());
        if renamed.replaced.is_some_and(|replaced| server.inode(replaced).owner != Owner::Uploader) {
            self.violated(format!("a rename replaced another file: {}", shown()));
        }
        if server.inode(renamed.node).owner == Owner::Uploader {
            return Ok(());
        }
        match (self.place(from), self.place(to)) {
            (Place::Incoming(name), Place::Processing(to)) if to.state == State::Claimed && *to.producer == *name => {
                self.claimed(renamed.node, &to);
            }
            (Place::Processing(from), Place::Processing(to)) if from.producer == to.producer => {
                self.moved(life, renamed.node, &from, &to);
            }
            _ => self.violated(format!("a rename that no rule allows: {}", shown())),
        }
        Ok(())
    }

    fn claimed(&mut self, node: Node, name: &ProcessingName) {
        let arrived = self.files.get(&node).map_or(0, |truth| truth.arrived);
        let claim = Claim { node, producer: name.producer.to_vec(), at: self.now, arrived, proven: false };
        if self.claims.insert(name.claim, claim).is_some() {
            self.violated(format!("two claims have one id: {}", name.claim));
        }
    }

    fn moved(&mut self, life: u32, node: Node, from: &ProcessingName, to: &ProcessingName) {
        match (from.state, to.state) {
            (State::Claimed, State::Completed(_)) if from.claim == to.claim => self.proven(node, &from.claim),
            (State::Claimed, State::Superseded) if from.claim == to.claim => self.overtaken(from),
            (State::Claimed | State::Completed(_), State::Claimed) if from.claim != to.claim => {
                self.claimed(node, to);
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

    fn proven(&mut self, node: Node, claim: &ClaimId) {
        if self.versions_of(claim).all(|version| version.node != node) {
            self.violated(format!("{claim} was called completed and was never committed"));
        }
        if let Some(known) = self.claims.get_mut(claim) {
            known.proven = true;
        }
        let size = self.versions_of(claim).find(|version| version.node == node).map_or(0, |version| version.content.len() as u64);
        self.completed = (self.completed.0 + 1, self.completed.1 + size);
    }

    /// A superseded file was provably followed: a file that came later to its name was committed under a greater claim.
    fn overtaken(&mut self, name: &ProcessingName) {
        self.superseded += 1;
        let arrived = self.claims.get(&name.claim).map_or(0, |known| known.arrived);
        let versions = self.blobs.values().flat_map(|blob| &blob.versions);
        let mut later = versions.filter(|version| version.producer == *name.producer && version.claim > name.claim).peekable();
        if later.peek().is_none() {
            return self.violated(format!("{} was called superseded and nothing followed it", name.claim));
        }
        if !self.clock_stepped && later.all(|version| version.generation.0 < arrived) {
            self.violated(format!("{} was called superseded and came last to its name", name.claim));
        }
    }

    fn remove(&mut self, server: &mut Server, life: u32, path: &Path) -> io::Result<()> {
        let node = server.remove(path)?;
        self.tick();
        if server.inode(node).owner == Owner::Uploader {
            return Ok(());
        }
        let Place::Processing(name) = self.place(path) else {
            self.violated(format!("{} was deleted and is no completed file", path.display()));
            return Ok(());
        };
        let State::Completed(_) = name.state else {
            self.violated(format!("{} was deleted before it was completed", path.display()));
            return Ok(());
        };
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
