//! Volumes out of a data directory that cannot be used any more, without any cluster (design section 8).
//!
//! A salvage reads and never writes: give it a disk that refuses to be written
//! ([`SystemDisk::open_read_only`](crate::disk::SystemDisk::open_read_only)). It needs no index, and believes none:
//!
//! 1. All packs are read, batch header by batch header: which chunk is where. Checkpoints say which roots volumes had; of
//!    nodes the tops are noted, so that roots are found which no volume claims: snapshots, where the metadata is lost.
//! 2. What else speaks of volumes is added: records of the index, headers of journals, the metadata if the caller has it.
//! 3. For each volume the newest contents are found (`choice`), and what its journal adds to them.
//! 4. [`Salvage::extract`] writes contents to an image, and lists what is lost. Each chunk is read from any place that says
//!    to hold it and hashes to its id.
//!
//! Whatever is in the data directory: this comes to an end, does not panic, and what it does not report as lost is right.

mod choice;
mod chunks;
mod extract;
mod found;
mod lenient;
mod lost;
mod scan;
#[cfg(test)]
mod tests;
mod volumes;

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::sync::Arc;

use sterna_types::{BLOCK_SIZE, BLOCKS_PER_SEGMENT, ByteSize, ChunkId, Root, SegmentIndex, VolumeId, VolumeSize};

use crate::chunk_store::index::Index;
use crate::disk::Disk;
use crate::map::{self, MAX_SEGMENTS, NodeCache};
use crate::progress::Watcher;
use crate::volume::Tail;
use chunks::FoundChunks;
pub use extract::Extracted;
use extract::{Use, go_through};
pub use found::{
    Contents, FoundDamage, FoundJournal, FoundVolume, JournalOnTop, NamedSnapshot, NamedVolume, Source, Version,
};
pub use lost::{LostCause, LostRange};
use scan::scan;
use volumes::{Sources, records};

/// How much a salvage may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SalvageOptions {
    /// Bytes of memory for the table of chunks. A chunk takes 32 bytes, and up to an eighth more.
    pub table_bytes: u64,
    /// Bytes of memory for nodes and manifests.
    pub node_cache_bytes: u64,
}

impl Default for SalvageOptions {
    /// 4 GiB: 3.5 TiB of data in chunks of 32 KiB. 64 MiB of map, as a node has them.
    fn default() -> Self {
        Self { table_bytes: 4 << 30, node_cache_bytes: 64 << 20 }
    }
}

/// What is in a data directory, as far as it can be read.
#[derive(Debug)]
pub struct Salvage {
    disk: Arc<dyn Disk>,
    chunks: FoundChunks,
    nodes: NodeCache,
    volumes: Vec<FoundVolume>,
    unclaimed: Vec<Root>,
    damages: Vec<FoundDamage>,
}

/// Why a data directory could not be read. That something in it is damaged is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SalvageError {
    /// The table of chunks would become too large.
    #[error("the chunks do not fit into a table of {limit_bytes} bytes: allow it more memory")]
    TooManyChunks {
        /// How large it may become.
        limit_bytes: u64,
    },
    /// It was told to stop.
    #[error("the salvage was stopped")]
    Stopped,
}

/// Why contents could not be extracted. That a part of them is lost is none.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The image could not be written.
    #[error("the image cannot be written: {0}")]
    Write(#[source] io::Error),
    /// It was told to stop.
    #[error("it was stopped; the image is not complete")]
    Stopped,
}

impl Salvage {
    /// Reads the data directory on `disk`, which nobody else changes meanwhile. `index` is its index, where there is one that
    /// can be opened; `names` is what the metadata says, where it can be read.
    ///
    /// # Errors
    /// [`SalvageError`].
    pub fn open(
        disk: Arc<dyn Disk>,
        index: Option<Arc<dyn Index>>,
        names: &[NamedVolume],
        options: &SalvageOptions,
        watcher: Watcher<'_>,
    ) -> Result<Self, SalvageError> {
        let scanned = scan(&disk, index.clone(), options, watcher)?;
        let (chunks, mut damages) = (scanned.chunks, scanned.damages);
        let records = index.map(|index| records(&index, &mut damages)).unwrap_or_default();
        let sources = Sources { disk: &disk, checkpoints: scanned.checkpoints, records, names };
        let nodes = NodeCache::new(options.node_cache_bytes);
        let volumes = sources.volumes(&chunks, &nodes, &mut damages);
        let unclaimed = unclaimed(scanned.tops, &volumes);
        Ok(Self { disk, chunks, nodes, volumes, unclaimed, damages })
    }

