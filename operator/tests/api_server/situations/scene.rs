//! Plays a row, step by step, and looks at what has become of it.

use std::{fmt::Debug, time::Duration};

use anyhow::{Context as _, Result, ensure};
use blobferry_crds::{UploadSession, names};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Pod, ResourceQuota};
use kube::{Api, ResourceExt, api::DeleteParams};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::{
    Row,
    alone::Cast,
    objects::objects,
    taken::Theirs,
    tally,
    told::{NAME, told},
};
use crate::{
    alone::{Running, nodes},
    calls::calls_about,
    endings::ended,
    matrix,
    stage::{Stage, all_well},
};

/// What somebody does, or waits for.
#[derive(Debug)]
pub(super) enum Step {
    /// The session is made.
    Made,
    /// It is made, and its pod waits for a node.
    Starts,
    /// It is made from a backup, in which it had this date and this name.
    Restored(&'static str, &'static str),
    /// It is made, and its uploader runs and reports that all is well.
    Runs,
    /// So does its next uploader.
    RunsAgain,
    /// The session's spec is changed.
    Change(Value),
    /// The API server refuses a change of the spec in these words.
    Refused(Value, &'static str),
    /// Another session of this name is made, and waits for the folders.
    Other(&'static str, Value),
    /// The same in another namespace, whose claim leads to the same export.
    Beyond(&'static str),
    /// The session is deleted.
    Delete,
    /// It is deleted with `--cascade=foreground`.
    DeleteInForeground,
    /// Its pod is deleted by hand.
    DeletePod,
    /// Its namespace is deleted.
    DeleteNamespace,
    /// No pod may be made in its namespace, by a quota.
    NoPods,
    /// The quota is removed.
    Pods,
    /// Somebody has made an object under the name of one of the operator's.
    Taken(Theirs),
    /// It is removed.
    Freed(Theirs),
    /// The kubelet writes this status of the pod.
    Pod(Value),
    /// The kubelet warns of the pod: reason and words.
    Warning(&'static str, &'static str),
    /// The uploader ends with this code and this account; `UID` in it is the session's.
    Ends(i32, Value),
    /// Another pod is there.
    NextPod,
    /// The session is ready, or not, for this reason, and the operators have nothing more to do for now.
    Until(&'static str, &'static str),
    /// What only an operator of its own is worth.
    Of(Cast),
}

impl Step {
    /// Whether it changes what a pass that has begun may be at work on.
    fn interferes(&self) -> bool {
        use Step::{Change, Delete, DeleteInForeground, DeleteNamespace, DeletePod, Ends, Pod};
        matches!(self, Change(_) | Delete | DeleteInForeground | DeleteNamespace | DeletePod | Ends(..) | Pod(_))
    }
}

/// Where one row is played.
pub(super) struct Scene {
    pub(super) stage: Stage,
    /// The number of this attempt at it, from 1.
    pub(super) attempt: usize,
    /// Another namespace, if the row has one.
    beyond: Option<Stage>,
    /// The operators whose calls count.
    pub(super) operators: Vec<&'static str>,
    pub(super) running: Vec<Running>,
    /// UIDs of its sessions.
    uids: Vec<String>,
    /// The pod of the session that was seen last.
    pub(super) pod: Option<Pod>,
    /// The reason for which a pod waits that nobody runs.
    pub(super) waits: &'static str,
}

impl Scene {
    pub(super) async fn new(stage: Stage, operators: Vec<&'static str>) -> Result<Self> {
        stage.share(&stage.export()).await?;
        Ok(Self {
            stage,
            attempt: 1,
            beyond: None,
            operators,
            running: Vec::new(),
            uids: Vec::new(),
            pod: None,
            waits: "Scheduling",
        })
    }

    /// Plays `row`, until objects and conditions are as it says and the operators have nothing more to do.
    pub(super) async fn play(&mut self, row: &Row) -> Result<()> {
        for step in &row.play {
            Box::pin(self.take(step, row)).await.with_context(|| format!("{step:?}"))?;
        }
        self.until_equal("conditions", &row.conditions, Self::conditions).await?;
        self.until_equal("objects", &row.objects, Self::objects).await?;
        let made = async {
            while self.has_made(&row.calls).is_err() {
                sleep(Duration::from_millis(100)).await;
            }
        };
        // What else there may be wrong with them is said later.
        let _ = timeout(Duration::from_secs(10), made).await;
        self.rest().await?;
        ensure!(self.conditions().await? == row.conditions, "{:#?}", self.conditions().await?);
        Ok(())
    }

    /// Waits until the operators call nobody.
    async fn rest(&self) -> Result<()> {
        for operator in &self.operators {
            self.stage.until_quiet(operator).await?;
        }
        Ok(())
    }

    async fn until_equal<T: PartialEq<String> + Debug>(
        &self,
        what: &str,
        wanted: &[T],
        look: impl AsyncFn(&Self) -> Result<Vec<String>>,
    ) -> Result<()> {
        let mut found = Vec::new();
        let holds = async || {
            found = look(self).await?;
            Ok(wanted.len() == found.len() && wanted.iter().zip(&found).all(|(wanted, found)| wanted == found))
        };
        let outcome = self.stage.until(&format!("the {what} are those of the table"), holds).await;
        outcome.with_context(|| format!("{found:#?} instead of {wanted:#?}"))
    }

    /// Whether the operators have made exactly these calls so far.
    pub(super) fn has_made(&self, allowed: &[&[&str]]) -> Result<()> {
        let mut about: Vec<_> = self.uids.iter().map(|uid| format!("blobferry-{uid}")).collect();
        for stage in self.stages() {
            about.extend([stage.namespace.clone(), stage.share_volume(), stage.node()]);
        }
        tally::compare(allowed, &calls_about(&self.operators, &about))
    }

    pub(super) async fn end(self) -> Result<()> {
        for operator in self.running {
            operator.finish()?;
        }
        nodes::remove_node(&self.stage).await?;
        if let Some(beyond) = self.beyond {
            beyond.end().await?;
        }
        self.stage.end().await
    }

    fn stages(&self) -> impl Iterator<Item = &Stage> {
        std::iter::once(&self.stage).chain(&self.beyond)
    }

    async fn take(&mut self, step: &Step, row: &Row) -> Result<()> {
        if step.interferes() {
            self.rest().await?;
        }
        match step {
            Step::Made => self.make(row, json!({})).await,
            Step::Starts => self.start(row).await,
            Step::Restored(date, name) => {
                self.make(row, json!({names::DATE_PREFIX_ANNOTATION: date, names::SESSION_NAME_ANNOTATION: name})).await
            }
            Step::Runs => {
                self.start(row).await?;
                self.run().await
            }
            Step::RunsAgain => self.run().await,
            Step::Change(spec) => self.stage.change(NAME, spec.clone()).await.map(drop),
            Step::Refused(spec, words) => {
                let refusal = self.stage.change(NAME, spec.clone()).await.err().context("it was taken")?;
                ensure!(refusal.to_string().contains(words), "{refusal}");
                Ok(())
            }
            Step::Other(name, spec) => {
                let stage = self.stage.clone();
                self.wait_in(&stage, name, spec).await
            }
            Step::Beyond(name) => {
                let beyond = Stage::bare(&format!("{}-too", row.name)).await?;
                beyond.share(&self.stage.export()).await?;
                self.beyond = Some(beyond.clone());
                self.wait_in(&beyond, name, &json!({})).await
            }
            Step::Delete => self.stage.delete::<UploadSession>(NAME).await,
            Step::DeleteInForeground => {
                self.stage.api::<UploadSession>().delete(NAME, &DeleteParams::foreground()).await?;
                Ok(())
            }
            Step::DeletePod => self.stage.delete::<Pod>(&self.pod()?.name_any()).await,
            Step::DeleteNamespace => {
                let namespaces: Api<Namespace> = Api::all(self.stage.client.clone());
                namespaces.delete(&self.stage.namespace, &DeleteParams::background()).await?;
                Ok(())
            }
            Step::NoPods => self.stage.forbid_pods().await,
            Step::Taken(theirs) => theirs.make(&self.stage).await,
            Step::Freed(theirs) => theirs.remove(&self.stage).await,
            Step::Pods => self.stage.delete::<ResourceQuota>("none").await,
            Step::Pod(status) => self.stage.set_pod_status(self.pod()?, status.clone()).await,
            Step::Warning(reason, words) => matrix::warn(&self.stage, self.pod()?, reason, words).await,
            Step::Ends(code, account) => {
                let account = account.to_string().replace("\"UID\"", &json!(self.uids.first()).to_string());
                self.stage.set_pod_status(self.pod()?, ended(*code, &serde_json::from_str(&account)?)).await
            }
            Step::NextPod => {
                let last = self.pod()?.uid();
                self.pod = Some(self.stage.until_pod(NAME, last.as_deref()).await?);
                Ok(())
            }
            Step::Until(ready, reason) => {
                self.stage.until_condition(NAME, "Ready", ready, reason).await?;
                self.rest().await
            }
            Step::Of(cast) => self.play_cast(cast).await,
        }
    }

    fn pod(&self) -> Result<&Pod> {
        self.pod.as_ref().context("there was a pod")
    }

    async fn make(&mut self, row: &Row, annotations: Value) -> Result<()> {
        let spec = serde_json::from_str(&row.spec.to_string().replace("NAMESPACE", &self.stage.namespace))?;
        self.make_in(&self.stage.clone(), NAME, &spec, annotations).await
    }

    async fn make_in(&mut self, stage: &Stage, name: &str, spec: &Value, annotations: Value) -> Result<()> {
        let mut whole = json!({"sessionName": "truck"});
        for (key, value) in spec.as_object().into_iter().flatten() {
            whole[key] = value.clone();
        }
        let session = stage.marked_session(name, json!({"annotations": annotations}), whole).await?;
        self.uids.extend(session.uid());
        Ok(())
    }

    async fn start(&mut self, row: &Row) -> Result<()> {
        self.make(row, json!({})).await?;
        self.pod = Some(self.stage.until_pod(NAME, None).await?);
        self.stage.until_condition(NAME, "Ready", "False", self.waits).await?;
        Ok(())
    }

    async fn wait_in(&mut self, stage: &Stage, name: &str, spec: &Value) -> Result<()> {
        self.make_in(stage, name, spec, json!({})).await?;
        stage.until_condition(name, "Ready", "False", "SessionNameInUse").await?;
        Ok(())
    }

    /// Each step is told before the next one, so that the number of writes does not depend on the time.
    async fn run(&mut self) -> Result<()> {
        let (stage, pod) = (&self.stage, self.pod()?);
        stage.until_condition(NAME, "Ready", "False", self.waits).await?;
        stage.run_pod(pod).await?;
        stage.until_condition(NAME, "Ready", "False", "Starting").await?;
        stage.report(NAME, &all_well()).await?;
        stage
            .until("the report is heard", async || {
                let conditions = stage.status(NAME).await?.conditions;
                Ok(conditions.iter().any(|it| it.type_ == "DestinationReachable" && it.status == "True"))
            })
            .await?;
        // By times in seconds, this report is none of a pod that is made after it.
        let heard = Timestamp::now().as_second();
        stage.until("another second has begun", async || Ok(Timestamp::now().as_second() > heard)).await
    }

    /// What the status of each session says.
    async fn conditions(&self) -> Result<Vec<String>> {
        let mut all = Vec::new();
        for stage in self.stages() {
            all.extend(stage.list::<UploadSession>().await?.iter().map(told));
        }
        all.sort_unstable();
        Ok(all)
    }

    /// What exists, but for what the scene itself has brought.
    async fn objects(&self) -> Result<Vec<String>> {
        let mut all = Vec::new();
        for stage in self.stages() {
            let here = objects(stage).await?;
            let place = if stage.namespace == self.stage.namespace { "" } else { "beyond: " };
            all.extend(here.into_iter().map(|object| format!("{place}{object}")));
        }
        Ok(all)
    }
}
