//! The least that any uploader has to do: read a block, checksum it, send it over a connection that stays open.

use std::{
    fmt::Write as _,
    fs::File,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use blobferry_blob_server::ACCOUNT;
use rustix::time::{ClockId, clock_gettime};

use crate::{CONTAINER, DATE, uploader::Usage};

const THREADS: usize = 2;
const BLOCK: u64 = 8 << 20;

/// A part of a file that is one request.
#[derive(Clone, Debug)]
struct Part {
    path: PathBuf,
    offset: u64,
    length: u64,
    /// The number of the block, or nothing if the file is one request.
    block: Option<u64>,
}

/// Sends a folder; large files in blocks.
pub(super) fn upload(folder: &Path, address: SocketAddr) -> Result<Usage> {
    let mut parts = Vec::new();
    let mut lists = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let (path, size) = (entry.path(), entry.metadata()?.len());
        if size <= BLOCK {
            parts.push(Part { path, offset: 0, length: size, block: None });
            continue;
        }
        let blocks = (0..size.div_ceil(BLOCK)).map(|block| {
            let offset = block * BLOCK;
            Part { path: path.clone(), offset, length: BLOCK.min(size - offset), block: Some(block) }
        });
        parts.extend(blocks);
        lists.push((path, size.div_ceil(BLOCK)));
    }
    let next = AtomicUsize::new(0);
    let work = || -> Result<f64> {
        let mut connection = Connection::open(address)?;
        while let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
            connection.send(part)?;
        }
        Ok(processor())
    };
    let spent = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| anyhow::bail!("a thread panicked"))).sum::<Result<f64>>()
    })?;
    let mut connection = Connection::open(address)?;
    for (path, blocks) in lists {
        connection.commit(&path, blocks)?;
    }
    Ok(Usage { processor: spent, ..Usage::default() })
}

/// Processor time of this thread, in seconds.
fn processor() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    std::time::Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default()).as_secs_f64()
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    fn send(&mut self, part: &Part) -> Result<()> {
        self.buffer.resize(usize::try_from(part.length)?, 0);
        File::open(&part.path)?.read_exact_at(&mut self.buffer, part.offset)?;
        let crc64 = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, &self.buffer);
        let query = part.block.map(|block| format!("?comp=block&blockid={}", id(block))).unwrap_or_default();
        let body = std::mem::take(&mut self.buffer);
        self.put(&part.path, &query, Some(crc64), &body)?;
        self.buffer = body;
        Ok(())
    }

    fn commit(&mut self, path: &Path, blocks: u64) -> Result<()> {
        let mut list = "<BlockList>".to_owned();
        for block in 0..blocks {
            write!(list, "<Latest>{}</Latest>", id(block))?;
        }
        list += "</BlockList>";
        self.put(path, "?comp=blocklist", None, list.as_bytes())
    }

    fn put(&mut self, path: &Path, query: &str, crc64: Option<u64>, body: &[u8]) -> Result<()> {
        let name = path.file_name().context("no file")?.to_string_lossy();
        let crc64 = crc64
            .map(|crc64| format!("x-ms-content-crc64: {}\r\n", BASE64_STANDARD.encode(crc64.to_le_bytes())))
            .unwrap_or_default();
        let head = format!(
            "PUT /{ACCOUNT}/{CONTAINER}/{DATE}/{name}{query} HTTP/1.1\r\nhost: x\r\nx-ms-version: 2021-12-02\r\n\
             x-ms-blob-type: BlockBlob\r\n{crc64}content-length: {}\r\n\r\n",
            body.len()
        );
        self.stream.write_all(head.as_bytes())?;
        self.stream.write_all(body)?;
        let mut reply = [0; 4096];
        let mut filled = 0;
        while !reply[..filled].windows(4).any(|window| window == b"\r\n\r\n") {
            let read = self.stream.read(&mut reply[filled..])?;
            ensure!(read > 0, "the server closed the connection");
            filled += read;
        }
        ensure!(reply.starts_with(b"HTTP/1.1 201"), "{}", String::from_utf8_lossy(&reply[..filled]));
        Ok(())
    }
}

/// An id of eight characters that need no escape.
fn id(block: u64) -> String {
    BASE64_STANDARD.encode(format!("{block:06}"))
}
