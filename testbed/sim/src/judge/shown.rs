//! What a status says in a word and by name: `caughtUp`, and the files of `heldBack`.

use std::path::Path;

use blobferry_crds::{FileProblem, Progress};
use blobferry_uploader::{
    formats::{MARKERS, State},
    ledger,
    report::Report,
    share::join,
};

use super::{Left, OTHERS, can_be_blob, is_taken, left, open_before};
use crate::world::World;

/// As many files are shown.
const SHOWN: usize = 5;
/// What its name is to a file that can be no blob.
const BAD_NAME: &str = "BadName";
const SET_ASIDE: &str = "SetAside";
const IGNORED: &str = "Ignored";
const UNREADABLE: &str = "Unreadable";

/// A session that calls itself caught up has uploaded what was there at its last scan.
pub(super) fn caught_up(world: &mut World, report: &Report) {
    let scan = report.activity.last_scan_time.as_ref().map(|time| time.0.as_nanosecond());
    // Of two uploaders one learns only now and then what the other has claimed.
    let is_one = world.settings.uploaders == 1;
    let (true, true, Some(scan)) = (report.progress.caught_up, is_one, scan) else { return };
    if let Some(file) = open_before(world, scan) {
        world.oracle.violated(format!("it is caught up as of {scan}, but {file} is not uploaded"));
    }
}

/// No file is shown with a reason that its name contradicts, nor one that somebody has to see to by a session that is caught up.
pub(super) fn reasons_fit(world: &mut World, progress: &Progress) {
    if progress.caught_up && progress.held_back.iter().any(|file| file.reason != IGNORED) {
        world.oracle.violated(format!("it is caught up, and shows {:?}", progress.held_back));
    }
    for FileProblem { name, reason, message } in &progress.held_back {
        let lossless = !name.contains(['\u{fffd}', '…']);
        let is_ignored = !name.as_bytes().split(|byte| *byte == b'/').all(is_taken);
        let is_wrong = match reason.as_str() {
            BAD_NAME => lossless && can_be_blob(name.as_bytes()),
            IGNORED => message.contains("watch.ignore") && lossless && !is_ignored,
            _ => is_ignored,
        };
        if is_wrong {
            world.oracle.violated(format!("{name} is held back as {reason}: {message}"));
        }
    }
}

/// A session that is done is caught up, or shows exactly the files that somebody has to see to, the oldest of them if they are many.
pub(super) fn at_the_end(world: &World, progress: &Progress) -> Result<(), String> {
    let needs = |file: &Left| {
        let reason = match &file.claim {
            Some(claim) => (claim.state == State::Failed).then_some(SET_ASIDE),
            None if !can_be_blob(&file.name) => Some(BAD_NAME),
            None => (!world.server.inode(file.node).readable).then_some(UNREADABLE),
        }?;
        Some((ledger::problem(&display(&file.name), reason, "").name, reason))
    };
    let others = is_of_another_session(world).then(|| (display(OTHERS), "OtherSession"));
    // Several files of one name may be set aside.
    let mut needed: Vec<_> = left(world).iter().filter_map(needs).chain(others).collect();
    needed.sort();
    if progress.caught_up != needed.is_empty() {
        return Err(format!("caughtUp is {}, and these files wait for somebody: {needed:?}", progress.caught_up));
    }
    let all = progress.held_back.iter().map(|file| (file.name.clone(), file.reason.as_str()));
    let mut shown: Vec<_> = all.filter(|file| file.1 != IGNORED).collect();
    shown.sort();
    let is_right =
        if needed.len() > SHOWN { shown.len() == SHOWN && shown.iter().all(|file| needed.contains(file)) } else { shown == needed };
    if !is_right {
        return Err(format!("heldBack is {shown:?}, and these files wait for somebody: {needed:?}"));
    }
    Ok(())
}

/// Whether a folder in ours is another session's, which nobody may be caring for.
fn is_of_another_session(world: &World) -> bool {
    let folders = world.settings.folders();
    let marker = folders.processing.join(MARKERS).join(display(OTHERS));
    let is_there = |path: &Path| world.server.lookup(path).is_ok();
    world.settings.rules.recursive && is_there(&join(&folders.incoming, OTHERS)) && is_there(&marker)
}

fn display(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
