//! Somebody who reads a disk from its beginning to its end where nothing of it is; and the same over plain NBD.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sterna_tests::client::{Client, Request, Style};
use sterna_tests::disk_server::DiskServer;
use sterna_tests::random::Random;

use crate::facts::Facts;
use crate::goal::Goal;
use crate::stage::{A, B, Stage, fill, noise, number};

/// How much of what the link carries such a reader is given, who waits for each answer before it asks again.
pub(super) fn sequential(stage: &Stage<'_>, rounds: u32, facts: &mut Facts) -> Result<()> {
    for (rate, mbit, mib) in [("25M", 25.0, 48_u64), ("100M", 100.0, 192), ("1G", 1000.0, 1024)] {
        stage.set(rate, ROUND_TRIP_MS)?;
        let share = |bytes: u64, seconds: f64| number(bytes) * 8e-6 / seconds / mbit;
        let (ours, plain) = (
            format!("a cold sequential read, {rate}bit/s, {ROUND_TRIP_MS} ms: of the link's rate"),
            format!("the same over qemu-nbd, {rate}bit/s, {ROUND_TRIP_MS} ms: of the link's rate"),
        );
        for round in 0..rounds.min(3) {
            let name = format!("through-{rate}-{round}").to_lowercase();
            let disk = stage.owner().create(&name, 2 << 30)?;
            fill(&disk, mib << 20, &mut Random::new(mib * 1000 + u64::from(round)))?;
            stage.until_sealed(&name)?;
            drop(disk);
            stage.owner().sterna(["volume", "move", &name, "--to", B, "--require", "none"]).succeed()?;
            let (mut client, _) = stage.other().disk(&name).attach(Style::Structured)?;
            let before = stage.carried()?;
            facts.add(&ours, "x", share(mib << 20, read_through(&mut client, mib << 20)?));
            let (carried, seconds) = stage.since(before)?;
            facts.add(&format!("{ours}, all that is on the way meanwhile"), "x", carried * 8e-6 / seconds / mbit);
            drop(client);
            stage.until_hydrated(&name)?;
            stage.other().sterna(["volume", "delete", &name]).succeed()?;
            // As much as takes some seconds.
            let bytes = PLAIN_BYTES.min(mib << 20);
            let peer = Plain::start(stage, bytes)?;
            facts.add(&plain, "x", share(bytes, read_through(&mut peer.attach(stage)?, bytes)?));
        }
        facts.aim(&ours, Goal::AtLeast(0.8));
    }
    Ok(())
}

/// The seconds that it takes to read so many bytes, 128 KiB at a time.
fn read_through<S: Read + Write>(client: &mut Client<S>, bytes: u64) -> Result<f64> {
    let begun = Instant::now();
    for at in (0..bytes).step_by(128 << 10) {
        ensure!(client.call(Request::read(at, 128 << 10))?.error() == 0, "a read failed");
    }
    Ok(begun.elapsed().as_secs_f64())
}

/// `qemu-nbd` at the first of the two sites, with a file.
struct Plain {
    server: Child,
}

impl Plain {
    fn start(stage: &Stage<'_>, bytes: u64) -> Result<Self> {
        let path = stage.directory.join("plain.raw");
        fill_file(&path, bytes)?;
        let mut command = stage.wan.command(A, "qemu-nbd")?;
        command.args(["--persistent", "--read-only", "--format=raw", "--port", PORT]).arg(&path);
        let server = command.stdin(Stdio::null()).spawn().context("cannot start qemu-nbd: run scripts/setup")?;
        Ok(Self { server })
    }

    /// A client at the other site.
    fn attach(&self, stage: &Stage<'_>) -> Result<Client<TcpStream>> {
        let address = format!("{}:{PORT}", stage.wan.address(A)?);
        let begun = Instant::now();
        loop {
            let connected = stage.wan.inside(B, || TcpStream::connect(&address))?;
            match connected {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    let mut client = Client::greet(stream)?;
                    client.attach(Style::Structured, &[], "")?;
                    return Ok(client);
                }
                Err(error) => ensure!(begun.elapsed() < PATIENCE, "qemu-nbd does not answer: {error}"),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn fill_file(path: &Path, bytes: u64) -> Result<()> {
    let (file, mut random) = (File::create(path)?, Random::new(bytes));
    for at in (0..bytes).step_by(1 << 20) {
        file.write_all_at(&noise(&mut random, (1 << 20).min(bytes - at)), at)?;
    }
    Ok(())
}

const ROUND_TRIP_MS: u32 = 100;
const PLAIN_BYTES: u64 = 16 << 20;
const PORT: &str = "10809";
const PATIENCE: Duration = Duration::from_secs(20);
