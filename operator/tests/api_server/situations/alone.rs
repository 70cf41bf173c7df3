//! Rows that bring operators of their own, or a clock.

use std::time::Duration;

use anyhow::{Context as _, Result};
use blobferry_operator::leader::Role;
use serde_json::json;

use super::{
    ACCOUNT, AGAIN, BINDING, HOLDS, LEAVES, POD, RUNS, Row, SESSION, STARTS,
    ending::{DRAINS, SEEN_OFF},
    play,
    scene::{
        Scene, Step,
        Step::{Beyond, Change, Delete, DeletePod, Made, NextPod, NoPods, Of, Pods, Runs, RunsAgain, Starts, Until},
    },
    starting::{LOCATES, WAITS},
    tell,
    told::{of, pending, running, suspended},
};
use crate::{
    alone::{
        Running, clock,
        nodes::{bind, set_ready},
    },
    calls::{times, was_asked, write_down},
    chart::NAMESPACE,
    stage::Stage,
};

/// What only an operator of its own is worth.
#[derive(Debug)]
pub(super) enum Cast {
    /// An operator with this name and these arguments begins to work; from now on only its calls count.
    Operator(&'static str, &'static [&'static str]),
    /// One more begins.
    Beside(&'static str, &'static [&'static str]),
    /// The one that began first ends.
    Ends,
    /// The one that is left leads.
    Leads,
    /// The operators' clock stands still.
    ClockStops,
    /// It goes on by so much, and stands still.
    ClockMoves(Duration),
    /// The pod gets a node.
    Bound,
    /// Its node does not answer any more.
    NodeLost,
    /// An operator has looked at its node.
    NodeSeen,
}
use Cast::{Beside, Bound, ClockMoves, ClockStops, Ends, Leads, NodeLost, NodeSeen, Operator};

/// The end of an operator's first sweep.
const SWEPT: &str = "list persistentvolumes";

impl Scene {
    pub(super) async fn play_cast(&mut self, cast: &Cast) -> Result<()> {
        match cast {
            Operator(name, arguments) => {
                self.operators.clear();
                // One of the same name may have played the row before.
                let before = times(name, SWEPT);
                self.begin(name, arguments).await?;
                self.stage.until("it has swept", async || Ok(times(name, SWEPT) > before)).await
            }
            Beside(name, arguments) => self.begin(name, arguments).await,
            Ends => self.running.remove(0).end(),
            Leads => self.stage.until("it leads", async || Ok(self.running.iter().all(Running::leads))).await,
            ClockStops => {
                clock::stop();
                Ok(())
            }
            ClockMoves(by) => {
                clock::advance(*by);
                Ok(())
            }
            Bound => {
                bind(&self.stage, self.pod.as_ref().context("there was a pod")?).await?;
                self.waits = "ContainerCreating";
                Ok(())
            }
            NodeSeen => {
                let look = format!("GET /api/v1/nodes/{}", self.stage.node());
                self.stage.until("its node was looked at", async || Ok(was_asked(&look))).await
            }
            NodeLost => set_ready(&self.stage, &self.stage.node(), "Unknown").await,
        }
    }

    async fn begin(&mut self, name: &'static str, arguments: &[&str]) -> Result<()> {
        let all = [&["--pod-name", name], arguments].concat();
        let operator = Running::start_all(&all, move |client| write_down(name, client), clock::now);
        self.stage.until("it has its role", async || Ok(operator.leadership.role() != Role::Unknown)).await?;
        self.operators.push(name);
        self.running.push(operator);
        Ok(())
    }
}

/// Each looks at the rights of the namespaces once when it begins.
const BEGINS: &[&str] = &["get rolebindings"];
const ELECTED: &[&str] = &["--namespace", NAMESPACE];
const OLD: &[&str] = &["--uploader-image=localhost/blobferry-uploader:1"];
const NEW: &[&str] = &["--uploader-image=localhost/blobferry-uploader:2"];
const NEW_ON_RESTART: &[&str] = &["--uploader-image=localhost/blobferry-uploader:2", "--uploader-update=OnRestart"];

const REFUSED: &[&str] = &[
    "get persistentvolumeclaims",
    "get persistentvolumes",
    "get serviceaccounts",
    "create serviceaccounts",
    "get rolebindings",
    "create rolebindings",
    "create pods",
    "patch uploadsessions",
    "apply uploadsessions/status",
    "tell PodRefused",
];

/// `minutes` go by.
fn later(minutes: u64) -> Step {
    Of(ClockMoves(Duration::from_mins(minutes)))
}

/// A session that has its pod, account and binding in the end.
fn whole(name: &'static str, play: Vec<Step>, conditions: String, calls: Vec<&'static [&'static str]>) -> Row {
    let objects = vec![SESSION, POD, ACCOUNT, BINDING];
    Row { name, spec: json!({}), play, objects, conditions: vec![conditions], calls }
}

pub(super) fn rows() -> Vec<Row> {
    images().into_iter().chain(nodes()).chain(refusals()).chain(drains()).chain(operators()).collect()
}

fn images() -> Vec<Row> {
    const PENDING: &[&str] = &["apply uploadsessions/status"];
    vec![
        whole(
            "image-pending",
            vec![Of(Operator("image-pending-old", OLD)), Runs, Of(Ends), Of(Operator("image-pending", NEW_ON_RESTART))],
            running("UpgradePending"),
            vec![BEGINS, PENDING],
        ),
        whole(
            "image-replaced",
            vec![
                Of(Operator("image-old", OLD)),
                Runs,
                // It is not known to be well, and has no turn.
                Of(ClockStops),
                Of(Ends),
                Of(Operator("image-new", NEW)),
                Until("True", "UpgradePending"),
                later(1),
                NextPod,
                Until("False", "Starting"),
                later(1),
            ],
            pending("Scheduling"),
            vec![
                BEGINS,
                PENDING,
                // The trial is written down first.
                &["patch uploadsessions", "delete pods", "tell UploaderUpgraded", "apply uploadsessions/status"],
                // It knows nothing yet of the claim and of the rights.
                &["get persistentvolumeclaims", "get persistentvolumes", "get serviceaccounts", "get rolebindings"],
                AGAIN,
            ],
        ),
    ]
}

fn nodes() -> Vec<Row> {
    // Longer than a pod may take to end, and its grace; any change has it looked at before its time.
    let overdue = || [later(7), Change(json!({"transfer": {"workers": 5}}))];
    let on_a_node = |name| vec![Of(Operator(name, &[])), Starts, Of(Bound), RunsAgain];
    // Its node is looked at when its grace is over, and again when it is overdue.
    let ending = || [DeletePod, Until("False", "Stopping"), Of(NodeSeen)];
    vec![
        Row {
            objects: vec![SESSION, "pod truck-7-uploader of truck-7, owned, leaving", ACCOUNT, BINDING],
            ..whole(
                "pod-stuck",
                on_a_node("pod-stuck").into_iter().chain(ending()).chain(overdue()).collect(),
                pending("PodStuck"),
                // ContainerCreating, Stopping, PodStuck.
                vec![STARTS, RUNS, &["3 apply uploadsessions/status", "2 get nodes", "tell PodStuck"]],
            )
        },
        Row {
            objects: vec![SESSION, ACCOUNT, BINDING],
            ..whole(
                "node-lost-suspended",
                on_a_node("node-lost-suspended")
                    .into_iter()
                    .chain([Change(json!({"suspend": true})), Until("False", "Stopping"), Of(NodeSeen), Of(NodeLost)])
                    .chain(overdue())
                    .collect(),
                suspended(),
                vec![
                    STARTS,
                    RUNS,
                    // ContainerCreating, Suspending, Stopping, NodeLost, Suspended.
                    &[
                        "5 apply uploadsessions/status",
                        "2 get nodes",
                        "2 delete pods",
                        "tell Suspended",
                        "tell UploaderForceDeleted",
                    ],
                    &["patch uploadsessions/status"],
                ],
            )
        },
        whole(
            "node-lost",
            on_a_node("node-lost")
                .into_iter()
                .chain(ending())
                .chain([Of(NodeLost)])
                .chain(overdue())
                .chain([NextPod, Until("False", "Starting"), later(1)])
                .collect(),
            pending("Scheduling"),
            vec![
                STARTS,
                RUNS,
                // ContainerCreating, Stopping, NodeLost.
                &["3 apply uploadsessions/status", "2 get nodes", "delete pods", "tell UploaderForceDeleted"],
                // Rights are believed for five minutes.
                &["get serviceaccounts", "get rolebindings"],
                AGAIN,
            ],
        ),
    ]
}

fn refusals() -> Vec<Row> {
    vec![
        Row {
            objects: vec![SESSION, ACCOUNT, BINDING],
            ..whole(
                "pod-refused",
                vec![Of(Operator("pod-refused", &[])), NoPods, Of(ClockStops), Made],
                pending("PodRefused"),
                vec![REFUSED],
            )
        },
        whole(
            "pod-taken",
            vec![
                Of(Operator("pod-taken", &[])),
                NoPods,
                Of(ClockStops),
                Made,
                Until("False", "PodRefused"),
                Pods,
                later(1),
                Until("False", "Starting"),
                later(1),
            ],
            pending("Scheduling"),
            vec![
                REFUSED,
                // Whether it was refused for want of rights.
                &["get serviceaccounts", "get rolebindings"],
                &["create pods", "tell UploaderCreated", "2 apply uploadsessions/status"],
            ],
        ),
    ]
}

fn drains() -> Vec<Row> {
    let gone = |name, timeout: &str, play, calls| Row {
        name,
        spec: json!({"deletionPolicy": "Drain", "drainTimeout": timeout}),
        play,
        objects: Vec::new(),
        conditions: Vec::new(),
        calls,
    };
    vec![
        gone(
            "drain-blocked",
            "1h",
            vec![
                Of(Operator("drain-blocked", &[])),
                Runs,
                NoPods,
                Of(ClockStops),
                Delete,
                Until("False", "PodRefused"),
                Of(ClockMoves(Duration::from_secs(61))),
            ],
            vec![
                HOLDS,
                STARTS,
                RUNS,
                &["delete pods", "tell Draining", "apply uploadsessions/status"],
                &["create pods", "apply uploadsessions/status", "tell PodRefused", "patch uploadsessions/status"],
                &["tell DrainGivenUp"],
                HOLDS,
                LEAVES,
                SEEN_OFF,
            ],
        ),
        gone(
            "drain-timeout",
            "10m",
            vec![
                Of(Operator("drain-timeout", &[])),
                Runs,
                Delete,
                NextPod,
                RunsAgain,
                later(11),
                Change(json!({"transfer": {"workers": 5}})),
            ],
            vec![HOLDS, STARTS, RUNS, DRAINS, RUNS, &["delete pods", "tell DrainGivenUp"], HOLDS, LEAVES, SEEN_OFF],
        ),
    ]
}

fn operators() -> Vec<Row> {
    vec![
        whole(
            "restarted",
            vec![Of(Operator("restarted-before", &[])), Runs, Of(Ends), Of(Operator("restarted", &[]))],
            running("Running"),
            vec![BEGINS],
        ),
        // Another session waits for its folders through another claim of the export, which the new operator has asked about only.
        Row {
            objects: vec![SESSION, POD, ACCOUNT, BINDING, "beyond: session truck-8"],
            conditions: vec![pending("Scheduling"), of("truck-8", &pending("SessionNameInUse"))],
            ..whole(
                "holder-known",
                vec![
                    Of(Operator("holder-known-before", &[])),
                    Runs,
                    Of(Ends),
                    Of(Operator("holder-known", &[])),
                    Beyond("truck-8"),
                    DeletePod,
                    NextPod,
                ],
                String::new(),
                vec![
                    BEGINS,
                    LOCATES,
                    WAITS,
                    &["0-1 apply uploadsessions/status (Stopping, if the pod is seen before it is gone)"],
                    LOCATES,
                    &["get serviceaccounts", "get rolebindings"],
                    AGAIN,
                ],
            )
        },
        whole(
            "standby",
            vec![Of(Operator("standby-leader", ELECTED)), Runs, Of(Beside("standby", ELECTED))],
            running("Running"),
            vec![STARTS, RUNS],
        ),
        whole(
            "leader-gone",
            vec![Of(Operator("leader-gone", ELECTED)), Runs, Of(Beside("leader-follows", ELECTED)), Of(Ends), Of(Leads)],
            running("Running"),
            vec![STARTS, RUNS, BEGINS],
        ),
    ]
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn every_situation_of_an_operator_leads_to_exactly_these_objects_conditions_and_calls() -> Result<()> {
    let rows = rows();
    let mut again = 0;
    for row in &rows {
        let scene = play(row, 1, open).await?;
        again += scene.attempt - 1;
        scene.end().await?;
    }
    tell(rows.len(), " with operators of their own", again)
}

async fn open(row: &Row) -> Result<Scene> {
    clock::run();
    let stage = Stage::bare(row.name).await?;
    stage.remove_others().await?;
    Scene::new(stage, Vec::new()).await
}
