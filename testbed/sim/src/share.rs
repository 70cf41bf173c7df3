//! The share as one uploader's node sees it: calls that take time, fail, are applied without a reply, or are sent again by the client.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use blobferry_uploader::{
    formats::SHARE_ID,
    share::{Attributes, Entry, Kind, Listing, Share, ShareError, ShareFile, ShareResult},
};
use bytes::BytesMut;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

use crate::{
    crash::Life,
    faults::{Fate, Outcome},
    oracle::Change,
    server::{Body, Errno, Node},
    world::{Sim, World},
};

/// For how long a client remembers that a name is absent, at most.
const NEGATIVE: u64 = 30_000;
/// Names that one call lists.
const BATCH: usize = 4;

/// What the kernel of one node remembers.
#[derive(Clone, Debug, Default)]
pub struct Client {
    absent: Arc<Mutex<BTreeMap<PathBuf, Instant>>>,
}

impl Client {
    fn remembers(&self, path: &Path) -> bool {
        let absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        absent.get(path).is_some_and(|until| *until > Instant::now())
    }

    fn forget(&self, path: &Path) {
        self.absent.lock().unwrap_or_else(PoisonError::into_inner).remove(path);
    }

    fn note(&self, path: &Path, milliseconds: u64) {
        let until = crate::world::after(milliseconds);
        self.absent.lock().unwrap_or_else(PoisonError::into_inner).entry(path.to_owned()).or_insert(until);
    }
}

/// The share of one process.
#[derive(Clone, Debug)]
pub struct SimShare {
    sim: Sim,
    life: Arc<Life>,
    client: Client,
}

impl SimShare {
    /// The share as `life` on the node of `client` sees it.
    pub fn new(sim: Sim, life: Arc<Life>, client: Client) -> Self {
        Self { sim, life, client }
    }

    fn fate(&self, is_changing: bool) -> Fate {
        let mut world = self.sim.lock();
        let World { faults, random, .. } = &mut *world;
        faults.of_share(random, is_changing)
    }

    fn say(&self, action: &str, path: &Path, outcome: &io::Result<impl std::fmt::Debug>) {
        self.sim.say(&self.life.name, || match outcome {
            Ok(found) => format!("{action} {}: {found:?}", path.display()),
            Err(error) => format!("{action} {}: {error}", path.display()),
        });
    }

    /// A call that changes nothing.
    async fn read<T: std::fmt::Debug + Send>(
        &self,
        action: &'static str,
        path: &Path,
        read: impl FnOnce(&mut World) -> io::Result<T> + Send,
    ) -> ShareResult<T> {
        self.life.turn().await;
        let fate = self.fate(false);
        pass(fate.before).await;
        self.life.turn().await;
        let found = match fate.outcome {
            Outcome::Refused(errno) => Err(errno.into()),
            _ => read(&mut self.sim.lock()),
        };
        self.say(action, path, &found);
        pass(fate.after).await;
        self.life.turn().await;
        found.map_err(|error| ShareError::new(action, path, error))
    }

