//! Producers of one folder: they drop, replace, rewrite, take back, write slowly and touch, and say in the ledger what they do.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::Write as _,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::fs::PermissionsExt as _,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use rand::{RngExt as _, rngs::StdRng};
use rustix::{
    fs::{CWD, Mode, OFlags, RenameFlags, fstat, open, renameat_with},
    io::Errno,
};

use crate::{
    contents::{Fingerprint, contents},
    lane::Shared,
};

/// Names that are dropped again and again.
const REUSED: u64 = 8;
/// Names with something odd about them; each is followed by a number.
const ODD: [&str; 8] = [
    "x.completed",
    "sp ace %41 +",
    "日本語",
    "a#b?c&d=e",
    "-dash",
    "semi;colon,",
    "quote\"'",
    "b10000000000001000000010000000a.failed",
];
/// How long a slow writer may rest between two writes.
const RESTS: [Duration; 4] =
    [Duration::from_millis(30), Duration::from_millis(400), Duration::from_millis(1500), Duration::from_secs(4)];

/// A file that is written little by little.
#[derive(Debug)]
struct Slow {
    name: String,
    id: u64,
    file: File,
    written: usize,
    left: u32,
    due: Instant,
}

/// A name that will be dropped once more, over itself.
#[derive(Debug)]
struct Again {
    name: String,
    id: u64,
    due: Instant,
}

/// All producers of a folder, in one thread.
#[derive(Debug)]
pub(crate) struct Producer<'a> {
    shared: &'a Shared,
    random: StdRng,
    next: u64,
    slow: Vec<Slow>,
    again: Vec<Again>,
    /// The newest generation of each reused name.
    newest: Vec<Option<u64>>,
    outbox: PathBuf,
}

impl<'a> Producer<'a> {
    pub(crate) fn new(shared: &'a Shared, random: StdRng) -> Result<Self> {
        let outbox = shared.root.join(format!("outbox-{}", shared.session));
        fs::create_dir_all(&outbox)?;
        let newest = vec![None; usize::try_from(REUSED)?];
        Ok(Self { shared, random, next: 0, slow: Vec::new(), again: Vec::new(), newest, outbox })
    }

