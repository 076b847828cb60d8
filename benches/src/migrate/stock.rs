//! The move with QEMU alone: the disk is mirrored over NBD, then memory migrates.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sterna_tests::guest::Guest;
use sterna_tests::guest::qmp::Qmp;
use sterna_tests::tool::Tool;

use super::lan::TAP;
use super::{MEMORY_MIB, Scene, Seen};
use crate::facts::Facts;
use crate::stage::{A, B};

/// One move, of a fresh copy of the image.
pub(super) fn measure(scene: &Scene<'_>, facts: &mut Facts) -> Result<Seen> {
    let at = |host: &str| scene.stage.directory.join(format!("alone-{host}"));
    let (here, there) = (at(A), at(B));
    let size_bytes = std::fs::metadata(scene.image.root())?.len();
    for directory in [&here, &there] {
        std::fs::create_dir_all(directory)?;
    }
    Tool::new("cp")
        .args(["--sparse=always", "--no-preserve=mode"])
        .args([&scene.image.root(), &here.join(DISK)])
        .succeed()?;
    std::fs::File::create(there.join(DISK))?.set_len(size_bytes)?;
    let builder = |host: &str, directory: &Path| {
        let namespace = scene.stage.wan.namespace(host)?;
        let guest = Guest::debian(scene.image).memory_mib(MEMORY_MIB).network(TAP).inside(namespace);
        anyhow::Ok(guest.raw(&directory.join(DISK)).in_directory(directory))
    };
    let mut guest = builder(A, &here)?.boot()?;
    let (coming, mut other) = builder(B, &there)?.await_migration()?;
    let address = scene.stage.wan.address(B)?.to_string();
    let consoles = [here.join("console"), there.join("console")];
    let seen = scene.watch("QEMU alone", &mut guest, [&consoles[0], &consoles[1]], facts, |guest| {
        go(guest.qmp(), &mut other, &address)
    })?;
    guest.qmp().execute("quit", json!({}))?;
    guest.follow(&there, Some(other))?.kill()?;
    drop(coming);
    for directory in [&here, &there] {
        Tool::new("rm").args(["-r"]).args([directory]).succeed()?;
    }
    Ok(seen)
}

/// What libvirt does; how long the guest stood, as QEMU has it.
fn go(source: &mut Qmp, destination: &mut Qmp, address: &str) -> Result<f64> {
    let inet = |port: &str| json!({ "type": "inet", "host": address, "port": port });
    destination.execute(
        "nbd-server-start",
        json!({ "addr": { "type": "inet", "data": { "host": address, "port": NBD_PORT } } }),
    )?;
    let export = json!({ "type": "nbd", "id": "disk", "node-name": "disk0", "name": "disk", "writable": true });
    destination.execute("block-export-add", export)?;
    capabilities(destination, &["events"])?;
    destination.execute("migrate-incoming", json!({ "uri": format!("tcp:{address}:{MIGRATION_PORT}") }))?;

    let target = json!({ "driver": "nbd", "node-name": "target", "server": inet(NBD_PORT), "export": "disk" });
    source.execute("blockdev-add", target)?;
    source.execute(
        "blockdev-mirror",
        json!({ "job-id": "mirror", "device": "disk0", "target": "target", "sync": "full" }),
    )?;
    source.event("BLOCK_JOB_READY", PATIENCE)?;
    capabilities(source, &["events", "pause-before-switchover"])?;
    // As fast as the link is.
    source.execute("migrate-set-parameters", json!({ "max-bandwidth": 8_u64 << 30 }))?;
    source.execute("migrate", json!({ "uri": format!("tcp:{address}:{MIGRATION_PORT}") }))?;
    until_status(source, "pre-switchover")?;
    source.execute("block-job-cancel", json!({ "device": "mirror" }))?;
    source.event("BLOCK_JOB_COMPLETED", PATIENCE)?;
    source.execute("migrate-continue", json!({ "state": "pre-switchover" }))?;
    let info = until_status(source, "completed")?;
    until_status(destination, "completed")?;
    destination.execute("nbd-server-stop", json!({}))?;
    let status = destination.execute("query-status", json!({}))?;
    ensure!(status["status"] == "running", "it does not run at the destination: {status}");
    info["downtime"].as_f64().context("a migration has a downtime")
}

fn capabilities(qmp: &mut Qmp, on: &[&str]) -> Result<()> {
    let capabilities: Vec<_> = on.iter().map(|name| json!({ "capability": name, "state": true })).collect();
    qmp.execute("migrate-set-capabilities", json!({ "capabilities": capabilities }))?;
    Ok(())
}

fn until_status(qmp: &mut Qmp, wanted: &str) -> Result<Value> {
    let begun = Instant::now();
    loop {
        let info = qmp.execute("query-migrate", json!({}))?;
        if info["status"] == wanted {
            return Ok(info);
        }
        ensure!(info["status"] != "failed" && begun.elapsed() < PATIENCE, "the migration is not {wanted}: {info}");
        std::thread::sleep(LOOK);
    }
}

const DISK: &str = "disk.raw";
const NBD_PORT: &str = "10809";
const MIGRATION_PORT: u16 = 4444;
const LOOK: Duration = Duration::from_millis(2);
/// Two gigabytes at 100 Mbit/s, and what is written meanwhile.
const PATIENCE: Duration = Duration::from_secs(1800);
