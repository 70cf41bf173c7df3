//! The stage on a local disk: one file per claimed file, in a folder of this process's own.

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use rustix::fs::{FlockOperation, flock};
use tokio::sync::Notify;

use super::{Stage, StagedFile};
use crate::share::Pool;

/// Blocks of one file that may wait for the disk; with more the disk is too slow, and the block is not kept.
const BACKLOG: u64 = 4;
/// A disk that answers no call for so long hangs, and nobody waits for it any more.
const PATIENCE: Duration = Duration::from_secs(5);
const HANGS: &str = "calls on the local disk do not end";
/// What a folder takes beside its files: whoever limits its size counts that, too.
const OVERHEAD: u64 = 4 << 20;

/// What a stage may take.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Bytes of the disk.
    pub disk: u64,
    /// Bytes of memory that wait for the disk, of those that are there for what is sent.
    pub memory: u64,
}

/// The stage of one process.
#[derive(Debug)]
pub struct DiskStage {
    inner: Option<Arc<Inner>>,
    trouble: Trouble,
}

type Room = fn(&Path) -> io::Result<u64>;

/// The newest error of the disk, until something works again.
type Trouble = Arc<Mutex<Option<String>>>;

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    /// Locked for as long as this process lives, so that another process does not remove the folder.
    _lock: File,
    pool: Pool,
    limit: u64,
    /// How much may be written into a folder now.
    room: Room,
    patience: Duration,
    /// Most bytes of all files that may wait for the disk: their memory is not there for what is sent.
    most_backlog: u64,
    /// Who waits for the disk is let go: it hangs.
    given_up: Notify,
    used: AtomicU64,
    /// Bytes of that which are not on the disk yet.
    unwritten: AtomicU64,
    next: AtomicU64,
    /// Bytes that wait for the disk.
    backlog: AtomicU64,
}

impl Inner {
    fn hangs(&self) -> bool {
        self.pool.pulse().silent_for() >= self.patience
    }

    /// Runs a call on the disk; an error if the disk hangs meanwhile. The call goes on then, and nobody wants its result.
    async fn run<T: Send + 'static>(&self, call: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
        tokio::select! {
            biased;
            result = self.pool.run(call) => result,
            () = self.given_up.notified() => Err(io::Error::new(io::ErrorKind::TimedOut, HANGS)),
        }
    }
}

impl DiskStage {
    /// No stage: every file is streamed.
    pub fn none() -> Self {
        Self { inner: None, trouble: Trouble::default() }
    }

    /// A stage as [`Self::open`] makes it. One that cannot be opened is not worth stopping for: files are streamed, and the stage says why.
    pub fn open_or_stream(root: &Path, process: &str, budget: Budget, pool: Pool) -> Self {
        Self::open(root, process, budget, pool).unwrap_or_else(|error| {
            tracing::warn!(%error, root = %root.display(), "cannot use the local disk, files are streamed");
            let stage = Self::none();
            note(&stage.trouble, Some(format!("cannot use the local disk at {}: {error}", root.display())));
            stage
        })
    }

    /// A stage below `root` within that budget, and at most what leaves a fifth of the file system free. Folders of processes that are
    /// gone are removed.
    pub fn open(root: &Path, process: &str, budget: Budget, pool: Pool) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        // Before the space is looked at: what a process that was killed has left is free again.
        remove_unlocked(root)?;
        let disk = room(root)?.min(budget.disk.saturating_sub(OVERHEAD));
        Self::with_budget(root, process, Budget { disk, ..budget }, room, PATIENCE, pool)
    }

    fn with_budget(root: &Path, process: &str, budget: Budget, space: Room, patience: Duration, pool: Pool) -> io::Result<Self> {
        let folder = root.join(process);
        fs::create_dir_all(&folder)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(folder.join("lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        let inner = Inner {
            folder,
            _lock: lock,
            pool,
            limit: budget.disk,
            room: space,
            patience,
            most_backlog: budget.memory,
            given_up: Notify::new(),
            used: AtomicU64::new(0),
            unwritten: AtomicU64::new(0),
            next: AtomicU64::new(0),
            backlog: AtomicU64::new(0),
        };
        Ok(Self { inner: Some(Arc::new(inner)), trouble: Trouble::default() })
    }
}

/// Takes note of how it went.
fn note(trouble: &Trouble, problem: Option<String>) {
    *trouble.lock().unwrap_or_else(PoisonError::into_inner) = problem;
}

