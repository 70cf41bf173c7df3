//! The operator that works for all tests but those that bring their own.

use std::sync::OnceLock;

use anyhow::{Result, anyhow};
use blobferry_operator::controller::Operator;

use crate::{
    calls::{has_made, write_down},
    chart::operator_client,
    stage::{Stage, operator_of},
};

/// Its name.
pub(crate) const FIRST: &str = "operator-0";

/// Starts it with a client whose calls are written down; it works until the process ends.
fn start_operator() -> Result<()> {
    let (report, outcome) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            let operator = operator().await;
            let operator = operator.map_err(|error| report.send(Err(error))).ok();
            if let Some(operator) = operator {
                let _ = report.send(Ok(()));
                operator.run(std::future::pending()).await;
            }
        });
    });
    outcome.recv()?
}

async fn operator() -> Result<Operator> {
    operator_of(FIRST, write_down(FIRST, operator_client().await?))
}

impl Stage {
    /// A new namespace, and an operator that works.
    pub(crate) async fn new(name: &str) -> Result<Self> {
        static OPERATOR: OnceLock<std::result::Result<(), String>> = OnceLock::new();
        let stage = Self::bare(name).await?;
        OPERATOR.get_or_init(|| start_operator().map_err(|error| format!("{error:#}"))).clone().map_err(|error| anyhow!(error))?;
        // It looks at everything once when it begins; that is the last of it.
        stage.until("the operator has swept", async || Ok(has_made(FIRST, "list persistentvolumes"))).await?;
        Ok(stage)
    }
}
