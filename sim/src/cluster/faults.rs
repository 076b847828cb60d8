//! What is done to a cluster: the faults that the campaign of real processes has a plan for, and in place of those that only a real
//! process has, some that only a simulation can have.
//!
//! Each fault is a task while it lasts, and holds the parts that it is about.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use sterna_storage_node::disk::simulated::CrashMode;
use sterna_tests::faults::history::{FaultRecord, Record};
use sterna_tests::faults::plan::{Fault, Part, Plan, Strike};
use sterna_tests::random::Random;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::failover::Failovers;
use super::members::Succession;
use super::world::{Act, World};
use crate::site::Stop;
use crate::surroundings::{Clocks, clocks, now_ns, set_clocks};

/// Something that is done to the cluster, and undone after a while.
#[derive(Clone, Debug)]
enum Harm {
    /// That of a plan.
    Planned(Fault),
    /// Power is lost at a site, and what was not durable there with it.
    PowerLoss(usize),
    /// Two sites together are cut off from all others.
    Apart(usize, usize),
    /// The time of day of a site is wrong by so much.
    DayJumps(usize, i64),
    /// The disk of a site takes up to so long for everything.
    SlowDisk(usize, Duration),
}

/// Inflicts all faults of a plan, and those that come in place of some.
pub(super) struct Faults {
    pub(super) world: Rc<World>,
    pub(super) failovers: Rc<Failovers>,
    nodes: Vec<Arc<Mutex<()>>>,
    pairs: BTreeMap<Pair, Arc<Mutex<()>>>,
}

/// What lies between two nodes, the lower one first.
type Pair = (usize, usize);

impl Faults {
    pub(super) fn new(world: &Rc<World>, failovers: &Rc<Failovers>) -> Rc<Self> {
        let count = world.places.len();
        let pairs = (0..count).flat_map(|low| (low + 1..count).map(move |high| (low, high)));
        Rc::new(Self {
            world: Rc::clone(world),
            failovers: Rc::clone(failovers),
            nodes: (0..count).map(|_| Arc::default()).collect(),
            pairs: pairs.map(|pair| (pair, Arc::default())).collect(),
        })
    }

    /// Inflicts them, and returns when the last is over.
    pub(super) async fn inflict(self: &Rc<Self>) {
        let shape = self.world.shape;
        let sites = u8::try_from(self.world.places.len()).unwrap_or(u8::MAX);
        let with_members: Vec<_> = (0..shape.places).filter(|place| shape.copies(*place).count > 1).collect();
        let plan = Plan::with_members(shape.seed, shape.faults, sites, &with_members);
        let (begun, mut random, mut under_way) = (Instant::now(), Random::new(!shape.seed), JoinSet::new());
        for planned in plan.faults {
            sleep_until(begun + Duration::from_millis(planned.begins_ms) * shape.stretch).await;
            let (own, draw) = (Rc::clone(self), random.bits());
            under_way.spawn_local(async move {
                let harm = own.choose(planned.fault, &mut Random::new(draw));
                own.one(planned.number, harm, Duration::from_millis(planned.lasts_ms), draw).await;
            });
        }
        while under_way.join_next().await.is_some() {}
    }

    /// What is done in place of a planned fault, if it is not that.
    fn choose(&self, fault: Fault, random: &mut Random) -> Harm {
        match fault {
            Fault::Kill { site } if self.world.shape.power_is_lost => Harm::PowerLoss(site.into()),
            Fault::Pause { site } => {
                let site = usize::from(site);
                let other = (site + 1) % self.world.places.len();
                match random.below(3) {
                    0 => Harm::Apart(site, other),
                    // Back no further than certificates are dated.
                    1 => Harm::DayJumps(site, i64::try_from(random.below(DAY_JUMP_MS)).unwrap_or(0) - BACK_AT_MOST_MS),
                    _ => Harm::SlowDisk(site, Duration::from_millis(1 + random.below(SLOWEST_DISK_MS))),
                }
            }
            // A plan has a volume for each site.
            Fault::Failover { volume, ahead, by } => {
                let (places, sites) = (self.world.shape.places, self.world.places.len());
                let is_any = usize::from(places) > sites;
                let drawn = if is_any { u8::try_from(random.below(places.into())).unwrap_or(0) } else { volume };
                Harm::Planned(Fault::Failover { volume: self.world.standing(drawn % places), ahead, by })
            }
            Fault::Member { volume, turn, behind, behind_ms, by } => {
                Harm::Planned(Fault::Member { volume: self.world.standing(volume), turn, behind, behind_ms, by })
            }
            fault => Harm::Planned(fault),
        }
    }

