//! Does what a plan says: to nodes by signals, to the network by the wan. Each fault has a thread of its own while it lasts,
//! and holds the parts that it is about: where the machine does not keep up, the next one for the same part waits.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::failover::Failovers;
use super::history::{FaultRecord, Record, Recorder, now_ns};
use super::members::Succession;
use super::plan::{Fault, Part, Plan, Planned, Strike};
use super::stage::PATIENCE;
use crate::node::Node;
use crate::wan::{Change, Loss, Rate, Wan, Ways};

/// What faults are inflicted on.
pub(super) struct Target<'a> {
    pub(super) sites: &'a [&'a str],
    /// One at each site.
    pub(super) nodes: &'a [Mutex<Node>],
    pub(super) wan: &'a Wan,
    /// Of each two sites, the lower one first, held by the fault that is there.
    pub(super) pairs: &'a [(u8, u8, Mutex<()>)],
    /// What lies between any two sites, without a fault.
    pub(super) usual: Change,
    pub(super) failovers: &'a Failovers,
    pub(super) recorder: &'a Recorder,
    /// Set where something has failed: then no more faults come.
    pub(super) stop: &'a AtomicBool,
}

impl Target<'_> {
    /// Inflicts all of a plan, and returns when the last fault is over. `tell` is shown each as it begins.
    ///
    /// # Errors
    /// A fault cannot be inflicted or undone, or a node has ended by itself.
    pub(super) fn inflict(&self, plan: &Plan, tell: impl Fn(&Planned)) -> Result<()> {
        let (begun, under_way, failed) = (Instant::now(), AtomicUsize::new(0), Mutex::new(None));
        thread::scope(|scope| {
            for planned in &plan.faults {
                let begins = Duration::from_millis(planned.begins_ms);
                while begun.elapsed() < begins || under_way.load(Ordering::Relaxed) >= MOST_AT_ONCE {
                    thread::sleep(TICK);
                }
                if self.stop.load(Ordering::Relaxed) {
                    break;
                }
                tell(planned);
                self.start(scope, planned, &under_way, &failed);
            }
        });
        let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        failed.map_or(Ok(()), Err)
    }

    fn start<'scope, 'env>(
        &'env self,
        scope: &'scope Scope<'scope, 'env>,
        planned: &'env Planned,
        under_way: &'env AtomicUsize,
        failed: &'env Mutex<Option<anyhow::Error>>,
    ) {
        under_way.fetch_add(1, Ordering::Relaxed);
        scope.spawn(move || {
            let done = self.one(planned).with_context(|| format!("fault {}: {}", planned.number, planned.fault));
            if let Err(error) = done {
                self.stop.store(true, Ordering::Relaxed);
                lock(failed).get_or_insert(error);
            }
            under_way.fetch_sub(1, Ordering::Relaxed);
        });
    }

    fn one(&self, planned: &Planned) -> Result<()> {
        let (number, fault, lasts) = (planned.number, planned.fault.clone(), Duration::from_millis(planned.lasts_ms));
        let sites = u8::try_from(self.sites.len())?;
        let parts = fault.parts(sites);
        let _held: Vec<_> = parts.iter().filter_map(|part| self.pair(*part)).collect();
        let mut began_ns = now_ns();
        match fault {
            Fault::Kill { site } | Fault::Pause { site } | Fault::Restart { site } => {
                let mut node = self.node(site)?;
                began_ns = now_ns();
                strike_node(&fault, &mut node, lasts)?;
            }
            Fault::Failover { volume, ahead, by } => self.fail_over(volume, ahead, by, lasts)?,
            Fault::Member { volume, turn, behind, behind_ms, by } => {
                let behind_for = Duration::from_millis(behind_ms);
                self.go_on(Succession { volume, turn, behind, behind_for, by, lasts })?;
            }
            Fault::Cut { .. } | Fault::Isolate { .. } | Fault::Slow { .. } => self.strike_network(&fault, lasts)?,
        }
        let ended_ns = now_ns();
        self.recorder.add(Record::Fault(FaultRecord { number, fault, began_ns, ended_ns }))
    }

    /// A node, which nothing else strikes meanwhile, and which runs.
    pub(super) fn node(&self, site: u8) -> Result<MutexGuard<'_, Node>> {
        let mut node = lock(&self.nodes[usize::from(site)]);
        let ended = node.has_ended()?;
        ensure!(ended.is_none(), "the node has ended by itself ({ended:?}): {}", node.log());
        Ok(node)
    }

    /// Strikes the owner of a volume, and asks another node to go on, until it does or the time is over.
    fn fail_over(&self, volume: u8, ahead: u8, by: Strike, lasts: Duration) -> Result<()> {
        let mut asked = lock(&self.failovers.volumes[usize::from(volume)]);
        let owner = self.failovers.owner(volume, PATIENCE)?;
        let sites = u8::try_from(self.sites.len())?;
        let heir = (owner + ahead) % sites;
        let cut = if by == Strike::Isolate { Fault::Isolate { site: owner }.parts(sites) } else { Vec::new() };
        let _held: Vec<_> = cut.iter().filter_map(|part| self.pair(*part)).collect();
        // Always in this order, so that no two wait for each other.
        let mut low = self.node(owner.min(heir))?;
        let mut high = self.node(owner.max(heir))?;
        let struck = if owner < heir { &mut *low } else { &mut *high };
        self.strike(by, owner, struck)?;
        let begun = Instant::now();
        let mut failed_over = Ok(false);
        while begun.elapsed() < lasts && matches!(failed_over, Ok(false)) {
            thread::sleep(AGAIN);
            failed_over = self.failovers.fail_over(&mut asked, volume, heir);
        }
        if matches!(failed_over, Ok(true)) {
            // The owner of before wakes when somebody has written at its successor's.
            thread::sleep(lasts.saturating_sub(begun.elapsed()).max(LEAST_HEIR));
        }
        self.undo(by, owner, struck)?;
        failed_over?;
        self.failovers.take_down(&mut asked, volume, self.recorder).map(drop)
    }

    /// Strikes an owner.
    pub(super) fn strike(&self, by: Strike, owner: u8, node: &mut Node) -> Result<()> {
        match by {
            Strike::Kill => node.kill(),
            Strike::Pause => node.signal(Signal::STOP),
            Strike::Isolate => {
                self.others(owner).try_for_each(|other| self.wan.cut(self.site(owner), other, Ways::Both))
            }
        }
    }

    /// Has it go on.
    pub(super) fn undo(&self, by: Strike, owner: u8, node: &mut Node) -> Result<()> {
        match by {
            Strike::Kill => node.run(),
            Strike::Pause => node.signal(Signal::CONT),
            Strike::Isolate => {
                self.others(owner).try_for_each(|other| self.wan.heal(self.site(owner), other, Ways::Both))
            }
        }
    }

    fn others(&self, site: u8) -> impl Iterator<Item = &str> {
        self.sites.iter().copied().filter(move |other| *other != self.site(site))
    }

    pub(super) fn pair(&self, part: Part) -> Option<MutexGuard<'_, ()>> {
        let Part::Pair(one, other) = part else { return None };
        let pair = self.pairs.iter().find(|(from, to, _)| (*from, *to) == (one, other))?;
        Some(lock(&pair.2))
    }

    fn strike_network(&self, fault: &Fault, lasts: Duration) -> Result<()> {
        match *fault {
            Fault::Cut { from, to, one_way } => {
                let (from, to) = (self.site(from), self.site(to));
                self.wan.cut(from, to, if one_way { Ways::OneWay } else { Ways::Both })?;
                thread::sleep(lasts);
                self.wan.heal(from, to, Ways::Both)
            }
            Fault::Isolate { site } => {
                self.others(site).try_for_each(|other| self.wan.cut(self.site(site), other, Ways::Both))?;
                thread::sleep(lasts);
                self.others(site).try_for_each(|other| self.wan.heal(self.site(site), other, Ways::Both))
            }
            Fault::Slow { from, to, delay_ms, rate_kbit, loss_percent } => {
                let rate = rate_kbit.map_or(Ok(Rate::UNLIMITED), |rate| format!("{rate}K").parse())?;
                let loss: Loss = format!("{loss_percent}%").parse()?;
                let delay = Some(format!("{delay_ms}ms").parse()?);
                let slow = Change { delay, rate: Some(rate), loss: Some(loss), queue: None };
                let (from, to) = (self.site(from), self.site(to));
                self.wan.set(from, to, Ways::Both, &slow)?;
                thread::sleep(lasts);
                self.wan.set(from, to, Ways::Both, &self.usual)
            }
            Fault::Kill { .. }
            | Fault::Pause { .. }
            | Fault::Restart { .. }
            | Fault::Failover { .. }
            | Fault::Member { .. } => Ok(()),
        }
    }

    pub(super) fn site(&self, site: u8) -> &str {
        self.sites[usize::from(site)]
    }
}

fn strike_node(fault: &Fault, node: &mut Node, lasts: Duration) -> Result<()> {
    match fault {
        Fault::Kill { .. } => {
            node.kill()?;
            thread::sleep(lasts);
            node.run()
        }
        Fault::Pause { .. } => {
            node.signal(Signal::STOP)?;
            thread::sleep(lasts);
            node.signal(Signal::CONT)
        }
        Fault::Restart { .. } => {
            node.terminate()?;
            node.run()
        }
        Fault::Cut { .. }
        | Fault::Isolate { .. }
        | Fault::Slow { .. }
        | Fault::Failover { .. }
        | Fault::Member { .. } => Ok(()),
    }
}

pub(super) fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Between two attempts at a failover.
pub(super) const AGAIN: Duration = Duration::from_millis(150);
/// After a failover, before its owner of before is back: a few requests' time.
pub(super) const LEAST_HEIR: Duration = Duration::from_millis(500);
const TICK: Duration = Duration::from_millis(2);
/// Faults that are there or wait: more only wait for each other.
const MOST_AT_ONCE: usize = 6;
