//! The share on a mounted file system: NFS in a pod, any local folder from a shell.
//!
//! The only module of the uploader that touches producers' files. Each call runs on the pool.

use std::{
    ffi::OsStr,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::BytesMut;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Statx, StatxFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

use super::{Attributes, Entry, Identity, Kind, Listing, Pool, Share, ShareError, ShareFile, ShareResult};

/// Names that one call reads from a folder.
const BATCH: usize = 1024;
/// Bytes of one read: a slow server shows signs of life within a block.
const STRIDE: usize = 1 << 20;
/// Files of ours are smaller than this, in bytes.
const SMALL: u64 = 64 * 1024;

/// A mounted file system.
#[derive(Clone, Debug)]
pub struct LocalShare {
    pool: Pool,
}

impl LocalShare {
    /// The file system as this process sees it, with calls on `pool`.
    pub fn new(pool: Pool) -> Self {
        Self { pool }
    }

    async fn call<T: Send + 'static>(
        &self,
        action: &'static str,
        path: &Path,
        call: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> ShareResult<T> {
        let owned = path.to_owned();
        self.pool.run(move || call(&owned)).await.map_err(|source| ShareError::new(action, path, source))
    }
}

fn attributes_at(directory: impl rustix::fd::AsFd, path: impl rustix::path::Arg, flags: AtFlags) -> io::Result<Attributes> {
    let wanted = StatxFlags::TYPE | StatxFlags::INO | StatxFlags::SIZE | StatxFlags::MTIME | StatxFlags::CTIME | StatxFlags::NLINK;
    let statx = rustix::fs::statx(directory, path, flags | AtFlags::STATX_FORCE_SYNC | AtFlags::SYMLINK_NOFOLLOW, wanted)?;
    Ok(attributes_of(&statx))
}

fn attributes_of(statx: &Statx) -> Attributes {
    let nanoseconds = |time: &rustix::fs::StatxTimestamp| i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
    Attributes {
        kind: match FileType::from_raw_mode(statx.stx_mode.into()) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Folder,
            _ => Kind::Special,
        },
        identity: Identity {
            inode: statx.stx_ino,
            size: statx.stx_size,
            mtime: nanoseconds(&statx.stx_mtime),
            ctime: nanoseconds(&statx.stx_ctime),
        },
        links: statx.stx_nlink.into(),
    }
}

/// Opens a regular file. `O_NONBLOCK` keeps a pipe that took the name meanwhile from blocking; `O_NOFOLLOW` refuses a link.
fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty());
    let opened = opened.map_err(|error| match error {
        rustix::io::Errno::LOOP => io::Error::new(io::ErrorKind::InvalidInput, "a symbolic link is not followed"),
        error => error.into(),
    });
    let file = File::from(opened?);
    match attributes_at(&file, c"", AtFlags::EMPTY_PATH)?.kind {
        Kind::File => Ok(file),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    }
}

impl Share for LocalShare {
    type File = LocalFile;
    type Listing = LocalListing;

    fn silent_for(&self) -> Duration {
        self.pool.pulse().silent_for()
    }

    fn slowest_for(&self) -> Duration {
        self.pool.pulse().slowest_for()
    }

