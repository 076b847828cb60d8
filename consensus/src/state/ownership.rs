//! Who owns a volume, and how that passes on: the part of the metadata that every step of a handoff and of a failover goes
//! through (design section 5, with the mends of
//! `docs/decisions/0020-how-a-handoff-ends-is-decided-by-the-metadata.md`).
//!
//! ```text
//!                       ┌──abort (by A)────┐
//!                       ├──decline (by B)──┤
//!                       ▼                  │
//!                  Owned(A, e) ──begin──> Moving(A→B, e) ──commit (by B)──> Owned(B, e+1)
//!                       │                  │
//!                       └──take over──┐    └──take over──> Owned(C, e+2)
//!                                     └──> Owned(C, e+1)
//! ```
//!
//! Pure: what a node has promised about a handoff beside this is in [`crate::handoff`]. Both together are what
//! `tests/src/model` checks in every order of events.
//!
//! Invariants: the epoch never falls, and no epoch has two owners that may have written in it; handoffs are counted, and each
//! ends once; while one is under way only its two nodes may write.

use std::fmt;

use serde::{Deserialize, Serialize};
use sterna_types::{Epoch, NodeId};

/// The owner of a volume, or the two of a handoff.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ownership {
    /// The node that owns the volume; of a handoff, the one that gives it away.
    pub owner: NodeId,
    /// The epoch that the owner owns it in.
    pub epoch: Epoch,
    /// Of a handoff that is under way, the node that is to own it.
    pub moving_to: Option<NodeId>,
    /// The last handoff that was begun; [`HandoffNumber::NONE`] before the first.
    pub last_handoff: HandoffNumber,
}

/// Counts the handoffs of one volume, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HandoffNumber(pub u64);

impl HandoffNumber {
    /// Before the first.
    pub const NONE: Self = Self(0);

    /// The one after it.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for HandoffNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Why ownership does not pass on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum CannotPass {
    /// This is for the owner.
    #[error("node {given} asks, and node {owner} owns the volume")]
    NotOwner {
        /// Who asked.
        given: NodeId,
        /// Who owns it.
        owner: NodeId,
    },
    /// This is for the node that a handoff goes to.
    #[error("node {given} asks, and the handoff goes to another node")]
    NotRecipient {
        /// Who asked.
        given: NodeId,
    },
    /// A handoff goes to another node.
    #[error("node {node} owns the volume already")]
    ToItself {
        /// The owner.
        node: NodeId,
    },
    /// One at a time.
    #[error("a handoff to node {to} is under way: wait until it has ended")]
    HandoffUnderWay {
        /// Where it goes.
        to: NodeId,
    },
    /// It has ended, or has never begun.
    #[error("handoff {given} is not under way, nor the next one: look at who owns the volume now")]
    NotUnderWay {
        /// Of the request.
        given: HandoffNumber,
    },
    /// The volume has had another owner since.
    #[error("the volume is in epoch {current}, and epoch {given} was given")]
    WrongEpoch {
        /// Of the request.
        given: Epoch,
        /// The volume's.
        current: Epoch,
    },
    /// Somebody may still write.
    #[error("the session of node {node} has not ended")]
    Lives {
        /// Who.
        node: NodeId,
    },
}

impl Ownership {
    /// A volume's that `owner` owns in `epoch`, and that was never handed off.
    pub fn of(owner: NodeId, epoch: Epoch) -> Self {
        Self { owner, epoch, moving_to: None, last_handoff: HandoffNumber::NONE }
    }

    /// The handoff that is under way, and where it goes.
    pub fn under_way(&self) -> Option<(HandoffNumber, NodeId)> {
        self.moving_to.map(|to| (self.last_handoff, to))
    }

    /// The nodes that may write it: its owner, and the one that a handoff goes to.
    pub fn writers(&self) -> impl Iterator<Item = NodeId> + use<> {
        [Some(self.owner), self.moving_to].into_iter().flatten()
    }

