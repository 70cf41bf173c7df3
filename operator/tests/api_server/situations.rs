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
mod taken;
mod tally;
mod told;

use std::{io::Write as _, time::Duration};

use anyhow::{Context as _, Error, Result, ensure};
use blobferry_operator::leader::Deposed;
use futures::{StreamExt as _, stream};
use serde_json::Value;
use tokio::time::sleep;

use crate::{
    first::FIRST,
    stage::{InVain, Stage},
};
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

pub(crate) const SESSION: &str = "session truck-7";
pub(crate) const HELD: &str = "session truck-7 held";
pub(crate) const POD: &str = "pod truck-7-uploader of truck-7, owned";
pub(crate) const UNOWNED_POD: &str = "pod truck-7-uploader of truck-7";
pub(crate) const ACCOUNT: &str = "account blobferry-uploader";
pub(crate) const BINDING: &str = "binding blobferry-uploader for blobferry-uploader";

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
/// less, or that something passes unseen; what it always does is there each time.
const ATTEMPTS: usize = 3;
/// For how long each of them waits for something.
const PATIENCE: Duration = Duration::from_mins(4);
/// A row that is played again has been at rest for so long when its calls are counted once more.
const LATER: Duration = Duration::from_secs(20);

/// The rows of the operator that works for all.
fn rows() -> Vec<Row> {
    [starting::rows(), taken::rows(), running::rows(), ending::rows()].into_iter().flatten().collect()
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
    let played = stream::iter(rows.iter().map(|row| play(row, 1, open))).buffered(AT_A_TIME).collect().await;
    let mut again = 0;
    for (row, mut scene) in rows.iter().zip(all(played)?) {
        // Most of them have been at rest for a while by now.
        while let Err(error) = scene.has_made(&row.calls) {
            let attempt = scene.attempt + 1;
            ensure!(attempt <= ATTEMPTS, "row {} later: {error:#}", row.name);
            tell_again(row, &error)?;
            scene.end().await?;
            scene = play(row, attempt, open).await?;
            sleep(LATER).await;
        }
        again += scene.attempt - 1;
        scene.end().await?;
    }
    tell(rows.len(), "", again)
}

fn tell(rows: usize, how: &str, again: usize) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{rows} situations{how} are as the table says, {again} played again")?)
}

/// What a row that is played again has shown before.
fn tell_again(row: &Row, why: &Error) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "row {} is played again: {why:#}", row.name)?)
}

/// Plays `row` in the scene that `open` makes, for the first time or, as attempt number `attempt`, again.
async fn play(row: &Row, mut attempt: usize, open: impl AsyncFn(&Row) -> Result<Scene>) -> Result<Scene> {
    let attempts = async {
        loop {
            let mut scene = open(row).await?;
            scene.attempt = attempt;
            scene.stage.patience = PATIENCE;
            let outcome = match scene.play(row).await {
                Err(error) if !is_late(&error) => return Err(error),
                played => played.and_then(|()| scene.has_made(&row.calls)),
            };
            match outcome {
                Err(error) if attempt < ATTEMPTS => {
                    tell_again(row, &error)?;
                    scene.end().await?;
                }
                outcome => return outcome.map(|()| scene),
            }
            attempt += 1;
        }
    };
    attempts.await.with_context(|| format!("row {}", row.name))
}

/// Whether a busy machine can be why: what passes is not seen, and a leader loses the Lease.
fn is_late(error: &Error) -> bool {
    error.is::<InVain>() || error.is::<Deposed>()
}

/// All scenes, if no row has failed.
fn all(played: Vec<Result<Scene>>) -> Result<Vec<Scene>> {
    let rows = played.len();
    let (scenes, failed): (Vec<_>, Vec<_>) = played.into_iter().partition(Result::is_ok);
    let failed: Vec<_> = failed.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    ensure!(failed.is_empty(), "{} of {rows} rows failed:\n{}", failed.len(), failed.join("\n"));
    Ok(scenes.into_iter().flatten().collect())
}
