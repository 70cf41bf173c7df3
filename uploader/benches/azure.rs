//! How many bytes, and how many small requests, one core sends through [`AzureStore`] to a server that reads and forgets.
//!
//! `cargo bench -p blobferry-uploader --bench azure`. The client runs on one thread, whose processor time is measured; the server has
//! threads of its own.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement prints, and ends at the first failure")]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use azure_core::credentials::Secret;
use blobferry_uploader::{
    azure::{AccountUrl, AzureSettings, AzureStore, CredentialSource},
    blob::{BlobStore, Condition, Properties},
    formats::{BlobName, BlockId, BlockPlanHash, ClaimId, OrderKey, ProcessId, SourceId, blob_name},
    share::Identity,
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use rustix::time::{ClockId, clock_gettime};

const REPLY: &[u8] =
    b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\nETag: \"0x1\"\r\nLast-Modified: Fri, 21 Nov 2026 10:00:00 GMT\r\n\r\n";

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let address = serve();
    for (megabytes, in_flight) in [(4, 1), (4, 4), (8, 4), (32, 4)] {
        let total = 4096 / megabytes;
        let (wall, processor) = measure(|| runtime.block_on(blocks(&store(address), megabytes << 20, in_flight, total)));
        let gigabytes = 4.294_967_296;
        println!(
            "put_block {megabytes:>2} MiB x {in_flight}: {:.2} GB/s, {:.2} GB per processor second of the client",
            gigabytes / wall,
            gigabytes / processor
        );
    }
    for in_flight in [1, 32] {
        let count: u32 = 20_000;
        let (wall, processor) = measure(|| runtime.block_on(small(&store(address), count, in_flight)));
        println!(
            "put_blob 4 KiB x {in_flight}: {:.0} requests/s, {:.1} us of the client's processor each",
            f64::from(count) / wall,
            processor * 1e6 / f64::from(count)
        );
    }
}

fn store(address: SocketAddr) -> AzureStore {
    let account_url = AccountUrl::parse(&format!("http://{address}/devstoreaccount1")).unwrap();
    let credential = CredentialSource::AccountKey { account: None, key: Secret::new("a2V5") };
    AzureStore::new(AzureSettings { account_url, container: "data".to_owned(), prefix: String::new(), credential }).unwrap()
}

/// Seconds by the clock and of this thread's processor time.
fn measure<T>(work: impl FnOnce() -> T) -> (f64, f64) {
    let processor = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap()).as_secs_f64()
    };
    let (start, before) = (Instant::now(), processor());
    work();
    (start.elapsed().as_secs_f64(), processor() - before)
}

fn name() -> BlobName {
    blob_name("", "20261121", "bench", b"a.dat").unwrap()
}

fn id(index: u32) -> BlockId {
    let claim = ClaimId::new(OrderKey(1), ProcessId::new(2), 3);
    let identity = Identity { inode: 1, size: 2, mtime: 3, ctime: 4 };
    let hash = BlockPlanHash::new(&SourceId::new(uuid::Uuid::nil(), "bench"), &claim, &identity, 4);
    BlockId { hash, index, length: 0, crc64: 0 }
}

/// Sends `count` blocks of `size` bytes, each in flight from a buffer of its own; the checksums are not computed.
async fn blocks(store: &AzureStore, size: usize, in_flight: usize, count: usize) {
    let buffers: Vec<_> = (0..in_flight).map(|_| Bytes::from(vec![7_u8; size])).collect();
    let requests = (0..count).map(|index| {
        let body = buffers[index % in_flight].clone();
        async move { store.put_block(&name(), &id(u32::try_from(index).unwrap()), body, 0).await.unwrap() }
    });
    stream::iter(requests).buffer_unordered(in_flight).for_each(|()| async {}).await;
}

async fn small(store: &AzureStore, count: u32, in_flight: usize) {
    let metadata = ["claim", "crc64", "format", "modified", "source"].map(|key| (format!("blobferry_{key}"), "x".repeat(20)));
    let properties = Properties { metadata: metadata.into_iter().collect(), ..Properties::default() };
    let body = Bytes::from(vec![7_u8; 4096]);
    let requests = (0..count).map(|_| {
        let (body, properties) = (body.clone(), &properties);
        async move { store.put_blob(&name(), body, 0, &Condition::Absent, properties).await.unwrap() }
    });
    stream::iter(requests).buffer_unordered(in_flight).for_each(|_| async {}).await;
}

/// A thread for each connection.
fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for connection in listener.incoming() {
            thread::spawn(|| answer(connection.unwrap()));
        }
    });
    address
}

fn answer(mut connection: TcpStream) {
    connection.set_nodelay(true).unwrap();
    let mut buffer = vec![0; 1 << 20];
    let mut filled = 0;
    loop {
        let Some(end) = buffer[..filled].windows(4).position(|window| window == b"\r\n\r\n") else {
            match connection.read(&mut buffer[filled..]) {
                Ok(0) | Err(_) => return,
                Ok(read) => filled += read,
            }
            continue;
        };
        let head = String::from_utf8_lossy(&buffer[..end]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok()).unwrap_or(0);
        let mut left = length - (filled - end - 4);
        while left > 0 {
            let most = left.min(buffer.len());
            left -= connection.read(&mut buffer[..most]).unwrap();
        }
        filled = 0;
        connection.write_all(REPLY).unwrap();
    }
}
