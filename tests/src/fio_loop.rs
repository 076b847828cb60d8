//! fio writes, the server is killed, fio verifies: again and again on one disk.
//!
//! In each cycle fio writes the first half of the disk in random order and flushes it. Each block says which cycle it is
//! from, so that a block of an earlier cycle is found as surely as one that is damaged. While more is being written to the
//! second half, the server is killed; started again, it has to have the whole first half as this cycle left it.
//!
//! What [`crate::oracle`] judges and this does not: writes that no flush covers, blocks that are torn, and zeros.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::client::Style;
use crate::disk_server::DiskServer;
use crate::random::Random;
use crate::tool::{Ended, Tool};

/// What to do to a server.
#[derive(Clone, Debug)]
pub struct FioLoop {
    random: Random,
    cycles: u32,
    longest_load: Duration,
}

impl FioLoop {
    /// So many cycles, in each of which up to `longest_load` pass before the kill; the seed decides how much it is.
    pub fn new(seed: u64, cycles: u32, longest_load: Duration) -> Self {
        Self { random: Random::new(seed), cycles, longest_load }
    }

    /// Runs all cycles on an export of an even number of MiB. The server runs when it returns. `progress` is told of each
    /// cycle that is done. Returns how many kills hit the server in the middle of fio's writing.
    ///
    /// # Errors
    /// fio finds something else than what it wrote, or the server fails in any other way than by being killed, with the
    /// cycle; or no kill hit it in the middle of anything.
    pub fn run(mut self, server: &mut dyn DiskServer, export: &str, mut progress: impl FnMut(u32)) -> Result<u32> {
        let (_, size_bytes) = server.disk(export).attach(Style::Structured)?;
        ensure!(size_bytes > 0 && size_bytes.is_multiple_of(2 * MIB), "{size_bytes} bytes are no two halves");
        let half_mib = size_bytes / MIB / 2;
        let mut hits = 0;
        for cycle in 0..self.cycles {
            let was_hit =
                self.cycle(server, export, cycle, half_mib).with_context(|| format!("in cycle {cycle} of fio's"))?;
            hits += u32::from(was_hit);
            progress(cycle + 1);
        }
        ensure!(hits > 0, "the server was never killed while fio wrote");
        Ok(hits)
    }

    fn cycle(&mut self, server: &mut dyn DiskServer, export: &str, cycle: u32, half_mib: u64) -> Result<bool> {
        let uri = format!("--uri={}", server.disk(export).uri());
        // The cycle, and where the block belongs.
        let pattern = format!("--verify_pattern=0x{:08x}%o", FIRST_CYCLE + cycle);
        let kept = |args: &[&str]| {
            let job =
                ["--name=kept", "--ioengine=nbd", "--rw=randwrite", "--bs=4k", "--iodepth=16", "--verify=pattern"];
            let size = format!("--size={half_mib}M");
            Tool::new("fio").args(job).args(["--verify_state_save=0", &size, &pattern, &uri]).args(args)
        };
        kept(&["--do_verify=0", "--end_fsync=1"]).succeed()?;

        let (offset, size) = (format!("--offset={half_mib}M"), format!("--size={half_mib}M"));
        let more = ["--name=more", "--ioengine=nbd", "--rw=randwrite", "--bs=4k", "--iodepth=16", "--fsync=64"];
        let limits = ["--time_based", "--runtime=60", "--output-format=json", &offset, &size, &uri];
        let more = Tool::new("fio").args(more).args(limits).spawn()?;
        let longest = u64::try_from(self.longest_load.as_micros())?.max(1);
        std::thread::sleep(START + Duration::from_micros(self.random.below(longest)));
        server.kill()?;
        let wrote = written(&more.wait()?)?;

        server.restart()?;
        let verified = kept(&["--verify_only=1", "--verify_fatal=1"]).succeed()?;
        ensure!(!verified.stderr.contains("verify:"), "{verified}");
        Ok(wrote)
    }
}

/// Whether fio, which has lost its server, had written something by then.
fn written(ended: &Ended) -> Result<bool> {
    ensure!(!ended.status.success(), "fio did not miss the server: {ended}");
    let Some(json) = ended.stdout.find('{').map(|at| &ended.stdout[at..]) else { return Ok(false) };
    let figures: Value =
        serde_json::from_str(json).with_context(|| format!("fio's figures cannot be read: {ended}"))?;
    Ok(figures.pointer("/jobs/0/write/total_ios").and_then(Value::as_u64).is_some_and(|writes| writes > 0))
}

/// The disk is parted at a whole MiB.
const MIB: u64 = 1 << 20;

/// What blocks of the first cycle begin with; unlike anything that disks are filled with.
const FIRST_CYCLE: u32 = 0x5700_0000;

/// fio takes about this long to begin.
const START: Duration = Duration::from_millis(250);
