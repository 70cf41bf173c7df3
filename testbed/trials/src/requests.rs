//! What a file costs in requests, from the server's record.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use blobferry_blob_server::{AccountKey, BlobServer, KEY, Keep, Operation, Settings};

use crate::{
    CONTAINER, DATE,
    uploader::{Process, tail, variables},
};

const SESSION: &str = "requests";
const PATIENCE: Duration = Duration::from_mins(5);

/// The requests of a file of each size, with the default settings: one Put Blob; or a look, the blocks, a look, the commit and the
/// list that proves it.
fn expected() -> [(u64, BTreeMap<Operation, u64>); 3] {
    let blocks = |count| {
        BTreeMap::from([
            (Operation::GetBlobProperties, 2),
            (Operation::PutBlock, count),
            (Operation::PutBlockList, 1),
            (Operation::GetBlockList, 1),
        ])
    };
    [(4 << 10, BTreeMap::from([(Operation::PutBlob, 1)])), (64 << 20, blocks(16)), (1 << 30, blocks(256))]
}

/// Uploads a file of each size; says what each cost.
pub(crate) fn run(program: &Path, folder: &Path) -> Result<Vec<(u64, u64)>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let key = AccountKey::new(KEY).context("the emulators' key is base64")?;
    let settings = Settings { keep: Keep::Checksums, key: Some(key), ..Settings::default() };
    let server = runtime.block_on(BlobServer::start(settings))?;
    for name in ["incoming", ".processing", "staging"] {
        std::fs::create_dir_all(folder.join(name))?;
    }
    let log = folder.join("uploader.log");
    let variables = variables(folder, SESSION, &server.account_url(), &[("APP_STAGING_MODE", "None")]);
    let _uploader = Process::start(program, &[], &variables, &log)?;
    let claims = folder.join(".processing").join(DATE).join(SESSION);
    // The claims' folder is made after the container was checked.
    until(&log, || Ok(claims.is_dir() && server.totals().requests.contains_key(&Operation::CreateContainer)))?;
    let mut costs = Vec::new();
    for (size, expected) in expected() {
        let name = format!("{size}.dat");
        let temporary = folder.join(&name);
        File::create(&temporary)?.set_len(size)?;
        std::fs::rename(&temporary, folder.join("incoming").join(SESSION).join(&name))?;
        until(&log, || is_completed(&claims, &name))?;
        let blob = format!("{DATE}/{SESSION}/{name}");
        let mut found = BTreeMap::new();
        for record in server.records(|record| *record.blob == *blob) {
            *found.entry(record.operation.context("an unknown operation")?).or_default() += 1;
        }
        ensure!(found == expected, "a file of {size} bytes cost {found:?} instead of {expected:?}");
        ensure!(server.current(CONTAINER, &blob).is_some_and(|version| version.size == size), "{blob} is not complete");
        costs.push((size, found.values().sum()));
    }
    Ok(costs)
}

fn is_completed(claims: &PathBuf, name: &str) -> Result<bool> {
    for entry in std::fs::read_dir(claims)? {
        let entry = entry?.file_name();
        let entry = entry.to_string_lossy();
        if entry.starts_with(name) && entry.ends_with(".completed") {
            return Ok(true);
        }
    }
    Ok(false)
}

fn until(log: &Path, happened: impl Fn() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !happened()? {
        if start.elapsed() > PATIENCE {
            bail!("nothing happens any more; the uploader's last words:\n{}", tail(log, 20));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
