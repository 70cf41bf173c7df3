//! Webhooks of somebody else that stand in the operator's way.

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::json;
use tokio::{net::TcpListener, task::JoinHandle};

use super::Running;
use crate::stage::Stage;

/// Sessions whose pods the webhook is asked about.
const HELD_UP: usize = 200;
/// Calls to it until a session elsewhere has its pod: far less than one for each of them.
const FEW: usize = 150;

/// A webhook that takes every call and never answers.
struct Silent {
    calls: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
    name: String,
    webhooks: Api<ValidatingWebhookConfiguration>,
}

impl Silent {
    /// Is asked about every pod of the namespace of `stage`.
    async fn in_front_of(stage: &Stage) -> Result<Self> {
        let address = env::var("BED_HOST_ADDRESS").context("not in a bed")?;
        let listener = TcpListener::bind((address, 0)).await?;
        let url = format!("https://{}", listener.local_addr()?);
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let serving = tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((connection, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                open.push(connection);
            }
        });
        let name = format!("silent-{}", stage.namespace);
        let webhooks: Api<ValidatingWebhookConfiguration> = Api::all(stage.client.clone());
        let configuration = serde_json::from_value(json!({
            "metadata": {"name": name},
            "webhooks": [{
                "name": "silent.example.com",
                "clientConfig": {"url": url},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": stage.namespace}},
                "timeoutSeconds": 30,
                "failurePolicy": "Fail",
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
            }],
        }))?;
        webhooks.create(&PostParams::default(), &configuration).await?;
        Ok(Self { calls, serving, name, webhooks })
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    async fn end(self) -> Result<()> {
        self.webhooks.delete(&self.name, &DeleteParams::default()).await?;
        self.serving.abort();
        Ok(())
    }
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn webhook_that_does_not_answer_for_one_namespace_keeps_no_other_from_work() -> Result<()> {
    let (held, free) = (Stage::bare("held-up").await?, Stage::bare("elsewhere").await?);
    let silent = Silent::in_front_of(&held).await?;
    try_join_all((0..HELD_UP).map(|number| {
        let name = format!("truck-{number}");
        let held = &held;
        async move { held.session(&name, json!({"sessionName": name})).await }
    }))
    .await?;
    let operator = Running::start_with(&[], |client| client);
    held.until("pods are asked for in vain", async || Ok(silent.calls() >= 8)).await?;
    free.session("truck-7", json!({"sessionName": "truck-7"})).await?;
    free.until_pod("truck-7", None).await?;
    let calls = silent.calls();
    ensure!(calls < FEW, "{calls} calls had to come to an end before");
    silent.end().await?;
    held.until_pod("truck-199", None).await?;
    operator.end()?;
    held.end().await?;
    free.end().await
}
