//! Files of a producer on the server become blobs.

use anyhow::{Context as _, Result, ensure};
use blobferry_crds::names;
use blobferry_testbed::{Stage, figures, scenario, wait};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::time::Instant;

use crate::export::{Export, PATIENCE, SERVER};

const MIB: u64 = 1 << 20;

#[tokio::test]
#[ignore = "needs virtual machines: make faults"]
async fn mixed_files_arrive_by_a_volume_of_the_operators_and_by_one_of_a_persons() -> Result<()> {
    scenario("nfs", async |stage| {
        let export = Export::make(stage).await?;
        let started = Instant::now();
        export.apply("inline", json!({})).await?;
        make_claim(&export).await?;
        export.apply_from("claimed", json!({"persistentVolumeClaim": {"claimName": "nfs-share"}}), json!({})).await?;
        for session in ["inline", "claimed"] {
            let mut delivered = Vec::new();
            for (number, size) in [0, 1, 4096, 5 * MIB, 20 * MIB].into_iter().enumerate() {
                delivered.push(export.deliver(session, &format!("{number} ü.dat"), size).await?);
            }
            export.compare(session, &delivered).await?;
        }
        figures::print(&format!("two sessions on NFS were done after {:.0} s", started.elapsed().as_secs_f64()));
        export.stage.sessions().delete("inline", &DeleteParams::default()).await?;
        await_no_volume(stage).await?;
        export.remove().await
    })
    .await
}

/// The volume and the claim of `k8s/samples/nfs-volume.yaml`.
async fn make_claim(export: &Export<'_>) -> Result<()> {
    let stage = export.stage;
    let name = format!("{}-nfs", stage.namespace);
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": {
        "capacity": {"storage": "1Ti"}, "accessModes": ["ReadWriteMany"], "persistentVolumeReclaimPolicy": "Delete",
        "storageClassName": "", "claimRef": {"namespace": stage.namespace, "name": "nfs-share"},
        "mountOptions": ["hard", "nfsvers=4.1", "actimeo=5", "rsize=1048576", "wsize=1048576"],
        "nfs": {"server": SERVER, "path": export.path},
    }});
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "nfs-share"}, "spec": {
        "accessModes": ["ReadWriteMany"], "storageClassName": "", "volumeName": name, "resources": {"requests": {"storage": "1Ti"}},
    }});
    let apply = PatchParams::apply("test");
    Api::<PersistentVolume>::all(stage.client()).patch(&name, &apply, &Patch::Apply(&volume)).await?;
    stage.api::<PersistentVolumeClaim>().patch("nfs-share", &apply, &Patch::Apply(&claim)).await?;
    Ok(())
}

/// The operator removes what it made for a session.
async fn await_no_volume(stage: &Stage) -> Result<()> {
    let ours = ListParams::default().labels(&format!("{}={}", names::MANAGED_BY_LABEL, names::OPERATOR));
    wait::until(PATIENCE, "volume and claim of the session are gone", async || {
        let claims = stage.api::<PersistentVolumeClaim>().list(&ours).await?.items;
        let volumes = Api::<PersistentVolume>::all(stage.client()).list(&ours).await?.items;
        let of_stage = volumes.iter().filter(|volume| {
            let claim = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
            claim.and_then(|claim| claim.namespace.as_deref()) == Some(stage.namespace.as_str())
        });
        ensure!(claims.is_empty() && of_stage.count() == 0, "{} claims and {} volumes are left", claims.len(), volumes.len());
        Ok(Some(()))
    })
    .await
    .context("the session was deleted")
}