    /// Begins handing the volume over from its owner `by` to `to`. `handoff` is the one after the last that `by` knows of, so
    /// that one which was begun, and has ended, is not begun again by the same request.
    ///
    /// # Errors
    /// Why it is refused; then nothing has changed. So for every other method.
    pub fn begin(&mut self, by: NodeId, handoff: HandoffNumber, to: NodeId) -> Result<(), CannotPass> {
        self.check_owner(by)?;
        if to == self.owner {
            return Err(CannotPass::ToItself { node: to });
        }
        if let Some(to) = self.moving_to {
            return Err(CannotPass::HandoffUnderWay { to });
        }
        if handoff != self.last_handoff.next() {
            return Err(CannotPass::NotUnderWay { given: handoff });
        }
        self.moving_to = Some(to);
        self.last_handoff = handoff;
        Ok(())
    }

    /// Ends a handoff: `by`, which serves the volume since it was released to it, owns it from now on.
    ///
    /// # Errors
    /// See [`Ownership::begin`].
    pub fn commit(&mut self, by: NodeId, handoff: HandoffNumber) -> Result<(), CannotPass> {
        self.check_recipient(by, handoff)?;
        *self = Self { owner: by, epoch: self.epoch.next(), moving_to: None, ..*self };
        Ok(())
    }

    /// Ends a handoff that its owner `by` has not released, and now never does.
    ///
    /// # Errors
    /// See [`Ownership::begin`].
    pub fn abort(&mut self, by: NodeId, handoff: HandoffNumber) -> Result<(), CannotPass> {
        self.check_under_way(handoff)?;
        self.check_owner(by)?;
        self.moving_to = None;
        Ok(())
    }

    /// Ends a handoff that the node which it goes to has not accepted, and now never does. The owner serves again, whether it
    /// has released the volume or not.
    ///
    /// # Errors
    /// See [`Ownership::begin`].
    pub fn decline(&mut self, by: NodeId, handoff: HandoffNumber) -> Result<(), CannotPass> {
        self.check_recipient(by, handoff)?;
        self.moving_to = None;
        Ok(())
    }

    /// Gives the volume to `heir` without those who may write it: `is_over` says of a node whether its session has ended.
    /// Where a handoff was under way, `e+1` may be written by then, and nobody may know: so the epoch after it begins.
    ///
    /// The node that a handoff goes to declines it first: it knows whether it has accepted, and nobody else does.
    ///
    /// # Errors
    /// See [`Ownership::begin`].
    pub fn take_over(
        &mut self,
        epoch: Epoch,
        heir: NodeId,
        is_over: impl Fn(NodeId) -> bool,
    ) -> Result<(), CannotPass> {
        self.check_epoch(epoch)?;
        if let Some(to) = self.moving_to.filter(|to| *to == heir) {
            return Err(CannotPass::HandoffUnderWay { to });
        }
        if self.moving_to.is_none() && heir == self.owner {
            return Err(CannotPass::ToItself { node: heir });
        }
        let mut others = self.writers().filter(|other| *other != heir);
        if let Some(node) = others.find(|other| !is_over(*other)) {
            return Err(CannotPass::Lives { node });
        }
        let begun = if self.moving_to.is_some() { self.epoch.next().next() } else { self.epoch.next() };
        *self = Self { owner: heir, epoch: begun, moving_to: None, ..*self };
        Ok(())
    }

    /// Whether this is the volume's epoch: what is published of another one is refused.
    ///
    /// # Errors
    /// It is not.
    pub fn check_epoch(&self, given: Epoch) -> Result<(), CannotPass> {
        if given == self.epoch { Ok(()) } else { Err(CannotPass::WrongEpoch { given, current: self.epoch }) }
    }

    /// Whether this node owns the volume.
    ///
    /// # Errors
    /// It does not.
    pub fn check_owner(&self, given: NodeId) -> Result<(), CannotPass> {
        if given == self.owner { Ok(()) } else { Err(CannotPass::NotOwner { given, owner: self.owner }) }
    }

    fn check_under_way(&self, given: HandoffNumber) -> Result<NodeId, CannotPass> {
        match self.under_way() {
            Some((handoff, to)) if handoff == given => Ok(to),
            _ => Err(CannotPass::NotUnderWay { given }),
        }
    }

