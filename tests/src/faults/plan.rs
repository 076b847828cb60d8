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
    /// A node that is in sync with a volume falls behind what its clients ask for; then the owner is struck until its session has ended,
    /// and that node goes on.
    Member {
        /// Which volume.
        volume: u8,
        /// Which of those that are in sync then, counted round: one after the other.
        turn: u8,
        /// How it falls behind.
        behind: Behind,
        /// For so long, before the owner is struck.
        behind_ms: u64,
        /// How the owner is struck.
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

/// How a node that is in sync comes to lack what its owner has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Behind {
    /// Nothing passes between the two.
    Cut,
    /// It is killed, and started again when the owner is struck.
    Kill,
    /// It stands still until the owner is struck.
    Pause,
    /// It is killed and started again at once, and both of them are killed while it begins anew or when it has; then it starts once more.
    Anew,
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
        Self::with_members(seed, faults, sites, &[])
    }

    /// The same, where these volumes have others in sync with their owners: a part of the faults is for those.
    pub fn with_members(seed: u64, faults: u32, sites: u8, volumes: &[u8]) -> Self {
        let volumes = volumes.iter().map(|volume| (*volume, 0)).collect();
        let mut draw = Draw { random: Random::new(seed), sites, volumes, busy: Vec::new(), now_ms: 0 };
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
            Self::Failover { volume, .. } | Self::Member { volume, .. } => vec![Part::Owner(volume)],
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
            Self::Member { .. } => "member",
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
            Self::Member { volume, turn, behind, behind_ms, by } => {
                write!(
                    f,
                    "member {turn} of volume {volume} is behind ({behind:?}, {behind_ms} ms), and goes on: {by:?}"
                )
            }
        }
    }
}

struct Draw {
    random: Random,
    sites: u8,
    /// Those with nodes in sync, and how often one of these was to go on.
    volumes: Vec<(u8, u8)>,
    /// What is not free, and until when.
    busy: Vec<(Part, u64)>,
    now_ms: u64,
}

impl Draw {
    fn next(&mut self, number: u32) -> Planned {
        self.now_ms += self.between(LEAST_GAP_MS, MOST_GAP_MS);
        let mut fault = loop {
            self.busy.retain(|(_, until)| *until > self.now_ms);
            let drawn: Vec<_> = (0..DRAWS).map(|_| self.fault()).collect();
            match drawn.into_iter().find(|fault| self.is_free(fault)) {
                Some(fault) => break fault,
                None => self.now_ms = self.busy.iter().map(|(_, until)| *until).min().unwrap_or(self.now_ms),
            }
        };
        if let Fault::Member { volume, turn, .. } = &mut fault {
            for (_, turns) in self.volumes.iter_mut().filter(|(of, _)| of == volume) {
                *turn = *turns;
                *turns = turns.wrapping_add(1);
            }
        }
        let lasts_ms = match fault {
            Fault::Failover { .. } | Fault::Member { .. } => self.between(LEAST_FAILOVER_MS, MOST_FAILOVER_MS),
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
        if !self.volumes.is_empty() && self.random.below(100) < MEMBERS_PERCENT {
            return self.member();
        }
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

    fn member(&mut self) -> Fault {
        let volume = self.random.below(self.volumes.len() as u64);
        let volume = usize::try_from(volume).ok().and_then(|at| self.volumes.get(at)).map_or(0, |(volume, _)| *volume);
        let behind = [Behind::Cut, Behind::Cut, Behind::Kill, Behind::Pause, Behind::Anew];
        Fault::Member {
            volume,
            turn: 0,
            behind: behind[usize::from(self.index(5))],
            behind_ms: self.between(LEAST_BEHIND_MS, MOST_BEHIND_MS),
            by: [Strike::Kill, Strike::Kill, Strike::Pause, Strike::Isolate][usize::from(self.index(4))],
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
/// Of a hundred faults, where there are volumes with nodes in sync.
const MEMBERS_PERCENT: u64 = 25;
/// From a few requests to less than what an owner bears with.
const LEAST_BEHIND_MS: u64 = 100;
const MOST_BEHIND_MS: u64 = 4_500;
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
    fn every_member_of_a_volume_goes_on_in_turn() {
        let plan = Plan::with_members(1, 300, 3, &[1, 2]);
        let turns = |volume: u8| -> Vec<u8> {
            let turn = |planned: &Planned| match planned.fault {
                Fault::Member { volume: of, turn, .. } if of == volume => Some(turn),
                _ => None,
            };
            plan.faults.iter().filter_map(turn).collect()
        };
        for volume in [1, 2] {
            assert!(turns(volume).len() >= 20, "{:?}", turns(volume));
            assert!(turns(volume).into_iter().eq(0..u8::try_from(turns(volume).len()).unwrap()));
        }
        assert_eq!(turns(0), Vec::<u8>::new());
    }

    #[test]
    fn what_is_between_two_sites_is_the_same_from_either_side() {
        let cut = |from, to| Fault::Cut { from, to, one_way: true }.parts(3);
        assert_eq!(cut(2, 0), cut(0, 2));
        assert_eq!(Fault::Isolate { site: 1 }.parts(3), [Part::Pair(0, 1), Part::Pair(1, 2)]);
    }
}
