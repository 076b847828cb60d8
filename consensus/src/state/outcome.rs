//! What came of a command.

use serde::{Deserialize, Serialize};
use sterna_types::{Epoch, NodeId, VolumeId};

use super::layout::LayoutRevision;
use super::refusal::Refusal;
use super::session::{SessionLength, SessionNumber};

/// What a command that was carried out has brought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// Done; there is nothing more to say.
    Done,
    /// A volume was made.
    Created {
        /// Its id.
        volume: VolumeId,
        /// Its first epoch.
        epoch: Epoch,
    },
    /// Roots were published, but for these.
    Published {
        /// The volumes whose roots were refused, in the command's order, and why.
        refused: Vec<(VolumeId, Refusal)>,
    },
    /// What replicas hold was noted, but for these.
    Reported {
        /// The volumes whose reports were refused, in the command's order, and why.
        refused: Vec<(VolumeId, Refusal)>,
    },
    /// Handoffs have ended as was asked for, but for these. Since version 4 of the metadata.
    HandoffsEnded {
        /// The volumes whose handoffs have not, in the command's order, and why.
        refused: Vec<(VolumeId, Refusal)>,
    },
    /// A node was let in.
    Admitted {
        /// Its id.
        node: NodeId,
    },
    /// A session was opened or renewed.
    Session {
        /// Which.
        number: SessionNumber,
        /// How long it lasts, counted from before the request was sent.
        length: SessionLength,
    },
    /// Something happened to the layout.
    Layout {
        /// Its revision since.
        revision: LayoutRevision,
    },
    /// A volume has another owner, or its owner has taken it back.
    TakenOver {
        /// The epoch that began with that.
        epoch: Epoch,
    },
}
