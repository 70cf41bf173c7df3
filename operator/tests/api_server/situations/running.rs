//! Sessions whose uploader runs, and what happens to it.

use serde_json::{Value, json};

use super::{
    ACCOUNT, AGAIN, BINDING, HELD, HOLDS, POD, RUNS, Row, SESSION, STARTS, UNOWNED_POD,
    scene::{
        Step,
        Step::{Change, DeletePod, Ends, NextPod, Pod, Refused, Runs, Starts, Until, Warning},
    },
    starting::LOCATES,
    told::{completed, pending, running, stalled, suspended},
};
use crate::matrix::{crashing, scheduled, waiting};

const REPLACES: &[&str] = &["delete pods", "tell UploaderReplaced", "apply uploadsessions/status"];
/// A pod that has ended is removed, and people are told of it.
const LOSES: &[&str] = &["delete pods", "tell UploaderLost", "apply uploadsessions/status"];
const SUSPENDS: &[&str] = &["delete pods", "tell Suspended", "2 apply uploadsessions/status", "patch uploadsessions/status"];
pub(super) const COMPLETES: &[&str] = &["apply uploadsessions/status", "patch uploadsessions/status", "tell Completed"];
/// The pod stays, and its uploader is at work no more.
const HALTS: &[&str] = &["apply uploadsessions/status", "patch uploadsessions/status"];

/// What an uploader says of its end.
pub(super) fn account(result: &str, mode: &str) -> Value {
    json!({"result": result, "sessionUID": "UID", "mode": mode, "reason": result, "message": "done"})
}

