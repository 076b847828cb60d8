//! The sending end: reads what was asked for, and compresses it.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use sterna_types::ChunkId;
use zstd::zstd_safe::{self, CCtx, CParameter};

use super::{BUNDLE_BYTES, Bundle, Excerpt, MAX_BELOW, MAX_UNASKED_BLOCKS, MAX_UNASKED_MANIFESTS, PREFIX_BYTES};
use crate::chunk_store::{ChunkKind, ChunkStore, StoreError};
use crate::gaps::{Gap, Wanted, new_data};
use crate::map::{Manifest, Node, kind_of_children};

/// Packs what another site lacks, bundle by bundle.
#[derive(Debug)]
pub struct Packer {
    store: Arc<dyn ChunkStore>,
    left: VecDeque<Gap>,
    /// How many nodes and manifests may still be sent that nobody has asked for.
    below: usize,
    /// What data there is below: sent too if it turns out to be little.
    data: LittleData,
}

/// Data that is sent unasked where it is less than it would cost to ask.
#[derive(Debug)]
enum LittleData {
    /// So much so far.
    Little { manifests: usize, gaps: Vec<Gap>, blocks: u64 },
    /// It is not sent.
    Much,
}

impl Packer {
    /// Packs these, which nobody has read yet; where `with_below`, what is below those that are nodes too.
    pub fn new(store: Arc<dyn ChunkStore>, gaps: Vec<Gap>, with_below: bool) -> Self {
        let data = if with_below {
            LittleData::Little { manifests: 0, gaps: Vec::new(), blocks: 0 }
        } else {
            LittleData::Much
        };
        Self { store, left: gaps.into(), below: if with_below { MAX_BELOW } else { 0 }, data }
    }

    /// The next bundle; `None` when there is nothing more. What is not here is passed by, and so is, with a line in the log, what is here
    /// and damaged. Blocks.
    ///
    /// # Errors
    /// [`StoreError`]: the store cannot be read.
    pub fn next_bundle(&mut self) -> Result<Option<Bundle>, StoreError> {
        let (mut lengths, mut contents) = (Vec::new(), Vec::new());
        let (mut prefix, mut prefix_bytes) = (Vec::new(), Vec::new());
        while contents.len() < BUNDLE_BYTES
            && let Some(gap) = self.next_gap()
        {
            let Some(bytes) = self.sound(gap.wanted.id)? else { continue };
            let mut before = Vec::new();
            for excerpt in &gap.predecessors {
                let part = excerpt.read(&*self.store).or_else(unless_damaged)?;
                before.extend(part.map(|part| (excerpt, part)));
            }
            let needed: usize = before.iter().map(|(_, part)| part.len()).sum();
            if !lengths.is_empty() && prefix_bytes.len() + needed > PREFIX_BYTES {
                self.left.push_front(gap);
                break;
            }
            lengths.push(u32::try_from(bytes.len()).expect("a chunk is at most MAX_CHUNK_BYTES long"));
            contents.extend_from_slice(&bytes);
            for (excerpt, part) in before {
                // By itself a chunk may have had more in its place than there is room for.
                if prefix_bytes.len() + part.len() <= PREFIX_BYTES {
                    prefix_bytes.extend_from_slice(&part);
                    prefix.push(excerpt.clone());
                }
            }
            self.add_below(&gap, &bytes)?;
        }
        if lengths.is_empty() {
            return Ok(None);
        }
        let frame = compress(&contents, &prefix_bytes)
            .map_err(|source| StoreError::Io { path: "chunks to be sent".to_owned(), source })?;
        Ok(Some(Bundle { lengths, prefix, frame }))
    }

    fn next_gap(&mut self) -> Option<Gap> {
        if self.left.is_empty()
            && let LittleData::Little { gaps, .. } = mem::replace(&mut self.data, LittleData::Much)
        {
            self.left.extend(gaps);
        }
        self.left.pop_front()
    }

    /// A chunk, unless it is not here, or damaged.
    fn sound(&self, id: ChunkId) -> Result<Option<Bytes>, StoreError> {
        self.store.get(id).or_else(unless_damaged)
    }

