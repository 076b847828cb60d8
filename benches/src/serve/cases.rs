//! What is measured of a server of disks, and what it is to reach: the goals of `docs/performance.md`.

use crate::goal::Goal;
use crate::measure::Client;
use crate::report::{Aim, Beside, Metric};
use crate::work::{Pattern, Work};

/// A row of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    /// On a disk whose data is in the page cache.
    Warm(Client, Work),
    /// On a server that was started anew, with nothing of its data in memory.
    Cold(Work),
    /// For the first time after random writes, which are sealed.
    FirstScattered(Work),
    /// After random writes, which are sealed and were read once.
    Scattered(Work),
    /// While other things go on behind; our server only.
    Busy(Work),
    /// Writes until the journal has wrapped several times.
    Steady(Work),
}

/// All of them, in the order in which they are measured: those that change nothing come first.
pub(crate) const CASES: [Case; 26] = [
    Case::Warm(Client::Fio, Work::new(Pattern::RandomRead, 4, 32)),
    Case::Warm(Client::Fio, Work::new(Pattern::RandomRead, 4, 32).connections(4)),
    Case::Warm(Client::Lean, Work::new(Pattern::RandomRead, 4, 32)),
    Case::Warm(Client::Fio, Work::new(Pattern::RandomRead, 4, 1)),
    Case::Warm(Client::Fio, Work::new(Pattern::RandomRead, 4, 128)),
    Case::Warm(Client::Fio, Work::new(Pattern::Read, 128, 16)),
    Case::Warm(Client::Fio, Work::new(Pattern::Read, 1024, 4)),
    Case::Cold(Work::new(Pattern::RandomRead, 4, 32).once()),
    Case::Cold(Work::new(Pattern::RandomRead, 4, 1).once()),
    Case::Cold(Work::new(Pattern::Read, 128, 16).once()),
    Case::Warm(Client::Fio, BESIDE_WORK),
    Case::Busy(BESIDE_WORK),
    Case::Warm(Client::Fio, Work::new(Pattern::RandomWrite, 4, 32)),
    Case::Warm(Client::Fio, Work::new(Pattern::RandomWrite, 4, 32).connections(4)),
    Case::Warm(Client::Lean, Work::new(Pattern::RandomWrite, 4, 32)),
    Case::Warm(Client::Fio, Work::new(Pattern::RandomWrite, 4, 1)),
    Case::Warm(Client::Fio, Work::new(Pattern::RandomWrite, 4, 1).flushes_each()),
    Case::Warm(Client::Fio, Work::new(Pattern::RandomMixed, 4, 32)),
    Case::FirstScattered(Work::new(Pattern::Read, 128, 16).once()),
    Case::Scattered(Work::new(Pattern::RandomRead, 4, 32)),
    Case::Scattered(Work::new(Pattern::Read, 128, 16)),
    Case::Warm(Client::Fio, Work::new(Pattern::Write, 128, 16)),
    Case::Warm(Client::Fio, Work::new(Pattern::Write, 1024, 4)),
    Case::Warm(Client::Fio, Work::new(Pattern::RandomMixed, 4, 32).connections(4)),
    Case::Warm(Client::Fio, Work::new(Pattern::RandomWrite, 4, 128)),
    Case::Steady(Work::new(Pattern::RandomWrite, 4, 32)),
];

/// What runs alone, and beside other things.
const BESIDE_WORK: Work = Work::new(Pattern::RandomRead, 4, 8);

/// The peers, in the order of the report behind us.
const NBDKIT: usize = 0;
const QEMU: usize = 1;

impl Case {
    /// What it is called.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Warm(client, work) => client.name(work),
            Self::Cold(work) => format!("{work}, cache cold"),
            Self::FirstScattered(work) => format!("{work}, first after random writes"),
            Self::Scattered(work) => format!("{work}, after random writes"),
            Self::Busy(work) => format!("{work}, beside sealing, gc and scrub"),
            Self::Steady(work) => format!("{}, steady state", Client::Lean.name(work)),
        }
    }

    /// What it is to reach.
    pub(crate) fn aims(self) -> Vec<Aim> {
        match self {
            Self::Warm(_, work) => [rate(work), cpu(work), written(work)].concat(),
            Self::Scattered(work) => [rate(work), cpu(work)].concat(),
            Self::Steady(work) => written(work),
            Self::Busy(work) => {
                let alone = Beside::Ourselves(Self::Warm(Client::Fio, work).name());
                vec![Aim { metric: Metric::P99Us, beside: alone, goal: Goal::AtMost(3.0) }]
            }
            Self::Cold(_) | Self::FirstScattered(_) => Vec::new(),
        }
    }
}

