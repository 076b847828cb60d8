//! The move with Sterna.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sterna_tests::disk_server::DiskServer;
use sterna_tests::guest::{Guest, MIGRATORS};
use sterna_tests::migrations::hosts::administrator;
use sterna_tests::migrator::Migrator;
use sterna_tests::tool::Tool;

use super::lan::TAP;
use super::{MEMORY_MIB, Scene, Seen};
use crate::facts::Facts;
use crate::stage::{A, B, Stage};

/// The migrators of both hosts.
pub(super) struct Hosts {
    other: Migrator,
    _owner: Migrator,
    /// Who issues migration tokens.
    operator: PathBuf,
}

impl Hosts {
    pub(super) fn start(stage: &Stage<'_>) -> Result<Self> {
        let (other, owner) = (Migrator::start(stage.other())?, Migrator::start(stage.owner())?);
        let operator = administrator(stage.owner(), stage.directory, "operator")?;
        Ok(Self { other, _owner: owner, operator })
    }
}

/// One move, of a fresh volume.
pub(super) fn measure(scene: &Scene<'_>, hosts: &Hosts, facts: &mut Facts) -> Result<Seen> {
    let (owner, name) = (scene.stage.owner(), "moving");
    let file = scene.image.root();
    owner.sterna(["volume", "import", name]).args([&file]).succeed()?;
    let home = scene.stage.directory.join(name);
    std::fs::create_dir_all(&home)?;
    let mut guest = Guest::debian(scene.image)
        .memory_mib(MEMORY_MIB)
        .network(TAP)
        .inside(scene.stage.wan.namespace(A)?)
        .disk(&owner.disk(name))
        .in_directory(&home)
        .boot()?;
    let qmp = home.join(MIGRATORS).display().to_string();
    owner.sterna(["vm", "add", name, "--qmp", &qmp, "--volume", name]).succeed()?;
    let there = hosts.other.directory_of(name);
    let mut report = Value::Null;
    let consoles = [home.join("console"), there.join("console")];
    let seen = scene.watch("Sterna", &mut guest, [&consoles[0], &consoles[1]], facts, |_| {
        let migrate = owner.sterna(["--json", "vm", "migrate", name, "--to", B, "--identity"]);
        let ended = migrate.args([&hosts.operator]).succeed()?;
        report = serde_json::from_str(ended.stdout.trim()).with_context(|| format!("not JSON: {ended}"))?;
        let figure = |key: &str| report[key].as_f64().with_context(|| format!("no {key}: {report}"));
        Ok(figure("downtime_us").or_else(|_| figure("stopped_us"))? / 1e3)
    })?;
    ensure!(report["end"] == "moved", "it has not moved: {report}");
    let figure = |key: &str| report[key].as_f64().with_context(|| format!("no {key}: {report}"));
    let named = |what: &str| format!("{}: Sterna: {what}", scene.case);
    facts.add(&named("from stop until the source knows that it runs there"), "ms", figure("stopped_us")? / 1e3);
    facts.add(&named("volumes acknowledge nothing"), "ms", figure("volumes_paused_us")? / 1e3);
    facts.add(&named("memory's stream"), "MB", figure("sent_bytes")? / 1e6);
    let begun = Instant::now();
    scene.stage.until_hydrated(name)?;
    facts.add(&named("until all of the volume has come, after that"), "s", begun.elapsed().as_secs_f64());
    guest.follow(&there, None)?.kill()?;
    scene.stage.other().sterna(["vm", "remove", name]).succeed()?;
    scene.stage.other().sterna(["volume", "delete", name]).succeed()?;
    for directory in [&home, &there] {
        Tool::new("rm").args(["-r"]).args([directory]).succeed()?;
    }
    for node in [owner, scene.stage.other()] {
        node.sterna(["gc"]).succeed()?;
    }
    Ok(seen)
}
