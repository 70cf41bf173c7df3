//! What must hold of reports, and of a session that had time to finish.

mod shown;

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use blobferry_crds::Progress;
use blobferry_uploader::{
    args::Mode,
    formats::{FailedReason, ProcessingName, State, blob_name, longest_producer_name},
    report::Report,
    share::join,
};

use crate::{oracle::Oracle, server::Node, settings::Afterwards, world::World};

/// A call may take so long, and a listing is old then.
const SLOW: Duration = Duration::from_secs(200);
/// The folder of another session in ours.
const OTHERS: &[u8] = b"other";

/// A file of a producer that is still on the share.
#[derive(Debug)]
struct Left {
    node: Node,
    path: PathBuf,
    /// The producer's name with its folders.
    name: Vec<u8>,
    claim: Option<ProcessingName>,
}

impl Left {
    /// Whether its bytes are only on the share, as far as its name tells.
    fn is_open(&self, oracle: &Oracle) -> bool {
        self.claim
            .as_ref()
            .is_none_or(|name| matches!(name.state, State::Claimed | State::Failed) && !oracle.was_committed(self.node))
    }
}

/// True if the session takes a file of this name.
fn is_taken(name: &[u8]) -> bool {
    let is_ours = [&b".nfs"[..], b".blobferry-"].iter().any(|start| name.starts_with(start));
    !is_ours && !name.ends_with(b".tmp")
}

/// True if a file of this name can become a blob.
fn can_be_blob(name: &[u8]) -> bool {
    let last = name.rsplit(|byte| *byte == b'/').next().unwrap_or(name);
    last.len() <= longest_producer_name(255) && blob_name("", "20261121", "s", name).is_ok()
}

/// The claimed files that wait to be uploaded.
pub fn claimed(world: &World) -> Vec<Node> {
    let is_claimed = |file: &Left| file.claim.as_ref().is_some_and(|name| name.state == State::Claimed);
    left(world).iter().filter(|file| is_claimed(file)).map(|file| file.node).collect()
}

fn left(world: &World) -> Vec<Left> {
    let folders = world.settings.folders();
    let mut left = Vec::new();
    for (names, node) in world.server.files_below(&folders.incoming) {
        let is_entered = names.len() == 1 || world.settings.rules.recursive;
        if is_entered && names[0] != OTHERS && names.iter().all(|name| is_taken(name)) {
            left.push(Left { node, path: below(&folders.incoming, &names), name: names.join(&b'/'), claim: None });
        }
    }
    for (names, node) in world.server.files_below(&folders.processing) {
        if let [_, session, above @ .., name] = names.as_slice()
            && *session == folders.session.as_bytes()
            && let Some(claim) = ProcessingName::parse(name)
        {
            let name = [above, &[claim.producer.to_vec()]].concat().join(&b'/');
            left.push(Left { node, path: below(&folders.processing, &names), name, claim: Some(claim) });
        }
    }
    left
}

fn below(folder: &Path, names: &[Vec<u8>]) -> PathBuf {
    names.iter().fold(folder.to_owned(), |path, name| join(&path, name))
}

/// A report tells no lie about what is safe.
pub fn report(world: &mut World, report: &Report) {
    ledger_adds_up(world, &report.progress);
    shown::caught_up(world, report);
    shown::reasons_fit(world, &report.progress);
    let Some(safe) = report.progress.safe_through.as_ref().map(|time| time.0.as_nanosecond()) else { return };
    if let Some(file) = open_before(world, safe) {
        world.oracle.violated(format!("safeThrough is {safe}, but {file} is not uploaded"));
    }
}

/// A file whose bytes are only on the share although they came before this time of the server's clock, if its times prove an order.
fn open_before(world: &World, time: i128) -> Option<String> {
    if world.server.clock.stepped_back || !world.oracle.has_open_before(&world.server, time) {
        return None;
    }
    left(world).iter().filter(|file| file.is_open(&world.oracle)).find_map(|file| {
        let clock = world.oracle.clock_of(file.node).filter(|clock| *clock < time)?;
        Some(format!("{} of {clock}", file.path.display()))
    })
}

/// What was seen is the sum of what became of it.
fn ledger_adds_up(world: &mut World, progress: &Progress) {
    let lasting = progress.files_uploaded + progress.files_failed + progress.files_superseded + progress.files_withdrawn;
    let now = progress.files_waiting + progress.files_active + progress.files_retrying + progress.files_ignored;
    if progress.files_seen != lasting + now {
        world.oracle.violated(format!("the ledger does not add up: {progress:?}"));
    }
}