    async fn one(&self, number: u32, harm: Harm, lasts: Duration, draw: u64) {
        let shown = match &harm {
            Harm::Planned(fault) => fault.to_string(),
            other => format!("{other:?}"),
        };
        let _parts = self.hold(&harm).await;
        self.world.tell(&format!("fault {number}: {shown}, for {} ms", lasts.as_millis()));
        let began_ns = now_ns();
        let stop = if self.world.shape.power_is_lost { power_loss(draw) } else { Stop::Kill };
        let planned = match harm {
            Harm::Planned(fault) => {
                self.planned(&fault, lasts, stop, draw).await;
                Some(fault)
            }
            Harm::PowerLoss(site) => {
                self.stop(site, stop, lasts).await;
                Some(Fault::Kill { site: u8::try_from(site).unwrap_or(u8::MAX) })
            }
            Harm::Apart(one, other) => {
                self.cut(&self.ways_around(one, other), lasts, draw).await;
                None
            }
            Harm::DayJumps(site, ms) => {
                set_clocks(site, Clocks { day_is_off_ms: ms, ..clocks(site) });
                None
            }
            Harm::SlowDisk(site, takes) => {
                set_clocks(site, Clocks { disk_takes: takes, ..clocks(site) });
                sleep(lasts).await;
                set_clocks(site, Clocks { disk_takes: Duration::ZERO, ..clocks(site) });
                None
            }
        };
        if let Some(fault) = planned {
            self.world.record(Record::Fault(FaultRecord { number, fault, began_ns, ended_ns: now_ns() }));
        }
        self.world.tell(&format!("fault {number} is over"));
    }

    async fn planned(&self, fault: &Fault, lasts: Duration, stop: Stop, draw: u64) {
        match *fault {
            Fault::Cut { from, to, one_way: true } => {
                self.world.act(Act::CutOneWay(from.into(), to.into()));
                sleep(lasts).await;
                self.world.act(Act::Heal(from.into(), to.into()));
            }
            Fault::Cut { from, to, one_way: false } => self.cut(&[(from.into(), to.into())], lasts, draw).await,
            Fault::Isolate { site } => self.cut(&self.ways_of(site.into()), lasts, draw).await,
            Fault::Slow { from, to, delay_ms, .. } => {
                self.world.act(Act::Slow(from.into(), to.into(), Duration::from_millis(delay_ms)));
                sleep(lasts).await;
                self.world.act(Act::Slow(from.into(), to.into(), super::DELAY));
            }
            Fault::Kill { site } | Fault::Pause { site } => self.stop(site.into(), stop, lasts).await,
            Fault::Restart { site } => self.restart(site.into()).await,
            Fault::Failover { volume, ahead, by } => {
                let again = draw.is_multiple_of(4);
                self.fail_over(volume, ahead, by, lasts, stop, again).await;
            }
            Fault::Member { volume, turn, behind, behind_ms, by } => {
                let behind_for = Duration::from_millis(behind_ms);
                self.go_on(Succession { volume, turn, behind, behind_for, by, lasts }, stop, draw).await;
            }
        }
    }

    /// Strikes the owner of a volume, and asks another node to go on, until it does or the time is over; `again` that one is struck in its
    /// turn, before anybody has come to it.
    async fn fail_over(&self, volume: u8, ahead: u8, by: Strike, lasts: Duration, stop: Stop, again: bool) {
        let _turn = self.failovers.turn(volume).await;
        if self.world.is_closed(volume) {
            return;
        }
        let Some(owner) = self.failovers.owner(volume).await else { return };
        let heir = (owner + usize::from(ahead)) % self.world.places.len();
        if heir == owner {
            return;
        }
        let ways = self.ways_of(owner);
        let _nodes = (self.node(owner.min(heir)).await, self.node(owner.max(heir)).await);
        let mut held = Vec::new();
        if by != Strike::Kill {
            for (low, high) in &ways {
                held.push(self.pair(*low, *high).await);
            }
        }
        match by {
            Strike::Kill => self.down(owner, stop),
            Strike::Pause | Strike::Isolate => {
                ways.iter().for_each(|&(one, other)| self.world.act(Act::Cut(one, other)));
            }
        }
        let until = Instant::now() + lasts;
        let has_failed_over = self.insist(volume, heir, until).await;
        let again = again && has_failed_over;
        if again {
            self.down(heir, stop);
        } else if has_failed_over {
            // The owner of before is back when somebody has written at its successor's.
            sleep_until(until.max(Instant::now() + LEAST_HEIR)).await;
        }
        match by {
            Strike::Kill => self.world.act(Act::Start(owner)),
            Strike::Pause | Strike::Isolate => {
                ways.iter().for_each(|&(one, other)| self.world.act(Act::Heal(one, other)));
            }
        }
        if again {
            // Two of three decide nothing while they are both down.
            let next = (0..self.world.places.len()).find(|place| *place != owner && *place != heir);
            if let Some(next) = next {
                self.insist(volume, next, Instant::now() + lasts).await;
            }
            self.world.act(Act::Start(heir));
        }
        self.failovers.take_down(volume).await;
    }

