//! The cluster takes an uploader's pod away, on a real node: it is named, and another uploader goes on in the middle of the file.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use blobferry_crds::{UploadSession, conditions};
use blobferry_testbed::{Bed, Delivery, Stage, figures, scenario, stage::is_sending, wait};
use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::{Node, Pod},
    scheduling::v1::PriorityClass,
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;
/// How long a test waits for a cause; how soon it is named is printed and not asserted.
const NAMED: Duration = Duration::from_mins(3);
const RECOVERED: Duration = Duration::from_mins(10);

/// Files are taken soon, and sent with so many bytes a second from a pod like this.
fn slow(bandwidth: &str, pod: &Value) -> Value {
    json!({
        "watch": {"pollInterval": "200ms", "minFileAge": "1s"},
        "transfer": {"bandwidthLimit": bandwidth, "singlePutSize": "1Mi", "blockSize": "1Mi"},
        "pod": pod,
    })
}

/// A session that has uploaded a file and is in the middle of another one, and both files.
async fn in_the_middle(stage: &Stage, pod: &Value) -> Result<[Delivery; 2]> {
    stage.apply_session("s", slow("1Mi", pod)).await?;
    let small = stage.deliver("s", "small.dat", 4096)?;
    stage.await_uploaded("s", 1, NAMED).await?;
    let large = stage.deliver("s", "large.dat", 200 * MIB)?;
    let begun = |session: &UploadSession| {
        let activity = session.status.as_ref().and_then(|status| status.activity.as_ref());
        activity.is_some_and(|activity| activity.active_files.iter().any(|file| file.bytes_sent > 4 * MIB))
    };
    stage.await_session("s", NAMED, "is in the middle of a file", begun).await?;
    Ok([small, large])
}