/// A run that began at the moment `since` says that it is over, and `stood` still before it said so.
pub fn concluded(world: &mut World, mode: Mode, since: u64, stood: Duration) {
    let idle = world.settings.turns.idle.unwrap_or_default();
    for file in left(world) {
        let wrong = match (&file.claim, mode) {
            (Some(name), _) if name.state != State::Claimed || !world.oracle.was_claimed_before(&name.claim, since) => None,
            (Some(_), Mode::Drain) => Some("drained"),
            // One whose name, or folder's name, somebody else has or had stays, and is shown.
            (Some(name), Mode::Release) => {
                let incoming = world.settings.folders().incoming;
                let there = world.server.lookup(&join(&incoming, &file.name));
                let is_free = there.is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
                (is_free && !world.oracle.is_name_shared(&name.claim)).then_some("released")
            }
            (Some(_), Mode::Watch) => Some("completed"),
            (None, Mode::Watch) => {
                let rests = world.oracle.rests_for(file.node);
                let slow = if world.settings.faults.share.slow > 0 { SLOW } else { Duration::from_secs(2) };
                (can_be_blob(&file.name) && world.server.inode(file.node).readable && rests > idle + slow + stood)
                    .then_some("completed")
            }
            (None, _) => None,
        };
        if let Some(wrong) = wrong {
            world.oracle.violated(format!("the session is {wrong}, and {} is still there", file.path.display()));
        }
    }
}

/// What keeps the session from being done; `None` if it is.
pub fn unfinished(world: &World) -> Option<String> {
    if world.api.spec.mode != Mode::Watch {
        return Some("the pod that drains or releases".into());
    }
    let files = left(world);
    let states: BTreeSet<_> =
        files.iter().filter_map(|file| file.claim.as_ref()).map(|name| (name.claim, name.state == State::FailedReason)).collect();
    let waits = |file: &&Left| match &file.claim {
        None => can_be_blob(&file.name) && world.server.inode(file.node).readable,
        Some(name) => match name.state {
            State::Completed(_) => true,
            State::Claimed => world.server.inode(file.node).readable,
            State::Failed => is_to_be_tried(world, file, name),
            // Whose file is neither claimed nor aside.
            State::FailedReason => !states.contains(&(name.claim, false)),
            State::Superseded => false,
        },
    };
    files.iter().find(waits).map(|file| file.path.display().to_string())
}

/// True if a file was set aside before the `runToken` of now was given, or nothing says why it is aside.
fn is_to_be_tried(world: &World, file: &Left, name: &ProcessingName) -> bool {
    let token = world.api.spec.token.clone();
    let path = join(file.path.parent().unwrap_or(&file.path), &name.with(State::FailedReason).to_bytes());
    let Ok(node) = world.server.lookup(&path) else { return true };
    let reason = serde_json::from_slice(world.server.content(node)).ok();
    token.is_some() && reason.and_then(|reason: FailedReason| reason.run_token) != token
}

/// The counters of a session that is done are those of what happened.
pub fn ledger(world: &mut World) -> Result<(), String> {
    // A producer that touches a completed file makes it look completed later than it was, and it may be counted twice after a crash.
    let producers = &world.settings.producers;
    let untouched = !producers.misbehave && producers.afterwards == Afterwards::Rest;
    let is_one = world.settings.uploaders == 1 && world.settings.faults.api.is_there;
    let is_one = is_one && world.api.spec.object == 1;
    let Some(progress) = world.api.progress.clone().filter(|_| is_one) else { return Ok(()) };
    let is_failed = |file: &&Left| file.claim.as_ref().is_some_and(|name| name.state == State::Failed);
    let failed = left(world).iter().filter(is_failed).count() as u64;
    if progress.files_failed != failed {
        return Err(format!("the status counts {} files that are set aside, but {failed} are", progress.files_failed));
    }
    shown::at_the_end(world, &progress)?;
    let stays = left(world).iter().filter(|file| file.claim.is_none()).count() as u64;
    if progress.files_waiting < stays {
        return Err(format!("{stays} files stay with their producers, and the status shows {} that wait", progress.files_waiting));
    }
    if !untouched || world.server.clock.stepped_back {
        return Ok(());
    }
    if progress.files_superseded != world.oracle.superseded {
        return Err(format!(
            "the status counts {} overtaken files, but {} were",
            progress.files_superseded, world.oracle.superseded
        ));
    }
    let (files, bytes) = world.oracle.completed;
    if (progress.files_uploaded, progress.bytes_uploaded) != (files, bytes) {
        return Err(format!(
            "the status counts {} files of {} bytes, but {files} of {bytes} were completed",
            progress.files_uploaded, progress.bytes_uploaded
        ));
    }
    Ok(())
}