    /// Works until it is told to stop, and then ends what it has begun.
    pub(crate) fn work(mut self, pause: Duration, is_over: impl Fn() -> bool) -> Result<()> {
        while !is_over() {
            self.act()?;
            self.go_on()?;
            std::thread::sleep(pause.mul_f64(self.random.random_range(0.2..1.8)));
        }
        while !self.slow.is_empty() || !self.again.is_empty() {
            self.go_on()?;
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn act(&mut self) -> Result<()> {
        match self.random.random_range(0..100) {
            0..35 => self.drop_new().map(|_| ()),
            35..70 => self.drop_reused(),
            70..80 => self.begin_slow(),
            80..87 => self.begin_rewrite(),
            87..94 => self.take_back(),
            _ => self.touch(),
        }
    }

    fn go_on(&mut self) -> Result<()> {
        let now = Instant::now();
        if let Some(due) = self.slow.iter().position(|slow| slow.due <= now) {
            let slow = self.slow.swap_remove(due);
            self.write_more(slow)?;
        }
        if let Some(due) = self.again.iter().position(|again| again.due <= now) {
            let again = self.again.swap_remove(due);
            self.rewrite(&again)?;
        }
        Ok(())
    }

    fn incoming(&self, name: &str) -> PathBuf {
        self.shared.incoming().join(name)
    }

    fn id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn new_name(&mut self, kind: &str) -> String {
        let number = self.next + 1;
        if self.random.random_range(0..4) > 0 {
            return format!("{kind}-{number}.dat");
        }
        format!("{}{number}", ODD[self.random.random_range(0..ODD.len())])
    }

    fn size(&mut self) -> usize {
        match self.random.random_range(0..100) {
            0 => 0,
            1..50 => self.random.random_range(1..64 << 10),
            50..90 => self.random.random_range(64 << 10..512 << 10),
            _ => self.random.random_range(512 << 10..3 << 20),
        }
    }

    fn content(&self, id: u64, size: usize) -> Vec<u8> {
        contents(self.shared.contents ^ id, size)
    }

    /// A whole file in the outbox, perhaps with an old time of modification; announced.
    fn prepare(&mut self, name: &str) -> Result<(u64, PathBuf)> {
        let (id, size) = (self.id(), self.size());
        let content = self.content(id, size);
        let path = self.outbox.join(id.to_string());
        let mut file = File::create(&path)?;
        file.write_all(&content)?;
        if self.random.random_range(0..4) == 0 {
            file.set_modified(SystemTime::now() - Duration::from_secs(self.random.random_range(0..100_000_000)))?;
        }
        let mut ledger = self.shared.ledger();
        ledger.announce(name, id, Fingerprint::of(&content));
        ledger.made(name, id, handle(&path)?);
        Ok((id, path))
    }

    /// A name that was not there before, moved into place.
    fn drop_new(&mut self) -> Result<(String, u64)> {
        let name = self.new_name("new");
        let (id, path) = self.prepare(&name)?;
        rename_new(&path, &self.incoming(&name))?;
        Ok((name, id))
    }

    /// A name that was there before, perhaps still is: whichever is there is exchanged, so that it is known what was replaced.
    fn drop_reused(&mut self) -> Result<()> {
        let slot = self.random.random_range(0..REUSED);
        let name = format!("reused-{slot}");
        let before = self.newest[usize::try_from(slot)?];
        let (id, path) = self.prepare(&name)?;
        self.newest[usize::try_from(slot)?] = Some(id);
        match renameat_with(CWD, &path, CWD, self.incoming(&name), RenameFlags::EXCHANGE) {
            Ok(()) => {
                let before = before.context("a file is there that nobody dropped")?;
                self.shared.ledger().withdraw(&name, before);
                fs::remove_file(&path)?;
                Ok(())
            }
            Err(Errno::NOENT) => rename_new(&path, &self.incoming(&name)),
            Err(error) => Err(error.into()),
        }
    }

    fn begin_slow(&mut self) -> Result<()> {
        let (name, id) = (self.new_name("slow"), self.id());
        self.shared.ledger().announce(&name, id, Fingerprint::of(&[]));
        let path = self.incoming(&name);
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        self.shared.ledger().made(&name, id, handle(&path)?);
        let left = self.random.random_range(1..6);
        self.slow.push(Slow { name, id, file, written: 0, left, due: Instant::now() });
        Ok(())
    }

    /// One write, announced before; the next one follows after a rest that may be longer than the quiet period.
    fn write_more(&mut self, mut slow: Slow) -> Result<()> {
        let more = self.random.random_range(1..150 << 10);
        let content = self.content(slow.id, slow.written + more);
        self.shared.ledger().announce(&slow.name, slow.id, Fingerprint::of(&content));
        slow.file.write_all(&content[slow.written..])?;
        slow.written = content.len();
        slow.left -= 1;
        slow.due = Instant::now() + RESTS[self.random.random_range(0..RESTS.len())];
        if slow.left > 0 {
            self.slow.push(slow);
        }
        Ok(())
    }

    fn begin_rewrite(&mut self) -> Result<()> {
        let (name, id) = self.drop_new()?;
        let due = Instant::now() + Duration::from_millis(self.random.random_range(50..2500));
        self.again.push(Again { name, id, due });
        Ok(())
    }

    /// As `cp` does it: what is there is truncated and written anew. If it was claimed meanwhile, a new file comes into being.
    fn rewrite(&mut self, again: &Again) -> Result<()> {
        let (id, size) = (self.id(), self.size().max(1));
        let content = self.content(id, size);
        let path = self.incoming(&again.name);
        for state in [&[], content.as_slice()] {
            self.shared.ledger().announce(&again.name, id, Fingerprint::of(state));
        }
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
        // By the descriptor: the name may be another's by now.
        let opened = handle(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())))?;
        let is_same = self.shared.ledger().is_file(&again.name, again.id, fstat(&file)?.st_ino);
        if is_same {
            self.shared.ledger().withdraw(&again.name, again.id);
        }
        self.shared.ledger().made(&again.name, id, opened);
        file.write_all(&content)?;
        Ok(())
    }

    /// A file is moved away before it was claimed, if it still is there.
    fn take_back(&mut self) -> Result<()> {
        let slot = usize::try_from(self.random.random_range(0..REUSED))?;
        let Some(id) = self.newest[slot] else { return Ok(()) };
        let name = format!("reused-{slot}");
        let trash = self.outbox.join("trash");
        match fs::rename(self.incoming(&name), &trash) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error.into()),
            Ok(()) => {
                let inode = fs::metadata(&trash)?;
                let is_newest = self.shared.ledger().is_file(&name, id, std::os::unix::fs::MetadataExt::ino(&inode));
                ensure!(is_newest, "the incoming folder had another file than the newest under {name}");
                self.shared.ledger().withdraw(&name, id);
                Ok(fs::remove_file(trash)?)
            }
        }
    }

    /// A backup tool or an administrator changes attributes, wherever the file is by now.
    fn touch(&mut self) -> Result<()> {
        let ledger = self.shared.ledger();
        let files: Vec<_> = ledger.files().collect();
        if files.is_empty() {
            return Ok(());
        }
        let (_, file) = files[self.random.random_range(0..files.len())];
        let mode = [0o644, 0o664, 0o600][self.random.random_range(0..3)];
        let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
        match fs::set_permissions(path, Permissions::from_mode(mode)) {
            // It may be collected at any time.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Names a file without opening it, so that it can be looked at wherever it goes.
fn handle(path: &Path) -> Result<OwnedFd> {
    open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).with_context(|| format!("cannot name {}", path.display()))
}

fn rename_new(from: &Path, to: &Path) -> Result<()> {
    renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE).with_context(|| format!("cannot drop {}", to.display()))
}
