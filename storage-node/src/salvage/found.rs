//! What a salvage has found.

use std::fmt;

use sterna_types::{Epoch, Root, SnapshotName, VolumeId, VolumeName, VolumeSize};

use crate::journal::record::Sequence;
use crate::journal::{FileNumber, JournalDamage, Replay};
use crate::volume::{Tail, VolumeRecord};

/// What the metadata calls things, where it can be read.
#[derive(Clone, Debug)]
pub struct NamedVolume {
    /// Its id.
    pub id: VolumeId,
    /// What people call it.
    pub name: VolumeName,
    /// Its size.
    pub size: VolumeSize,
    /// Its published contents.
    pub root: Root,
    /// How often they had changed.
    pub generation: u64,
    /// The epoch then.
    pub epoch: Epoch,
    /// Its snapshots.
    pub snapshots: Vec<NamedSnapshot>,
}

/// A snapshot by the metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedSnapshot {
    /// What people call it.
    pub name: SnapshotName,
    /// Its contents.
    pub root: Root,
    /// The size of the volume then.
    pub size: VolumeSize,
}

/// What says that a volume once had certain contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A checkpoint in a pack.
    Checkpoint,
    /// The volume's record in the index.
    Index,
    /// The header of a file of its journal.
    Journal,
    /// The metadata.
    Metadata,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Checkpoint => "checkpoint",
            Self::Index => "index",
            Self::Journal => "journal",
            Self::Metadata => "metadata",
        })
    }
}

/// The contents that a volume had after a seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Names the contents.
    pub root: Root,
    /// How often they had changed.
    pub generation: u64,
    /// Under which epoch.
    pub epoch: Epoch,
    /// The volume's size then.
    pub size: VolumeSize,
    /// The newest journal record in them.
    pub sealed_through: Sequence,
    /// The journal file from which on later records are.
    pub replay_from: FileNumber,
    /// What says so.
    pub source: Source,
}

impl Version {
    /// What a record says; `None` where no volume can be of its size.
    pub(super) fn of(record: &VolumeRecord, source: Source) -> Option<Self> {
        let VolumeRecord { root, generation, epoch, size_bytes, sealed_through, replay_from, .. } = *record;
        let size = VolumeSize::try_from(sterna_types::ByteSize(size_bytes)).ok()?;
        Some(Self { root, generation, epoch, size, sealed_through, replay_from, source })
    }

    pub(super) fn of_metadata(named: &NamedVolume) -> Self {
        let NamedVolume { root, generation, epoch, size, .. } = *named;
        let (sealed_through, replay_from) = (Sequence(0), FileNumber(1));
        Self { root, generation, epoch, size, sealed_through, replay_from, source: Source::Metadata }
    }

    /// Whether it speaks of the same seal. The size in a journal's header may be newer.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.root == other.root && self.age() == other.age()
    }

    /// Grows from seal to seal.
    pub(super) fn age(&self) -> (Epoch, u64, Sequence) {
        (self.epoch, self.generation, self.sealed_through)
    }

    /// These contents, without anything of the journal.
    pub fn contents(&self) -> Contents {
        Contents { root: self.root, size: self.size, tail: Tail::EMPTY, journal: None }
    }
}

/// A volume of which something is here.
#[derive(Debug)]
pub struct FoundVolume {
    /// Its id.
    pub id: VolumeId,
    /// Its name, where the metadata is known and has it.
    pub name: Option<VolumeName>,
    /// The size that its image gets: the largest that the newest contents, the journal or the metadata say, as volumes grow
    /// and do not become smaller. `None` where nothing says one.
    pub size: Option<VolumeSize>,
    /// What its sealed contents were, newest first; the newest 256.
    pub versions: Vec<Version>,
    /// Which of the versions the newest contents stand on; `None` where nothing says what the volume was.
    pub newest: Option<usize>,
    /// Whether there was a newer version whose map is lost, as far as can be told.
    pub lost_a_newer_one: bool,
    /// What had not arrived from the node that the volume was handed over from.
    pub tail: Tail,
    /// What the journal adds to it.
    pub journal: FoundJournal,
    /// Its snapshots, where the metadata is known.
    pub snapshots: Vec<NamedSnapshot>,
}

