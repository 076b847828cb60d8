//! Which faults there are, when, and for how long: drawn from a seed beforehand. The same seed gives the same plan; what the
//! cluster makes of it depends on the machine as well.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::random::Random;

/// Something that is done to the cluster, and undone after a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum Fault {
    /// Nothing passes between two sites.
    Cut {
        /// One of them.
        from: u8,
        /// The other one.
        to: u8,
        /// Whether only what the first sends to the second is lost.
        one_way: bool,
    },
    /// Nothing passes between a site and any other.
    Isolate {
        /// Which.
        site: u8,
    },
    /// Packets between two sites are late, few at a time, or lost.
    Slow {
        /// One of them.
        from: u8,
        /// The other one.
        to: u8,
        /// One way.
        delay_ms: u64,
        /// Kilobits per second; `None` for no limit.
        rate_kbit: Option<u64>,
        /// Of a hundred packets.
        loss_percent: u64,
    },
    /// The node ends where it stands (SIGKILL), and is started again after a while.
    Kill {
        /// At this site.
        site: u8,
    },
    /// The node stands still (SIGSTOP), and goes on after a while (SIGCONT).
    Pause {
        /// At this site.
        site: u8,
    },
    /// The node is asked to end (SIGTERM), and is started again when it has.
    Restart {
        /// At this site.
        site: u8,
    },
    /// The owner of a volume is struck until its session has ended, and the volume goes on at another site meanwhile.
    Failover {
        /// Which volume.
        volume: u8,
        /// Where it goes on: so many sites behind the one where it is then, counted round.
        ahead: u8,
        /// How its owner is struck.
        by: Strike,
    },
}

/// How an owner comes to lose its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strike {
    /// It is killed.
    Kill,
    /// It stands still, and wakes in a later epoch.
    Pause,
    /// Nothing passes between it and the others.
    Isolate,
}

/// When a fault comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Counted from 1.
    pub number: u32,
    /// What it is.
    pub fault: Fault,
    /// After the beginning of the campaign, or later where the machine does not keep up.
    pub begins_ms: u64,
    /// From its beginning to its end.
    pub lasts_ms: u64,
}

/// All faults of a campaign, in the order in which they begin.
///
/// Invariant: by the plan's times, no two faults at once are about the same node, nor about what lies between the same two
/// sites.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The faults.
    pub faults: Vec<Planned>,
}

impl Plan {
    /// So many faults for a cluster of so many sites.
    pub fn new(seed: u64, faults: u32, sites: u8) -> Self {
        let mut draw = Draw { random: Random::new(seed), sites, busy: Vec::new(), now_ms: 0 };
        Self { faults: (1..=faults).map(|number| draw.next(number)).collect() }
    }

    /// When the last one is over.
    pub fn lasts_ms(&self) -> u64 {
        self.faults.iter().map(|planned| planned.begins_ms + planned.lasts_ms).max().unwrap_or(0)
    }
}

/// What a fault is about: a node, or what lies between two sites.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The node at this site.
    Node(u8),
    /// What lies between these two, the lower one first.
    Pair(u8, u8),
    /// Who owns this volume. What else a failover is about is known only when it comes.
    Owner(u8),
}

impl Fault {
    /// What it is about, of a cluster of so many sites, in order.
    pub fn parts(&self, sites: u8) -> Vec<Part> {
        let pair = |one: u8, other: u8| Part::Pair(one.min(other), one.max(other));
        let mut parts = match *self {
            Self::Cut { from, to, .. } | Self::Slow { from, to, .. } => vec![pair(from, to)],
            Self::Isolate { site } => {
                (0..sites).filter(|&other| other != site).map(|other| pair(site, other)).collect()
            }
            Self::Kill { site } | Self::Pause { site } | Self::Restart { site } => vec![Part::Node(site)],
            Self::Failover { volume, .. } => vec![Part::Owner(volume)],
        };
        parts.sort_unstable();
        parts
    }

    /// In one word, or two.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Cut { one_way: false, .. } => "cut",
            Self::Cut { one_way: true, .. } => "one-way cut",
            Self::Isolate { .. } => "isolate",
            Self::Slow { .. } => "slow",
            Self::Kill { .. } => "kill",
            Self::Pause { .. } => "pause",
            Self::Restart { .. } => "restart",
            Self::Failover { .. } => "failover",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut { from, to, one_way: false } => write!(f, "cut {from} and {to}"),
            Self::Cut { from, to, one_way: true } => write!(f, "cut from {from} to {to}"),
            Self::Isolate { site } => write!(f, "isolate {site}"),
            Self::Slow { from, to, delay_ms, rate_kbit, loss_percent } => {
                let rate = rate_kbit.map_or("no limit".to_owned(), |rate| format!("{rate} kbit/s"));
                write!(f, "slow {from} and {to}: {delay_ms} ms, {rate}, {loss_percent} % lost")
            }
            Self::Kill { site } => write!(f, "kill {site}"),
            Self::Pause { site } => write!(f, "pause {site}"),
            Self::Restart { site } => write!(f, "restart {site}"),
            Self::Failover { volume, ahead, by } => write!(f, "volume {volume} fails over by {ahead}: {by:?}"),
        }
    }
}

