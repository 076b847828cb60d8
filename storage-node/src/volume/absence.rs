//! What a volume needs and this node does not have.
//!
//! A volume that was handed over is served before all of it has arrived. Whoever meets something that is not here, a guest's
//! read, a write of a part of a block, a seal, gives up with an [`Absence`] that names it; whoever may wait has the volume's
//! [`Supply`] bring it, and then the same is done again. So nothing that is absent is ever taken for zeroes, and no thread waits
//! for a network.

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use sterna_types::DeviceError;

use super::error::VolumeError;
use super::storage::lock;
use super::volume::Volume;
use crate::chunk_store::ChunkKind;
use crate::gaps::Wanted;
use crate::map::{MapError, Part};

/// What is needed, and not here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Absence {
    /// Chunks, each once: parts of the map, and data, in the order of the volume.
    pub chunks: Vec<Wanted>,
    /// Blocks of the tail of a handoff, in order.
    pub blocks: Vec<Range<u64>>,
}

/// Whether anybody waits for what is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Somebody does.
    Waited,
    /// Somebody is expected to need it soon: it comes behind what is waited for, and is tried once.
    Ahead,
}

/// Brings what a volume lacks.
pub trait Supply: fmt::Debug + Send + Sync + 'static {
    /// Has what is absent brought here: its chunks are in the store, and its blocks in the volume, on return, as far as they
    /// were still needed. Who asks for the same meanwhile waits for the same.
    ///
    /// # Errors
    /// What the volume's client is to be told: nobody has it, or it did not come in time.
    ///
    /// # Cancel safety
    /// May be dropped at any time; others who wait for the same go on.
    fn bring<'a>(&'a self, volume: &'a Arc<Volume>, absence: Absence, urgency: Urgency) -> Supplied<'a>;
}

/// See [`Supply::bring`].
pub type Supplied<'a> = Pin<Box<dyn Future<Output = Result<(), DeviceError>> + Send + 'a>>;

impl Absence {
    /// These chunks.
    pub(super) fn of_chunks(chunks: impl IntoIterator<Item = Wanted>) -> Self {
        let mut absence = Self::default();
        absence.add_chunks(chunks);
        absence
    }

    /// Whether nothing is absent.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.blocks.is_empty()
    }

    /// Takes another one's in, which lies behind it.
    pub(super) fn add(&mut self, other: Self) {
        self.add_chunks(other.chunks);
        self.blocks.extend(other.blocks);
    }

    fn add_chunks(&mut self, chunks: impl IntoIterator<Item = Wanted>) {
        let mut known: HashSet<_> = self.chunks.iter().copied().collect();
        self.chunks.extend(chunks.into_iter().filter(|chunk| known.insert(*chunk)));
    }

    /// The same as an error; nothing where it is empty.
    pub(super) fn into_result(self) -> Result<(), VolumeError> {
        if self.is_empty() { Ok(()) } else { Err(VolumeError::Absent(Box::new(self))) }
    }
}

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blocks: u64 = self.blocks.iter().map(|blocks| blocks.end - blocks.start).sum();
        match (self.chunks.first(), self.chunks.len(), blocks) {
            (Some(one), 1, 0) => write!(f, "chunk {} is", one.id),
            (_, chunks, 0) => write!(f, "{chunks} chunks are"),
            (_, 0, blocks) => write!(f, "{blocks} blocks are"),
            (_, chunks, blocks) => write!(f, "{chunks} chunks and {blocks} blocks are"),
        }
    }
}

impl VolumeError {
    /// Whether the reason is that something is absent.
    pub(super) fn is_absence(&self) -> bool {
        matches!(self, Self::Absent(_) | Self::Map(MapError::Missing { .. }))
    }

    /// What is absent, where that is the reason.
    pub fn absence(&self) -> Option<Absence> {
        match self {
            Self::Absent(absence) => Some((**absence).clone()),
            Self::Map(MapError::Missing { part: Part { id, level, .. } }) => {
                let kind = if level.is_some() { ChunkKind::Node } else { ChunkKind::Manifest };
                Some(Absence::of_chunks([Wanted { id: *id, kind }]))
            }
            _ => None,
        }
    }
}

impl Volume {
    /// Has what is absent brought by `supply` from now on; by nobody, where that is `None`.
    pub fn set_supply(&self, supply: Option<Arc<dyn Supply>>) {
        *lock(&self.supply) = supply;
    }

    /// Has what is absent, where that is the reason of the error, brought here.
    ///
    /// # Errors
    /// The error, where it has another reason, or there is nobody to bring anything; else those of [`Supply::bring`].
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub(super) async fn bring(self: &Arc<Self>, error: VolumeError, urgency: Urgency) -> Result<(), DeviceError> {
        let supply = lock(&self.supply).clone();
        if error.is_absence() {
            self.bringing.note(urgency);
        }
        match (error.absence(), supply) {
            (Some(absence), Some(supply)) => supply.bring(self, absence, urgency).await,
            _ => Err(error.into()),
        }
    }

    /// Does what may meet something that is absent; again, once that has been brought, until it is done.
    ///
    /// # Errors
    /// Those of `carry_out`; that something is absent, and nobody brings it.
    ///
    /// # Cancel safety
    /// May be dropped between two tries.
    pub(super) async fn with_all_it_needs<T, F>(
        self: &Arc<Self>,
        urgency: Urgency,
        carry_out: impl Fn() -> F,
    ) -> Result<T, DeviceError>
    where
        F: Future<Output = Result<T, VolumeError>>,
    {
        for _ in 0..MAX_ROUNDS {
            match carry_out().await {
                Ok(done) => return Ok(done),
                Err(error) => self.bring(error, urgency).await?,
            }
        }
        let what = format!("what it needs is still not here after it was brought {MAX_ROUNDS} times");
        Err(DeviceError::Io(std::io::Error::other(what)))
    }
}

/// The map is four parts deep, then come the data; what was brought may be collected before it is used, now and then.
const MAX_ROUNDS: usize = 32;
