//! A real guest that boots at a site where nothing of its disk is.
//!
//! Debian 12 in QEMU, its disk at the first of two sites that are 25 Mbit/s and 100 ms apart, the machine at the second. In each round:
//!
//! * *local*: the disk is all there. * *plain NBD*: qemu-nbd serves the raw image at the first site, and QEMU uses it over the link.
//! * *on demand*: the volume has just been handed to the second site. * *with a trace*: it has booted at the first site before.
//!   In both, the background's transfer of all the rest is held back by the volume's limit to the least there is, and what that brings all the
//!   same is not counted, as the node knows it: so what is on the way is what the boot takes.
//! * *with a trace, the rest coming too*: the same as it is by itself. * *eager*: it is handed over when all of it has come.
//!
//! What one case has brought is not there in the next: each has a cluster of its own, but for the first three, of which only the last brings
//! anything. All boot the same image, which was booted once before, so that nothing is done for the first time. Counted is every byte of every
//! IP packet between the two sites from the move on until the console shows the login prompt. Beside it stands the boot's own read set:
//! what the guest reads of the same image in another boot, by nbdkit's account, each block once, compressed together.

mod cases;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use sterna_tests::guest::image::{Image, Root};
use sterna_tests::guest::{Builder, Guest};
use sterna_tests::tool::Tool;

use crate::facts::Facts;
use crate::goal::Goal;
use crate::recording::{Recorder, compressed_bytes, read_set};
use crate::stage::{Stage, number};

/// How often, and what.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Measure {
    /// How often each is measured; the medians are reported.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Only the cases that have this in their name, and those that all are compared with: local, plain, demand, trace, rest, eager.
    #[arg(long)]
    only: Option<String>,
    /// How much the link between the two sites carries.
    #[arg(long, default_value = "25M")]
    rate: String,
}

/// The disk that all boot from.
struct Prepared {
    image: Image,
    /// A raw file.
    file: PathBuf,
}

/// How a boot went.
struct Booted {
    guest: Guest,
    /// From the start of QEMU to the agent's first word, and to the login prompt.
    agent_s: f64,
    prompt_s: f64,
}

/// What a boot reads.
struct ReadSet {
    /// Compressed.
    wire_bytes: f64,
}

/// Measures all of it. Needs root.
///
/// # Errors
/// The network or a cluster does not come to be, or a guest does not boot.
pub(crate) fn measure(measure: &Measure) -> Result<Facts> {
    let mut facts = Facts::new(format!(
        "a Debian guest that boots where nothing of its disk is; {}bit/s, {ROUND_TRIP_MS} ms there and back, {} rounds",
        measure.rate, measure.rounds
    ));
    let directory = tempfile::tempdir()?;
    let prepared = Prepared::make(directory.path())?;
    for _ in 0..measure.rounds {
        let read_set = prepared.read_set(directory.path(), &mut facts)?;
        cases::round(measure, &prepared, &read_set, &mut facts)?;
    }
    facts.aim(&cases::faster(cases::TRACE), Goal::AtLeast(5.0));
    for case in [cases::TRACE, cases::REST] {
        facts.aim(&cases::to_local(case), Goal::AtMost(1.3));
    }
    facts.aim(&cases::to_read_set(cases::TRACE), Goal::AtMost(1.05));
    Ok(facts)
}

impl Measure {
    /// Whether a case is wanted.
    fn wants(&self, case: &str) -> bool {
        self.only.as_ref().is_none_or(|only| case.contains(only.as_str()))
    }

    fn stage<'a>(&self, directory: &'a Path) -> Result<Stage<'a>> {
        let stage = Stage::start(directory)?;
        stage.set(&self.rate, ROUND_TRIP_MS)?;
        Ok(stage)
    }
}

impl Prepared {
    /// A copy of the image that has been booted and shut down.
    fn make(directory: &Path) -> Result<Self> {
        let image = Image::of(Root::Debian)?;
        let prepared = Self { image, file: directory.join("prepared.raw") };
        copy(&prepared.image.root(), &prepared.file)?;
        let recorder = Recorder::start(directory, &prepared.file)?;
        boot(Guest::debian(&prepared.image).disk(&recorder.disk()))?.guest.shutdown()?;
        recorder.end()?;
        Ok(prepared)
    }

    /// Boots a copy of it, and notes what that reads until the login prompt.
    fn read_set(&self, directory: &Path, facts: &mut Facts) -> Result<ReadSet> {
        let copied = directory.join("read.raw");
        copy(&self.file, &copied)?;
        let recorder = Recorder::start(directory, &copied)?;
        let booted = boot(Guest::debian(&self.image).disk(&recorder.disk()))?;
        let requests = recorder.requests()?;
        booted.guest.kill()?;
        recorder.end()?;
        let blocks = read_set(&requests);
        let reads = requests.iter().filter(|request| request.is_read).count();
        let wire_bytes = number(compressed_bytes(&self.file, &blocks)?);
        facts.add("the boot's own read set: requests", "reads", number(reads as u64));
        facts.add("the boot's own read set", "MB", number(blocks.len() as u64 * 4096) / 1e6);
        facts.add("the boot's own read set, compressed", "MB", wire_bytes / 1e6);
        Ok(ReadSet { wire_bytes })
    }
}

/// Boots it until the login prompt is there.
fn boot(builder: Builder) -> Result<Booted> {
    let begun = Instant::now();
    let mut guest = builder.boot_limit(cases::PATIENCE).boot()?;
    let agent_s = begun.elapsed().as_secs_f64();
    guest.until_console_shows("login:", cases::PATIENCE)?;
    Ok(Booted { guest, agent_s, prompt_s: begun.elapsed().as_secs_f64() })
}

/// Copies a file with its holes.
fn copy(from: &Path, to: &Path) -> Result<()> {
    Tool::new("cp").args(["--sparse=always", "--no-preserve=mode"]).args([from, to]).succeed()?;
    Ok(())
}

const ROUND_TRIP_MS: u32 = 100;
