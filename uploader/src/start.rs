//! What must hold before a session runs: the folders are there and belong together, the share has an identity, and nobody else drains
//! the same folder.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use uuid::Uuid;

use crate::{
    claims::find,
    formats::{HEARTBEATS, Heartbeat, MARKERS, Marker, ProcessId, SHARE_ID, SourceId, State, longest_producer_name},
    heartbeat::SILENCE,
    session::Folders,
    share::{Listing, Share, ShareError, ShareResult, join},
};

/// Time between two looks at the heartbeats of a marker's session.
const WATCH_STEP: Duration = Duration::from_secs(5);

/// A heartbeat that is older than this on the server's clock, in nanoseconds, has missed many turns.
const LONG_PAST: i128 = 120 * 1_000_000_000;

/// What the checks found.
#[derive(Clone, Debug)]
pub struct Ground {
    /// What our blobs belong to.
    pub source: SourceId,
    /// Most bytes of a producer's name.
    pub longest_name: usize,
    /// When the session came to the share (server clock): what was completed there before is none of its own.
    pub since: i128,
}

/// Why a session cannot start now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Obstacle {
    /// `CamelCase` reason.
    pub reason: &'static str,
    /// A sentence for people.
    pub message: String,
}

impl Obstacle {
    fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    fn share(error: &ShareError) -> Self {
        let reason = match error.kind() {
            io::ErrorKind::PermissionDenied => "PermissionDenied",
            io::ErrorKind::ReadOnlyFilesystem => "ReadOnly",
            _ if error.is_full() => "ShareFull",
            _ => "ShareFailed",
        };
        let hint = match reason {
            "PermissionDenied" => ": the share must belong to the uploader's user, or pod.securityContext name its owner",
            "ReadOnly" => ": export and mount it for writing",
            _ => "",
        };
        Self::new(reason, format!("{}{hint}", error.full()))
    }
}

/// Checks the share and makes what may be missing on it. `marker` says who we are.
pub async fn check_share<S: Share>(share: &S, folders: &Folders, marker: &Marker, process: ProcessId) -> Result<Ground, Obstacle> {
    check_incoming_root(share, folders).await?;
    let claims = folders.claims(&folders.date);
    for folder in [&folders.incoming, &claims, &folders.processing.join(HEARTBEATS), &folders.processing.join(MARKERS)] {
        share.make_folder(folder).await.map_err(|error| Obstacle::share(&error))?;
    }
    let server_now = check_rename(share, folders, &claims, process).await?;
    let id = share_id(share, folders, process).await.map_err(|error| Obstacle::share(&error))?;
    take_marker(share, folders, marker, process, server_now).await?;
    let name_max = share.name_max(&claims).await.map_err(|error| Obstacle::share(&error))?;
    let came = share.attributes(&marker_path(folders)).await.map_err(|error| Obstacle::share(&error))?;
    Ok(Ground {
        source: SourceId::new(id, &folders.session),
        longest_name: longest_producer_name(name_max),
        since: came.identity.ctime,
    })
}

/// The folder above the session's must exist: else this is the wrong share, or nothing is mounted.
async fn check_incoming_root<S: Share>(share: &S, folders: &Folders) -> Result<(), Obstacle> {
    let Some(root) = folders.incoming.parent() else { return Ok(()) };
    match share.attributes(root).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_absent() => Err(Obstacle::new(
            "SourceMissing",
            format!(
                "{} does not exist: make it on the share, or correct incomingDir; if it is there, another share is mounted",
                root.display()
            ),
        )),
        Err(error) => Err(Obstacle::share(&error)),
    }
}

/// A claim is a rename from incoming to processing; it must work before a file depends on it. Returns the server's time; `None` if the
/// share is too full to try.
async fn check_rename<S: Share>(share: &S, folders: &Folders, claims: &Path, process: ProcessId) -> Result<Option<i128>, Obstacle> {
    let name = format!(".blobferry-probe.{process}");
    let (from, to) = (folders.incoming.join(&name), claims.join(&name));
    let renamed = async {
        match share.create_small(&from, b"").await {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => share.touch(&from).await?,
        }
        let server_now = share.attributes(&from).await?.identity.mtime;
        let renamed = share.rename(&from, &to).await;
        share.remove(if renamed.is_ok() { &to } else { &from }).await?;
        renamed.map(|()| server_now)
    };
    match renamed.await {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            Err(Obstacle::new("NotOneFileSystem", "incoming and processing are on different file systems: put both on one export"))
        }
        // That keeps nobody from uploading and collecting what is claimed, which is what frees it.
        Err(error) if error.is_full() => {
            tracing::warn!(error = %error.full(), "the share is full");
            Ok(None)
        }
        renamed => renamed.map(Some).map_err(|error| Obstacle::share(&error)),
    }
}

