//! The invariant of DESIGN 4.2, watched at every effect.
//!
//! > Each generation is written by exactly one commit with exactly its bytes, or is still on the share. Nothing else is ever deleted.
//! > No blob ever shows mixed content. A blob never goes back to an earlier generation of its source id.
//!
//! It knows the truth that no uploader can know: in which order things happened, and every content that a file ever had.

mod commits;
mod moves;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use blobferry_uploader::{
    formats::{BlobName, ClaimId},
    session::Folders,
};
use bytes::Bytes;
use tokio::time::Instant;

use crate::{
    server::{Node, Server},
    settings::Settings,
};

pub use commits::Intent;
pub use moves::Change;

/// What a file of a producer was and is.
#[derive(Debug)]
struct Truth {
    /// Every content, with the moment from which on it was there.
    contents: Vec<(u64, Bytes)>,
    /// When content or mtime changed last.
    changed: u64,
    /// When it came to the name in the incoming folder that it had last.
    arrived: u64,
    /// The server's clock when a producer changed anything of it last, attributes and links too: its ctime but for our renames.
    clock: i128,
    /// Whether any content of it was committed.
    committed: bool,
    /// When it was renamed to completed last.
    completed: Option<Instant>,
    /// The names that it ever had in the incoming folder.
    names: BTreeSet<Vec<u8>>,
    /// When its producer did anything with it last.
    moved: Instant,
    /// Whether it came to its name with the folder that it is in, which leaves its own times as they were.
    came_with_folder: bool,
}

/// What a process saw of a file when it looked at it last.
#[derive(Clone, Copy, Debug)]
struct Look {
    content: usize,
    changed: u64,
    /// Its size and mtime: a write within one tick of the server's clock leaves both as they are, and nobody can see it.
    seen: (u64, i128),
    /// Since when the process has seen it like that.
    since: Instant,
    /// When it looked.
    at: Instant,
}

/// A claim and what became of it.
#[derive(Debug)]
struct Claim {
    node: Node,
    producer: Vec<u8>,
    at: u64,
    /// When it was made, or the file was taken back to work under it after it had been set aside.
    taken: u64,
    arrived: u64,
    proven: bool,
    /// Whether an uploader gave the file its producer's name again.
    released: bool,
}

/// A version of a blob.
#[derive(Debug)]
struct Version {
    at: u64,
    claim: ClaimId,
    node: Node,
    producer: Vec<u8>,
    content: Bytes,
    /// When the file came to its name, and when its content became the file's.
    generation: (u64, u64),
    /// The file's last change as of the last look before the commit.
    changed: u64,
}

/// The blob of a name, as far as we wrote it.
#[derive(Debug, Default)]
struct Blob {
    versions: Vec<Version>,
    /// When somebody else wrote or deleted it last.
    disturbed: u64,
}

/// The watcher.
#[derive(Debug)]
pub struct Oracle {
    folders: Folders,
    now: u64,
    files: BTreeMap<Node, Truth>,
    claims: BTreeMap<ClaimId, Claim>,
    blobs: BTreeMap<BlobName, Blob>,
    looks: BTreeMap<(u32, Node), Look>,
    violation: Option<String>,
    /// Whether the server's clock was ever set back: then its times prove no order.
    pub clock_stepped: bool,
    /// Whether several uploaders work on the folder, of which each learns of the others' claims only now and then.
    is_shared: bool,
    /// The quiet period: for so long a process has seen what it commits.
    quiet: Duration,
    /// Files that were renamed to completed, and their bytes.
    pub completed: (u64, u64),
    /// Files that were renamed to superseded.
    pub superseded: u64,
    /// Whether somebody asked for files that were set aside to be tried again.
    pub may_take_back: bool,
    /// Commits of ours.
    pub commits: u64,
}

impl Oracle {
    /// An oracle that has seen nothing yet.
    pub fn new(settings: &Settings) -> Self {
        Self {
            folders: settings.folders(),
            now: 0,
            files: BTreeMap::new(),
            claims: BTreeMap::new(),
            blobs: BTreeMap::new(),
            looks: BTreeMap::new(),
            violation: None,
            clock_stepped: false,
            is_shared: settings.uploaders > 1,
            quiet: settings.quiet,
            completed: (0, 0),
            superseded: 0,
            may_take_back: false,
            commits: 0,
        }
    }

    /// The first thing that must not have happened.
    pub fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    /// Notes that something happened that must not.
    pub fn violated(&mut self, what: impl Into<String>) {
        if self.violation.is_none() {
            self.violation = Some(what.into());
        }
    }

    fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    /// A producer changed a file's content or mtime, or made it.
    pub fn changed(&mut self, server: &Server, node: Node) {
        let now = self.tick();
        let content = server.content(node);
        let truth = self.files.entry(node).or_insert_with(|| Truth {
            contents: Vec::new(),
            changed: now,
            arrived: now,
            clock: 0,
            committed: false,
            completed: None,
            names: BTreeSet::new(),
            moved: Instant::now(),
            came_with_folder: false,
        });
        if truth.contents.last().is_none_or(|(_, last)| last != content) {
            truth.contents.push((now, Bytes::copy_from_slice(content)));
        }
        truth.changed = now;
        truth.clock = server.inode(node).ctime;
        truth.moved = Instant::now();
    }

    /// A new file has this path.
    pub fn named(&mut self, node: Node, path: &Path) {
        let name = self.place(path).producer();
        if let Some(truth) = self.files.get_mut(&node) {
            truth.names.extend(name);
        }
    }

    /// A producer gave a file this path in the incoming folder.
    pub fn arrived(&mut self, server: &Server, node: Node, path: &Path) {
        let now = self.tick();
        let name = self.place(path).producer();
        if let Some(truth) = self.files.get_mut(&node) {
            truth.arrived = now;
            truth.clock = server.inode(node).ctime;
            truth.moved = Instant::now();
            truth.names.extend(name);
        }
    }

    /// A producer gave a folder another name: all files below came to theirs, at this time of the server's clock.
    pub fn came_with_folder(&mut self, server: &Server, node: Node, path: &Path, clock: i128) {
        self.arrived(server, node, path);
        if let Some(truth) = self.files.get_mut(&node) {
            truth.clock = clock;
            truth.came_with_folder = true;
        }
    }

    /// A producer changed attributes or links of a file.
    pub fn touched(&mut self, server: &Server, node: Node) {
        self.tick();
        if let Some(truth) = self.files.get_mut(&node) {
            truth.clock = server.inode(node).ctime;
            truth.moved = Instant::now();
        }
    }

    /// The moment of now, in effects and changes.
    pub fn moment(&self) -> u64 {
        self.now
    }

    /// True if the claim was made before that moment, and not given up in between.
    pub fn was_claimed_before(&self, claim: &ClaimId, moment: u64) -> bool {
        self.claims.get(claim).is_some_and(|claim| claim.taken < moment)
    }

    /// For how long its producer has left a file alone.
    pub fn rests_for(&self, node: Node) -> Duration {
        self.files.get(&node).map_or(Duration::ZERO, |truth| truth.moved.elapsed())
    }

    /// True if another file than that of this claim ever had its producer's name.
    pub fn is_name_shared(&self, claim: &ClaimId) -> bool {
        let Some(claim) = self.claims.get(claim) else { return true };
        self.files.iter().any(|(node, truth)| *node != claim.node && truth.names.contains(&claim.producer))
    }

    /// Process `life` looked at a file, by name or by descriptor.
    pub fn looked(&mut self, server: &Server, life: u32, node: Node) {
        if let Some(truth) = self.files.get(&node) {
            let seen = (server.content(node).len() as u64, server.inode(node).mtime);
            let last = self.looks.get(&(life, node)).filter(|last| last.seen == seen);
            let since = last.map_or_else(Instant::now, |last| last.since);
            let look = Look { content: truth.contents.len() - 1, changed: truth.changed, seen, since, at: Instant::now() };
            self.looks.insert((life, node), look);
        }
    }

    /// Somebody else wrote or deleted a blob.
    pub fn disturbed(&mut self, blob: &BlobName) {
        let now = self.tick();
        self.blobs.entry(blob.clone()).or_default().disturbed = now;
    }

    fn versions_of(&self, claim: &ClaimId) -> impl Iterator<Item = &Version> {
        let claim = *claim;
        self.blobs.values().flat_map(|blob| &blob.versions).filter(move |version| version.claim == claim)
    }

    /// True if the file was committed once, in whatever state: what is written to it afterwards is found by the collector.
    pub fn was_committed(&self, node: Node) -> bool {
        self.files.get(&node).is_some_and(|truth| truth.committed)
    }

    /// True if a producer's file was never committed that its producer left before this time of the server's clock, wherever it is.
    pub fn has_open_before(&self, server: &Server, time: i128) -> bool {
        let is_there = |node: &Node| server.inode(*node).links > 0;
        self.files.iter().any(|(node, truth)| !truth.committed && truth.clock < time && is_there(node))
    }

    /// The ctime of a producer's file as its producer left it: what `safeThrough` goes by.
    pub fn clock_of(&self, node: Node) -> Option<i128> {
        self.files.get(&node).map(|truth| truth.clock)
    }
}
