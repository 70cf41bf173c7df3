//! What must hold of reports, and of a session that had time to finish.

use std::path::{Path, PathBuf};

use blobferry_uploader::{
    formats::{ProcessingName, State, blob_name, longest_producer_name},
    report::Report,
};

use crate::{server::Node, world::World};

/// A file of a producer that is still on the share.
#[derive(Debug)]
struct Left {
    node: Node,
    path: PathBuf,
    claim: Option<ProcessingName>,
}

/// True if the session takes a file of this name.
fn is_taken(name: &[u8]) -> bool {
    let is_ours = [&b".nfs"[..], b".blobferry-"].iter().any(|start| name.starts_with(start));
    !is_ours && !name.ends_with(b".tmp")
}

/// True if a file of this name can become a blob.
fn can_be_blob(name: &[u8]) -> bool {
    name.len() <= longest_producer_name(255) && blob_name("", "20261121", "s", name).is_ok()
}

fn left(world: &World) -> Vec<Left> {
    let folders = world.settings.folders();
    let mut left = Vec::new();
    let path = |folder: &Path, names: &[Vec<u8>]| {
        names.iter().fold(folder.to_owned(), |path, name| blobferry_uploader::share::join(&path, name))
    };
    for (names, node) in world.server.files_below(&folders.incoming) {
        if let [name] = names.as_slice()
            && is_taken(name)
        {
            left.push(Left { node, path: path(&folders.incoming, &names), claim: None });
        }
    }
    for (names, node) in world.server.files_below(&folders.processing) {
        if let [_, session, name] = names.as_slice()
            && *session == folders.session.as_bytes()
            && let Some(claim) = ProcessingName::parse(name)
        {
            left.push(Left { node, path: path(&folders.processing, &names), claim: Some(claim) });
        }
    }
    left
}

/// A report tells no lie about what is safe.
pub fn report(world: &mut World, report: &Report) {
    let Some(safe) = report.progress.safe_through.as_ref().map(|time| time.0.as_nanosecond()) else { return };
    if world.server.clock.stepped_back {
        return;
    }
    for file in left(world) {
        let is_open = match &file.claim {
            None => true,
            Some(name) => name.state == State::Claimed && !world.oracle.was_committed(file.node),
        };
        let clock = world.oracle.clock_of(file.node);
        if is_open && clock.is_some_and(|clock| clock < safe) {
            let text = format!("safeThrough is {safe}, but {} of {clock:?} is not uploaded", file.path.display());
            world.oracle.violated(text);
        }
    }
}

/// What keeps the session from being done; `None` if it is.
pub fn unfinished(world: &World) -> Option<String> {
    for file in left(world) {
        let waits = match &file.claim {
            None => {
                let name = file.path.file_name().unwrap_or_default().as_encoded_bytes();
                can_be_blob(name) && world.server.inode(file.node).readable
            }
            Some(name) => {
                matches!(name.state, State::Completed(_))
                    || (name.state == State::Claimed && world.server.inode(file.node).readable)
            }
        };
        if waits {
            return Some(file.path.display().to_string());
        }
    }
    None
}

/// The counters of a session that is done are those of what happened.
pub fn ledger(world: &mut World) -> Result<(), String> {
    // A producer that touches a completed file makes it look completed later than it was, and it may be counted twice after a crash.
    let producers = &world.settings.producers;
    let untouched = !producers.misbehave && !producers.writes_late;
    let is_one = world.settings.uploaders == 1 && world.settings.faults.api.is_there;
    let is_exact = is_one && untouched && !world.server.clock.stepped_back;
    let Some(progress) = world.api.progress.clone().filter(|_| is_exact) else { return Ok(()) };
    let (files, bytes) = world.oracle.completed;
    if (progress.files_uploaded, progress.bytes_uploaded) != (files, bytes) {
        return Err(format!(
            "the status counts {} files of {} bytes, but {files} of {bytes} were completed",
            progress.files_uploaded, progress.bytes_uploaded
        ));
    }
    Ok(())
}
