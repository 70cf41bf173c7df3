//! Every credential that a user may have, and what happens when it works, is wrong, has expired, or is replaced while the uploader runs.
//! The outcome is printed as the table that `docs/azure.md` has.
//!
//! A [`kind`](kinds) says how a credential is given to a process; this module plays all of them alike: against Azurite over TLS, which
//! counts requests and is started again with another key, and against doubles of those who give tokens.

mod doubles;
mod kinds;

use std::{
    thread,
    time::{Duration, Instant},
};

use self::kinds::{Kind, Place, State, World};
use crate::child::{Remote, Reply};

/// Longest wait for a replaced credential to be taken up; the rest is for a slow machine.
const TAKEN_UP: Duration = Duration::from_mins(2);

/// One row.
struct Row {
    name: &'static str,
    cells: [String; 4],
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Azurite: set BLOBFERRY_AZURITE to its azurite-blob program"]
async fn each_credential_works_and_what_is_wrong_with_it_is_said() {
    let world = World::start().await;
    let rows = tokio::task::block_in_place(|| play_all(&world));
    report("\n| credential | works | wrong | expired | replaced while running |\n|---|---|---|---|---|");
    for Row { name, cells } in rows {
        report(&format!("| {name} | {} |", cells.join(" | ")));
    }
}

#[allow(clippy::print_stdout, reason = "the table is what a person came to see")]
fn report(line: &str) {
    println!("{line}");
}

fn play_all(world: &World) -> Vec<Row> {
    let all = kinds::all();
    // The account's keys change for all at the same time, so everybody is ready before and goes on after it.
    thread::scope(|scope| {
        let begun: Vec<_> = all.iter().map(|kind| scope.spawn(move || begin(world, kind))).collect();
        let begun: Vec<_> = begun.into_iter().map(|playing| playing.join().unwrap()).collect();
        world.replace_key();
        let ended: Vec<_> = begun.into_iter().map(|begun| scope.spawn(move || begun.replace(world))).collect();
        ended.into_iter().map(|playing| playing.join().unwrap()).collect()
    })
}

/// A credential after three of its cells, and a store that goes on.
struct Begun<'a> {
    kind: &'a Kind,
    place: Place,
    remote: Remote,
    cells: [String; 3],
}

fn begin<'a>(world: &World, kind: &'a Kind) -> Begun<'a> {
    let cells = [works(world, kind), refused(world, kind, State::Wrong), refused(world, kind, State::Expired)];
    let place = Place::new(world, kind, State::Right, "-short");
    let mut remote = place.start(world);
    // A token may be over as soon as it is there.
    heal(kind, &mut remote, "prepare");
    heal(kind, &mut remote, "write");
    Begun { kind, place, remote, cells }
}

fn works(world: &World, kind: &Kind) -> String {
    let place = Place::new(world, kind, State::Right, "");
    let reply = place.start(world).prepare_and_write();
    assert_ok(kind, &reply);
    // A look, the container, another look, and the blob; Azurite writes its log when it has answered.
    let (tokens, requests, start) = (place.tokens(world), || world.requests(&place), Instant::now());
    while requests() < 4 && start.elapsed() < TAKEN_UP {
        thread::sleep(Duration::from_millis(50));
    }
    let requests = requests();
    assert_eq!((tokens, requests), (kind.tokens, 4), "{}", kind.name);
    match tokens {
        0 => format!("{requests} requests"),
        _ => format!("{tokens} token, {requests} requests"),
    }
}

/// A start with a credential that cannot work, and the cure.
fn refused(world: &World, kind: &Kind, state: State) -> String {
    let Some(expected) = kind.refusal(state) else { return "cannot expire".to_owned() };
    let place = Place::new(world, kind, state, "");
    let mut remote = place.start(world);
    let reply = remote.ask("prepare");
    // A status has room for this.
    let shown: String = reply.message.chars().take(200).collect();
    assert!(reply.reason == "Denied" && shown.contains(expected), "{} {state:?}: {reply:?}", kind.name);
    assert!(!kinds::shows_a_secret(&reply.message), "{}", reply.message);
    place.write(world, State::Right);
    heal(kind, &mut remote, "prepare");
    format!("`{shown}`")
}

impl Begun<'_> {
    /// What worked so far works no more, and its successor is where it was.
    fn replace(mut self, world: &World) -> Row {
        let old = self.remote.ask("write");
        assert_eq!(old.reason, "Denied", "{}: {old:?}", self.kind.name);
        self.place.write(world, State::Renewed);
        let (refusals, time) = heal(self.kind, &mut self.remote, "write");
        let replaced = "refused until replaced, then goes on".to_owned();
        report(&format!("{}: a replaced credential was taken up in {time:.1?}, with {refusals} refused requests", self.kind.name));
        let [works, wrong, expired] = self.cells;
        Row { name: self.kind.name, cells: [works, wrong, expired, replaced] }
    }
}

/// Tries again as the uploader does, until it works: how many times it did not, and for how long.
fn heal(kind: &Kind, remote: &mut Remote, command: &str) -> (u32, Duration) {
    let (start, mut refusals) = (Instant::now(), 0);
    loop {
        let reply = remote.ask(command);
        if reply.is_ok() {
            return (refusals, start.elapsed());
        }
        assert!(start.elapsed() < TAKEN_UP, "{} does not heal: {reply:?}", kind.name);
        refusals += 1;
        thread::sleep(Duration::from_secs(1));
        remote.ask("refresh");
    }
}

#[track_caller]
fn assert_ok(kind: &Kind, reply: &Reply) {
    assert!(reply.is_ok(), "{}: {reply:?}", kind.name);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Azurite: set BLOBFERRY_AZURITE to its azurite-blob program"]
async fn where_there_is_no_credential_all_that_was_tried_is_named_within_seconds() {
    let world = World::start().await;
    tokio::task::block_in_place(|| {
        let mut remote = world.store("nothing", &[]);
        let reply = remote.ask("prepare");
        report(&format!("{} after {:.1?}: {}", reply.reason, reply.time, reply.message));
        // Something may answer at the address of the metadata service.
        for part in [
            "no credential named or found: ",
            "environment (no AZURE_TENANT_ID)",
            "workload identity (no AZURE_TENANT_ID)",
            "managed identity",
            "Azure CLI (no az in PATH)",
            "AZURE_STORAGE_* (none is set)",
        ] {
            assert!(reply.message.contains(part), "{part} is not in {}", reply.message);
        }
        // Five seconds are promised; a machine that has no time may take longer.
        assert!(reply.reason == "Denied" && reply.time < Duration::from_mins(2), "{reply:?}");
    });
}