    /// A call by name, which the client may answer from what it remembers.
    async fn read_name<T: std::fmt::Debug + Send>(
        &self,
        action: &'static str,
        path: &Path,
        read: impl FnOnce(&mut World) -> io::Result<T> + Send,
    ) -> ShareResult<T> {
        let client = self.client.clone();
        let owned = path.to_owned();
        let cached = move |world: &mut World| {
            if !world.faults.share.negative_cache {
                return read(world);
            }
            if client.remembers(&owned) {
                return Err(Errno::Absent.into());
            }
            let found = read(world);
            if found.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
                let milliseconds = world.random.below(NEGATIVE);
                client.note(&owned, milliseconds);
            }
            found
        };
        self.read(action, path, cached).await
    }

    /// A call that changes something.
    async fn change(&self, action: &'static str, change: Change) -> ShareResult<()> {
        let effect = self.life.before(&self.sim).await;
        let fate = self.fate(true);
        let path = change.source().to_owned();
        let made = change.made().map(Path::to_owned);
        let keeps_source = matches!(change, Change::Link(..));
        let done = if self.is_remembered_absent(&change) {
            Err(Errno::Absent.into())
        } else {
            let result = self.send(fate, change).await;
            match &result {
                Ok(()) if keeps_source => made.iter().for_each(|made| self.client.forget(made)),
                Ok(()) => self.remember(&path, made.as_deref()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => made.iter().for_each(|made| self.client.forget(made)),
                Err(_) => {}
            }
            result
        };
        self.life.turn().await;
        self.say(action, made.as_deref().unwrap_or(&path), &done);
        self.life.after(&self.sim, effect).await;
        pass(fate.after).await;
        self.life.turn().await;
        done.map_err(|error| ShareError::new(action, &path, error))
    }

    /// After a change the client knows that the old name is gone and the new one is there.
    fn remember(&self, source: &Path, made: Option<&Path>) {
        if let Some(made) = made {
            self.client.forget(made);
        }
        if made != Some(source) {
            let milliseconds = self.sim.lock().random.below(NEGATIVE);
            self.client.note(source, milliseconds);
        }
    }

    fn is_remembered_absent(&self, change: &Change) -> bool {
        let by_name = matches!(change, Change::Rename(..) | Change::Link(..) | Change::Remove(_) | Change::Touch(_));
        by_name && self.sim.lock().faults.share.negative_cache && self.client.remembers(change.source())
    }

    /// Sends a change. One that is on its way arrives even if the process does not live to see it.
    async fn send(&self, fate: Fate, change: Change) -> io::Result<()> {
        if let Outcome::Refused(errno) = fate.outcome {
            pass(fate.before).await;
            return Err(errno.into());
        }
        if fate.before == 0 {
            return arrive(&self.sim, self.life.number, fate.outcome, &change);
        }
        let (reply, result) = oneshot::channel();
        let (sim, number) = (self.sim.clone(), self.life.number);
        tokio::spawn(async move {
            pass(fate.before).await;
            // Nobody may be there any more.
            let _ = reply.send(arrive(&sim, number, fate.outcome, &change));
        });
        result.await.unwrap_or_else(|_| Err(Errno::Io.into()))
    }
}

fn arrive(sim: &Sim, life: u32, outcome: Outcome, change: &Change) -> io::Result<()> {
    let mut world = sim.lock();
    let World { oracle, server, log, .. } = &mut *world;
    log.say("server", || format!("{change:?} for {life}, {outcome:?}"));
    let first = oracle.apply(server, life, change);
    match outcome {
        Outcome::Lost => Err(Errno::Io.into()),
        Outcome::Repeated => oracle.apply(server, life, change),
        Outcome::Answered | Outcome::Refused(_) => first,
    }
}

async fn pass(milliseconds: u64) {
    if milliseconds > 0 {
        sleep(Duration::from_millis(milliseconds)).await;
    }
}

impl Share for SimShare {
    type File = SimFile;
    type Listing = SimListing;

    fn silent_for(&self) -> Duration {
        Duration::ZERO
    }

    fn slowest_for(&self) -> Duration {
        Duration::ZERO
    }

    async fn list(&self, folder: &Path) -> ShareResult<SimListing> {
        let entries = self.read("list", folder, |world| world.server.list(folder)).await?;
        Ok(SimListing { entries: entries.into_iter() })
    }

    async fn attributes(&self, path: &Path) -> ShareResult<Attributes> {
        let life = self.life.number;
        let look = |world: &mut World| {
            let node = world.server.lookup(path)?;
            world.looked(life, node);
            world.server.attributes(node)
        };
        self.read_name("look at", path, look).await
    }

    async fn open(&self, path: &Path) -> ShareResult<SimFile> {
        let open = |world: &mut World| {
            let node = world.server.lookup(path)?;
            let inode = world.server.inode(node);
            match inode.body {
                Body::File(_) if !inode.readable => Err(Errno::Denied.into()),
                Body::File(_) => Ok(node),
                // One that has just taken the name; nothing comes of it.
                Body::Folder(_) => Err(Errno::Invalid.into()),
                Body::Special => {
                    world.oracle.violated(format!("{} was opened and is no regular file", path.display()));
                    Err(Errno::Invalid.into())
                }
            }
        };
        let node = self.read_name("open", path, open).await?;
        Ok(SimFile { share: self.clone(), path: path.to_owned(), node })
    }

