//! The ways in which a guest comes to boot.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sterna_tests::disk_server::DiskServer;
use sterna_tests::guest::Guest;
use sterna_tests::tool;

use super::{Booted, Measure, Prepared, ReadSet, boot, copy};
use crate::facts::Facts;
use crate::stage::{A, B, Stage, number};

/// Times of this round that others are compared with.
struct Beside<'a> {
    local_s: Option<f64>,
    plain_s: Option<f64>,
    read_set: &'a ReadSet,
}

/// How a volume comes to where the guest is.
struct Way {
    case: &'static str,
    /// Whether it has booted at its owner before.
    is_traced: bool,
    /// Whether all the rest comes meanwhile.
    with_rest: bool,
    /// What has to be there before the move: `none` or `all`.
    require: &'static str,
}

/// Every case once.
pub(super) fn round(measure: &Measure, prepared: &Prepared, read_set: &ReadSet, facts: &mut Facts) -> Result<()> {
    let mut beside = Beside { local_s: None, plain_s: None, read_set };
    let first = tempfile::tempdir()?;
    let stage = measure.stage(first.path())?;
    beside.local_s = Some(local(&stage, prepared, facts)?);
    if measure.wants(PLAIN) {
        beside.plain_s = Some(plain(&stage, prepared, &beside, facts)?);
    }
    let way = |case, is_traced, with_rest, require| Way { case, is_traced, with_rest, require };
    if measure.wants(DEMAND) {
        moved(&stage, prepared, &way(DEMAND, false, false, "none"), &beside, facts)?;
    }
    drop(stage);
    let ways = [way(TRACE, true, false, "none"), way(REST, true, true, "none"), way(EAGER, false, true, "all")];
    for way in ways.iter().filter(|way| measure.wants(way.case)) {
        let directory = tempfile::tempdir()?;
        moved(&measure.stage(directory.path())?, prepared, way, &beside, facts)?;
    }
    Ok(())
}

/// At the first site, where all of it is.
fn local(stage: &Stage<'_>, prepared: &Prepared, facts: &mut Facts) -> Result<f64> {
    import(stage, prepared, "local")?;
    let booted = boot(Guest::debian(&prepared.image).disk(&stage.owner().disk("local")))?;
    facts.add(&until(LOCAL), "s", booted.prompt_s);
    booted.guest.kill()?;
    Ok(booted.prompt_s)
}

/// What people do who have no such store.
fn plain(stage: &Stage<'_>, prepared: &Prepared, beside: &Beside<'_>, facts: &mut Facts) -> Result<f64> {
    let file = stage.directory.join("plain.raw");
    copy(&prepared.file, &file)?;
    let address = SocketAddr::from((stage.wan.address(A)?, NBD_PORT));
    let _server = QemuNbd::start(stage, &file, address)?;
    let before = stage.carried()?;
    let builder = Guest::debian(&prepared.image).disk_at(address).inside(stage.wan.namespace(B)?);
    let booted = boot(builder)?;
    let wire_bytes = stage.since(before)?.0;
    let prompt_s = tell(PLAIN, booted, 0.0, wire_bytes, beside, facts)?;
    std::fs::remove_file(&file)?;
    Ok(prompt_s)
}

/// At the second site, to which the volume was handed.
fn moved(stage: &Stage<'_>, prepared: &Prepared, way: &Way, beside: &Beside<'_>, facts: &mut Facts) -> Result<()> {
    let Way { case, is_traced, with_rest, require } = *way;
    import(stage, prepared, "moved")?;
    if is_traced {
        let builder = Guest::debian(&prepared.image).disk(&stage.owner().disk("moved"));
        boot(builder)?.guest.shutdown()?;
    }
    if !with_rest && require == "none" {
        stage.owner().sterna(["volume", "set", "moved", "--limit", HELD_BACK]).succeed()?;
    }
    let (before, lanes_before, begun) = (stage.carried()?, stage.received()?, Instant::now());
    stage.owner().sterna(["volume", "move", "moved", "--to", B, "--require", require]).succeed()?;
    // A machine is started after what its disk has to have before has come.
    let waited_s = if require == "all" { begun.elapsed().as_secs_f64() } else { 0.0 };
    let booted = boot(Guest::debian(&prepared.image).disk(&stage.other().disk("moved")))?;
    let mut wire_bytes = stage.since(before)?.0;
    for (lane, bytes) in stage.received()? {
        let bytes = bytes - lanes_before.get(&lane).copied().unwrap_or_default();
        if lane == "bulk" && !with_rest {
            // What it is held back to.
            wire_bytes -= number(bytes);
        }
        if bytes >= LITTLE_BYTES {
            facts.add(&format!("{case}: received over the {lane} lane"), "MB", number(bytes) / 1e6);
        }
    }
    let open = stage.other().value(["volume", "show", "moved"])?["open"].clone();
    for (key, what) in
        [("fetched_for_clients", "fetches that something waited for"), ("fetched_ahead", "fetches ahead")]
    {
        facts.add(&format!("{case}: {what}"), "fetches", number(open[key].as_u64().context("a count")?));
    }
    tell(case, booted, waited_s, wire_bytes, beside, facts)?;
    Ok(())
}

