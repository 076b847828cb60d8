//! What a source remembers of a migration, and what it tells of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::memory::MemoryProgress;

/// What a source remembers of a migration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutgoingRecord {
    /// The VM.
    pub vm: String,
    /// The site that it leaves.
    pub from_site: String,
    /// The site that it goes to.
    pub site: String,
    /// The node beside the destination's migrator.
    pub node: String,
    /// That node's number.
    pub node_id: u64,
    /// Where the destination's migrator listens.
    pub address: String,
    /// Whether the VM was stopped for it, or was about to be.
    pub is_stopped: bool,
    /// Whether it has ended, and only the destination has to hear that.
    #[serde(default)]
    pub is_ended: bool,
}

/// How far a migration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The destination is asked, and starts its QEMU.
    Preparing,
    /// Memory and volumes are brought there, and the VM runs.
    Bringing,
    /// The VM stands.
    Switching,
    /// What was done is undone.
    Undoing,
}

/// How far a migration is, with figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is done now.
    pub phase: Phase,
    /// What the VM has of memory, in bytes.
    pub memory_bytes: u64,
    /// What of it is to be sent still.
    pub memory_left_bytes: u64,
    /// What of the stream the destination has taken.
    pub sent_bytes: u64,
    /// What of the volumes was brought there.
    pub brought_bytes: u64,
    /// How fast the stream is taken, in bytes a second; 0 where it is not known yet.
    pub bytes_per_second: u64,
}

impl Progress {
    /// Before anything.
    pub const BEGINNING: Self = Self {
        phase: Phase::Preparing,
        memory_bytes: 0,
        memory_left_bytes: 0,
        sent_bytes: 0,
        brought_bytes: 0,
        bytes_per_second: 0,
    };
}

/// How a migration has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The VM runs at the destination.
    Moved,
    /// It runs where it was.
    Kept,
    /// Its QEMU has ended, and it runs nowhere.
    Lost,
}

/// How a migration has ended, and what it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How.
    pub end: End,
    /// Why it was given up, if it was.
    pub why: Option<String>,
    /// From its beginning to its end.
    pub took: Duration,
    /// From `stop` until the VM was known to run: there, or here again.
    pub stopped_for: Option<Duration>,
    /// How long QEMU says that it stood.
    pub downtime: Option<Duration>,
    /// What of the stream was taken at the destination.
    pub sent_bytes: u64,
    /// What was in it.
    pub memory: MemoryProgress,
    /// What of the volumes was brought there before their handoff.
    pub brought_bytes: u64,
    /// How long the volumes acknowledged nothing.
    pub volumes_paused: Option<Duration>,
    /// How long the VM waited at the destination for its volumes when all of its memory had come.
    pub waited_for_volumes: Option<Duration>,
}
