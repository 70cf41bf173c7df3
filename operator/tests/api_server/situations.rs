//! What the operator does in each situation, as one table: which objects there are in the end, what the session's conditions say, and
//! which calls that took, each of them counted, so that one more is a failure.
//!
//! Each row has a namespace of its own, by which its calls are told apart, and a claim that is bound, so that the operator asks once where
//! it leads. `scene` plays a row and looks, `tally` counts; the rows are in the other files, those in `alone` with operators of their own.

mod alone;
mod ending;
pub(crate) mod objects;
mod rights;
mod running;
mod scene;
mod starting;
mod tally;
mod told;

use std::io::Write as _;

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, stream};
use serde_json::Value;

use crate::{first::FIRST, stage::Stage};
use scene::{Scene, Step};

/// One situation.
struct Row {
    name: &'static str,
    /// What the session's spec has besides what every spec has; `NAMESPACE` is the row's.
    spec: Value,
    /// What people, the kubelet and the uploader do.
    play: Vec<Step>,
    /// What exists then.
    objects: Vec<&'static str>,
    /// What the status of each session says.
    conditions: Vec<String>,
    /// What the operator has called until then and after it; `tally` says how they are written.
    calls: Vec<&'static [&'static str]>,
}

const SESSION: &str = "session truck-7";
const HELD: &str = "session truck-7 held";
const POD: &str = "pod truck-7-uploader of truck-7, owned";
const UNOWNED_POD: &str = "pod truck-7-uploader of truck-7";
const ACCOUNT: &str = "account blobferry-uploader";
const BINDING: &str = "binding blobferry-uploader for blobferry-uploader";

/// A session gets its pod, which waits for a node.
const STARTS: &[&str] = &[
    "get persistentvolumeclaims",
    "get persistentvolumes",
    "get serviceaccounts",
    "create serviceaccounts",
    "get rolebindings",
    "create rolebindings",
    "create pods",
    "tell UploaderCreated",
    "patch uploadsessions",
    // Starting, Scheduling.
    "2 apply uploadsessions/status",
];
/// The finalizer comes before everything else.
const HOLDS: &[&str] = &["patch uploadsessions"];
/// The uploader runs, and reports.
const RUNS: &[&str] = &["2 apply uploadsessions/status"];
/// Another pod follows, and what the uploader was busy with is removed.
const AGAIN: &[&str] = &["create pods", "tell UploaderCreated", "2 apply uploadsessions/status", "patch uploadsessions/status"];
/// The last session of its namespace is gone.
const LEAVES: &[&str] =
    &["list uploadsessions", "get rolebindings", "delete rolebindings", "get serviceaccounts", "delete serviceaccounts"];

/// Rows at a time; each looks at the API server ten times a second.
const AT_A_TIME: usize = 12;
/// How often a row may be played. On a busy machine the operator's two watches may lag behind each other, so that it makes a call more or
/// less; a call that it always makes is there each time.
const ATTEMPTS: usize = 3;

/// The rows of the operator that works for all.
fn rows() -> Vec<Row> {
    [starting::rows(), running::rows(), ending::rows()].into_iter().flatten().collect()
}

/// The whole table.
fn all_rows() -> Vec<Row> {
    rows().into_iter().chain(alone::rows()).collect()
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn every_situation_leads_to_exactly_these_objects_conditions_and_calls() -> Result<()> {
    let rows = rows();
    let open = async |row: &Row| Scene::new(Stage::new(row.name).await?, vec![FIRST]).await;
    let played = stream::iter(rows.iter().map(|row| play(row, open))).buffered(AT_A_TIME).collect().await;
    let mut again = 0;
    for (row, scene) in rows.iter().zip(all(played)?) {
        again += scene.attempt - 1;
        // Most of them have been at rest for a while by now.
        scene.has_made(&row.calls).with_context(|| format!("row {} later", row.name))?;
        scene.end().await?;
    }
    tell(rows.len(), "", again)
}

fn tell(rows: usize, how: &str, again: usize) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{rows} situations{how} are as the table says, {again} played again")?)
}

/// Plays `row` in the scene that `open` makes.
async fn play(row: &Row, open: impl AsyncFn(&Row) -> Result<Scene>) -> Result<Scene> {
    let attempts = async {
        let mut attempt = 1;
        loop {
            let mut scene = open(row).await?;
            scene.attempt = attempt;
            scene.play(row).await?;
            match scene.has_made(&row.calls) {
                Err(_) if attempt < ATTEMPTS => scene.end().await?,
                outcome => return outcome.map(|()| scene),
            }
            attempt += 1;
        }
    };
    attempts.await.with_context(|| format!("row {}", row.name))
}

/// All scenes, if no row has failed.
fn all(played: Vec<Result<Scene>>) -> Result<Vec<Scene>> {
    let rows = played.len();
    let (scenes, failed): (Vec<_>, Vec<_>) = played.into_iter().partition(Result::is_ok);
    let failed: Vec<_> = failed.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    ensure!(failed.is_empty(), "{} of {rows} rows failed:\n{}", failed.len(), failed.join("\n"));
    Ok(scenes.into_iter().flatten().collect())
}
