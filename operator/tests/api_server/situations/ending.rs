//! Sessions that are deleted, by a person or when their time is over.

use serde_json::{Value, json};

use super::{
    ACCOUNT, BINDING, HOLDS, LEAVES, RUNS, Row, STARTS,
    running::{COMPLETES, account},
    scene::Step::{self, Change, Delete, DeleteInForeground, DeleteNamespace, Ends, NextPod, Runs, RunsAgain, Starts},
    told::draining,
};

/// A pod that sees to claimed files follows.
pub(super) const DRAINS: &[&str] = &[
    "delete pods",
    "2 tell Draining",
    "create pods",
    // Draining, Starting, Scheduling.
    "3 apply uploadsessions/status",
    "patch uploadsessions/status",
];
const RELEASES: &[&str] = &[
    "delete pods",
    "2 tell Releasing",
    "create pods",
    // Releasing, Starting, Scheduling.
    "3 apply uploadsessions/status",
    "patch uploadsessions/status",
];
/// The pass that lets a session go may end when the watch has shown that it is gone, and has the namespace swept once more.
pub(super) const SEEN_OFF: &[&str] = &[
    "0-1 list uploadsessions (the pass has ended after the watch has shown it)",
    "0-1 get rolebindings (likewise)",
    "0-1 get serviceaccounts (likewise)",
    "0-1 patch uploadsessions (in vain, if the watches show the end of the pod before that of the session)",
];

pub(super) fn rows() -> Vec<Row> {
    deletions().into_iter().chain(deletions_with_a_volume()).collect()
}

/// Nothing is left in the end.
fn gone(name: &'static str, spec: Value, play: Vec<Step>, calls: Vec<&'static [&'static str]>) -> Row {
    Row { name, spec, play, objects: Vec::new(), conditions: Vec::new(), calls }
}

/// The uploader that was to do something before the end says that it has.
fn done(result: &str, mode: &str) -> Vec<Step> {
    vec![Runs, Delete, NextPod, RunsAgain, Ends(0, account(result, mode))]
}

fn deletions() -> Vec<Row> {
    let at_work = |name, policy: &str, reason: &str, pod| Row {
        name,
        spec: json!({"deletionPolicy": policy}),
        play: vec![Runs, Delete, NextPod, RunsAgain],
        objects: vec!["session truck-7 held, leaving", pod, ACCOUNT, BINDING],
        conditions: vec![draining(reason)],
        calls: vec![HOLDS, STARTS, RUNS, if policy == "Drain" { DRAINS } else { RELEASES }, RUNS],
    };
    // What is changed while the session is deleted.
    let meanwhile = |name, change, end: &'static [&'static str]| {
        let spec = json!({"deletionPolicy": "Drain"});
        gone(
            name,
            spec,
            vec![Runs, Delete, NextPod, RunsAgain, Change(change)],
            vec![HOLDS, STARTS, RUNS, DRAINS, RUNS, end, HOLDS, LEAVES, SEEN_OFF],
        )
    };
    let goes_on = |name, change| {
        let mut row = at_work(name, "Drain", "Draining", "pod truck-7-uploader of truck-7 to drain");
        row.play.push(Change(change));
        row.calls.push(&["apply uploadsessions/status"]);
        row
    };
    vec![
        gone("stop", json!({}), vec![Runs, Delete], vec![STARTS, RUNS, LEAVES]),
        gone("stop-foreground", json!({}), vec![Runs, DeleteInForeground], vec![STARTS, RUNS, LEAVES]),
        at_work("draining", "Drain", "Draining", "pod truck-7-uploader of truck-7 to drain"),
        at_work("releasing", "Release", "Releasing", "pod truck-7-uploader of truck-7 to release"),
        gone(
            "drained",
            json!({"deletionPolicy": "Drain"}),
            done("Drained", "drain"),
            vec![HOLDS, STARTS, RUNS, DRAINS, RUNS, &["delete pods", "tell Drained"], HOLDS, LEAVES, SEEN_OFF],
        ),
        goes_on("draining-suspended", json!({"suspend": true})),
        goes_on("draining-again", json!({"runToken": "again"})),
        meanwhile("drain-shortened", json!({"drainTimeout": "1s"}), &["delete pods", "tell DrainGivenUp"]),
        meanwhile("drain-stopped", json!({"deletionPolicy": "Stop"}), &["delete pods"]),
        gone(
            "released",
            json!({"deletionPolicy": "Release"}),
            done("Released", "release"),
            vec![HOLDS, STARTS, RUNS, RELEASES, RUNS, &["delete pods", "tell Released"], HOLDS, LEAVES, SEEN_OFF],
        ),
        gone(
            "drained-foreground",
            json!({"deletionPolicy": "Drain"}),
            vec![Runs, DeleteInForeground, NextPod, RunsAgain, Ends(0, account("Drained", "drain"))],
            vec![HOLDS, STARTS, RUNS, DRAINS, RUNS, &["delete pods", "tell Drained"], HOLDS, LEAVES, SEEN_OFF],
        ),
        // No uploader has run, so nothing is to be drained.
        gone(
            "drain-unstarted",
            json!({"deletionPolicy": "Drain"}),
            vec![Starts, Delete],
            vec![HOLDS, STARTS, &["delete pods"], HOLDS, LEAVES, SEEN_OFF],
        ),
        gone(
            "namespace",
            json!({"deletionPolicy": "Drain"}),
            vec![Runs, DeleteNamespace],
            vec![HOLDS, STARTS, RUNS, HOLDS, &["tell DrainGivenUp"], NAMESPACE],
        ),
        gone(
            "expired",
            json!({"ttlSecondsAfterFinished": 3}),
            vec![Runs, Ends(0, account("Completed", "watch"))],
            vec![STARTS, RUNS, COMPLETES, &["delete uploadsessions", "tell Expired"], LEAVES, SEEN_OFF],
        ),
    ]
}

