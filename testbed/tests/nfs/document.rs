//! The commands of `docs/nfs.md`, run as they stand there, and a session on the export that they make.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use blobferry_testbed::{Delivery, Fingerprint, Machine};
use serde_json::json;

use crate::export::{Export, PATIENCE, SERVER, on_nfs};

/// What the document calls the server and its network, and what they are here.
const STANDS_FOR: [(&str, &str); 3] = [("192.0.2.0/24", "172.30.0.0/24"), ("192.0.2.7", SERVER), ("SERVER", SERVER)];

/// The machines have what these would bring, and no firewall.
const NOT_RUN: [&str; 2] = ["sudo apt ", "sudo ufw "];

/// Commands in the middle of a sentence begin like this.
const INLINE: [&str; 4] = ["sudo chmod ", "exportfs ", "rpcinfo ", "modprobe "];

/// What the commands left on the server, taken away.
const UNDO: &str = "sed -i '\\|^/srv/drop|d' /etc/exports; exportfs -ra; exportfs -f; rm -rf /srv/drop";

#[tokio::test]
#[ignore = "needs virtual machines: make faults"]
async fn commands_of_the_document_make_an_export_that_a_session_drains() -> Result<()> {
    on_nfs("document", async |export| {
        export.server.run(UNDO).await?;
        let outcome = follow(export).await;
        export.server.run(UNDO).await?;
        outcome
    })
    .await
}

async fn follow(export: &Export<'_>) -> Result<()> {
    let document = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/nfs.md"))?;
    let blocks: Vec<_> = blocks(&document).into_iter().filter(|block| !block.is_empty()).collect();
    let (on_nodes, on_servers): (Vec<_>, Vec<_>) = blocks.iter().partition(|block| block[0].starts_with("sudo mount "));
    ensure!(on_nodes.len() == 1 && on_servers.len() == 1, "the document has these blocks of commands: {blocks:?}");
    run(&export.server, on_servers[0]).await?;
    run(&export.node, on_nodes[0]).await?;
    let source = json!({"persistentVolumeClaim": null, "nfs": {"server": SERVER, "path": "/srv/drop"}});
    export.apply_from("s", source, json!({})).await?;
    // Whoever writes over NFS is squashed.
    let drop = "mount -t nfs -o nfsvers=4.1 SERVER:/srv/drop /mnt && install -d /mnt/incoming/s && echo 12345 >/mnt/incoming/s/a.dat && \
                stat -c %u:%g /mnt/incoming/s/a.dat && umount /mnt";
    let owner = export.node.run(&drop.replace("SERVER", SERVER)).await?;
    ensure!(owner == "65534:65534", "the file belongs to {owner}");
    for command in inline(&document) {
        let machine = if command.starts_with("rpcinfo") || command.starts_with("modprobe") { &export.node } else { &export.server };
        run(machine, std::slice::from_ref(&command)).await?;
    }
    export.stage.await_uploaded("s", 1, PATIENCE).await?;
    export.stage.compare("s", &[Delivery { name: "a.dat".into(), fingerprint: Fingerprint::of(b"12345\n") }]).await
}

/// The indented commands, block by block.
fn blocks(document: &str) -> Vec<Vec<String>> {
    let mut blocks = vec![Vec::new()];
    for line in document.lines() {
        match line.strip_prefix("    ") {
            Some(command) if NOT_RUN.iter().any(|start| command.starts_with(start)) => {}
            Some(command) => blocks.last_mut().expect("there is one").push(command.into()),
            None => blocks.push(Vec::new()),
        }
    }
    blocks
}

/// The commands between backticks.
fn inline(document: &str) -> Vec<String> {
    let spans = document.split('`').skip(1).step_by(2);
    spans.filter(|span| INLINE.iter().any(|start| span.starts_with(start))).map(Into::into).collect()
}

async fn run(machine: &Machine, commands: &[String]) -> Result<()> {
    // The machines have no sudo, and everything is root's already.
    let mut script = String::from("set -eo pipefail\nsudo() { \"$@\"; }\n");
    for command in commands {
        let here = STANDS_FOR.iter().fold(command.clone(), |command, (there, here)| command.replace(there, here));
        script.extend([here.as_str(), "\n"]);
    }
    machine.run(&script).await.map(drop).with_context(|| format!("on {}: {commands:?}", machine.name()))
}