/// Another pod goes on with the file, counts on, and everything is right again.
async fn goes_on(stage: &Stage, lost: &str, pod: &Value, delivered: &[Delivery]) -> Result<()> {
    // What the lost one was doing is in the status until it is gone.
    let next = wait::until(RECOVERED, "another uploader runs", async || {
        let run = stage.run("s").await?;
        Ok((run.pod != lost).then_some(run.pod))
    })
    .await?;
    let sends = |session: &UploadSession| {
        is_sending(session) && session.status.as_ref().and_then(|status| status.pod_uid.as_ref()) == Some(&next)
    };
    stage.await_session("s", RECOVERED, "goes on with the file", sends).await?;
    stage.await_condition("s", RECOVERED, (conditions::READY, "True"), &["Running"]).await?;
    // Its pod stays the same.
    stage.apply_session("s", slow("64Mi", pod)).await?;
    let session = stage.await_uploaded("s", delivered.len(), RECOVERED).await?;
    stage.compare("s", delivered).await?;
    stage.ensure_each_committed_once("s", delivered).await?;
    let progress = session.status.and_then(|status| status.progress).context("no progress")?;
    ensure!(progress.bytes_resumed >= MIB, "what was sent before was sent again: {progress:#?}");
    let bytes = delivered.iter().map(|delivery| delivery.fingerprint.size).sum::<u64>();
    ensure!((progress.files_seen, progress.bytes_total) == (2, bytes), "the counters are {progress:#?}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn uploader_that_somebody_has_evicted_as_a_drain_of_its_node_does_is_named_and_another_goes_on() -> Result<()> {
    scenario("eviction", async |stage| {
        let pod = json!({});
        let delivered = in_the_middle(stage, &pod).await?;
        let lost = stage.run("s").await?.pod;
        let began = Timestamp::now();
        stage.api::<Pod>().evict("s-uploader", &EvictParams::default()).await?;
        let told = stage.await_told("s", NAMED, "Evicted", &["s-uploader", "kubectl drain"]).await?;
        figures::print(&format!("the eviction by the API is told after {:.1} s", figures::seconds(began, told)));
        goes_on(stage, &lost, &pod, &delivered).await
    })
    .await
}

/// What a node has one of, in the name of a stage.
fn seat(stage: &Stage) -> String {
    format!("example.com/{}", stage.namespace)
}

/// Lets the node say that it has so many seats, or none of that kind any more.
async fn set_seats(stage: &Stage, seats: Option<&str>) -> Result<()> {
    let nodes: Api<Node> = Api::all(stage.client());
    let node = nodes.list(&ListParams::default()).await?.items.first().context("there is no node")?.name_any();
    let seats = json!({seat(stage): seats});
    let status = Patch::Merge(json!({"status": {"capacity": seats, "allocatable": seats}}));
    nodes.patch_status(&node, &PatchParams::default(), &status).await?;
    Ok(())
}

/// A class of pods of that priority, named as the stage.
async fn make_class(stage: &Stage, priority: i32) -> Result<()> {
    let class: PriorityClass =
        serde_json::from_value(json!({"metadata": {"name": stage.namespace}, "value": priority, "globalDefault": false}))?;
    Api::<PriorityClass>::all(stage.client()).create(&PostParams::default(), &class).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn uploader_that_makes_room_for_a_pod_of_higher_priority_is_named_and_another_goes_on_when_there_is_room() -> Result<()> {
    scenario("preempted", async |stage| {
        make_class(stage, -10).await?;
        set_seats(stage, Some("1")).await?;
        let outcome = makes_room(stage).await;
        set_seats(stage, None).await?;
        Api::<PriorityClass>::all(stage.client()).delete(&stage.namespace, &DeleteParams::background()).await?;
        outcome
    })
    .await
}

async fn makes_room(stage: &Stage) -> Result<()> {
    let seats = json!({seat(stage): "1"});
    let pod = json!({"priorityClassName": stage.namespace, "resources": {"requests": seats, "limits": seats}});
    let delivered = in_the_middle(stage, &pod).await?;
    let lost = stage.run("s").await?.pod;
    let other: Pod = serde_json::from_value(json!({
        "metadata": {"name": "important"},
        "spec": {
            "containers": [{
                "name": "important",
                "image": "localhost/blobferry-pause:1",
                "imagePullPolicy": "Never",
                "resources": {"requests": seats, "limits": seats},
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65534, "seccompProfile": {"type": "RuntimeDefault"}},
            "terminationGracePeriodSeconds": 1,
        },
    }))?;
    let began = Timestamp::now();
    stage.api::<Pod>().create(&PostParams::default(), &other).await?;
    let told = stage.await_told("s", NAMED, "Preempted", &["s-uploader", "spec.pod.priorityClassName"]).await?;
    figures::print(&format!("the preemption is told after {:.1} s", figures::seconds(began, told)));
    let words = ["Unschedulable", "Insufficient example.com"];
    stage.await_condition("s", NAMED, (conditions::READY, "False"), &words).await?;
    stage.api::<Pod>().delete("important", &DeleteParams::background()).await?;
    goes_on(stage, &lost, &pod, &delivered).await
}

/// The bed's threshold below which the kubelet evicts pods, and one that no machine reaches; the second is a soft one, so that the
/// kubelet does not take it from what pods may have.
const USUAL: &str = "evictionHard: {memory.available: 50Mi,";
const SHORT: &str = "evictionSoft: {memory.available: 1Ti}\nevictionSoftGracePeriod: {memory.available: 1s}\n";

/// Lets the kubelet find that its node is short of memory, or that it is not.
fn set_pressure(bed: &Bed, is_short: bool) -> Result<()> {
    let path = bed.folder.join("kubelet.yaml");
    let usual = fs::read_to_string(&path)?.replace(SHORT, "");
    ensure!(usual.contains(USUAL), "the kubelet's configuration is {usual}");
    fs::write(&path, if is_short { usual + SHORT } else { usual })?;
    bed.command(&["restart", "kubelet"]).map(drop)
}

/// Of all pods that the node may evict it takes the one first that uses more memory than it has asked for.
#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn uploader_that_is_evicted_for_its_nodes_memory_is_named_and_another_goes_on() -> Result<()> {
    scenario("short", async |stage| {
        let pod = json!({"resources": {"requests": {"memory": "1Mi"}}});
        let delivered = in_the_middle(stage, &pod).await?;
        let lost = stage.run("s").await?.pod;
        let began = Timestamp::now();
        // Not a moment longer: the operator would be next.
        let evicted = async {
            set_pressure(&stage.bed, true)?;
            wait::until(NAMED, "the uploader is evicted", async || {
                let pod = stage.uploader_pod("s").await?.filter(|pod| pod.uid().as_ref() == Some(&lost));
                Ok(pod.is_none_or(|pod| pod.status.and_then(|status| status.reason).as_deref() == Some("Evicted")).then_some(()))
            })
            .await
        }
        .await;
        let relieved = set_pressure(&stage.bed, false);
        evicted.and(relieved)?;
        let words = ["Evicted", "low on resource: memory", "free memory on", "requests.memory"];
        let told = stage.await_told("s", NAMED, "UploaderLost", &words).await?;
        figures::print(&format!("the eviction for memory is told {:.0} s after the node was short", figures::seconds(began, told)));
        goes_on(stage, &lost, &pod, &delivered).await
    })
    .await
}