/// What may be written into a folder so that a fifth of its file system stays free.
fn room(folder: &Path) -> io::Result<u64> {
    let system = rustix::fs::statvfs(folder)?;
    let (all, free) = (system.f_blocks.saturating_mul(system.f_frsize), system.f_bavail.saturating_mul(system.f_frsize));
    Ok(beyond_a_fifth(all, free))
}

fn beyond_a_fifth(all: u64, free: u64) -> u64 {
    free.saturating_sub(all / 5)
}

fn remove_unlocked(root: &Path) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let folder = entry?.path();
        let Ok(lock) = OpenOptions::new().write(true).open(folder.join("lock")) else { continue };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            fs::remove_dir_all(&folder)?;
        }
    }
    Ok(())
}

impl Stage for DiskStage {
    type File = DiskFile;

    fn used(&self) -> u64 {
        self.inner.as_ref().map_or(0, |inner| inner.used.load(Ordering::Relaxed))
    }

    fn trouble(&self) -> Option<String> {
        if self.inner.as_ref().is_some_and(|inner| inner.hangs()) {
            return Some(HANGS.to_owned());
        }
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn let_go(&self) {
        self.inner.iter().filter(|inner| inner.hangs()).for_each(|inner| inner.given_up.notify_waiters());
    }

    async fn begin(&self, size: u64) -> Option<DiskFile> {
        let inner = Arc::clone(self.inner.as_ref()?);
        if inner.hangs() {
            return None;
        }
        let fits = |used: u64| used.checked_add(size).filter(|total| *total <= inner.limit);
        inner.used.fetch_update(Ordering::AcqRel, Ordering::Relaxed, fits).ok()?;
        // From here on whoever drops it gives the room back, also if nobody waits for it any more.
        let reserved = Reserved::new(&inner, size);
        let path = inner.folder.join(inner.next.fetch_add(1, Ordering::Relaxed).to_string());
        let trouble = Arc::clone(&self.trouble);
        match inner.run(move || DiskFile::make(reserved, path, trouble)).await {
            Ok(file) => file,
            Err(error) => {
                tracing::warn!(%error, "cannot stage a file, it is streamed");
                note(&self.trouble, Some(format!("cannot make a file on the local disk: {error}")));
                None
            }
        }
    }
}

/// Room on the stage that is promised to a file.
#[derive(Debug)]
struct Reserved {
    inner: Arc<Inner>,
    size: u64,
    written: Arc<AtomicU64>,
}

impl Reserved {
    fn new(inner: &Arc<Inner>, size: u64) -> Self {
        inner.unwritten.fetch_add(size, Ordering::AcqRel);
        Self { inner: Arc::clone(inner), size, written: Arc::default() }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let unwritten = self.size.saturating_sub(self.written.load(Ordering::Acquire));
        self.inner.unwritten.fetch_sub(unwritten, Ordering::AcqRel);
        self.inner.used.fetch_sub(self.size, Ordering::AcqRel);
    }
}

/// A file on the stage.
#[derive(Debug)]
pub struct DiskFile {
    file: Arc<File>,
    path: PathBuf,
    /// Until the file is removed.
    reserved: Option<Reserved>,
    inner: Arc<Inner>,
    /// Offsets of the blocks that are on the disk.
    kept: Arc<Mutex<HashSet<u64>>>,
    written: Arc<AtomicU64>,
    backlog: Arc<AtomicU64>,
    failed: Arc<AtomicBool>,
    trouble: Trouble,
}

impl DiskFile {
    /// Makes the file; `None` if others have taken the room meanwhile.
    fn make(reserved: Reserved, path: PathBuf, trouble: Trouble) -> io::Result<Option<Self>> {
        let inner = Arc::clone(&reserved.inner);
        if (inner.room)(&inner.folder)? < inner.unwritten.load(Ordering::Acquire) {
            return Ok(None);
        }
        let file = OpenOptions::new().create_new(true).read(true).write(true).open(&path)?;
        note(&trouble, None);
        Ok(Some(Self {
            file: Arc::new(file),
            path,
            written: Arc::clone(&reserved.written),
            reserved: Some(reserved),
            inner,
            kept: Arc::default(),
            backlog: Arc::default(),
            failed: Arc::default(),
            trouble,
        }))
    }
}

impl StagedFile for DiskFile {
    fn keep(&self, offset: u64, block: Bytes) {
        let length = block.len() as u64;
        let is_behind = self.backlog.load(Ordering::Relaxed) >= BACKLOG
            || self.inner.backlog.load(Ordering::Relaxed).saturating_add(length) > self.inner.most_backlog.max(length);
        if self.failed.load(Ordering::Relaxed) || is_behind || self.inner.hangs() {
            return;
        }
        self.backlog.fetch_add(1, Ordering::Relaxed);
        self.inner.backlog.fetch_add(length, Ordering::Relaxed);
        let (file, kept, written, inner) =
            (Arc::clone(&self.file), Arc::clone(&self.kept), Arc::clone(&self.written), Arc::clone(&self.inner));
        let (backlog, failed, trouble) = (Arc::clone(&self.backlog), Arc::clone(&self.failed), Arc::clone(&self.trouble));
        self.inner.pool.start(move || {
            match file.write_all_at(&block, offset) {
                Ok(()) => {
                    if kept.lock().unwrap_or_else(PoisonError::into_inner).insert(offset) {
                        written.fetch_add(length, Ordering::AcqRel);
                        inner.unwritten.fetch_sub(length, Ordering::AcqRel);
                    }
                    note(&trouble, None);
                }
                Err(error) => {
                    tracing::warn!(%error, "the local disk fails, the file is streamed");
                    failed.store(true, Ordering::Relaxed);
                    note(&trouble, Some(format!("cannot write to the local disk: {error}")));
                }
            }
            drop(block);
            backlog.fetch_sub(1, Ordering::Relaxed);
            inner.backlog.fetch_sub(length, Ordering::Relaxed);
        });
    }

