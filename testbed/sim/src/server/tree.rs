//! Names: looking up, making, renaming and removing them, as the server does on behalf of any client.

use std::{
    collections::BTreeMap,
    io,
    os::unix::ffi::OsStrExt,
    path::{Component, Path},
};

use super::{Body, Node, Owner, Renamed, Server};

/// Where the export is mounted by everybody.
pub const ROOT: &str = "/share";
/// Most bytes of a name.
const NAME_MAX: usize = 255;

/// The errors of file operations, by their Linux numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errno {
    /// `ENOENT`
    Absent = 2,
    /// `EIO`
    Io = 5,
    /// `EACCES`
    Denied = 13,
    /// `EEXIST`
    Exists = 17,
    /// `ENOTDIR`
    NotFolder = 20,
    /// `EISDIR`
    IsFolder = 21,
    /// `EINVAL`
    Invalid = 22,
    /// `ENOSPC`
    Full = 28,
    /// `ENAMETOOLONG`
    TooLong = 36,
    /// `ENOTEMPTY`
    NotEmpty = 39,
    /// `ESTALE`
    Stale = 116,
}

impl From<Errno> for io::Error {
    fn from(errno: Errno) -> Self {
        Self::from_raw_os_error(errno as i32)
    }
}

fn names(path: &Path) -> impl Iterator<Item = &[u8]> {
    let below = path.strip_prefix(ROOT).unwrap_or(path);
    below.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.as_bytes()),
        _ => None,
    })
}

impl Server {
    /// The node that a path names.
    pub fn lookup(&self, path: &Path) -> io::Result<Node> {
        let mut node = Node(0);
        for name in names(path) {
            let Body::Folder(names) = &self.inode(node).body else { return Err(Errno::NotFolder.into()) };
            node = *names.get(name).ok_or(Errno::Absent)?;
        }
        Ok(node)
    }

    /// The folder above a path and the last name.
    fn parent<'a>(&self, path: &'a Path) -> io::Result<(Node, &'a [u8])> {
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::Invalid.into()) };
        let folder = self.lookup(above)?;
        match self.inode(folder).body {
            Body::Folder(_) if name.len() > NAME_MAX => Err(Errno::TooLong.into()),
            Body::Folder(_) => Ok((folder, name.as_bytes())),
            _ => Err(Errno::NotFolder.into()),
        }
    }

    fn names_mut(&mut self, folder: Node) -> &mut BTreeMap<Vec<u8>, Node> {
        match &mut self.inodes[folder.0].body {
            Body::Folder(names) => names,
            Body::File(_) | Body::Special => unreachable!("a parent is a folder"),
        }
    }

    /// Makes a node under a name that is free.
    pub fn create(&mut self, path: &Path, body: Body, owner: Owner) -> io::Result<Node> {
        let (folder, name) = self.parent(path)?;
        if self.names_mut(folder).contains_key(name) {
            return Err(Errno::Exists.into());
        }
        let node = self.add(body, owner);
        self.names_mut(folder).insert(name.to_vec(), node);
        Ok(node)
    }

    /// Makes a folder and those above it.
    pub fn make_folders(&mut self, path: &Path, owner: Owner) -> io::Result<()> {
        if let Ok(node) = self.lookup(path) {
            return if matches!(self.inode(node).body, Body::Folder(_)) { Ok(()) } else { Err(Errno::Exists.into()) };
        }
        if let Some(above) = path.parent() {
            self.make_folders(above, owner)?;
        }
        self.create(path, Body::Folder(BTreeMap::new()), owner).map(drop)
    }

    /// Renames; what has the new name loses it.
    pub fn rename(&mut self, from: &Path, to: &Path) -> io::Result<Renamed> {
        let (old_folder, old_name) = self.parent(from)?;
        let node = *self.names_mut(old_folder).get(old_name).ok_or(Errno::Absent)?;
        let (new_folder, new_name) = self.parent(to)?;
        let replaced = self.names_mut(new_folder).get(new_name).copied();
        // rename(2): two names of one file stay.
        if replaced == Some(node) {
            return Ok(Renamed { node, replaced: None });
        }
        if replaced.is_some_and(|replaced| matches!(self.inode(replaced).body, Body::Folder(_))) {
            return Err(Errno::IsFolder.into());
        }
        self.names_mut(old_folder).remove(old_name);
        self.names_mut(new_folder).insert(new_name.to_vec(), node);
        self.change(node, |_, _| {});
        if let Some(replaced) = replaced {
            self.unlink(replaced);
        }
        Ok(Renamed { node, replaced })
    }

    /// Gives a file a second name.
    pub fn link(&mut self, from: &Path, to: &Path) -> io::Result<Node> {
        let node = self.lookup(from)?;
        let (folder, name) = self.parent(to)?;
        if self.names_mut(folder).contains_key(name) {
            return Err(Errno::Exists.into());
        }
        self.names_mut(folder).insert(name.to_vec(), node);
        self.change(node, |inode, _| inode.links += 1);
        Ok(node)
    }

    /// Removes a name of something that is no folder.
    pub fn remove(&mut self, path: &Path) -> io::Result<Node> {
        let (folder, name) = self.parent(path)?;
        let node = *self.names_mut(folder).get(name).ok_or(Errno::Absent)?;
        if matches!(self.inode(node).body, Body::Folder(_)) {
            return Err(Errno::IsFolder.into());
        }
        self.names_mut(folder).remove(name);
        self.unlink(node);
        Ok(node)
    }

    fn unlink(&mut self, node: Node) {
        self.change(node, |inode, _| inode.links -= 1);
        if self.inode(node).links == 0 {
            self.free_numbers.push(self.inode(node).number);
        }
    }

    /// Removes an empty folder.
    pub fn remove_folder(&mut self, path: &Path) -> io::Result<()> {
        let (folder, name) = self.parent(path)?;
        let node = *self.names_mut(folder).get(name).ok_or(Errno::Absent)?;
        match &self.inode(node).body {
            Body::Folder(names) if names.is_empty() => {}
            Body::Folder(_) => return Err(Errno::NotEmpty.into()),
            _ => return Err(Errno::NotFolder.into()),
        }
        self.names_mut(folder).remove(name);
        Ok(())
    }
}