    /// Has what differs below a node or a manifest follow it.
    fn add_below(&mut self, gap: &Gap, bytes: &Bytes) -> Result<(), StoreError> {
        let before = match &gap.predecessors[..] {
            _ if self.below == 0 => return Ok(()),
            [] => None,
            [before, ..] => match self.sound(before.chunk)? {
                Some(before) => Some(before),
                // How much they differ cannot be told.
                None => {
                    self.data = LittleData::Much;
                    return Ok(());
                }
            },
        };
        match gap.wanted.kind {
            ChunkKind::Node => self.add_below_node(bytes, before.as_deref()),
            ChunkKind::Manifest => self.data.add(bytes, before.as_deref()),
            ChunkKind::Data | ChunkKind::Checkpoint => {}
        }
        Ok(())
    }

    fn add_below_node(&mut self, bytes: &[u8], before: Option<&[u8]>) {
        let Ok(new) = Node::decode(bytes) else { return };
        let old = before.and_then(|before| Node::decode(before).ok()).filter(|old| old.level() == new.level());
        if old.is_none() && before.is_some() {
            self.data = LittleData::Much;
            return;
        }
        let kind = kind_of_children(&new);
        for slot in (0..=u8::MAX).rev() {
            let (before, now) = (old.as_ref().and_then(|old| old.child(slot)), new.child(slot));
            let Some(id) = now.filter(|_| before != now) else { continue };
            if self.below == 0 {
                self.data = LittleData::Much;
                return;
            }
            let predecessors = before.map(Excerpt::all_of).into_iter().collect();
            self.left.push_front(Gap { wanted: Wanted { id, kind }, predecessors });
            self.below -= 1;
        }
    }
}

impl LittleData {
    /// Notes what a manifest names and the one before it does not.
    fn add(&mut self, new: &[u8], old: Option<&[u8]>) {
        let Self::Little { manifests, gaps, blocks } = self else { return };
        *manifests += 1;
        if *manifests > MAX_UNASKED_MANIFESTS {
            *self = Self::Much;
            return;
        }
        let (Ok(new), old) = (Manifest::decode(new), old.map(Manifest::decode)) else { return };
        let old = old.and_then(Result::ok);
        for (extent, predecessors) in new_data(&new, old.as_ref()) {
            *blocks += u64::from(extent.block_count);
            if *blocks > MAX_UNASKED_BLOCKS {
                *self = Self::Much;
                return;
            }
            if gaps.iter().all(|gap| gap.wanted.id != extent.chunk) {
                let wanted = Wanted { id: extent.chunk, kind: ChunkKind::Data };
                gaps.push(Gap { wanted, predecessors: predecessors.collect() });
            }
        }
    }
}

/// To who asks for it, what is damaged is not here; to this site, it is a matter for scrub.
fn unless_damaged(error: StoreError) -> Result<Option<Bytes>, StoreError> {
    match error {
        StoreError::Corrupt { .. } => {
            tracing::error!(%error, "a chunk that another node asks for is damaged: run 'sterna scrub'");
            Ok(None)
        }
        error => Err(error),
    }
}

fn compress(contents: &[u8], prefix: &[u8]) -> io::Result<Bytes> {
    let failed = |code| io::Error::other(zstd_safe::get_error_name(code));
    let mut context = CCtx::create();
    context.set_parameter(CParameter::CompressionLevel(LEVEL)).map_err(failed)?;
    context.set_parameter(CParameter::WindowLog(WINDOW_LOG)).map_err(failed)?;
    context.ref_prefix(prefix).map_err(failed)?;
    let mut frame = Vec::with_capacity(zstd_safe::compress_bound(contents.len()));
    context.compress2(&mut frame, contents).map_err(failed)?;
    frame.shrink_to_fit();
    Ok(frame.into())
}

/// Faster than a link of 1 Gbit/s on one processor; higher levels save little on blocks of file systems.
const LEVEL: i32 = 3;
/// All of the contents and of the prefix are within 4 MiB.
const WINDOW_LOG: u32 = 22;
