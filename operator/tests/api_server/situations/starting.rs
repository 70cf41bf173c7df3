//! Sessions that start, or wait for others.

use serde_json::json;

use super::{
    ACCOUNT, BINDING, HELD, HOLDS, LEAVES, POD, RUNS, Row, SESSION, STARTS, UNOWNED_POD,
    ending::{DRAINS, SEEN_OFF},
    running::account,
    scene::Step::{Beyond, Change, Delete, Ends, NextPod, Other, Restored, Runs, RunsAgain, Starts},
    told::{draining, of, pending, running, stalled, suspended},
};

/// A session waits for one that holds its folders.
pub(super) const WAITS: &[&str] = &["patch uploadsessions", "apply uploadsessions/status", "tell SessionNameInUse"];
/// It gets its pod in a namespace that has had one.
const FOLLOWS: &[&str] = &["create pods", "tell UploaderCreated", "2 apply uploadsessions/status"];
/// One of the sessions of a namespace is gone, and another gets its pod.
const FREES: &[&str] = &[
    // For accounts that nobody names any more.
    "get rolebindings",
    "0-1 get serviceaccounts (what was known of the rights counts no more, if that comes before the new pod)",
    "0-1 get rolebindings (likewise)",
];
/// Its claim is another one.
pub(super) const LOCATES: &[&str] = &["get persistentvolumeclaims", "get persistentvolumes"];

/// A session that gets its pod, which waits for a node.
fn starts(name: &'static str) -> Row {
    Row {
        name,
        spec: json!({}),
        play: vec![Starts],
        objects: vec![SESSION, POD, ACCOUNT, BINDING],
        conditions: vec![pending("Scheduling")],
        calls: vec![STARTS],
    }
}

pub(super) fn rows() -> Vec<Row> {
    new().into_iter().chain(restored()).chain(rivals()).chain(leaving_rivals()).chain(foreign_rivals()).collect()
}

fn new() -> Vec<Row> {
    vec![
        starts("new"),
        Row {
            spec: json!({"deletionPolicy": "Drain"}),
            objects: vec![HELD, UNOWNED_POD, ACCOUNT, BINDING],
            calls: vec![HOLDS, STARTS],
            ..starts("new-drain")
        },
        Row { play: vec![Runs], conditions: vec![running("Running")], calls: vec![STARTS, RUNS], ..starts("runs") },
        Row {
            spec: json!({"source": {"nfs": {"server": "nas.example.com", "path": "/srv/drop/NAMESPACE"}}}),
            objects: vec![SESSION, POD, ACCOUNT, BINDING, "claim of truck-7, owned, Bound", "volume of truck-7"],
            calls: vec![STARTS, &["create persistentvolumes", "create persistentvolumeclaims"]],
            ..starts("inline-nfs")
        },
    ]
}

fn restored() -> Vec<Row> {
    vec![
        Row {
            spec: json!({"sessionName": null}),
            play: vec![Restored("20250102", "00-session-kept")],
            conditions: vec![pending("Scheduling").replace("today/truck", "20250102/00-session-kept")],
            // As a new one, but that its annotations are there already.
            calls: vec![&[
                "get persistentvolumeclaims",
                "get persistentvolumes",
                "get serviceaccounts",
                "create serviceaccounts",
                "get rolebindings",
                "create rolebindings",
                "create pods",
                "tell UploaderCreated",
                "2 apply uploadsessions/status",
            ]],
            ..starts("restored")
        },
        Row {
            play: vec![Restored("yesterday", "truck")],
            objects: vec![SESSION],
            conditions: vec![stalled("BadAnnotation").replace("today/truck", "no folder")],
            calls: vec![&["apply uploadsessions/status", "tell BadAnnotation"]],
            ..starts("restored-badly")
        },
    ]
}