    /// The volumes of which something is here, by id.
    pub fn volumes(&self) -> &[FoundVolume] {
        &self.volumes
    }

    /// The volume with this id.
    pub fn volume(&self, id: VolumeId) -> Option<&FoundVolume> {
        self.volumes.iter().find(|volume| volume.id == id)
    }

    /// Roots whose top is here, and that no version of a volume and no snapshot claims: of snapshots where the metadata is
    /// not known, of imports and seals that were cut off, and of what was deleted and not yet collected. Newest last, and
    /// the newest 4,096 only.
    pub fn unclaimed(&self) -> &[Root] {
        &self.unclaimed
    }

    /// The contents of a root of which nothing else is known. The image ends with the last data that the map speaks of.
    pub fn contents_of(&self, root: Root) -> Contents {
        let mut end_block = 1;
        let mut from = SegmentIndex(0);
        while let Some(next) = map::segments(&self.chunks, &self.nodes, root, from..SegmentIndex(MAX_SEGMENTS)).next() {
            match next {
                Ok((segment, id)) => {
                    let manifest = map::manifest(&self.chunks, &self.nodes, id, segment);
                    let blocks =
                        manifest.ok().and_then(|manifest| manifest.extents().last().map(|last| last.end_block()));
                    end_block = segment.0 * BLOCKS_PER_SEGMENT + blocks.map_or(BLOCKS_PER_SEGMENT, u64::from);
                    from = SegmentIndex(segment.0 + 1);
                }
                Err(error) => {
                    from = crate::verify::unreadable(&error, from).end;
                    end_block = from.0 * BLOCKS_PER_SEGMENT;
                }
            }
        }
        Contents { root, size: size_of_blocks(end_block), tail: Tail::EMPTY, journal: None }
    }

    /// What in the data directory could not be used, the first 4,096 of it. Not all of it has to concern a volume.
    pub fn damages(&self) -> &[FoundDamage] {
        &self.damages
    }

    /// Says what of these contents is lost. Reads the map; of the data it only looks whether something says where it is, with
    /// `check_data` it reads that too.
    ///
    /// # Errors
    /// [`ExtractError::Stopped`].
    pub fn examine(
        &self,
        contents: &Contents,
        check_data: bool,
        watcher: Watcher<'_>,
    ) -> Result<Extracted, ExtractError> {
        go_through(self, contents, if check_data { Use::Verify } else { Use::Look }, watcher)
    }

    /// Writes contents to `image`, an empty file. What is lost is a hole there, as what never was. Durable on return.
    ///
    /// # Errors
    /// [`ExtractError`]; then the image is not complete.
    pub fn extract(&self, contents: &Contents, image: &File, watcher: Watcher<'_>) -> Result<Extracted, ExtractError> {
        image.set_len(contents.size.bytes().0).map_err(ExtractError::Write)?;
        let extracted = go_through(self, contents, Use::Write(image), watcher)?;
        image.sync_all().map_err(ExtractError::Write)?;
        Ok(extracted)
    }
}

fn unclaimed(mut tops: Vec<ChunkId>, volumes: &[FoundVolume]) -> Vec<Root> {
    let versions = volumes.iter().flat_map(|volume| volume.versions.iter().map(|version| version.root));
    let snapshots = volumes.iter().flat_map(|volume| volume.snapshots.iter().map(|snapshot| snapshot.root));
    let claimed: HashSet<ChunkId> = versions.chain(snapshots).filter_map(Root::top).collect();
    tops.retain(|top| !claimed.contains(top));
    scan::keep_newest(&mut tops);
    tops.into_iter().map(Root::at).collect()
}

/// Maps end where the largest volume does.
fn size_of_blocks(blocks: u64) -> VolumeSize {
    let bytes = ByteSize((blocks.max(1) * BLOCK_SIZE).min(VolumeSize::MAX.0));
    VolumeSize::try_from(bytes).expect("whole blocks, at least one and no more than the largest volume has")
}