/// The operator made the volume of the share.
fn deletions_with_a_volume() -> Vec<Row> {
    let source = || json!({"nfs": {"server": "nas.example.com", "path": "/srv/drop/NAMESPACE"}});
    vec![
        gone(
            "inline-nfs-gone",
            json!({"source": source()}),
            vec![Starts, Delete],
            vec![
                STARTS,
                &["create persistentvolumes", "create persistentvolumeclaims"],
                LEAVES,
                // The session of the volume, which is gone.
                &["get uploadsessions", "get persistentvolumeclaims", "delete persistentvolumes"],
                &["0-1 delete persistentvolumeclaims (the garbage collector may have been first)"],
            ],
        ),
        // The last uploader has the volume, too.
        gone(
            "inline-nfs-drained",
            json!({"deletionPolicy": "Drain", "source": source()}),
            done("Drained", "drain"),
            vec![
                HOLDS,
                STARTS,
                &["create persistentvolumes", "create persistentvolumeclaims"],
                RUNS,
                DRAINS,
                &["get persistentvolumes", "get persistentvolumeclaims"],
                RUNS,
                // No garbage collector removes a claim that is not owned.
                &["delete pods", "tell Drained", "get persistentvolumeclaims"],
                HOLDS,
                LEAVES,
                &["get uploadsessions", "get persistentvolumeclaims", "delete persistentvolumes", "delete persistentvolumeclaims"],
                SEEN_OFF,
            ],
        ),
    ]
}

/// The namespace's controller deletes the session, its pod and its rights in any order, while the operator works.
const NAMESPACE: &[&str] = &[
    "0-1 delete pods (its controller may be first)",
    "0-1 tell Draining (likewise)",
    "1-2 create pods (refused; before the session is deleted, and after it)",
    "1-3 apply uploadsessions/status (as far as it came, and in vain if the session was deleted since it was read)",
    "0-1 tell NamespaceEnding (not if that was written in vain)",
    "0-2 patch uploadsessions/status (likewise, and in vain if the session is deleted just then)",
    "1-2 list uploadsessions (the pass may end after the watch has shown it)",
    "1-2 get rolebindings (likewise)",
    "0-1 delete rolebindings (its controller may be first)",
    "1-2 get serviceaccounts (likewise)",
    "0-1 delete serviceaccounts (its controller may be first)",
];
