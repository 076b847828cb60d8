//! A handoff as each of its two nodes sees it: what a node promises about it, durably, and what it may do then (design
//! section 5).
//!
//! ```text
//! node A, the owner                                node B, where the volume goes
//! ─────────────────                                ─────────────────────────────
//! serves e ──Released(h)──> serves nothing         serves nothing ──Activated(h)──> serves e+1, commits
//!     └──────Aborting(h)──> serves e, aborts            └───────────Declined(h)──> serves nothing, declines
//! ```
//!
//! **Promises.** Before it does what stands behind the arrow, a node makes the [`Pledge`] on it durable, and then it never makes
//! another one about the same handoff. So A has either released the volume or aborts, and B has either accepted it or
//! declines, whatever is lost, repeated or late, and however often each of them starts again.
//!
//! **The end.** A handoff has ended when the metadata says so, and not before: commit, abort, decline and takeover are decided by
//! [`Ownership`]. A pledge about a handoff that has ended binds nobody any more.
//!
//! What a node knows of the metadata is what it had applied when its lease was last prolonged, or something newer; that this
//! is new enough is shown by `tests/src/model`.
//!
//! Pure: nothing here sends, waits or writes.

use serde::{Deserialize, Serialize};
use sterna_types::{Epoch, NodeId};

use crate::state::ownership::{HandoffNumber, Ownership};

/// What a node has promised about one handoff of a volume. Only the newest one counts: a later handoff begins when the one
/// before has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pledge {
    /// Which handoff.
    pub handoff: HandoffNumber,
    /// What it does about it, and nothing else.
    pub choice: Choice,
}

/// The ways of a handoff at one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// The owner gives the volume away, and acknowledges nothing more in its epoch unless the other node declines.
    Released,
    /// The owner keeps it, and never releases it in this handoff.
    Aborting,
    /// The other node has taken it, and serves it in the next epoch.
    Activated,
    /// The other node does not take it, and never does in this handoff.
    Declined,
}

/// A node's part in the ownership of one volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder {
    /// Which node.
    pub node: NodeId,
    /// Its newest pledge, as it is on its disk.
    pub pledge: Option<Pledge>,
}

impl Holder {
    /// The epoch in which this node may serve the volume while its lease lasts; `None` where it may not. `view` is what it knows of
    /// the metadata, at least what it had applied when its lease was last prolonged: so it knows of every handoff that it has
    /// promised something about.
    pub fn serves(&self, view: &Ownership) -> Option<Epoch> {
        match view.under_way() {
            None => (view.owner == self.node).then_some(view.epoch),
            Some((handoff, _)) if view.owner == self.node => {
                (self.choice(handoff) != Some(Choice::Released)).then_some(view.epoch)
            }
            Some((handoff, to)) => {
                (to == self.node && self.choice(handoff) == Some(Choice::Activated)).then(|| view.epoch.next())
            }
        }
    }

    /// The pledge with which this node, the owner, releases the volume; it is made durable before anybody is told. `None` where
    /// it may not.
    pub fn may_release(&self, view: &Ownership) -> Option<Pledge> {
        let handoff = self.own_handoff(view)?;
        matches!(self.choice(handoff), None | Some(Choice::Released)).then_some(handoff.with(Choice::Released))
    }

    /// The pledge with which this node, the owner, aborts; it is made durable before that is proposed. `None` where it may not.
    pub fn may_abort(&self, view: &Ownership) -> Option<Pledge> {
        let handoff = self.own_handoff(view)?;
        matches!(self.choice(handoff), None | Some(Choice::Aborting)).then_some(handoff.with(Choice::Aborting))
    }

    /// The pledge with which this node accepts a volume that was `released` to it; it is made durable before anything is
    /// acknowledged. `None` where it may not.
    pub fn receive(&self, view: &Ownership, released: HandoffNumber) -> Option<Pledge> {
        let handoff = self.others_handoff(view)?;
        let is_free = matches!(self.choice(handoff), None | Some(Choice::Activated));
        (released == handoff && is_free).then_some(handoff.with(Choice::Activated))
    }