/// The UUID of the share, made by whoever comes first. It appears whole, by link(2), so that nobody reads half of it.
async fn share_id<S: Share>(share: &S, folders: &Folders, process: ProcessId) -> ShareResult<Uuid> {
    let path = folders.processing.join(SHARE_ID);
    match read_id(share, &path).await {
        Err(error) if error.is_absent() => {}
        id => return id,
    }
    let temporary = folders.processing.join(format!("{SHARE_ID}.{process}"));
    remove_leftover(share, &temporary).await?;
    share.create_small(&temporary, Uuid::new_v4().to_string().as_bytes()).await?;
    let linked = share.link(&temporary, &path).await;
    share.remove(&temporary).await?;
    // If linking failed because another was faster, or its reply was lost, the file is there.
    match read_id(share, &path).await {
        Err(error) if error.is_absent() => Err(linked.err().unwrap_or(error)),
        id => id,
    }
}

/// Removes what an earlier try of this process left, whose content could not be written.
async fn remove_leftover<S: Share>(share: &S, path: &Path) -> ShareResult<()> {
    match share.remove(path).await {
        Err(error) if !error.is_absent() => Err(error),
        _ => Ok(()),
    }
}

async fn read_id<S: Share>(share: &S, path: &Path) -> ShareResult<Uuid> {
    let content = share.read_small(path).await?;
    let text = String::from_utf8_lossy(&content);
    let invalid = |error| ShareError::new("understand", path, io::Error::new(io::ErrorKind::InvalidData, error));
    text.trim().parse().map_err(invalid)
}

fn marker_path(folders: &Folders) -> PathBuf {
    folders.processing.join(MARKERS).join(&folders.session)
}

/// Makes the session's marker ours, unless a session that is alive has it or its files were meant for another destination.
async fn take_marker<S: Share>(
    share: &S,
    folders: &Folders,
    marker: &Marker,
    process: ProcessId,
    server_now: Option<i128>,
) -> Result<(), Obstacle> {
    let path = marker_path(folders);
    let content = serde_json::to_vec(marker).map_err(|error| Obstacle::new("ShareFailed", error.to_string()))?;
    match share.create_small(&path, &content).await {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(Obstacle::share(&error)),
    }
    let found = share.read_small(&path).await.map_err(|error| Obstacle::share(&error))?;
    // One that cannot be read was left by a crash between its creation and its content.
    if let Ok(other) = serde_json::from_slice::<Marker>(&found) {
        if other.destination != marker.destination && has_claims(share, folders).await.map_err(|error| Obstacle::share(&error))? {
            let message = format!(
                "claimed files of this session were meant for {}: finish them with that destination, or move them back to incoming",
                other.destination
            );
            return Err(Obstacle::new("OtherDestination", message));
        }
        if other == *marker {
            return Ok(());
        }
        if other.session_uid != marker.session_uid && is_alive(share, folders, &other.session_uid, server_now).await? {
            let message = "another session that is running drains this folder: stop it, or choose another sessionName";
            return Err(Obstacle::new("SessionNameInUse", message));
        }
    }
    let temporary = path.with_file_name(format!(".{}.{process}", folders.session));
    let replaced = async {
        remove_leftover(share, &temporary).await?;
        share.create_small(&temporary, &content).await?;
        share.rename(&temporary, &path).await
    };
    replaced.await.map_err(|error| Obstacle::share(&error))
}

async fn has_claims<S: Share>(share: &S, folders: &Folders) -> ShareResult<bool> {
    let all = find(share, folders).await?;
    Ok(all.found.iter().any(|file| file.name.state == State::Claimed))
}

/// True if a heartbeat that names the session moves while we watch. One that is long past on the server's clock needs no watching.
async fn is_alive<S: Share>(share: &S, folders: &Folders, session_uid: &str, server_now: Option<i128>) -> Result<bool, Obstacle> {
    let is_recent = |mtime: &i128| server_now.is_none_or(|now| now - mtime < LONG_PAST);
    let recent = |beats: &[(Box<[u8]>, i128)]| beats.iter().any(|(_, mtime)| is_recent(mtime));
    let first = beats_of(share, folders, session_uid).await.map_err(|error| Obstacle::share(&error))?;
    if !recent(&first) {
        return Ok(false);
    }
    tracing::info!("another uploader had this folder a moment ago; watching for 30 s whether it still runs");
    for _ in 0..SILENCE.as_secs().div_ceil(WATCH_STEP.as_secs()) {
        tokio::time::sleep(WATCH_STEP).await;
        if beats_of(share, folders, session_uid).await.map_err(|error| Obstacle::share(&error))? != first {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Heartbeats that name the session, with their times.
async fn beats_of<S: Share>(share: &S, folders: &Folders, session_uid: &str) -> ShareResult<Vec<(Box<[u8]>, i128)>> {
    let folder = folders.processing.join(HEARTBEATS);
    let mut listing = share.list(&folder).await?;
    let mut beats = Vec::new();
    while let Some(entries) = listing.next().await? {
        for entry in entries {
            let path = join(&folder, &entry.name);
            let content = match share.read_small(&path).await {
                Err(error) if error.is_absent() => continue,
                content => content?,
            };
            if serde_json::from_slice::<Heartbeat>(&content).is_ok_and(|beat| beat.session_uid == session_uid) {
                beats.push((entry.name, share.attributes(&path).await?.identity.mtime));
            }
        }
    }
    beats.sort();
    Ok(beats)
}