    async fn read(&self, offset: u64, length: usize, mut buffer: BytesMut) -> Result<BytesMut, BytesMut> {
        if !self.kept.lock().unwrap_or_else(PoisonError::into_inner).contains(&offset) || self.inner.hangs() {
            return Err(buffer);
        }
        let file = Arc::clone(&self.file);
        let read = move || {
            buffer.resize(length, 0);
            let result = file.read_exact_at(&mut buffer, offset);
            Ok((buffer, result))
        };
        match self.inner.run(read).await {
            Ok((buffer, Ok(()))) => Ok(buffer),
            Ok((buffer, Err(error))) => {
                tracing::warn!(%error, "cannot read a staged block, it is read from the share again");
                Err(buffer)
            }
            Err(_) => Err(BytesMut::new()),
        }
    }
}

impl Drop for DiskFile {
    fn drop(&mut self) {
        let (path, reserved) = (self.path.clone(), self.reserved.take());
        let (failed, trouble) = (Arc::clone(&self.failed), Arc::clone(&self.trouble));
        self.inner.pool.start(move || {
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(%error, path = %path.display(), "cannot remove a staged file");
            }
            if failed.load(Ordering::Relaxed) {
                // What failed is over; the next file shows whether it fails again.
                note(&trouble, None);
            }
            drop(reserved);
        });
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::FallocateFlags;

    use super::*;

