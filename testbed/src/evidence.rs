//! What can be known of a stage whose test failed. It is printed, so that a failure on somebody else's machine can be understood.

use std::{fmt::Write as _, fs};

use anyhow::Result;
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, LogParams},
};
use serde_json::to_string_pretty;

use crate::{Stage, blobs::Listed, release::OPERATOR};

/// The end of a log is what explains a failure.
const LOG_LINES: i64 = 80;

pub(crate) async fn print(stage: &Stage, reason: String) {
    print_part("failed", Ok(reason));
    print_part("sessions", sessions(stage).await);
    print_part("pods and claims", pods(stage).await);
    print_part("events", events(stage).await);
    for (namespace, selector) in [(stage.namespace.as_str(), ""), ("", OPERATOR)] {
        print_part(&format!("logs {namespace}{selector}"), logs(stage, namespace, selector).await);
    }
    print_part("files", files(stage));
    print_part("blobs", stage.blobs.list("").await.map(|blobs| blobs.iter().map(line).collect()));
    print_part("more", Ok(format!("logs of the cluster's components are in {}/log", stage.bed.folder.display())));
}

#[allow(clippy::print_stderr, reason = "tests report to the person who runs them")]
fn print_part(title: &str, part: Result<String>) {
    let text = part.unwrap_or_else(|error| format!("not known: {error:#}"));
    eprintln!("---- {title}\n{}", text.trim_end());
}

fn line(blob: &Listed) -> String {
    format!("{} ({} bytes)\n", blob.name, blob.size)
}

async fn sessions(stage: &Stage) -> Result<String> {
    let mut text = String::new();
    for mut session in stage.sessions().list(&ListParams::default()).await? {
        session.managed_fields_mut().clear();
        text += &to_string_pretty(&session)?;
    }
    Ok(text)
}

async fn pods(stage: &Stage) -> Result<String> {
    let mut text = String::new();
    for pod in stage.api::<Pod>().list(&ListParams::default()).await? {
        writeln!(text, "{} {}", pod.name_any(), to_string_pretty(&pod.status)?)?;
    }
    for claim in stage.api::<PersistentVolumeClaim>().list(&ListParams::default()).await? {
        writeln!(text, "claim {} {}", claim.name_any(), to_string_pretty(&claim.status)?)?;
    }
    Ok(text)
}

async fn events(stage: &Stage) -> Result<String> {
    let mut events = stage.api::<Event>().list(&ListParams::default()).await?.items;
    events.sort_by_key(|event| event.metadata.creation_timestamp.as_ref().map(|time| time.0));
    let lines = events.into_iter().map(|event| {
        let object = event.involved_object;
        format!(
            "{} {}/{} {}: {}\n",
            event.type_.unwrap_or_default(),
            object.kind.unwrap_or_default(),
            object.name.unwrap_or_default(),
            event.reason.unwrap_or_default(),
            event.message.unwrap_or_default()
        )
    });
    Ok(lines.collect())
}

/// Of the pods that run and of the containers that ran in them before.
async fn logs(stage: &Stage, namespace: &str, selector: &str) -> Result<String> {
    let found: Api<Pod> = if namespace.is_empty() { Api::all(stage.client()) } else { stage.api() };
    let mut text = String::new();
    for pod in found.list(&ListParams::default().labels(selector)).await? {
        let pods: Api<Pod> = Api::namespaced(stage.client(), &pod.namespace().unwrap_or_default());
        for previous in [true, false] {
            let parameters = LogParams { previous, tail_lines: Some(LOG_LINES), ..LogParams::default() };
            // Most containers have no predecessor, and the API server answers with an error then.
            if let Ok(log) = pods.logs(&pod.name_any(), &parameters).await {
                writeln!(text, "-- {}{}\n{log}", pod.name_any(), if previous { ", before its restart" } else { "" })?;
            }
        }
    }
    Ok(text)
}

fn files(stage: &Stage) -> Result<String> {
    let mut lines = Vec::new();
    let mut folders = vec![stage.share.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            // A file may be collected while we look.
            let Ok(found) = fs::symlink_metadata(&path) else { continue };
            if found.is_dir() {
                folders.push(path);
            } else {
                lines.push(format!("{} ({} bytes)\n", path.strip_prefix(&stage.share).unwrap_or(&path).display(), found.len()));
            }
        }
    }
    lines.sort();
    Ok(lines.concat())
}
