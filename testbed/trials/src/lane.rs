//! One session of the share: its producers, the pods that drain it and die, and the oracle that watches both.

use std::{
    fs,
    io::Read as _,
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::{
    DATE,
    contents::Fingerprint,
    ledger::{Ledger, Sums, Violation},
};

/// How long nothing may come to rest once nobody is killed any more.
const REST: Duration = Duration::from_mins(10);

/// What the threads of a lane share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) root: PathBuf,
    pub(crate) session: String,
    /// Makes the contents of this lane its own.
    pub(crate) contents: u64,
    ledger: Mutex<Ledger>,
    /// Requests that wrote a version, and all requests.
    pub(crate) writes: AtomicU64,
    pub(crate) requests: AtomicU64,
    /// Kills so far.
    pub(crate) kills: AtomicUsize,
    /// The producers have stopped, and nobody is killed any more.
    pub(crate) calm: AtomicBool,
}

impl Shared {
    pub(crate) fn new(root: &Path, session: String, contents: u64) -> Result<Self> {
        let shared = Self {
            root: root.to_owned(),
            session,
            contents,
            ledger: Mutex::default(),
            writes: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            kills: AtomicUsize::new(0),
            calm: AtomicBool::new(false),
        };
        for folder in [shared.incoming(), shared.claims()] {
            fs::create_dir_all(folder)?;
        }
        shared.plant()?;
        Ok(shared)
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn incoming(&self) -> PathBuf {
        self.root.join("incoming").join(&self.session)
    }

    fn claims(&self) -> PathBuf {
        self.root.join(".processing").join(DATE).join(&self.session)
    }

    /// What must stay where it is, whatever happens.
    fn planted(&self) -> [PathBuf; 4] {
        let (incoming, claims) = (self.incoming(), self.claims());
        [incoming.join(".hidden"), incoming.join("half.part"), claims.join("notes.txt"), claims.join("a.dat.completed")]
    }

    fn plant(&self) -> Result<()> {
        for path in self.planted() {
            fs::write(&path, path.as_os_str().as_encoded_bytes())?;
        }
        fs::create_dir(self.incoming().join("folder"))?;
        std::os::unix::fs::symlink("half.part", self.incoming().join("link"))?;
        rustix::fs::mkfifoat(rustix::fs::CWD, self.incoming().join("fifo"), rustix::fs::Mode::RUSR)?;
        Ok(())
    }

    /// Waits until nothing is left to do, then asks the oracle for the last time; not if everything is over already.
    pub(crate) fn come_to_rest(&self, is_over: impl Fn() -> bool) -> Result<Sums, Violation> {
        let (mut start, mut least) = (Instant::now(), usize::MAX);
        loop {
            let left = self.left();
            if left.len() < least {
                (start, least) = (Instant::now(), left.len());
            }
            if is_over() {
                return Ok(Sums::default());
            }
            if left.is_empty() {
                break;
            }
            if start.elapsed() > REST {
                let what = format!("{} files do not come to rest, among them this", left.len());
                return Err(Violation { name: left[0].clone(), what });
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        if let Some(lost) = self.lost_plant() {
            let what = "a file of somebody else was touched".to_owned();
            return Err(Violation { name: lost.display().to_string(), what });
        }
        let mut ledger = self.ledger();
        ledger.check_deletions().and_then(|()| ledger.check_end(|file| look(file).ok()))
    }

    /// Names of files that are still to be claimed, committed or collected. An empty file stays for ten minutes.
    fn left(&self) -> Vec<String> {
        let ledger = self.ledger();
        let mut left = Vec::new();
        for (name, file) in ledger.files() {
            // A file that was collected meanwhile has no path.
            let Ok((path, size)) = place(file) else { continue };
            let stays =
                path.ends_with(".superseded") || (path.ends_with(".completed") && path.contains("/.processing/") && size == 0);
            if !stays && !path.ends_with(" (deleted)") {
                left.push(name.to_owned());
            }
        }
        left
    }

    fn lost_plant(&self) -> Option<PathBuf> {
        let files =
            self.planted().into_iter().find(|path| fs::read(path).ok().as_deref() != Some(path.as_os_str().as_encoded_bytes()));
        let others = ["folder", "link", "fifo"].map(|name| self.incoming().join(name));
        files.or_else(|| others.into_iter().find(|path| path.symlink_metadata().is_err()))
    }

    /// Counts a kill.
    pub(crate) fn killed(&self) {
        self.kills.fetch_add(1, Ordering::Relaxed);
    }
}

/// Where a file is now, and its size.
fn place(file: &OwnedFd) -> Result<(String, i64)> {
    let path = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    Ok((path.to_string_lossy().into_owned(), rustix::fs::fstat(file)?.st_size))
}

/// Where a file is now, and what is in it.
fn look(file: &OwnedFd) -> Result<(String, Fingerprint)> {
    let (path, _) = place(file)?;
    let mut content = Vec::new();
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    fs::File::open(link).context("cannot open a file that is there")?.read_to_end(&mut content)?;
    Ok((path, Fingerprint::of(&content)))
}
