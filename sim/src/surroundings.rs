//! The time and the chance that the product gets in a simulation. Each thread plays one run at a time, with surroundings of its
//! own.
//!
//! There is one clock that is right, [`now_ns`]: no two looks at it show the same, so it tells which of two things came first. A
//! node's own clocks follow from it: one that is too fast or too slow by a little, always, and a time of day that jumps.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use sterna_runtime::simulation::{self, Simulated};
use sterna_tests::random::Random;
use tokio::runtime::{Handle, Id};

/// Has this process be a simulation, once.
pub fn install() {
    // Whoever has done it before has done the same.
    let _ = simulation::install(Box::new(OfThread));
}

/// Begins a run on this thread: its chance follows from the seed, and of its clocks nothing is told yet.
pub fn begin(seed: u64) {
    CHANCE.set(seed ^ 0x5eed_5eed_5eed_5eed);
    LAST_NS.set(0);
    STEPPED.take();
    NODES.take();
    RUNTIMES.take();
}

/// What a node's clocks show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clocks {
    /// How long its machine has run when the run begins.
    pub booted_ns: u64,
    /// How many millionths too fast; too slow where it is less than nothing.
    pub drift_ppm: i64,
    /// By how much its time of day is wrong.
    pub day_is_off_ms: i64,
    /// The longest that its disk takes for something.
    pub disk_takes: Duration,
}

impl Clocks {
    /// What the node's clock shows at a moment.
    fn own(&self, right_ns: u64) -> u64 {
        let (ns, ppm) = (i128::from(right_ns), i128::from(self.drift_ppm));
        u64::try_from(i128::from(self.booted_ns) + ns + ns * ppm / MILLION).unwrap_or(u64::MAX)
    }

    /// The moment at which the node's clock shows this.
    pub fn right(&self, own_ns: u64) -> u64 {
        let since = i128::from(own_ns) - i128::from(self.booted_ns);
        u64::try_from((since * MILLION / (MILLION + i128::from(self.drift_ppm))).max(0)).unwrap_or(u64::MAX)
    }
}

/// How long the run has lasted. Between two steps no host runs, and a host's clock that is asked then is that of the machine:
/// it is not.
pub fn elapsed() -> Duration {
    match Handle::try_current() {
        Ok(_) => turmoil::sim_elapsed().unwrap_or_default(),
        Err(_) => STEPPED.get(),
    }
}

/// Says how long the run has lasted at the end of a step.
pub fn stepped(elapsed: Duration) {
    STEPPED.set(elapsed);
}

/// Nanoseconds since the run has begun.
pub fn now_ns() -> u64 {
    let elapsed = u64::try_from(elapsed().as_nanos()).unwrap_or(u64::MAX);
    let now = elapsed.max(LAST_NS.get() + BETWEEN_LOOKS_NS);
    LAST_NS.set(now);
    now
}

/// Says what the clocks of a node show from now on.
pub fn set_clocks(node: usize, clocks: Clocks) {
    NODES.with_borrow_mut(|nodes| nodes.insert(node, clocks));
}

/// What the clocks of a node show.
pub fn clocks(node: usize) -> Clocks {
    NODES.with_borrow(|nodes| nodes.get(&node).copied().unwrap_or_default())
}

/// Says that what runs here, in this runtime, is a node.
pub fn this_is(node: usize) {
    RUNTIMES.with_borrow_mut(|runtimes| runtimes.insert(Handle::current().id(), node));
}

/// Which node this runs on, if it does.
pub fn node() -> Option<usize> {
    let runtime = Handle::try_current().ok()?.id();
    RUNTIMES.with_borrow(|runtimes| runtimes.get(&runtime).copied())
}

#[derive(Debug)]
struct OfThread;

impl Simulated for OfThread {
    fn boot_time_ns(&self) -> u64 {
        node().map_or(0, |node| clocks(node).own(now_ns()))
    }

    fn since_1970(&self) -> Duration {
        let off_ms = node().map_or(0, |node| clocks(node).day_is_off_ms);
        let elapsed_ms = i64::try_from(elapsed().as_millis()).unwrap_or(0);
        Duration::from_millis(u64::try_from(BEGINS_AT_MS + elapsed_ms + off_ms).unwrap_or(0))
    }

    fn fill(&self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(8) {
            let bits = bits();
            part.copy_from_slice(&bits.to_le_bytes()[..part.len()]);
        }
    }

    fn disk_takes(&self) -> Duration {
        let longest = node().map_or(Duration::ZERO, |node| clocks(node).disk_takes);
        let longest_us = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
        if longest_us == 0 { Duration::ZERO } else { Duration::from_micros(bits() % longest_us) }
    }
}

fn bits() -> u64 {
    let bits = Random::new(CHANCE.get()).bits();
    CHANCE.set(bits);
    bits
}

thread_local! {
    static CHANCE: Cell<u64> = const { Cell::new(0) };
    static STEPPED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static LAST_NS: Cell<u64> = const { Cell::new(0) };
    static NODES: RefCell<BTreeMap<usize, Clocks>> = const { RefCell::new(BTreeMap::new()) };
    static RUNTIMES: RefCell<std::collections::HashMap<Id, usize>> = RefCell::default();
}

const MILLION: i128 = 1_000_000;
/// So far apart that two looks are apart by a slower clock as well.
const BETWEEN_LOOKS_NS: u64 = 4;
/// In the year 2027.
const BEGINS_AT_MS: i64 = 1_800_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_drifts_is_read_back() {
        for drift_ppm in [-9_000, 0, 9_000] {
            let clocks = Clocks { booted_ns: 77_000_000_000, drift_ppm, ..Clocks::default() };
            let mut last = 0;
            for right_ns in (0..400_000_000_000).step_by(7_777_777_777) {
                for right_ns in [right_ns, right_ns + BETWEEN_LOOKS_NS] {
                    let own = clocks.own(right_ns);
                    assert!(own > last || right_ns == 0, "{own} behind {last}");
                    assert!(clocks.right(own).abs_diff(right_ns) <= 2, "{right_ns} by {drift_ppm}");
                    last = own;
                }
            }
        }
    }
}