    /// Asks a node to go on with a volume until it does or the time is over; whether it does.
    pub(super) async fn insist(&self, volume: u8, heir: usize, until: Instant) -> bool {
        while Instant::now() < until {
            sleep(AGAIN).await;
            if self.failovers.fail_over(volume, heir).await {
                return true;
            }
        }
        false
    }

    /// What lies between some nodes is held up, or lost.
    async fn cut(&self, ways: &[Pair], lasts: Duration, draw: u64) {
        let is_lost = draw.is_multiple_of(2);
        for &(one, other) in ways {
            self.world.act(if is_lost { Act::Cut(one, other) } else { Act::Hold(one, other) });
        }
        sleep(lasts).await;
        for &(one, other) in ways {
            self.world.act(if is_lost { Act::Heal(one, other) } else { Act::Release(one, other) });
        }
    }

    pub(super) fn down(&self, node: usize, stop: Stop) {
        self.world.asks.borrow_mut()[node] = None;
        self.world.act(Act::Stop(node, stop));
    }

    async fn stop(&self, node: usize, stop: Stop, lasts: Duration) {
        self.down(node, stop);
        sleep(lasts).await;
        self.world.act(Act::Start(node));
    }

    /// Ends a node in good order, and starts it again. One that does not come to its end is killed.
    async fn restart(&self, node: usize) {
        let end = self.world.ends.borrow_mut()[node].take();
        if let Some(end) = end {
            // It may have been stopped, and not be up again.
            let _ = end.send(());
        }
        sleep(RESTART).await;
        self.down(node, Stop::Kill);
        sleep(AGAIN).await;
        self.world.act(Act::Start(node));
    }

    fn ways(&self, is_cut: impl Fn(usize, usize) -> bool) -> Vec<Pair> {
        self.pairs.keys().copied().filter(|(low, high)| is_cut(*low, *high)).collect()
    }

    pub(super) fn ways_of(&self, node: usize) -> Vec<Pair> {
        self.ways(|low, high| low == node || high == node)
    }

    /// What lies between two nodes together and all others.
    fn ways_around(&self, one: usize, other: usize) -> Vec<Pair> {
        let is_either = |node: usize| node == one || node == other;
        self.ways(|low, high| is_either(low) != is_either(high))
    }

    /// Holds what a fault is about, always in the same order, so that no two wait for each other.
    async fn hold(&self, harm: &Harm) -> Vec<OwnedMutexGuard<()>> {
        let sites = u8::try_from(self.world.places.len()).unwrap_or(u8::MAX);
        let (mut nodes, mut pairs) = (Vec::new(), Vec::new());
        match harm {
            Harm::Planned(fault) => {
                for part in fault.parts(sites) {
                    match part {
                        Part::Node(node) => nodes.push(usize::from(node)),
                        Part::Pair(low, high) => pairs.push((usize::from(low), usize::from(high))),
                        Part::Owner(_) => {}
                    }
                }
            }
            Harm::PowerLoss(node) | Harm::DayJumps(node, _) | Harm::SlowDisk(node, _) => nodes.push(*node),
            Harm::Apart(one, other) => {
                pairs = self.ways_around(*one, *other);
            }
        }
        let mut held = Vec::new();
        for node in nodes {
            held.push(self.node(node).await);
        }
        pairs.sort_unstable();
        for (low, high) in pairs {
            held.push(self.pair(low, high).await);
        }
        held
    }

    pub(super) async fn node(&self, node: usize) -> OwnedMutexGuard<()> {
        Arc::clone(&self.nodes[node]).lock_owned().await
    }

    pub(super) async fn pair(&self, low: usize, high: usize) -> OwnedMutexGuard<()> {
        Arc::clone(&self.pairs[&(low, high)]).lock_owned().await
    }
}

fn power_loss(draw: u64) -> Stop {
    let mode = CrashMode::ALL[usize::try_from(draw % 3).unwrap_or(0)];
    Stop::PowerLoss(draw, mode)
}

/// Between two attempts at a failover.
pub(super) const AGAIN: Duration = Duration::from_millis(150);
/// After a failover, before its owner of before is back: a few requests' time.
pub(super) const LEAST_HEIR: Duration = Duration::from_millis(500);
/// For a node to end in good order.
const RESTART: Duration = Duration::from_secs(3);
/// Certificates are valid from ten minutes before they were signed.
const BACK_AT_MOST_MS: i64 = 9 * 60 * 1_000;
/// Two days.
const DAY_JUMP_MS: u64 = 2 * 24 * 3_600 * 1_000;
const SLOWEST_DISK_MS: u64 = 250;
