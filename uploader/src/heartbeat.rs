//! The heartbeat of this process, and which of the others beat.
//!
//! A heartbeat only saves work: claims of a process that beats are left to it. Nothing that protects a file rests on it.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::{
    formats::{HEARTBEATS, Heartbeat, ProcessId, heartbeat_name},
    session::{Edges, Session},
    share::{Listing, Share, ShareError, ShareResult, join},
};

/// Time between two beats.
pub const INTERVAL: Duration = Duration::from_secs(10);
/// Without a beat for so long of our own clock a process is taken for dead.
pub const SILENCE: Duration = Duration::from_secs(30);
/// Heartbeat files of dead processes go after this much of the server's time, in nanoseconds.
const REMOVED_AFTER: i128 = 24 * 3600 * 1_000_000_000;

/// Beats once: touches the file, makes it if it is not there, and reads the server's time from it.
pub async fn beat<E: Edges>(session: &Session<E>, session_uid: &str) -> ShareResult<()> {
    let path = session.processing(HEARTBEATS).join(heartbeat_name(&session.pod_uid, session.process));
    if let Err(error) = session.share.touch(&path).await {
        if !error.is_absent() {
            return Err(error);
        }
        let heartbeat = Heartbeat {
            version: 1,
            session_uid: session_uid.to_owned(),
            session: session.folders.session.clone(),
            pod_uid: session.pod_uid.clone(),
            process_id: session.process.to_string(),
        };
        let content = serde_json::to_vec(&heartbeat).map_err(|error| ShareError::new("write", &path, error.into()))?;
        session.share.make_folder(&session.processing(HEARTBEATS)).await?;
        match session.share.create_small(&path, &content).await {
            // The file is there, without its content: who is alive goes by its name and its time.
            Err(error) if error.is_full() => {}
            created => created?,
        }
    }
    let attributes = session.share.attributes(&path).await?;
    session.set_server_time(attributes.identity.mtime);
    Ok(())
}

/// The heartbeats of all processes, watched over time.
#[derive(Debug, Default)]
pub struct Heartbeats {
    seen: HashMap<ProcessId, Beat>,
}

#[derive(Clone, Debug)]
struct Beat {
    pod_uid: String,
    mtime: i128,
    /// Since when, on our own clock, the mtime is this one.
    since: Instant,
}

impl Heartbeats {
    /// Looks at all heartbeat files; old ones of the dead are removed.
    pub async fn look<E: Edges>(&mut self, session: &Session<E>) -> ShareResult<()> {
        let folder = session.processing(HEARTBEATS);
        let mut listing = session.share.list(&folder).await?;
        let mut found = HashMap::new();
        while let Some(entries) = listing.next().await? {
            for entry in entries {
                let Some((pod_uid, process)) = parse(&entry.name) else { continue };
                let path = join(&folder, &entry.name);
                let mtime = match session.share.attributes(&path).await {
                    Err(error) if error.is_absent() => continue,
                    attributes => attributes?.identity.mtime,
                };
                if process != session.process && session.server_now() - mtime > REMOVED_AFTER {
                    match session.share.remove(&path).await {
                        Err(error) if !error.is_absent() => return Err(error),
                        _ => continue,
                    }
                }
                found.insert(process, (pod_uid, mtime));
            }
        }
        self.observe(found, Instant::now());
        Ok(())
    }

    fn observe(&mut self, found: HashMap<ProcessId, (String, i128)>, now: Instant) {
        let old = std::mem::take(&mut self.seen);
        self.seen = found
            .into_iter()
            .map(|(process, (pod_uid, mtime))| {
                let beat = match old.get(&process) {
                    Some(beat) if beat.mtime == mtime => beat.clone(),
                    _ => Beat { pod_uid, mtime, since: now },
                };
                (process, beat)
            })
            .collect();
    }

    /// True if the claims of `process` are left to it: its file is there, it is not an earlier process of our own pod, and it has not
    /// been silent for long enough to be taken for dead.
    pub fn beats(&self, process: ProcessId, own_pod: &str, now: Instant) -> bool {
        self.seen.get(&process).is_some_and(|beat| beat.pod_uid != own_pod && now.duration_since(beat.since) < SILENCE)
    }
}

fn parse(name: &[u8]) -> Option<(String, ProcessId)> {
    let name = std::str::from_utf8(name).ok()?;
    let (pod_uid, process) = name.rsplit_once('.')?;
    Some((pod_uid.to_owned(), ProcessId::parse(process.as_bytes())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn process_is_dead_after_thirty_seconds_without_a_change_that_we_saw() {
        let (mut beats, start) = (Heartbeats::default(), Instant::now());
        let process = ProcessId::new(1);
        let found = |mtime| HashMap::from([(process, ("other".to_owned(), mtime))]);
        beats.observe(found(5), start);
        assert!(beats.beats(process, "own", start + SILENCE / 2), "nobody knows yet");
        assert!(!beats.beats(process, "own", start + SILENCE));
        beats.observe(found(6), start + SILENCE);
        assert!(beats.beats(process, "own", start + SILENCE), "it beat again");
    }

    #[tokio::test(start_paused = true)]
    async fn processes_without_a_file_and_earlier_ones_of_our_pod_are_dead_at_once() {
        let (mut beats, now) = (Heartbeats::default(), Instant::now());
        beats.observe(HashMap::from([(ProcessId::new(1), ("own".to_owned(), 5))]), now);
        assert!(!beats.beats(ProcessId::new(1), "own", now));
        assert!(!beats.beats(ProcessId::new(2), "own", now));
    }

    #[test]
    fn heartbeat_names_are_read_back() {
        let process = ProcessId::new(77);
        assert_eq!(parse(heartbeat_name("pod.uid", process).as_bytes()), Some(("pod.uid".to_owned(), process)));
        assert_eq!(parse(b"something"), None);
    }
}