fn rivals() -> Vec<Row> {
    let nested = json!({
        "sessionName": "site", "source": {"persistentVolumeClaim": {"claimName": "share"}, "incomingDir": "incoming/truck"},
    });
    let second = || Other("second", json!({}));
    vec![
        Row {
            play: vec![Starts, second()],
            objects: vec!["session second", SESSION, POD, ACCOUNT, BINDING],
            conditions: vec![of("second", &pending("SessionNameInUse")), pending("Scheduling")],
            calls: vec![STARTS, WAITS],
            ..starts("same-folder")
        },
        Row {
            play: vec![Starts, Other("second", nested)],
            objects: vec!["session second", SESSION, POD, ACCOUNT, BINDING],
            conditions: vec![of("second", &pending("SessionNameInUse")).replace("truck:", "site:"), pending("Scheduling")],
            calls: vec![STARTS, WAITS],
            ..starts("nested-folder")
        },
        Row {
            play: vec![Starts, second(), Change(json!({"suspend": true}))],
            objects: vec!["session second", SESSION, "pod second-uploader of second, owned", ACCOUNT, BINDING],
            conditions: vec![of("second", &pending("Scheduling")), suspended()],
            calls: vec![STARTS, WAITS, &["delete pods", "tell Suspended", "2 apply uploadsessions/status"], LOCATES, FOLLOWS],
            ..starts("holder-suspended")
        },
        Row {
            play: vec![Starts, second(), Delete],
            objects: vec!["session second", "pod second-uploader of second, owned", ACCOUNT, BINDING],
            conditions: vec![of("second", &pending("Scheduling"))],
            calls: vec![STARTS, WAITS, FREES, LOCATES, FOLLOWS],
            ..starts("holder-deleted")
        },
    ]
}

/// Who drains holds its folders until its last pod has ended.
fn leaving_rivals() -> Vec<Row> {
    let drains = || vec![Runs, Other("second", json!({})), Delete, NextPod, RunsAgain];
    vec![
        Row {
            spec: json!({"deletionPolicy": "Drain"}),
            play: drains(),
            objects: vec![
                "session second",
                "session truck-7 held, leaving",
                "pod truck-7-uploader of truck-7 to drain",
                ACCOUNT,
                BINDING,
            ],
            conditions: vec![of("second", &pending("SessionNameInUse")), draining("Draining")],
            calls: vec![HOLDS, STARTS, RUNS, WAITS, DRAINS, RUNS],
            ..starts("holder-draining")
        },
        Row {
            spec: json!({"deletionPolicy": "Drain"}),
            play: drains().into_iter().chain([Ends(0, account("Drained", "drain"))]).collect(),
            objects: vec!["session second", "pod second-uploader of second, owned", ACCOUNT, BINDING],
            conditions: vec![of("second", &pending("Scheduling"))],
            calls: vec![
                HOLDS,
                STARTS,
                RUNS,
                WAITS,
                DRAINS,
                RUNS,
                &["delete pods", "tell Drained"],
                HOLDS,
                FREES,
                &[
                    "0-1 get persistentvolumeclaims (again, if the session is seen gone before its pod)",
                    "0-1 get persistentvolumes (likewise)",
                ],
                FOLLOWS,
                SEEN_OFF,
            ],
            ..starts("holder-drained")
        },
    ]
}

fn foreign_rivals() -> Vec<Row> {
    vec![
        Row {
            play: vec![Starts, Beyond("truck-8")],
            objects: vec![SESSION, POD, ACCOUNT, BINDING, "beyond: session truck-8"],
            conditions: vec![pending("Scheduling"), of("truck-8", &pending("SessionNameInUse"))],
            calls: vec![STARTS, LOCATES, WAITS],
            ..starts("foreign-holder")
        },
        Row {
            play: vec![Starts, Beyond("truck-8"), Delete],
            objects: vec![
                "beyond: session truck-8",
                "beyond: pod truck-8-uploader of truck-8, owned",
                "beyond: account blobferry-uploader",
                "beyond: binding blobferry-uploader for blobferry-uploader",
            ],
            conditions: vec![of("truck-8", &pending("Scheduling"))],
            calls: vec![
                STARTS,
                LOCATES,
                WAITS,
                LEAVES,
                &["get serviceaccounts", "create serviceaccounts", "get rolebindings", "create rolebindings"],
                FOLLOWS,
            ],
            ..starts("foreign-holder-deleted")
        },
    ]
}