/// A session that runs, and what happens then; after that it has a pod which waits for a node.
fn pod_again(name: &'static str, play: Vec<Step>, calls: Vec<&'static [&'static str]>) -> Row {
    Row { conditions: vec![pending("Scheduling")], ..whole(name, play, calls) }
}

/// A session that runs, and what happens then; after that it runs as before.
fn whole(name: &'static str, play: Vec<Step>, calls: Vec<&'static [&'static str]>) -> Row {
    Row {
        name,
        spec: json!({}),
        play: [Runs].into_iter().chain(play).collect(),
        objects: vec![SESSION, POD, ACCOUNT, BINDING],
        conditions: vec![running("Running")],
        calls: [STARTS, RUNS].into_iter().chain(calls).collect(),
    }
}

pub(super) fn rows() -> Vec<Row> {
    changes().into_iter().chain(losses()).chain(ends()).chain(troubles()).collect()
}

fn changes() -> Vec<Row> {
    vec![
        whole("live", vec![Change(json!({"transfer": {"workers": 9}}))], vec![&["apply uploadsessions/status"]]),
        whole("immutable", vec![Refused(json!({"sessionName": "other"}), "cannot be")], vec![]),
        pod_again("replaced", vec![Change(json!({"transfer": {"queueSize": 8}})), NextPod], vec![REPLACES, AGAIN]),
        Row {
            objects: vec![SESSION, POD, ACCOUNT, "binding blobferry-uploader for blobferry-uploader and default"],
            ..pod_again(
                "account",
                vec![Change(json!({"pod": {"serviceAccountName": "default"}})), NextPod],
                vec![REPLACES, &["get serviceaccounts", "get rolebindings", "patch rolebindings"], AGAIN],
            )
        },
        Row {
            objects: vec![SESSION, ACCOUNT, BINDING],
            conditions: vec![stalled("ImageNotAllowed")],
            ..whole(
                "not-allowed",
                vec![Change(json!({"pod": {"image": "somebody/elses:1"}}))],
                // With the pod's name, and without it.
                vec![&[
                    "delete pods",
                    "tell UploaderStopped",
                    "tell ImageNotAllowed",
                    "2 apply uploadsessions/status",
                    "patch uploadsessions/status",
                ]],
            )
        },
        Row {
            objects: vec![HELD, UNOWNED_POD, ACCOUNT, BINDING],
            ..pod_again("policy-drain", vec![Change(json!({"deletionPolicy": "Drain"})), NextPod], vec![HOLDS, REPLACES, AGAIN])
        },
        Row {
            spec: json!({"deletionPolicy": "Drain"}),
            // The finalizer comes, and goes.
            ..pod_again(
                "policy-stop",
                vec![Change(json!({"deletionPolicy": "Stop"})), NextPod],
                vec![HOLDS, REPLACES, HOLDS, AGAIN],
            )
        },
        Row {
            spec: json!({"deletionPolicy": "Drain"}),
            objects: vec![HELD, UNOWNED_POD, ACCOUNT, BINDING],
            ..whole(
                "policy-release",
                vec![Change(json!({"deletionPolicy": "Release"}))],
                vec![HOLDS, &["apply uploadsessions/status"]],
            )
        },
        Row {
            objects: vec![SESSION, ACCOUNT, BINDING],
            conditions: vec![suspended()],
            ..whole("suspended", vec![Change(json!({"suspend": true}))], vec![SUSPENDS])
        },
        pod_again(
            "resumed",
            vec![Change(json!({"suspend": true})), Until("True", "Suspended"), Change(json!({"suspend": false})), NextPod],
            // While it was suspended, its claim may have been made again.
            vec![SUSPENDS, LOCATES, &["create pods", "tell Resumed", "2 apply uploadsessions/status"]],
        ),
    ]
}

fn losses() -> Vec<Row> {
    let evicted = json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: ephemeral-storage."});
    let shut_down =
        json!({"phase": "Failed", "reason": "Terminated", "message": "Pod was terminated in response to node shutdown."});
    vec![
        pod_again("evicted", vec![Pod(evicted), NextPod], vec![LOSES, &["tell Evicted"], AGAIN]),
        pod_again("failed", vec![Pod(shut_down), NextPod], vec![LOSES, &["tell Terminated"], AGAIN]),
        pod_again(
            "by-hand",
            vec![DeletePod, NextPod],
            vec![AGAIN, &["0-1 apply uploadsessions/status (Stopping, if the pod is seen before it is gone)"]],
        ),
        // What the uploader itself says is told, and believed no further.
        pod_again("other-result", vec![Ends(0, account("Drained", "watch")), NextPod], vec![LOSES, &["tell Drained"], AGAIN]),
        pod_again("other-mode", vec![Ends(0, account("Completed", "drain")), NextPod], vec![LOSES, &["tell Completed"], AGAIN]),
        pod_again("stopped", vec![Ends(143, account("Completed", "watch")), NextPod], vec![LOSES, &["tell Completed"], AGAIN]),
        pod_again("no-account", vec![Ends(0, json!("no account")), NextPod], vec![LOSES, &["tell UploaderExited"], AGAIN]),
    ]
}

fn ends() -> Vec<Row> {
    vec![
        Row { conditions: vec![completed()], ..whole("completed", vec![Ends(0, account("Completed", "watch"))], vec![COMPLETES]) },
        pod_again(
            "run-token",
            vec![Ends(0, account("Completed", "watch")), Until("True", "Completed"), Change(json!({"runToken": "again"})), NextPod],
            vec![
                COMPLETES,
                &["delete pods", "tell StartedAgain", "apply uploadsessions/status"],
                &["create pods", "tell UploaderCreated", "2 apply uploadsessions/status"],
            ],
        ),
    ]
}

fn troubles() -> Vec<Row> {
    let crash = crashing(&json!({"exitCode": 1, "reason": "Error", "message": "it broke"}));
    vec![
        Row {
            conditions: vec![pending("UploaderExited")],
            ..whole("crash-loop", vec![Pod(crash)], vec![HALTS, &["tell UploaderExited"]])
        },
        Row {
            play: vec![Starts, Pod(waiting("ImagePullBackOff", "Back-off pulling"))],
            conditions: vec![pending("ImagePullFailed")],
            calls: vec![STARTS, &["apply uploadsessions/status", "tell ImagePullFailed"]],
            ..whole("no-image", vec![], vec![])
        },
        Row {
            play: vec![Starts, Warning("FailedMount", "mount.nfs: access denied by server"), Pod(scheduled())],
            conditions: vec![pending("FailedMount").replace("SourceReachable=Unknown", "SourceReachable=False")],
            calls: vec![
                STARTS,
                &[
                    "apply uploadsessions/status",
                    "tell FailedMount",
                    "1-9 list events (the container is not made, so they are looked at again after 20 s, and later and later)",
                ],
            ],
            ..whole("no-mount", vec![], vec![])
        },
    ]
}