    fn check_recipient(&self, given: NodeId, handoff: HandoffNumber) -> Result<(), CannotPass> {
        if self.check_under_way(handoff)? == given { Ok(()) } else { Err(CannotPass::NotRecipient { given }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);
    const C: NodeId = NodeId(3);
    const FIRST: HandoffNumber = HandoffNumber(1);
    const E: Epoch = Epoch::FIRST;

    fn moving() -> Ownership {
        let mut ownership = Ownership::of(A, E);
        ownership.begin(A, FIRST, B).unwrap();
        ownership
    }

    /// What becomes of `ownership`, or why nothing does; then nothing has changed.
    fn after(
        mut ownership: Ownership,
        change: impl FnOnce(&mut Ownership) -> Result<(), CannotPass>,
    ) -> Result<(NodeId, Epoch, Option<NodeId>), CannotPass> {
        let before = ownership;
        let changed = change(&mut ownership);
        assert!(changed.is_ok() || ownership == before);
        changed.map(|()| (ownership.owner, ownership.epoch, ownership.moving_to))
    }

    #[test]
    fn a_handoff_passes_the_volume_on_in_the_next_epoch() {
        assert_eq!(after(moving(), |o| o.commit(B, FIRST)), Ok((B, E.next(), None)));
        assert_eq!(after(moving(), |o| o.abort(A, FIRST)), Ok((A, E, None)));
        assert_eq!(after(moving(), |o| o.decline(B, FIRST)), Ok((A, E, None)));
    }

    #[test]
    fn each_step_is_for_one_node_and_one_handoff() {
        let none = HandoffNumber::NONE;
        assert_eq!(after(moving(), |o| o.commit(A, FIRST)), Err(CannotPass::NotRecipient { given: A }));
        assert_eq!(after(moving(), |o| o.decline(A, FIRST)), Err(CannotPass::NotRecipient { given: A }));
        assert_eq!(after(moving(), |o| o.abort(B, FIRST)), Err(CannotPass::NotOwner { given: B, owner: A }));
        assert_eq!(
            after(moving(), |o| o.commit(B, FIRST.next())),
            Err(CannotPass::NotUnderWay { given: FIRST.next() })
        );
        assert_eq!(after(moving(), |o| o.abort(A, none)), Err(CannotPass::NotUnderWay { given: none }));
        assert_eq!(after(moving(), |o| o.begin(A, FIRST.next(), C)), Err(CannotPass::HandoffUnderWay { to: B }));
        let owned = Ownership::of(A, E);
        assert_eq!(after(owned, |o| o.commit(B, none)), Err(CannotPass::NotUnderWay { given: none }));
        assert_eq!(after(owned, |o| o.begin(B, FIRST, C)), Err(CannotPass::NotOwner { given: B, owner: A }));
        assert_eq!(after(owned, |o| o.begin(A, FIRST, A)), Err(CannotPass::ToItself { node: A }));
        assert_eq!(after(owned, |o| o.begin(A, FIRST.next(), B)), Err(CannotPass::NotUnderWay { given: FIRST.next() }));
    }

    #[test]
    fn a_failover_waits_for_everybody_who_may_write() {
        let over = |nodes: &'static [NodeId]| move |node| nodes.contains(&node);
        let owned = Ownership::of(A, E);
        assert_eq!(after(owned, |o| o.take_over(E, C, over(&[B]))), Err(CannotPass::Lives { node: A }));
        assert_eq!(after(owned, |o| o.take_over(E, C, over(&[A]))), Ok((C, E.next(), None)));
        assert_eq!(after(owned, |o| o.take_over(E, A, over(&[A]))), Err(CannotPass::ToItself { node: A }));
        assert_eq!(after(moving(), |o| o.take_over(E, C, over(&[A]))), Err(CannotPass::Lives { node: B }));
        assert_eq!(after(moving(), |o| o.take_over(E, C, over(&[B]))), Err(CannotPass::Lives { node: A }));
        assert_eq!(after(moving(), |o| o.take_over(E, C, over(&[A, B]))), Ok((C, E.next().next(), None)));
        assert_eq!(after(moving(), |o| o.take_over(E, A, over(&[B]))), Ok((A, E.next().next(), None)));
        assert_eq!(after(moving(), |o| o.take_over(E, B, over(&[A]))), Err(CannotPass::HandoffUnderWay { to: B }));
        let wrong = CannotPass::WrongEpoch { given: E.next(), current: E };
        assert_eq!(after(owned, |o| o.take_over(E.next(), C, over(&[A]))), Err(wrong));
    }
}
