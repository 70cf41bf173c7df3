//! Files that failed too often for their own sake: setting them aside, and taking them back when a person asks for it.
//!
//! The reason is written before the rename, so that no file is aside without one, and removed after the rename back. It holds the
//! `runToken` under which the file was set aside: another one takes it back to work, also after a crash in between. So does the loss
//! of the reason: a person removed it, or the rename of another uploader came late, after the file had been taken back.

mod shelf;

use std::{collections::HashSet, path::Path};

use futures::{StreamExt, stream};

use crate::{
    blob::{BlobError, BlobStore},
    claims::Found,
    file::ClaimedFile,
    formats::{ClaimId, FailedReason, State},
    ledger::problem,
    moves::{Moved, rename_and_look},
    session::{Edges, Session},
    share::{Share, ShareResult, join},
    transfer::{Finish, Setback, Verdict, decide},
};

pub use shelf::{Aside, Shelf};

/// Calls on the share at a time.
const CALLS: usize = 16;

/// Sets a file aside unless it is in its blob, which an attempt whose reply was lost may have brought about; `None` if it is.
pub async fn set_aside<E: Edges>(
    session: &Session<E>,
    file: &ClaimedFile,
    reason: &str,
    message: &str,
) -> Result<Option<Finish>, Setback> {
    match session.store.look(&file.blob).await {
        Ok(found) => {
            let verdict = decide(found, &session.source, &file.name.claim, session.rules.overwrite);
            if matches!(verdict, Verdict::Committed(..)) {
                return Ok(None);
            }
        }
        // A name that the service takes no request for has no blob.
        Err(BlobError::Rejected { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let reason = FailedReason {
        version: 1,
        reason: reason.into(),
        message: message.into(),
        attempts: file.own_failures,
        run_token: session.live().run_token,
    };
    write_reason(session, file, &reason).await?;
    let to = join(&file.folder, &file.name.with(State::Failed).to_bytes());
    if rename_and_look(&session.share, &file.path(), &to).await? == Moved::Gone {
        return Ok(Some(Finish::Gone));
    }
    tracing::error!(reason = reason.reason, message = reason.message, attempts = reason.attempts, "the file is set aside");
    let aside = aside(file.producer().as_bytes(), Some(reason));
    let mut books = session.books();
    books.put_aside(file.name.claim, aside);
    books.ledger.failures.recovered(&file.blob);
    Ok(Some(Finish::SetAside))
}

/// Writes the reason anew: one of an earlier time would have the `runToken` of that time.
async fn write_reason<E: Edges>(session: &Session<E>, file: &ClaimedFile, reason: &FailedReason) -> ShareResult<()> {
    let path = join(&file.folder, &file.name.with(State::FailedReason).to_bytes());
    remove(&session.share, &path).await?;
    // Text, numbers and an absent value always are JSON.
    let content = serde_json::to_vec(reason).unwrap_or_default();
    session.share.create_small(&path, &content).await
}

async fn remove<S: Share>(share: &S, path: &Path) -> ShareResult<()> {
    match share.remove(path).await {
        Err(error) if !error.is_absent() => Err(error),
        _ => Ok(()),
    }
}

/// Takes note of the files that are aside now, takes back those whose time has come or that are not `explained` by a reason, and removes
/// those of `reasons`, whose files the listing did not show, that are left over. Returns the files that were taken back, under their
/// claimed names.
pub(crate) async fn review<E: Edges>(
    session: &Session<E>,
    failed: Vec<Found>,
    explained: &HashSet<ClaimId>,
    reasons: Vec<Found>,
) -> Vec<Found> {
    let token = session.live().run_token;
    let known = session.books().shelf.claims();
    let (old, new): (Vec<_>, Vec<_>) = failed.into_iter().partition(|file| known.contains(&file.name.claim));
    let mut reading = stream::iter(new.into_iter().map(|file| read(session, file))).buffer_unordered(CALLS);
    let mut all = old;
    while let Some((file, reason)) = reading.next().await {
        session.books().put_aside(file.name.claim, aside(&file.producer(), reason));
        all.push(file);
    }
    session.books().saw_aside(all.iter().map(|file| file.name.claim));
    remove_leftovers(session, reasons).await;
    let mut due = Vec::new();
    for file in all {
        let is_asked_for = session.books().shelf.is_due(file.name.claim, token.as_deref());
        if is_asked_for || (!explained.contains(&file.name.claim) && lost_its_reason(session, &file).await) {
            due.push(file);
        }
    }
    let mut taking = stream::iter(due).map(|file| take_back(session, file)).buffer_unordered(CALLS);
    let mut back = Vec::new();
    while let Some(file) = taking.next().await {
        back.extend(logged(file).flatten());
    }
    back
}

/// Whether a file that was set aside has no reason: a listing may miss one that was written while it was read.
async fn lost_its_reason<E: Edges>(session: &Session<E>, file: &Found) -> bool {
    let reason = join(&file.folder, &file.name.with(State::FailedReason).to_bytes());
    let is_new = session.books().shelf.is_of_this_look(file.name.claim);
    !is_new && session.share.attributes(&reason).await.is_err_and(|error| error.is_absent())
}

fn logged<T>(result: ShareResult<T>) -> Option<T> {
    result.inspect_err(|error| tracing::warn!(error = %error.full(), "cannot take back a file that was set aside")).ok()
}

/// The reason of a file that is aside; `None` if it is gone or cannot be read.
async fn read<E: Edges>(session: &Session<E>, file: Found) -> (Found, Option<FailedReason>) {
    let path = join(&file.folder, &file.name.with(State::FailedReason).to_bytes());
    let content = session.share.read_small(&path).await;
    let reason = content.ok().and_then(|content| serde_json::from_slice(&content).ok());
    (file, reason)
}

fn aside(producer: &[u8], reason: Option<FailedReason>) -> Aside {
    let name = String::from_utf8_lossy(producer);
    let (message, token) = match reason {
        Some(reason) => (format!("{}: {}", reason.reason, reason.message), reason.run_token),
        None => ("its reason file cannot be read".into(), None),
    };
    Aside { problem: problem(&name, "SetAside", &message), run_token: token }
}

/// Renames a file that is aside back to its claim.
async fn take_back<E: Edges>(session: &Session<E>, mut file: Found) -> ShareResult<Option<Found>> {
    let from = file.path();
    file.name.state = State::Claimed;
    let moved = rename_and_look(&session.share, &from, &file.path()).await?;
    session.books().taken_back(file.name.claim);
    if moved == Moved::Gone {
        // The client may be wrong about its absence: the next listing tells.
        return Ok(None);
    }
    let reason = join(&file.folder, &file.name.with(State::FailedReason).to_bytes());
    if let Err(error) = remove(&session.share, &reason).await {
        tracing::debug!(error = %error.full(), "the reason stays until the next pass");
    }
    tracing::info!(file_name = %String::from_utf8_lossy(&file.producer()), "the file is taken back to work");
    Ok(Some(file))
}

/// Removes reasons whose file is neither claimed nor aside: somebody else completed it, or a crash came before the removal.
async fn remove_leftovers<E: Edges>(session: &Session<E>, reasons: Vec<Found>) {
    for file in reasons {
        let removed = async {
            // In this order a file that is set aside in between is seen.
            for state in [State::Claimed, State::Failed] {
                let path = join(&file.folder, &file.name.with(state).to_bytes());
                match session.share.attributes(&path).await {
                    Err(error) if error.is_absent() => {}
                    found => return found.map(|_| ()),
                }
            }
            remove(&session.share, &file.path()).await
        };
        if let Err(error) = removed.await {
            tracing::debug!(error = %error.full(), "a reason that is left over stays until the next pass");
        }
    }
}