    async fn rename(&self, from: &Path, to: &Path) -> ShareResult<()> {
        self.change("rename", Change::Rename(from.to_owned(), to.to_owned())).await
    }

    async fn link(&self, from: &Path, to: &Path) -> ShareResult<()> {
        self.change("link", Change::Link(from.to_owned(), to.to_owned())).await
    }

    async fn remove(&self, path: &Path) -> ShareResult<()> {
        self.change("remove", Change::Remove(path.to_owned())).await
    }

    async fn make_folder(&self, path: &Path) -> ShareResult<()> {
        self.change("make the folder", Change::MakeFolder(path.to_owned())).await
    }

    async fn remove_folder(&self, path: &Path) -> ShareResult<()> {
        self.change("remove the folder", Change::RemoveFolder(path.to_owned())).await
    }

    async fn read_small(&self, path: &Path) -> ShareResult<Vec<u8>> {
        let read = |world: &mut World| Ok(world.server.content(world.server.lookup(path)?).to_vec());
        self.read_name("read", path, read).await
    }

    async fn create_small(&self, path: &Path, content: &[u8]) -> ShareResult<()> {
        let is_share_id = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(SHARE_ID.as_bytes()));
        // The one thing that the uploader draws from the system: a history must not depend on it.
        let content = if is_share_id { b"5a3c1e0f-0000-4000-8000-000000000001" } else { content };
        self.change("create", Change::Create(path.to_owned(), content.to_vec())).await
    }

    async fn touch(&self, path: &Path) -> ShareResult<()> {
        self.change("touch", Change::Touch(path.to_owned())).await
    }

    async fn free_bytes(&self, path: &Path) -> ShareResult<u64> {
        self.read("read the free space of", path, |_| Ok(1 << 40)).await
    }

    async fn name_max(&self, folder: &Path) -> ShareResult<usize> {
        self.read("read the limits of", folder, |_| Ok(255)).await
    }
}

/// A folder being listed.
#[derive(Debug)]
pub struct SimListing {
    entries: std::vec::IntoIter<Entry>,
}

impl Listing for SimListing {
    async fn next(&mut self) -> ShareResult<Option<Vec<Entry>>> {
        let batch: Vec<Entry> = self.entries.by_ref().take(BATCH).collect();
        Ok((!batch.is_empty()).then_some(batch))
    }
}

/// An open file: the node, whatever its name is now.
#[derive(Debug)]
pub struct SimFile {
    share: SimShare,
    path: PathBuf,
    node: Node,
}

impl SimFile {
    fn check(world: &World, node: Node) -> io::Result<()> {
        let is_gone = world.server.inode(node).links == 0;
        if is_gone && world.faults.share.stale_when_unlinked { Err(Errno::Stale.into()) } else { Ok(()) }
    }
}

impl ShareFile for SimFile {
    async fn read_at(&self, offset: u64, mut buffer: BytesMut, length: usize) -> ShareResult<BytesMut> {
        let node = self.node;
        let bytes = self.share.read("read", &self.path, move |world| {
            Self::check(world, node)?;
            let content = world.server.content(node);
            let start = content.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
            let end = content.len().min(start + length);
            Ok(content[start..end].to_vec())
        });
        let bytes = bytes.await?;
        buffer.clear();
        buffer.extend_from_slice(&bytes);
        Ok(buffer)
    }

    async fn attributes(&self) -> ShareResult<Attributes> {
        let (node, life) = (self.node, self.share.life.number);
        let look = move |world: &mut World| {
            Self::check(world, node)?;
            world.looked(life, node);
            let inode = world.server.inode(node);
            let identity = blobferry_uploader::share::Identity {
                inode: inode.number,
                size: world.server.content(node).len() as u64,
                mtime: inode.mtime,
                ctime: inode.ctime,
            };
            Ok(Attributes { kind: Kind::File, identity, links: inode.links })
        };
        self.share.read("look at the open", &self.path, look).await
    }
}
