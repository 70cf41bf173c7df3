//! Files of a producer on the server become blobs.

use anyhow::{Result, ensure};
use blobferry_testbed::figures;
use serde_json::json;
use tokio::time::Instant;

use crate::{export::on_nfs, volumes};

const MIB: u64 = 1 << 20;

#[tokio::test]
#[ignore = "needs virtual machines: make faults"]
async fn mixed_files_arrive_by_a_volume_of_the_operators_and_by_one_of_a_persons() -> Result<()> {
    on_nfs("nfs", async |export| {
        let started = Instant::now();
        export.apply("inline", json!({})).await?;
        export.apply_from("claimed", volumes::claim(export).await?, json!({})).await?;
        let mut delivered = Vec::new();
        for session in ["inline", "claimed"] {
            let mut files = Vec::new();
            for (number, size) in [0, 1, 4096, 5 * MIB, 20 * MIB].into_iter().enumerate() {
                files.push(export.deliver(session, &format!("{number} ü.dat"), size).await?);
            }
            delivered.push((session, files));
        }
        // One after the other: the empty files of both wait for the same minute.
        for (session, files) in &delivered {
            export.compare_each_once(session, files).await?;
        }
        let mounts = export.node.run("grep ' nfs4 ' /proc/mounts").await?;
        for option in ["vers=4.1", "hard", "acregmax=5", "acdirmax=5"] {
            let mounted = mounts.lines().all(|line| line.split([' ', ',']).any(|word| word == option));
            ensure!(mounted, "the default mount options lack {option}: {mounts}");
        }
        figures::print(&format!("two sessions on NFS were done after {:.0} s", started.elapsed().as_secs_f64()));
        volumes::delete_session_with_its_volume(export.stage, "inline").await?;
        volumes::delete_volume(export.stage).await
    })
    .await
}
