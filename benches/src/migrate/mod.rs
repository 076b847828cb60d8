//! A real guest that moves from site to site, with Sterna and with QEMU alone.
//!
//! Debian 12 in QEMU, 512 MB of memory, its root disk with it. In each round, for each load and each link:
//!
//! * *QEMU*: the disk is a raw file at the first site. `blockdev-mirror` copies it over NBD to one at the second, then `migrate`, with
//!   `pause-before-switchover`, and the mirror ended in between: what libvirt does.
//! * *Sterna*: the disk is a volume at the first site, and nothing of it is at the second. `sterna vm migrate`.
//!
//! Measured is
//!
//! * the time in all: from the first command until the guest runs at the second site and nothing is left to be done for it to; and with
//!   Sterna besides, until all of the volume has come;
//! * the longest pause between two of the guest's own ticks, and between two echoes of its TCP server to a client on a network
//!   that both hosts are on, which has no delay;
//! * what QEMU says of the pause; what the volumes' handoff takes;
//! * all bytes of all IP packets between the two sites, both ways.
//!
//! Links are emulated, and the guest's processors too, where there is no KVM: what counts is the ratio.

mod lan;
mod load;
mod ours;
mod probe;
mod stock;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use sterna_tests::guest::Guest;
use sterna_tests::guest::image::{Image, Root};

use crate::facts::Facts;
use crate::goal::Goal;
use crate::stage::{A, B, Stage};

use lan::{GUEST, Lan};
use load::Load;
use probe::Probe;

/// How often, and what.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Measure {
    /// How often each is measured; the medians are reported.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Only these loads: idle, disk, memory.
    #[arg(long, value_delimiter = ',')]
    loads: Vec<String>,
    /// The links' rates.
    #[arg(long, value_delimiter = ',', default_value = "100M,1G")]
    rates: Vec<String>,
    /// The links' round trips, in milliseconds.
    #[arg(long, value_delimiter = ',', default_value = "20,100,175")]
    round_trips: Vec<u32>,
}

/// One guest that moves, and where that is.
struct Scene<'a> {
    stage: &'a Stage<'a>,
    lan: &'a Lan,
    image: &'a Image,
    load: Load,
    /// How it is called in the figures: load and link.
    case: String,
}

/// What was seen of a move.
struct Seen {
    total_s: f64,
    bytes: f64,
    downtime_ms: f64,
}

/// Measures all of it. Needs root.
///
/// # Errors
/// The network or a cluster does not come to be, or a guest does not move.
pub(crate) fn measure(measure: &Measure) -> Result<Facts> {
    let mut facts = Facts::new(format!(
        "a Debian guest of {MEMORY_MIB} MiB that moves with its disk, Sterna beside QEMU alone, {} rounds",
        measure.rounds
    ));
    let image = Image::of(Root::Debian)?;
    let directory = tempfile::tempdir()?;
    let stage = Stage::start_with_migrators(directory.path())?;
    let lan = Lan::between(&[stage.wan.namespace(A)?, stage.wan.namespace(B)?])?;
    let hosts = ours::Hosts::start(&stage)?;
    for _ in 0..measure.rounds {
        for rate in &measure.rates {
            for &round_trip_ms in &measure.round_trips {
                stage.set(rate, round_trip_ms)?;
                for load in Load::ALL.into_iter().filter(|load| measure.wants(*load)) {
                    let case = format!("{}, {rate}bit/s, {round_trip_ms} ms", load.name());
                    let scene = Scene { stage: &stage, lan: &lan, image: &image, load, case };
                    let alone = stock::measure(&scene, &mut facts)?;
                    let ours = ours::measure(&scene, &hosts, &mut facts)?;
                    scene.compare(&alone, &ours, &mut facts);
                }
            }
        }
    }
    Ok(facts)
}

impl Measure {
    fn wants(&self, load: Load) -> bool {
        self.loads.is_empty() || self.loads.iter().any(|name| name == load.name())
    }
}

impl Scene<'_> {
    /// Has the load begin, has it move by `go`, which says when that has begun and how long the guest stood by QEMU, and says what was seen
    /// meanwhile. `consoles` are the guest's at both hosts.
    fn watch(
        &self,
        system: &str,
        guest: &mut Guest,
        consoles: [&Path; 2],
        facts: &mut Facts,
        go: impl FnOnce(&mut Guest) -> Result<f64>,
    ) -> Result<Seen> {
        let _jobs = self.load.start(guest)?;
        let ticks = Probe::of_consoles(consoles.map(PathBuf::from).to_vec());
        let echoes = Probe::of_echoes(self.lan.namespace(), (GUEST.parse::<std::net::IpAddr>()?, 7).into())?;
        std::thread::sleep(SETTLE);
        let (before, begun) = (self.stage.carried()?, Instant::now());
        let downtime_ms = go(guest)?;
        let total_s = begun.elapsed().as_secs_f64();
        let bytes = self.stage.since(before)?.0;
        let ended = Instant::now();
        anyhow::ensure!(ticks.until_seen_after(ended)?, "the guest does not tick any more");
        let name = |what: &str| format!("{}: {system}: {what}", self.case);
        facts.add(&name("in all"), "s", total_s);
        facts.add(&name("sent"), "MB", bytes / 1e6);
        facts.add(&name("gap by the guest's ticks"), "ms", ticks.longest_gap_ms(begun)?);
        if echoes.until_seen_after(ended)? {
            facts.add(&name("gap by a client's echo"), "ms", echoes.longest_gap_ms(begun)?);
        } else {
            facts.add(&name("clients whose connection did not go on"), "clients", 1.0);
        }
        facts.add(&name("QEMU's downtime"), "ms", downtime_ms);
        Ok(Seen { total_s, bytes, downtime_ms })
    }

    fn compare(&self, alone: &Seen, ours: &Seen, facts: &mut Facts) {
        let name = |what: &str| format!("{}: Sterna to QEMU alone: {what}", self.case);
        facts.add(&name("in all"), "times", ours.total_s / alone.total_s);
        facts.add(&name("sent"), "times", ours.bytes / alone.bytes);
        facts.add(&name("QEMU's downtime"), "times", ours.downtime_ms / alone.downtime_ms.max(1.0));
        facts.aim(&name("in all"), Goal::AtMost(0.1));
    }
}

/// What the guest has of memory.
const MEMORY_MIB: u64 = 512;

/// What ticks take to be regular.
const SETTLE: std::time::Duration = std::time::Duration::from_secs(2);
