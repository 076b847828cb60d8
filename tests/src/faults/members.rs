//! Has each of those that are in sync with a volume go on in its turn: first it falls behind what clients ask for, then the owner is struck,
//! at the moment at which an owner that acknowledged anything without it would have done so.

use std::sync::MutexGuard;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::inflict::{AGAIN, LEAST_HEIR, Target, lock};
use super::plan::{Behind, Fault, Strike};
use super::stage::PATIENCE;
use crate::node::Node;
use crate::wan::Ways;

/// Which of the members goes on, and how it comes to that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Succession {
    pub(super) volume: u8,
    pub(super) turn: u8,
    pub(super) behind: Behind,
    pub(super) behind_for: Duration,
    pub(super) by: Strike,
    /// Of the owner, from when it is struck on.
    pub(super) lasts: Duration,
}

impl Target<'_> {
    /// Does it. Where nobody is in sync for long, nothing.
    pub(super) fn go_on(&self, succession: Succession) -> Result<()> {
        let Succession { volume, turn, behind, behind_for, by, lasts } = succession;
        let mut asked = lock(&self.failovers.volumes[usize::from(volume)]);
        let (owner, members) = self.failovers.owner_and_members(volume, PATIENCE)?;
        let Some(&heir) = members.get(usize::from(turn) % members.len().max(1)) else { return Ok(()) };
        let sites = u8::try_from(self.sites.len())?;
        let is_cut = behind == Behind::Cut || by == Strike::Isolate;
        let cut = if is_cut { Fault::Isolate { site: owner }.parts(sites) } else { Vec::new() };
        let _held: Vec<_> = cut.iter().filter_map(|part| self.pair(*part)).collect();
        // Always in this order, so that no two wait for each other.
        let mut low = self.node(owner.min(heir))?;
        let mut high = self.node(owner.max(heir))?;
        let (owner_node, heir_node) = if owner < heir { (&mut low, &mut high) } else { (&mut high, &mut low) };
        self.fall_behind(behind, (owner, heir), heir_node)?;
        thread::sleep(behind_for);
        self.strike(by, owner, owner_node)?;
        self.catch_up(behind, by, (owner, heir), heir_node)?;
        let begun = Instant::now();
        let mut gone_on = Ok(false);
        while begun.elapsed() < lasts && matches!(gone_on, Ok(false)) {
            thread::sleep(AGAIN);
            gone_on = self.failovers.fail_over(&mut asked, volume, heir);
        }
        if matches!(gone_on, Ok(true)) {
            // The owner of before wakes when somebody has written at its successor's.
            thread::sleep(lasts.saturating_sub(begun.elapsed()).max(LEAST_HEIR));
        }
        self.undo(by, owner, owner_node)?;
        gone_on?;
        self.failovers.take_down(&mut asked, volume, self.recorder).map(drop)
    }

    fn fall_behind(&self, behind: Behind, (owner, heir): (u8, u8), node: &mut MutexGuard<'_, Node>) -> Result<()> {
        match behind {
            Behind::Cut => self.wan.cut(self.site(owner), self.site(heir), Ways::Both),
            Behind::Kill => node.kill(),
            Behind::Pause => node.signal(Signal::STOP),
            Behind::Anew => {
                node.kill()?;
                node.run()
            }
        }
        .with_context(|| format!("{heir} is to fall behind"))
    }

    /// What kept it behind is over, once the owner is struck.
    fn catch_up(
        &self,
        behind: Behind,
        by: Strike,
        (owner, heir): (u8, u8),
        node: &mut MutexGuard<'_, Node>,
    ) -> Result<()> {
        match behind {
            // The owner is cut off from it with all others.
            Behind::Cut if by == Strike::Isolate => Ok(()),
            Behind::Cut => self.wan.heal(self.site(owner), self.site(heir), Ways::Both),
            Behind::Kill => node.run(),
            Behind::Pause => node.signal(Signal::CONT),
            Behind::Anew => {
                node.kill()?;
                node.run()
            }
        }
        .with_context(|| format!("{heir} is to go on"))
    }
}
