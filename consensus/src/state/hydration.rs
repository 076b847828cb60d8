//! What the owner of a volume still lacks after handoffs, and who keeps it meanwhile (design section 6).
//!
//! ```text
//! epoch 1   A owns the volume, and has all of it               sources: none
//! handoff to B: epoch 2 begins with what A had under r1        sources: A (epoch 1, r1)
//! handoff to C: epoch 3 begins with what B had under r2        sources: A (epoch 1, r1), B (epoch 2, r2)
//! C has fetched everything, and says so                        sources: none
//! ```
//!
//! A chunk that the owner lacks is at one of the sources. None of them collects what it has under its root, and none leaves the
//! cluster, as long as it is named.
//!
//! The owner itself may be among them, and a node may be twice: where a volume comes back to A before B has all of it, A has what
//! nobody else has, and does not see that it belongs to what B made of it before it has fetched B's part of the map.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sterna_types::{Epoch, NodeId, Root, SnapshotName};

use super::volume::Volume;
use crate::limits::MAX_SOURCES;

/// A node that has handed a volume over, and keeps what it had until the owner has everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Which.
    pub node: NodeId,
    /// The epoch that it owned the volume in, and that ended with the handoff.
    pub epoch: Epoch,
    /// What it handed over. What it lacked of this itself is at the other sources.
    pub root: Root,
}

impl Volume {
    /// Whether its owner has all of it, and no other node need keep anything for it.
    pub fn is_hydrated(&self) -> bool {
        self.sources.is_empty()
    }

    /// Whether there may be one more source: after a handoff there is.
    pub fn has_room_for_source(&self) -> bool {
        self.sources.len() < MAX_SOURCES
    }

    /// Notes that its owner has all of it, and of these snapshots. Who holds those because it once owned the volume, and keeps no
    /// replica, gives them up: it held them until somebody else does.
    pub(super) fn finish_hydration(&mut self, snapshots: &[SnapshotName]) {
        self.sources.clear();
        let owner = self.owner;
        let keepers: Vec<_> = self.replicas.values().map(|replica| replica.node).collect();
        for name in snapshots {
            self.snapshots.update(name, |snapshot| {
                let holders = &mut Arc::make_mut(snapshot).holders;
                // Where none is named, it is the owner already.
                if !holders.is_empty() {
                    holders.retain(|holder| keepers.contains(holder));
                    holders.insert(owner);
                }
            });
        }
    }

    /// Whether its sources can be what they are: nodes that owned it one after the other.
    pub(super) fn sources_are_in_order(&self) -> bool {
        let epochs = self.sources.iter().map(|source| source.epoch).chain([self.epoch]);
        epochs.is_sorted_by(|earlier, later| earlier < later)
    }
}
