//! The time and the chance that the product gets in a simulation. Each thread plays one run at a time, with surroundings of its
//! own.

use std::cell::Cell;
use std::time::Duration;

use sterna_runtime::simulation::{self, Simulated};
use sterna_tests::random::Random;

/// Has this process be a simulation, once.
pub fn install() {
    // Whoever has done it before has done the same.
    let _ = simulation::install(Box::new(OfThread));
}

/// Begins a run on this thread: its chance follows from the seed.
pub fn begin(seed: u64) {
    CHANCE.set(seed ^ 0x5eed_5eed_5eed_5eed);
}

#[derive(Debug)]
struct OfThread;

impl Simulated for OfThread {
    /// Nothing of one site depends on it.
    fn boot_time_ns(&self) -> u64 {
        0
    }

    fn since_1970(&self) -> Duration {
        Duration::from_secs(1_800_000_000)
    }

    fn fill(&self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(8) {
            let mut random = Random::new(CHANCE.get());
            let bits = random.bits();
            CHANCE.set(bits);
            part.copy_from_slice(&bits.to_le_bytes()[..part.len()]);
        }
    }
}

thread_local! {
    static CHANCE: Cell<u64> = const { Cell::new(0) };
}