struct Draw {
    random: Random,
    sites: u8,
    /// What is not free, and until when.
    busy: Vec<(Part, u64)>,
    now_ms: u64,
}

impl Draw {
    fn next(&mut self, number: u32) -> Planned {
        self.now_ms += self.between(LEAST_GAP_MS, MOST_GAP_MS);
        let fault = loop {
            self.busy.retain(|(_, until)| *until > self.now_ms);
            let drawn: Vec<_> = (0..DRAWS).map(|_| self.fault()).collect();
            match drawn.into_iter().find(|fault| self.is_free(fault)) {
                Some(fault) => break fault,
                None => self.now_ms = self.busy.iter().map(|(_, until)| *until).min().unwrap_or(self.now_ms),
            }
        };
        let lasts_ms = match fault {
            Fault::Failover { .. } => self.between(LEAST_FAILOVER_MS, MOST_FAILOVER_MS),
            _ => self.duration(),
        };
        let until = self.now_ms + lasts_ms + REST_MS;
        self.busy.extend(fault.parts(self.sites).into_iter().map(|part| (part, until)));
        Planned { number, fault, begins_ms: self.now_ms, lasts_ms }
    }

    fn is_free(&self, fault: &Fault) -> bool {
        let parts = fault.parts(self.sites);
        !self.busy.iter().any(|(part, _)| parts.contains(part))
    }

    fn fault(&mut self) -> Fault {
        let site = self.site();
        let to = (site + 1 + self.index(self.sites - 1)) % self.sites;
        match self.random.below(100) {
            0..12 => Fault::Cut { from: site, to, one_way: false },
            12..27 => Fault::Cut { from: site, to, one_way: true },
            27..41 => Fault::Isolate { site },
            41..53 => Fault::Slow {
                from: site,
                to,
                delay_ms: self.between(20, 400),
                rate_kbit: if self.random.below(2) == 0 { None } else { Some(self.between(100, 5_000)) },
                loss_percent: [0, 1, 5, 20][usize::from(self.index(4))],
            },
            53..66 => Fault::Kill { site },
            66..82 => Fault::Pause { site },
            82..90 => Fault::Restart { site },
            // There is a volume for each site.
            _ => Fault::Failover {
                volume: site,
                ahead: 1 + self.index(self.sites - 1),
                by: [Strike::Kill, Strike::Pause, Strike::Isolate][usize::from(self.index(3))],
            },
        }
    }

    /// Half of them are over before anybody has noticed, a sixth lasts for longer than any session.
    fn duration(&mut self) -> u64 {
        match self.random.below(6) {
            0..3 => self.between(50, 800),
            3..5 => self.between(800, 2_500),
            _ => self.between(2_500, 5_500),
        }
    }

    fn site(&mut self) -> u8 {
        self.index(self.sites)
    }

    fn index(&mut self, end: u8) -> u8 {
        u8::try_from(self.random.below(end.into())).unwrap_or(0)
    }

    fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.random.below(most - least + 1)
    }
}

/// From the beginning of one fault to that of the next: on average, nearly two faults are there at a time.
const LEAST_GAP_MS: u64 = 100;
const MOST_GAP_MS: u64 = 2_100;
/// Long enough for most sessions to end, and for somebody to be told so.
const LEAST_FAILOVER_MS: u64 = 4_000;
const MOST_FAILOVER_MS: u64 = 7_000;
/// What was struck is left alone for so long, or it would never do anything.
const REST_MS: u64 = 400;
/// Before the next fault has to wait for something to be free.
const DRAWS: u32 = 20;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_seed_gives_one_plan_and_another_seed_another() {
        let plan = Plan::new(7, 300, 3);
        assert_eq!(plan, Plan::new(7, 300, 3));
        assert_ne!(plan, Plan::new(8, 300, 3));
        assert_eq!(plan.faults[..100], Plan::new(7, 100, 3).faults[..]);
    }

    #[test]
    fn a_plan_has_all_kinds_of_faults_and_none_two_at_once_at_one_place() {
        let plan = Plan::new(1, 300, 3);
        let mut kinds: BTreeMap<_, u32> = BTreeMap::new();
        let mut until: BTreeMap<Part, u64> = BTreeMap::new();
        for Planned { fault, begins_ms, lasts_ms, .. } in &plan.faults {
            *kinds.entry(fault.kind()).or_default() += 1;
            for part in fault.parts(3) {
                let before = until.insert(part, begins_ms + lasts_ms);
                assert!(before.is_none_or(|before| before <= *begins_ms), "{fault} comes during another one");
            }
        }
        assert_eq!(kinds.len(), 8);
        assert!(kinds.values().all(|&count| count >= 15), "{kinds:?}");
    }

    #[test]
    fn what_is_between_two_sites_is_the_same_from_either_side() {
        let cut = |from, to| Fault::Cut { from, to, one_way: true }.parts(3);
        assert_eq!(cut(2, 0), cut(0, 2));
        assert_eq!(Fault::Isolate { site: 1 }.parts(3), [Part::Pair(0, 1), Part::Pair(1, 2)]);
    }
}
