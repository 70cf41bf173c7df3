//! What a session finds before it starts.

use std::{fs, path::Path, time::Duration};

use crate::{
    formats::{ClaimId, HEARTBEATS, Heartbeat, Marker, OrderKey, ProcessId, ProcessingName, heartbeat_name},
    session::Folders,
    share::{LocalShare, Pool},
    start::{Ground, Obstacle, check_share},
};

const DATE: &str = "20261121";

fn folders(share: &Path) -> Folders {
    Folders {
        incoming: share.join("incoming/truck-7"),
        processing: share.join(".processing"),
        session: "truck-7".into(),
        date: DATE.into(),
        prefix: String::new(),
    }
}

fn marker(session_uid: &str, destination: &str) -> Marker {
    Marker { version: 1, session_uid: session_uid.into(), incoming_dir: "incoming".into(), destination: destination.into() }
}

async fn check(share: &Path, marker: &Marker) -> Result<Ground, Obstacle> {
    let local = LocalShare::new(Pool::new("share", 1).unwrap());
    check_share(&local, &folders(share), marker, ProcessId::new(1)).await
}

fn share() -> tempfile::TempDir {
    let share = tempfile::tempdir().unwrap();
    fs::create_dir(share.path().join("incoming")).unwrap();
    share
}

/// A heartbeat file of a session, touched now.
fn heartbeat(share: &Path, session_uid: &str) -> std::path::PathBuf {
    let process = ProcessId::new(9);
    let heartbeat = Heartbeat {
        version: 1,
        session_uid: session_uid.into(),
        session: "truck-7".into(),
        pod_uid: "other".into(),
        process_id: process.to_string(),
    };
    let path = share.join(".processing").join(HEARTBEATS).join(heartbeat_name("other", process));
    fs::write(&path, serde_json::to_vec(&heartbeat).unwrap()).unwrap();
    path
}

#[tokio::test(start_paused = true)]
async fn missing_incoming_folder_is_named() {
    let share = tempfile::tempdir().unwrap();
    let obstacle = check(share.path(), &marker("a", "d")).await.unwrap_err();
    assert_eq!(obstacle.reason, "SourceMissing");
    assert!(obstacle.message.contains("incoming does not exist"), "{}", obstacle.message);
}

#[tokio::test(start_paused = true)]
async fn share_keeps_its_identity_and_nothing_is_left_of_the_probes() {
    let share = share();
    let first = check(share.path(), &marker("a", "d")).await.unwrap();
    let second = check(share.path(), &marker("a", "d")).await.unwrap();
    assert_eq!(first.source, second.source);
    assert_eq!(first.longest_name, 196);
    for folder in ["incoming/truck-7".to_owned(), format!(".processing/{DATE}/truck-7")] {
        assert_eq!(fs::read_dir(share.path().join(folder)).unwrap().count(), 0);
    }
    let ours: Vec<_> = fs::read_dir(share.path().join(".processing")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(ours.len(), 4, "{ours:?}");
}

#[tokio::test(start_paused = true)]
async fn folder_of_a_session_that_beats_is_in_use_and_of_a_dead_one_is_taken_over() {
    let share = share();
    check(share.path(), &marker("a", "d")).await.unwrap();
    let path = heartbeat(share.path(), "a");
    let beating = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(10)).await;
            fs::File::options().write(true).open(&path).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
        }
    });
    assert_eq!(check(share.path(), &marker("b", "d")).await.unwrap_err().reason, "SessionNameInUse");
    beating.abort();
    check(share.path(), &marker("b", "d")).await.unwrap();
    let taken: Marker = serde_json::from_slice(&fs::read(share.path().join(".processing/.sessions/truck-7")).unwrap()).unwrap();
    assert_eq!(taken.session_uid, "b");
}

#[tokio::test(start_paused = true)]
async fn marker_that_a_crash_left_empty_is_replaced() {
    let share = share();
    check(share.path(), &marker("a", "d")).await.unwrap();
    let path = share.path().join(".processing/.sessions/truck-7");
    fs::write(&path, b"").unwrap();
    check(share.path(), &marker("b", "d")).await.unwrap();
    assert!(!fs::read(path).unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn claimed_files_are_not_sent_to_another_destination() {
    let share = share();
    check(share.path(), &marker("a", "here")).await.unwrap();
    let claim = ClaimId::new(OrderKey(1), ProcessId::new(1), 1);
    let claimed = folders(share.path())
        .claims(DATE)
        .join(crate::share::join(Path::new(""), &ProcessingName::claimed(b"f", claim).to_bytes()));
    fs::write(&claimed, b"1").unwrap();
    let obstacle = check(share.path(), &marker("b", "there")).await.unwrap_err();
    assert_eq!(obstacle.reason, "OtherDestination");
    fs::remove_file(claimed).unwrap();
    check(share.path(), &marker("b", "there")).await.unwrap();
}
