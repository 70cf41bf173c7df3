//! The NFS server: inodes, names, times by its own clock. It knows no client and has no fault.

mod clock;
mod tree;

use std::{collections::BTreeMap, io, path::Path};

use blobferry_uploader::share::{Attributes, Entry, Identity, Kind};

pub use clock::Clock;
pub use tree::{Errno, ROOT};

/// Where a node is in the server's table, for the life of a history. Inode numbers are used again, places are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node(pub usize);

/// Who made a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// An uploader: a small file of ours.
    Uploader,
    /// A producer of the session.
    Producer,
    /// Somebody whose files are no business of the session.
    Stranger,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A regular file with its content.
    File(Vec<u8>),
    /// A folder with its names.
    Folder(BTreeMap<Vec<u8>, Node>),
    /// A link, a pipe, a device.
    Special,
}

/// A file, folder or something else.
#[derive(Clone, Debug)]
pub struct Inode {
    /// Its number, as clients see it.
    pub number: u64,
    /// What it is.
    pub body: Body,
    /// Last change of the content, nanoseconds.
    pub mtime: i128,
    /// Last change of anything, nanoseconds.
    pub ctime: i128,
    /// Names.
    pub links: u64,
    /// Whether the uploader may read it.
    pub readable: bool,
    /// Who made it.
    pub owner: Owner,
}

/// What a rename did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renamed {
    /// What was renamed.
    pub node: Node,
    /// What had the new name before and has lost it.
    pub replaced: Option<Node>,
}

/// The server.
#[derive(Debug)]
pub struct Server {
    inodes: Vec<Inode>,
    free_numbers: Vec<u64>,
    reuses_numbers: bool,
    next_number: u64,
    /// Its clock.
    pub clock: Clock,
}

impl Server {
    /// An export with nothing on it.
    pub fn new(clock: Clock, reuses_numbers: bool) -> Self {
        let root = Inode {
            number: 2,
            body: Body::Folder(BTreeMap::new()),
            mtime: 0,
            ctime: 0,
            links: 1,
            readable: true,
            owner: Owner::Stranger,
        };
        Self { inodes: vec![root], free_numbers: Vec::new(), reuses_numbers, next_number: 100, clock }
    }

    /// A node's inode.
    pub fn inode(&self, node: Node) -> &Inode {
        &self.inodes[node.0]
    }

    /// A regular file's content; empty for anything else.
    pub fn content(&self, node: Node) -> &[u8] {
        match &self.inode(node).body {
            Body::File(content) => content,
            Body::Folder(_) | Body::Special => &[],
        }
    }

    /// Attributes of a node, or `ESTALE` if it has no name any more.
    pub fn attributes(&self, node: Node) -> io::Result<Attributes> {
        let inode = self.inode(node);
        if inode.links == 0 {
            return Err(Errno::Stale.into());
        }
        let (kind, size) = match &inode.body {
            Body::File(content) => (Kind::File, content.len() as u64),
            Body::Folder(_) => (Kind::Folder, 4096),
            Body::Special => (Kind::Special, 0),
        };
        let identity = Identity { inode: inode.number, size, mtime: inode.mtime, ctime: inode.ctime };
        Ok(Attributes { kind, identity, links: inode.links })
    }

    /// The names in a folder with their kinds.
    pub fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let folder = self.lookup(path)?;
        let Body::Folder(names) = &self.inode(folder).body else { return Err(Errno::NotFolder.into()) };
        let kind = |node: &Node| match self.inode(*node).body {
            Body::File(_) => Kind::File,
            Body::Folder(_) => Kind::Folder,
            Body::Special => Kind::Special,
        };
        Ok(names.iter().map(|(name, node)| Entry { name: name.clone().into(), kind: kind(node) }).collect())
    }

    /// Files that the uploader may not read.
    pub fn unreadable(&self) -> Vec<Node> {
        let unreadable = |(index, inode): (usize, &Inode)| (!inode.readable && inode.links > 0).then_some(Node(index));
        self.inodes.iter().enumerate().filter_map(unreadable).collect()
    }

    /// Every regular file below a folder, with its path's names.
    pub fn files_below(&self, path: &Path) -> Vec<(Vec<Vec<u8>>, Node)> {
        let mut found = Vec::new();
        if let Ok(folder) = self.lookup(path) {
            self.collect(folder, &mut Vec::new(), &mut found);
        }
        found
    }

    fn collect(&self, folder: Node, above: &mut Vec<Vec<u8>>, found: &mut Vec<(Vec<Vec<u8>>, Node)>) {
        let Body::Folder(names) = &self.inode(folder).body else { return };
        for (name, node) in names {
            above.push(name.clone());
            match self.inode(*node).body {
                Body::File(_) => found.push((above.clone(), *node)),
                Body::Folder(_) => self.collect(*node, above, found),
                Body::Special => {}
            }
            above.pop();
        }
    }

    fn number(&mut self) -> u64 {
        if let (true, Some(number)) = (self.reuses_numbers, self.free_numbers.pop()) {
            return number;
        }
        self.next_number += 1;
        self.next_number
    }

    fn add(&mut self, body: Body, owner: Owner) -> Node {
        let (number, now) = (self.number(), self.clock.now());
        self.inodes.push(Inode { number, body, mtime: now, ctime: now, links: 1, readable: true, owner });
        Node(self.inodes.len() - 1)
    }

    fn change(&mut self, node: Node, change: impl FnOnce(&mut Inode, i128)) {
        let now = self.clock.now();
        let inode = &mut self.inodes[node.0];
        inode.ctime = now;
        change(inode, now);
    }

    /// Writes through an open handle, whatever the file's name is now. Returns false if the file is gone.
    pub fn write(&mut self, node: Node, offset: usize, bytes: &[u8]) -> bool {
        if self.inode(node).links == 0 {
            return false;
        }
        self.change(node, |inode, now| {
            inode.mtime = now;
            if let Body::File(content) = &mut inode.body {
                content.resize(content.len().max(offset + bytes.len()), 0);
                content[offset..offset + bytes.len()].copy_from_slice(bytes);
            }
        });
        true
    }

    /// Cuts a file to `length`.
    pub fn truncate(&mut self, node: Node, length: usize) {
        self.change(node, |inode, now| {
            inode.mtime = now;
            if let Body::File(content) = &mut inode.body {
                content.resize(length, 0);
            }
        });
    }

    /// Sets the mtime, as `cp -p`, `touch` and `rsync --times` do; `None` is the server's now.
    pub fn set_mtime(&mut self, node: Node, mtime: Option<i128>) {
        self.change(node, |inode, now| inode.mtime = mtime.unwrap_or(now));
    }

    /// Changes who may read a file.
    pub fn chmod(&mut self, node: Node, readable: bool) {
        self.change(node, |inode, _| inode.readable = readable);
    }
}