/// How fast the work is to be. At queue 1 that is its latency.
fn rate(work: Work) -> Vec<Aim> {
    let kib = work.block_bytes >> 10;
    let (metric, ratios) = match (work.pattern, kib, work.depth) {
        (Pattern::RandomWrite, 4, 1) if work.flushes_each => (Metric::PerSecond, vec![(NBDKIT, Goal::AtLeast(1.5))]),
        (Pattern::RandomRead | Pattern::RandomWrite, 4, 1) => (Metric::P50Us, vec![(NBDKIT, Goal::AtMost(1.0))]),
        (Pattern::RandomRead, 4, 32) => {
            (Metric::PerSecond, vec![(NBDKIT, Goal::AtLeast(1.5)), (QEMU, Goal::AtLeast(5.0))])
        }
        (Pattern::RandomWrite, 4, 32) => {
            (Metric::PerSecond, vec![(NBDKIT, Goal::AtLeast(1.0)), (QEMU, Goal::AtLeast(3.0))])
        }
        (Pattern::Read, 128, 16) => (Metric::PerSecond, vec![(NBDKIT, Goal::AtLeast(1.0))]),
        (Pattern::Write, 128, 16) => (Metric::PerSecond, vec![(NBDKIT, Goal::AtLeast(0.8))]),
        _ => return Vec::new(),
    };
    ratios.into_iter().map(|(peer, goal)| Aim { metric, beside: Beside::Peer(peer), goal }).collect()
}

/// What a request of 4 KiB may cost.
fn cpu(work: Work) -> Vec<Aim> {
    let aim = Aim { metric: Metric::CpuUsPerRequest, beside: Beside::Peer(NBDKIT), goal: Goal::AtMost(1.2) };
    if work.block_bytes == 4 << 10 { vec![aim] } else { Vec::new() }
}

/// What random writes of 4 KiB may write, by both ways to count it: each is wrong in its own way (`docs/performance.md`), and
/// neither may be chosen because it is kinder.
fn written(work: Work) -> Vec<Aim> {
    let is_random = matches!(work.pattern, Pattern::RandomWrite | Pattern::RandomMixed);
    let metrics = [Metric::WrittenPerByte, Metric::DevicePerByte];
    let metrics = metrics.into_iter().filter(|_| is_random && work.block_bytes == 4 << 10);
    metrics.map(|metric| Aim { metric, beside: Beside::Nothing, goal: Goal::AtMost(2.5) }).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn aims_of(name: &str) -> Vec<(Metric, Beside, Goal)> {
        let case = CASES.into_iter().find(|case| case.name() == name).expect("there is such a row");
        case.aims().into_iter().map(|aim| (aim.metric, aim.beside, aim.goal)).collect()
    }

    #[test]
    fn no_two_rows_have_one_name() {
        let names: HashSet<_> = CASES.into_iter().map(Case::name).collect();
        assert_eq!(names.len(), CASES.len(), "{names:?}");
    }

    #[test]
    fn rows_have_the_goals_of_the_documentation() {
        let (nbdkit, qemu) = (Beside::Peer(NBDKIT), Beside::Peer(QEMU));
        let cpu = (Metric::CpuUsPerRequest, nbdkit.clone(), Goal::AtMost(1.2));
        let written = [Metric::WrittenPerByte, Metric::DevicePerByte];
        let written = written.map(|metric| (metric, Beside::Nothing, Goal::AtMost(2.5)));
        let rate = |peer: &Beside, least| (Metric::PerSecond, peer.clone(), Goal::AtLeast(least));
        let p50 = (Metric::P50Us, nbdkit.clone(), Goal::AtMost(1.0));
        let reads = [rate(&nbdkit, 1.5), rate(&qemu, 5.0), cpu.clone()];
        assert_eq!(aims_of("4 KiB random read, queue 32"), reads);
        assert_eq!(aims_of("4 KiB random read, queue 32, after random writes"), reads);
        let writes = [&[rate(&nbdkit, 1.0), rate(&qemu, 3.0), cpu.clone()][..], &written].concat();
        assert_eq!(aims_of("4 KiB random write, queue 32, 4 connections"), writes);
        assert_eq!(aims_of("4 KiB random write, queue 1"), [&[p50, cpu.clone()][..], &written].concat());
        let flushed = [&[rate(&nbdkit, 1.5), cpu][..], &written].concat();
        assert_eq!(aims_of("4 KiB random write + flush each, queue 1"), flushed);
        assert_eq!(aims_of("128 KiB sequential write, queue 16"), [rate(&nbdkit, 0.8)]);
        assert_eq!(aims_of("4 KiB random write, queue 32, lean client, steady state"), written);
        assert_eq!(aims_of("128 KiB sequential read, queue 16, cache cold"), []);
    }

    #[test]
    fn what_runs_beside_other_things_is_compared_with_a_row_that_is_there() {
        let aims = aims_of("4 KiB random read, queue 8, beside sealing, gc and scrub");
        let [(Metric::P99Us, Beside::Ourselves(alone), Goal::AtMost(3.0))] = &aims[..] else { panic!("{aims:?}") };
        assert!(CASES.into_iter().any(|case| case.name() == *alone), "there is no row {alone}");
    }
}
