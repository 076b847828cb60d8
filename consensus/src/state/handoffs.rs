//! What the commands about handoffs say of each of their volumes.

use serde::{Deserialize, Serialize};
use sterna_types::VolumeId;

use super::ownership::HandoffNumber;
use super::volume::Published;

/// A handoff of one volume; see [`Command::BeginHandoff`](super::command::Command::BeginHandoff).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeHandoff {
    /// The volume.
    pub volume: VolumeId,
    /// Which of its handoffs.
    pub handoff: HandoffNumber,
}

/// A volume that a node has been given; see [`Command::CommitHandoff`](super::command::Command::CommitHandoff).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceivedVolume {
    /// The volume.
    pub volume: VolumeId,
    /// Which of its handoffs.
    pub handoff: HandoffNumber,
    /// What it was when its former owner released it, as far as that had sealed it. Whatever is newer came along, and is with the
    /// new owner only. From then on the former owner publishes nothing newer than this: the handoff could not be committed any more.
    pub contents: Published,
}