    async fn list(&self, folder: &Path) -> ShareResult<LocalListing> {
        let open = |path: &Path| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            Ok(Dir::new(rustix::fs::open(path, flags, Mode::empty())?)?)
        };
        let directory = self.call("list", folder, open).await?;
        Ok(LocalListing { pool: self.pool.clone(), folder: folder.to_owned(), directory: Some(directory) })
    }

    async fn attributes(&self, path: &Path) -> ShareResult<Attributes> {
        self.call("look at", path, |path| attributes_at(CWD, path, AtFlags::empty())).await
    }

    async fn open(&self, path: &Path) -> ShareResult<LocalFile> {
        let file = self.call("open", path, open_regular).await?;
        let open = Open { file: Some(file), pool: self.pool.clone() };
        Ok(LocalFile { pool: self.pool.clone(), path: path.to_owned(), open: Arc::new(open) })
    }

    async fn rename(&self, from: &Path, to: &Path) -> ShareResult<()> {
        let to = to.to_owned();
        self.call("rename", from, move |from| std::fs::rename(from, to)).await
    }

    async fn link(&self, from: &Path, to: &Path) -> ShareResult<()> {
        let to = to.to_owned();
        self.call("link", from, move |from| std::fs::hard_link(from, to)).await
    }

    async fn remove(&self, path: &Path) -> ShareResult<()> {
        self.call("remove", path, |path| std::fs::remove_file(path)).await
    }

    async fn make_folder(&self, path: &Path) -> ShareResult<()> {
        self.call("make the folder", path, |path| std::fs::create_dir_all(path)).await
    }

    async fn remove_folder(&self, path: &Path) -> ShareResult<()> {
        self.call("remove the folder", path, |path| std::fs::remove_dir(path)).await
    }

    async fn read_small(&self, path: &Path) -> ShareResult<Vec<u8>> {
        let read = |path: &Path| {
            let mut content = Vec::new();
            open_regular(path)?.take(SMALL).read_to_end(&mut content)?;
            Ok(content)
        };
        self.call("read", path, read).await
    }

    async fn create_small(&self, path: &Path, content: &[u8]) -> ShareResult<()> {
        let content = content.to_vec();
        let create = move |path: &Path| {
            let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
            file.write_all(&content)?;
            // NFS reports a failed write at fsync.
            file.sync_all()
        };
        self.call("create", path, create).await
    }

    async fn touch(&self, path: &Path) -> ShareResult<()> {
        let touch = |path: &Path| {
            let now = Timestamps {
                last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
                last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
            };
            Ok(rustix::fs::utimensat(CWD, path, &now, AtFlags::SYMLINK_NOFOLLOW)?)
        };
        self.call("touch", path, touch).await
    }

    async fn free_bytes(&self, path: &Path) -> ShareResult<u64> {
        let free = |path: &Path| {
            let file_system = rustix::fs::statvfs(path)?;
            Ok(file_system.f_bavail.saturating_mul(file_system.f_frsize))
        };
        self.call("read the free space of", path, free).await
    }

    async fn name_max(&self, folder: &Path) -> ShareResult<usize> {
        let limit = |path: &Path| Ok(usize::try_from(rustix::fs::statvfs(path)?.f_namemax).unwrap_or(usize::MAX));
        self.call("read the limits of", folder, limit).await
    }
}

/// A folder being listed.
#[derive(Debug)]
pub struct LocalListing {
    pool: Pool,
    folder: PathBuf,
    directory: Option<Dir>,
}

impl Listing for LocalListing {
    async fn next(&mut self) -> ShareResult<Option<Vec<Entry>>> {
        let Some(directory) = self.directory.take() else { return Ok(None) };
        let (batch, directory) =
            self.pool.run(move || read_batch(directory)).await.map_err(|source| ShareError::new("list", &self.folder, source))?;
        self.directory = directory;
        Ok((!batch.is_empty()).then_some(batch))
    }
}

fn read_batch(mut directory: Dir) -> io::Result<(Vec<Entry>, Option<Dir>)> {
    let mut batch = Vec::new();
    while batch.len() < BATCH {
        let Some(entry) = directory.read() else { return Ok((batch, None)) };
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Folder,
            FileType::Unknown => Kind::Unknown,
            _ => Kind::Special,
        };
        batch.push(Entry { name: name.into(), kind });
    }
    Ok((batch, Some(directory)))
}

/// An open regular file.
#[derive(Clone, Debug)]
pub struct LocalFile {
    pool: Pool,
    path: PathBuf,
    open: Arc<Open>,
}

/// A descriptor that is closed on the pool: over NFS the last close(2) of a file asks the server, and waits for as long as that is away.
#[derive(Debug)]
struct Open {
    /// `None` only while it is dropped.
    file: Option<File>,
    pool: Pool,
}

impl Open {
    fn file(&self) -> io::Result<&File> {
        self.file.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let file = self.file.take();
        self.pool.start(move || drop(file));
    }
}

impl ShareFile for LocalFile {
    async fn read_at(&self, offset: u64, mut buffer: BytesMut, length: usize) -> ShareResult<BytesMut> {
        let (open, pulse) = (Arc::clone(&self.open), self.pool.pulse());
        let read = move || {
            let file = open.file()?;
            buffer.resize(length, 0);
            let mut filled = 0;
            while filled < length {
                let stride = length.min(filled + STRIDE);
                pulse.beat();
                match file.read_at(&mut buffer[filled..stride], offset + filled as u64) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            buffer.truncate(filled);
            Ok(buffer)
        };
        self.pool.run(read).await.map_err(|source| ShareError::new("read", &self.path, source))
    }

    async fn attributes(&self) -> ShareResult<Attributes> {
        let open = Arc::clone(&self.open);
        let look = move || attributes_at(open.file()?, c"", AtFlags::EMPTY_PATH);
        self.pool.run(look).await.map_err(|source| ShareError::new("look at", &self.path, source))
    }
}

/// `folder/name`, where the name is bytes.
pub fn join(folder: &Path, name: &[u8]) -> PathBuf {
    folder.join(OsStr::from_bytes(name))
}
