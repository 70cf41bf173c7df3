//! The operator has the rights that the table needs, and no other.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use blobferry_crds::names::OPERATOR;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::Api;

use super::{all_rows, tally};
use crate::{chart::operator_config, stage::client};

/// What it needs beside the calls of a row, and why.
const BESIDE: &[(&str, &str)] = &[
    ("list uploadsessions", "the watch of all of them begins with it"),
    ("watch uploadsessions", "what it is told by"),
    ("list pods", "the watch of all of them begins with it"),
    ("watch pods", "what it is told by"),
    ("get pods", "who has the name of a pod that cannot be made: a person, or another operator"),
    ("list serviceaccounts", "the sweep of all namespaces"),
    ("list rolebindings", "the sweep of all namespaces"),
    ("list persistentvolumes", "the sweep of all volumes"),
    ("update uploadsessions/finalizers", "the API server asks for it when a child with an owner is made"),
    ("bind clusterroles", "the API server asks for it when a binding is made"),
    ("patch events", "an event that repeats itself changes the one before"),
];

/// The right that a call of the table needs.
fn right(call: &str) -> String {
    match call.split_once(' ') {
        Some(("tell", _)) => "create events".to_owned(),
        Some(("apply", what)) => format!("patch {what}"),
        _ => call.to_owned(),
    }
}

fn rights(rule: &PolicyRule) -> Vec<String> {
    let resources = rule.resources.iter().flatten();
    resources.flat_map(|resource| rule.verbs.iter().map(move |verb| format!("{verb} {resource}"))).collect()
}

#[tokio::test]
#[ignore = "needs a control plane: testbed/api-tests"]
async fn chart_gives_the_operator_exactly_the_rights_that_the_situations_need() -> Result<()> {
    let mut needed: BTreeSet<String> = BESIDE.iter().map(|(right, _)| (*right).to_owned()).collect();
    for row in all_rows() {
        for line in row.calls.iter().copied().flatten() {
            needed.insert(right(tally::read(line)?.0));
        }
    }
    operator_config().await?;
    let role = Api::<ClusterRole>::all(client().await?).get(OPERATOR).await?;
    let given: BTreeSet<String> = role.rules.context("it has rules")?.iter().flat_map(rights).collect();
    let (unused, missing): (Vec<_>, Vec<_>) = (given.difference(&needed).collect(), needed.difference(&given).collect());
    ensure!(unused.is_empty() && missing.is_empty(), "nobody needs {unused:?}; the chart does not give {missing:?}");
    Ok(())
}