/// What a volume's journal adds to its root.
#[derive(Debug, Default)]
pub struct FoundJournal {
    /// Records that are newer than the root, each in a row with the one before.
    pub records: u64,
    /// The newest of them; with none, the newest record that is sealed.
    pub last: Sequence,
    /// Set where records behind the last one are lost that were durable once: the newest of these.
    pub durable_once: Option<Sequence>,
    /// Whole records that are not in a row with the others. Unless records are lost they were never flushed.
    pub strays: u64,
    /// Files that are bad.
    pub damages: Vec<JournalDamage>,
}

impl FoundJournal {
    /// Whether acknowledged writes are missing, or may be.
    pub fn is_damaged(&self) -> bool {
        self.durable_once.is_some() || !self.damages.is_empty()
    }
}

impl FoundVolume {
    /// Whether acknowledged writes are missing, whatever the newest contents turn out to be.
    pub fn is_incomplete(&self) -> bool {
        self.newest.is_none() || self.lost_a_newer_one || self.journal.is_damaged()
    }

    /// The newest contents; `None` where nothing says what the volume was. `past_damage` takes the journal's strays too.
    pub fn contents(&self, past_damage: bool) -> Option<Contents> {
        let version = self.versions.get(self.newest?)?;
        let begin = Replay { volume: self.id, sealed_through: version.sealed_through, from: version.replay_from };
        let journal = Some(JournalOnTop { begin, past_damage });
        Some(Contents { root: version.root, size: self.size?, tail: self.tail.clone(), journal })
    }

    /// Versions that are newer than the one that the newest contents stand on: those that were never recorded, or whose map
    /// is lost.
    pub fn passed_over(&self) -> &[Version] {
        &self.versions[..self.newest.unwrap_or(0)]
    }
}

/// Something that can be written to an image: see [`Salvage::extract`](super::Salvage::extract).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The sealed contents.
    pub root: Root,
    /// The size of the image.
    pub size: VolumeSize,
    /// What is newer than the sealed contents, and not here.
    pub tail: Tail,
    /// The journal to put over them.
    pub journal: Option<JournalOnTop>,
}

/// A journal that is to be put over a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalOnTop {
    /// Whose it is, and where it goes on.
    pub begin: Replay,
    /// Whether records that are not in a row with the others are taken too.
    pub past_damage: bool,
}

impl From<&NamedSnapshot> for Contents {
    fn from(snapshot: &NamedSnapshot) -> Self {
        Self { root: snapshot.root, size: snapshot.size, tail: Tail::EMPTY, journal: None }
    }
}

/// Something in the data directory that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundDamage {
    /// A file or directory that the system does not let be read.
    Unreadable {
        /// Where it is, relative to the data directory.
        path: String,
        /// What the system said.
        what: String,
    },
    /// A pack with parts that belong to no batch: what a crash has left, or damaged headers.
    Unclaimed {
        /// Where it is, relative to the data directory.
        path: String,
        /// How much it is.
        bytes: u64,
    },
    /// A piece of the map or a checkpoint that is not what was stored.
    DamagedFrame {
        /// The pack, relative to the data directory.
        path: String,
        /// Its first byte there.
        offset: u32,
    },
    /// The index cannot be used, or a record in it.
    Index {
        /// What is wrong with it.
        what: String,
    },
}

impl fmt::Display for FoundDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, what } => write!(f, "{path}: {what}"),
            Self::Unclaimed { path, bytes } => write!(f, "{path}: {bytes} bytes belong to no batch of chunks"),
            Self::DamagedFrame { path, offset } => write!(f, "{path}: the piece of a map at {offset:#x} is damaged"),
            Self::Index { what } => write!(f, "the index: {what}"),
        }
    }
}