    fn stage(root: &Path, process: &str, limit: u64) -> DiskStage {
        let budget = Budget { disk: limit, memory: 100 };
        DiskStage::with_budget(root, process, budget, |_| Ok(100), PATIENCE, Pool::new("stage", 1).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn kept_blocks_are_read_back_and_others_are_not() {
        let root = tempfile::tempdir().unwrap();
        let stage = stage(root.path(), "p", 100);
        let file = stage.begin(10).await.unwrap();
        file.keep(4, Bytes::from_static(b"abcd"));
        while file.backlog.load(Ordering::Relaxed) > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(file.read(4, 4, BytesMut::new()).await.unwrap(), &b"abcd"[..]);
        assert!(file.read(0, 4, BytesMut::new()).await.is_err());
    }

    #[tokio::test]
    async fn what_a_killed_process_left_is_free_again_before_the_space_is_counted() {
        let (root, pool) = (tempfile::tempdir().unwrap(), Pool::new("stage", 1).unwrap());
        let left = root.path().join("killed");
        fs::create_dir(&left).unwrap();
        fs::write(left.join("lock"), b"").unwrap();
        rustix::fs::fallocate(File::create(left.join("0")).unwrap(), FallocateFlags::empty(), 0, 256 << 20).unwrap();
        let stage = DiskStage::open(root.path(), "p", Budget { disk: u64::MAX, memory: 0 }, pool).unwrap();
        let (limit, free) = (stage.inner.unwrap().limit, room(root.path()).unwrap());
        assert!(limit + (128 << 20) > free, "{limit} of {free}");
    }

    #[tokio::test]
    async fn file_that_does_not_fit_is_not_staged_and_room_comes_back() {
        let root = tempfile::tempdir().unwrap();
        let stage = stage(root.path(), "p", 10);
        let file = stage.begin(8).await.unwrap();
        assert!(stage.begin(3).await.is_none());
        drop(file);
        while stage.used() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(stage.begin(3).await.is_some());
    }

    #[tokio::test]
    async fn disk_that_is_full_is_given_up_for_the_file_and_named_until_it_takes_something() {
        let root = tempfile::tempdir().unwrap();
        let stage = stage(root.path(), "p", 100);
        let mut full = stage.begin(10).await.unwrap();
        full.file = Arc::new(OpenOptions::new().read(true).write(true).open("/dev/full").unwrap());
        let good = stage.begin(10).await.unwrap();
        for (file, expected) in [(&full, Some("No space left")), (&good, None)] {
            file.keep(0, Bytes::from_static(b"abcd"));
            while file.backlog.load(Ordering::Relaxed) > 0 {
                tokio::task::yield_now().await;
            }
            let trouble = stage.trouble();
            assert_eq!(trouble.is_some(), expected.is_some(), "{trouble:?}");
            assert!(trouble.unwrap_or_default().contains(expected.unwrap_or_default()));
        }
        assert!(full.read(0, 4, BytesMut::new()).await.is_err());
    }

    #[tokio::test]
    async fn disk_that_hangs_is_named_and_nobody_waits_for_it_and_it_is_used_again_afterwards() {
        let (root, pool) = (tempfile::tempdir().unwrap(), Pool::new("stage", 1).unwrap());
        let patience = Duration::from_millis(50);
        let budget = Budget { disk: 100, memory: 100 };
        let stage = DiskStage::with_budget(root.path(), "p", budget, |_| Ok(100), patience, pool.clone()).unwrap();
        let file = stage.begin(10).await.unwrap();
        let (release, hold) = std::sync::mpsc::channel::<()>();
        pool.start(move || {
            let _ = hold.recv();
        });
        let look = async {
            while stage.trouble().is_none_or(|trouble| trouble != HANGS) {
                tokio::task::yield_now().await;
            }
            stage.let_go();
        };
        let (begun, ()) = tokio::join!(stage.begin(10), look);
        assert!(begun.is_none(), "it is given up");
        file.keep(0, Bytes::from_static(b"abcd"));
        assert_eq!(file.backlog.load(Ordering::Relaxed), 0, "no memory waits for it");
        release.send(()).unwrap();
        while stage.used() > 10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(fs::read_dir(root.path().join("p")).unwrap().count(), 2, "the lock and the first file");
        while stage.trouble().is_some() || stage.begin(10).await.is_none() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_failed_with_one_file_is_forgotten_with_it() {
        let root = tempfile::tempdir().unwrap();
        let stage = stage(root.path(), "p", 100);
        let mut file = stage.begin(10).await.unwrap();
        file.file = Arc::new(OpenOptions::new().read(true).write(true).open("/dev/full").unwrap());
        file.keep(0, Bytes::from_static(b"abcd"));
        while file.backlog.load(Ordering::Relaxed) > 0 {
            tokio::task::yield_now().await;
        }
        assert!(stage.trouble().is_some());
        drop(file);
        while stage.used() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(stage.trouble(), None);
    }

    #[tokio::test]
    async fn file_for_which_others_have_taken_the_room_is_not_staged() {
        let root = tempfile::tempdir().unwrap();
        let stage = stage(root.path(), "p", u64::MAX);
        assert!(stage.begin(101).await.is_none());
        let first = stage.begin(60).await.unwrap();
        assert!(stage.begin(60).await.is_none(), "what is promised to the first is not there");
        first.keep(0, Bytes::from(vec![1; 60]));
        while first.backlog.load(Ordering::Relaxed) > 0 {
            tokio::task::yield_now().await;
        }
        assert!(stage.begin(60).await.is_some(), "the disk says what is written");
        assert_eq!(stage.trouble(), None);
    }

    #[test]
    fn fifth_of_the_file_system_stays_free() {
        assert_eq!(beyond_a_fifth(1000, 250), 50);
        assert_eq!(beyond_a_fifth(1000, 100), 0);
    }

    #[test]
    fn folders_of_live_processes_stay_and_of_dead_ones_go() {
        let root = tempfile::tempdir().unwrap();
        let live = stage(root.path(), "live", 1);
        drop(stage(root.path(), "dead", 1));
        let _next = DiskStage::open(root.path(), "next", Budget { disk: 1, memory: 0 }, Pool::new("stage", 1).unwrap()).unwrap();
        assert!(root.path().join("live").exists() && !root.path().join("dead").exists());
        drop(live);
    }
}