/// Adds what is known of a boot over the link, and ends the guest; how long it took.
fn tell(
    case: &str,
    mut booted: Booted,
    waited_s: f64,
    wire_bytes: f64,
    beside: &Beside<'_>,
    facts: &mut Facts,
) -> Result<f64> {
    let read = booted.guest.disk_statistics(0)?["rd_bytes"].as_u64().context("a count")?;
    booted.guest.kill()?;
    let prompt_s = waited_s + booted.prompt_s;
    facts.add(&format!("{case}: until the guest's first program of ours"), "s", waited_s + booted.agent_s);
    facts.add(&until(case), "s", prompt_s);
    facts.add(&format!("{case}: what the guest has read"), "MB", number(read) / 1e6);
    facts.add(&format!("{case}: on the way before that"), "MB", wire_bytes / 1e6);
    facts.add(&to_read_set(case), "x", wire_bytes / beside.read_set.wire_bytes);
    if let Some(local_s) = beside.local_s {
        facts.add(&to_local(case), "x", prompt_s / local_s);
    }
    if let Some(plain_s) = beside.plain_s {
        facts.add(&faster(case), "x", plain_s / prompt_s);
    }
    Ok(prompt_s)
}

fn import(stage: &Stage<'_>, prepared: &Prepared, name: &str) -> Result<()> {
    let file = prepared.file.to_str().context("a path in UTF-8")?;
    stage.owner().sterna(["volume", "import", name, file]).succeed()?;
    Ok(())
}

/// qemu-nbd at the first site. Dropping it kills its process, by its id.
struct QemuNbd(Child);

impl QemuNbd {
    fn start(stage: &Stage<'_>, file: &Path, address: SocketAddr) -> Result<Self> {
        let mut command = stage.wan.command(A, "qemu-nbd")?;
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        command.args(["--format=raw", "--persistent", "--shared=4", "--cache=writeback", "--discard=unmap"]);
        command.args(["--bind", &host, "--port", &port]).arg(file).stdin(Stdio::null());
        let server = Self(command.spawn().context("cannot start qemu-nbd: run scripts/setup")?);
        let serves = || stage.wan.inside(B, || TcpStream::connect_timeout(&address, START_LIMIT).is_ok());
        ensure!(tool::until(START_LIMIT, serves)?, "qemu-nbd does not serve");
        Ok(server)
    }
}

impl Drop for QemuNbd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the time of a case is called.
fn until(case: &str) -> String {
    format!("{case}: until the login prompt")
}

/// How many times as fast as plain NBD.
pub(super) fn faster(case: &str) -> String {
    format!("{case}: faster than plain NBD")
}

/// To a boot where all is there.
pub(super) fn to_local(case: &str) -> String {
    format!("{case}: to a local boot")
}

/// Bytes on the way to what the boot reads.
pub(super) fn to_read_set(case: &str) -> String {
    format!("{case}: on the way, to the boot's own read set, compressed")
}

const LOCAL: &str = "local";
const PLAIN: &str = "plain NBD";
const DEMAND: &str = "on demand";
pub(super) const TRACE: &str = "with a trace";
pub(super) const REST: &str = "with a trace, the rest coming too";
const EAGER: &str = "eager";
/// The least that a volume can be limited to.
const HELD_BACK: &str = "1Mbit";
/// What is not worth a line.
const LITTLE_BYTES: u64 = 10_000;
const NBD_PORT: u16 = 10_809;
const START_LIMIT: Duration = Duration::from_secs(20);
/// Plain NBD over a long way takes minutes.
pub(super) const PATIENCE: Duration = Duration::from_secs(600);