    /// The pledge with which this node, where the volume was to go, declines; it is made durable before that is proposed. `None`
    /// where it may not.
    pub fn may_decline(&self, view: &Ownership) -> Option<Pledge> {
        let handoff = self.others_handoff(view)?;
        matches!(self.choice(handoff), None | Some(Choice::Declined)).then_some(handoff.with(Choice::Declined))
    }

    /// What it has promised about this handoff.
    fn choice(&self, handoff: HandoffNumber) -> Option<Choice> {
        self.pledge.filter(|pledge| pledge.handoff == handoff).map(|pledge| pledge.choice)
    }

    /// The handoff by which this node gives the volume away.
    fn own_handoff(&self, view: &Ownership) -> Option<HandoffNumber> {
        let (handoff, _) = view.under_way()?;
        (view.owner == self.node).then_some(handoff)
    }

    /// The handoff by which this node is to be given the volume.
    fn others_handoff(&self, view: &Ownership) -> Option<HandoffNumber> {
        let (handoff, to) = view.under_way()?;
        (to == self.node).then_some(handoff)
    }
}

impl HandoffNumber {
    /// A pledge about it.
    fn with(self, choice: Choice) -> Pledge {
        Pledge { handoff: self, choice }
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
        let mut view = Ownership::of(A, E);
        view.begin(A, FIRST, B).unwrap();
        view
    }

    fn holder(node: NodeId, choice: impl Into<Option<Choice>>) -> Holder {
        Holder { node, pledge: choice.into().map(|choice| FIRST.with(choice)) }
    }

    #[test]
    fn one_of_two_nodes_serves_and_the_pledges_say_which() {
        let serves = |node, choice| holder(node, choice).serves(&moving());
        assert_eq!((serves(A, None), serves(B, None), serves(C, None)), (Some(E), None, None));
        assert_eq!((serves(A, Some(Choice::Released)), serves(B, Some(Choice::Activated))), (None, Some(E.next())));
        assert_eq!((serves(A, Some(Choice::Aborting)), serves(B, Some(Choice::Declined))), (Some(E), None));
    }

    #[test]
    fn a_pledge_binds_until_the_handoff_has_ended() {
        let owned = Ownership { moving_to: None, ..moving() };
        assert_eq!(holder(A, Choice::Released).serves(&owned), Some(E), "the other node has declined");
        let taken_over = Ownership { owner: C, epoch: E.next().next(), ..owned };
        assert_eq!(holder(B, Choice::Activated).serves(&taken_over), None);
    }

    #[test]
    fn no_node_promises_two_things_about_one_handoff() {
        let view = moving();
        let choices = [None, Some(Choice::Released), Some(Choice::Aborting)];
        let of_owner = choices.map(|choice| holder(A, choice)).map(|holder| {
            (holder.may_release(&view).map(|pledge| pledge.choice), holder.may_abort(&view).map(|pledge| pledge.choice))
        });
        let (released, aborting) = (Some(Choice::Released), Some(Choice::Aborting));
        assert_eq!(of_owner, [(released, aborting), (released, None), (None, aborting)]);
        let choices = [None, Some(Choice::Activated), Some(Choice::Declined)];
        let of_other = choices.map(|choice| holder(B, choice)).map(|holder| {
            (holder.receive(&view, FIRST).map(|pledge| pledge.choice), holder.may_decline(&view).map(|p| p.choice))
        });
        let (activated, declined) = (Some(Choice::Activated), Some(Choice::Declined));
        assert_eq!(of_other, [(activated, declined), (activated, None), (None, declined)]);
        assert_eq!(holder(B, None).receive(&view, HandoffNumber::NONE), None, "that handoff has ended");
    }

    #[test]
    fn the_steps_are_for_the_two_nodes_of_the_handoff() {
        let view = moving();
        for node in [B, C] {
            assert_eq!((holder(node, None).may_release(&view), holder(node, None).may_abort(&view)), (None, None));
        }
        for node in [A, C] {
            let holder = holder(node, None);
            assert_eq!((holder.receive(&view, FIRST), holder.may_decline(&view)), (None, None));
        }
        assert_eq!(holder(A, None).may_release(&Ownership::of(A, E)), None, "there is none");
    }
}
