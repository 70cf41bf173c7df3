//! A kill in the middle of a large file: what was sent is not sent again, and not read again.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use blobferry_blob_server::{AccountKey, BlobServer, Fault, KEY, Keep, Operation, Settings};
use rustix::process::Signal;

use crate::{
    CONTAINER, DATE,
    contents::fill,
    uploader::{Process, tail, variables},
};

const SESSION: &str = "resume";
const FILE: &str = "large.dat";
/// Bytes at the start of each block that are not zero; the rest of the file is a hole.
const MARK: usize = 4096;
/// What may be sent and read once more.
pub(crate) const ALLOWANCE: u64 = 64 << 20;
/// Bytes that a process reads besides the file: libraries, its own tables.
const OTHER_READS: u64 = 2 << 20;
const PATIENCE: Duration = Duration::from_mins(30);

/// How a trial is done.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) program: PathBuf,
    pub(crate) folder: PathBuf,
    pub(crate) size: u64,
    pub(crate) staging: &'static str,
}

/// What was sent and read more than once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    /// Bytes that the server had got when the uploader was killed.
    pub(crate) before: u64,
    /// Bytes of blocks that were sent again.
    pub(crate) sent_again: u64,
    /// Bytes of the share that were read again.
    pub(crate) read_again: u64,
    /// From the start of the second uploader to the commit.
    pub(crate) took: Duration,
}

/// Kills an uploader at 90 % of a file, starts another and measures.
pub(crate) fn run(plan: &Plan) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let key = AccountKey::new(KEY).context("the emulators' key is base64")?;
    let settings = Settings { keep: Keep::Checksums, keeps_records: false, key: Some(key), ..Settings::default() };
    let server = runtime.block_on(BlobServer::start(settings))?;
    std::fs::create_dir_all(plan.folder.join("incoming").join(SESSION))?;
    make_file(&plan.folder.join("incoming").join(SESSION).join(FILE), plan.size)?;
    let blob = format!("{DATE}/{SESSION}/{FILE}");

    // However slow this program is to notice that it is time, the file is not complete by then.
    server.faults().script(Operation::PutBlockList, 1, Fault::Slow(PATIENCE));
    let first = start(plan, &server)?;
    let target = plan.size / 10 * 9;
    until(plan, || server.uncommitted(CONTAINER, &blob).1 >= target)?;
    first.signal(Signal::STOP);
    // What is on its way arrives, so that it is clear what was sent before.
    settle(&server);
    let (before, read_before) = (server.totals().received, first.usage()?.read);
    ensure!(server.versions(CONTAINER, &blob).is_empty(), "the file was complete before the kill");
    ensure!(first.kill()?.is_none(), "the uploader ended by itself");
    server.faults().clear();

    let started = Instant::now();
    let second = start(plan, &server)?;
    until(plan, || !server.versions(CONTAINER, &blob).is_empty())?;
    let took = started.elapsed();
    // The sums have a request when its reply is on its way.
    settle(&server);
    let totals = server.totals();
    let read_after = second.usage()?.read;
    let version = server.current(CONTAINER, &blob).context("the blob is gone")?;
    ensure!(version.size == plan.size, "the blob has {} bytes, not {}", version.size, plan.size);
    ensure!(version.crc64 == checksum(plan.size), "the blob has other bytes than the file");
    let commits = totals.requests.get(&Operation::PutBlockList).copied().unwrap_or_default();
    ensure!(commits == 1, "{commits} commits instead of one");
    let outcome = Outcome {
        before,
        sent_again: totals.received.saturating_sub(plan.size),
        read_again: (read_before + read_after).saturating_sub(plan.size),
        took,
    };
    ensure!(outcome.sent_again <= ALLOWANCE, "{} bytes were sent again", outcome.sent_again);
    ensure!(outcome.read_again <= ALLOWANCE + OTHER_READS, "{} bytes were read again", outcome.read_again);
    Ok(outcome)
}

fn start(plan: &Plan, server: &BlobServer) -> Result<Process> {
    let more = [("APP_STAGING_MODE", plan.staging), ("APP_POD_UID", SESSION)];
    std::fs::create_dir_all(plan.folder.join("staging"))?;
    std::fs::create_dir_all(plan.folder.join(".processing"))?;
    let variables = variables(&plan.folder, SESSION, &server.account_url(), &more);
    Process::start(&plan.program, &[], &variables, &log(plan))
}

fn log(plan: &Plan) -> PathBuf {
    plan.folder.join("uploader.log")
}

fn until(plan: &Plan, happened: impl Fn() -> bool) -> Result<()> {
    let start = Instant::now();
    while !happened() {
        if start.elapsed() > PATIENCE {
            bail!("nothing happens any more; the uploader's last words:\n{}", tail(&log(plan), 20));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Waits until no byte has arrived for a while.
fn settle(server: &BlobServer) {
    let mut last = server.totals();
    loop {
        std::thread::sleep(Duration::from_millis(200));
        let now = server.totals();
        if now == last {
            return;
        }
        last = now;
    }
}

/// A file with a hole in it, in which no two blocks are alike.
fn make_file(path: &Path, size: u64) -> Result<()> {
    // Written elsewhere and moved, so that it is stable as soon as it is there.
    let temporary = path.with_extension("tmp");
    let file = File::create(&temporary)?;
    file.set_len(size)?;
    for_marks(size, |offset, mark| Ok(file.write_all_at(mark, offset)?))?;
    Ok(std::fs::rename(temporary, path)?)
}

fn for_marks(size: u64, mut each: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
    let mut mark = vec![0; MARK];
    for offset in (0..size).step_by(4 << 20) {
        fill(offset, 0, &mut mark);
        let length = usize::try_from(size - offset).unwrap_or(MARK).min(MARK);
        each(offset, &mark[..length])?;
    }
    Ok(())
}

/// CRC-64/NVME of the whole file, without reading it.
fn checksum(size: u64) -> u64 {
    use crc_fast::{CrcAlgorithm::Crc64Nvme, checksum, checksum_combine};
    const STRIDE: u64 = 4 << 20;
    let zeros = vec![0; 1 << 20];
    let mut whole = checksum(Crc64Nvme, &[]);
    let mut mark = vec![0; MARK];
    for offset in (0..size).step_by(4 << 20) {
        let length = STRIDE.min(size - offset);
        fill(offset, 0, &mut mark);
        let marked = (MARK as u64).min(length);
        let start = &mark[..usize::try_from(marked).unwrap_or(MARK)];
        whole = checksum_combine(Crc64Nvme, whole, checksum(Crc64Nvme, start), marked);
        let mut left = length - marked;
        while left > 0 {
            let part = left.min(zeros.len() as u64);
            let zeros = &zeros[..usize::try_from(part).unwrap_or(zeros.len())];
            whole = checksum_combine(Crc64Nvme, whole, checksum(Crc64Nvme, zeros), part);
            left -= part;
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_that_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let size = (9 << 20) + 17;
        make_file(&path, size).unwrap();
        let content = std::fs::read(&path).unwrap();
        assert_eq!(content.len() as u64, size);
        assert_eq!(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, &content), checksum(size));
    }
}
