//! What `make test` takes of all this: one session on NFS that lives through three faults, and one that goes on beside it.

use std::time::Duration;

use anyhow::Result;
use blobferry_testbed::{Delivery, figures};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    export::{Export, on_nfs},
    outages::{begin, cut_the_servers_power, make_handles_stale_and_good_again, stop_for_a_minute},
    volumes,
};

const MIB: u64 = 1 << 20;

#[tokio::test]
#[ignore = "needs virtual machines: make faults"]
async fn sessions_on_nfs_outlive_a_stop_stale_handles_and_a_power_cut_of_the_server_and_every_file_arrives() -> Result<()> {
    on_nfs("short", async |export| {
        let started = Instant::now();
        export.apply_from("claimed", volumes::claim(export).await?, json!({})).await?;
        let claimed = deliver_all(export, "claimed", &[0, 1, 4096, 5 * MIB]).await?;
        let mut delivered = begin(export, "s").await?;
        say("files flow", started.elapsed());
        stop_for_a_minute(export).await?;
        say("the server was away for a minute", started.elapsed());
        delivered.push(deliver_in_the_middle(export, "stale.dat").await?);
        make_handles_stale_and_good_again(export).await?;
        say("the handles were stale and are good again", started.elapsed());
        delivered.push(deliver_in_the_middle(export, "power.dat").await?);
        cut_the_servers_power(export).await?;
        say("the server lost its power and is back", started.elapsed());
        // Without the limit, live.
        export.apply("s", json!({})).await?;
        export.compare_each_once("s", &delivered).await?;
        export.compare_each_once("claimed", &claimed).await?;
        say("every file has arrived", started.elapsed());
        volumes::delete_session_with_its_volume(export.stage, "s").await?;
        volumes::delete_volume(export.stage).await
    })
    .await
}

fn say(what: &str, after: Duration) {
    figures::print(&format!("{what}, {:.0} s after the start", after.as_secs_f64()));
}

async fn deliver_all(export: &Export<'_>, session: &str, sizes: &[u64]) -> Result<Vec<Delivery>> {
    let mut delivered = Vec::new();
    for size in sizes {
        delivered.push(export.deliver(session, &format!("{size} ü.dat"), *size).await?);
    }
    Ok(delivered)
}

/// A file that the session is sending when this returns.
async fn deliver_in_the_middle(export: &Export<'_>, name: &str) -> Result<Delivery> {
    let delivery = export.deliver("s", name, 8 * MIB).await?;
    export.await_sending("s", u64::MAX).await?;
    Ok(delivery)
}
