//! Nodes and manifests that were decoded lately, for all volumes of a node together.

use std::sync::Arc;

use quick_cache::Weighter;
use sterna_types::ChunkId;

use super::manifest::Manifest;
use super::node::Node;
use crate::cache::Cache;

/// Decoded nodes of maps, and the manifests below them, by their ids. They never change, so nothing here can be stale; it
/// can be shared by any number of volumes and threads, and a part that maps share is here once. Bounded in bytes.
#[derive(Debug)]
pub struct NodeCache {
    parts: Cache<ChunkId, Part, ByBytes>,
}

#[derive(Clone, Debug)]
enum Part {
    Node(Arc<Node>),
    Manifest(Arc<Manifest>),
}

#[derive(Clone, Debug)]
struct ByBytes;

impl Weighter<ChunkId, Part> for ByBytes {
    fn weight(&self, _id: &ChunkId, part: &Part) -> u64 {
        let bytes = match part {
            Part::Node(node) => size_of_val(node.children()),
            Part::Manifest(manifest) => size_of_val(manifest.extents()),
        };
        (ENTRY_BYTES + bytes) as u64
    }
}

impl NodeCache {
    /// A cache that holds at most `limit_bytes` of parts.
    pub fn new(limit_bytes: u64) -> Self {
        Self { parts: Cache::new(limit_bytes, TYPICAL_PART_BYTES, ByBytes) }
    }

    /// The node `id`, if it is here.
    pub(crate) fn node(&self, id: ChunkId) -> Option<Arc<Node>> {
        match self.parts.get(&id)? {
            Part::Node(node) => Some(node),
            Part::Manifest(_) => None,
        }
    }

    /// The manifest `id`, if it is here.
    pub(crate) fn manifest(&self, id: ChunkId) -> Option<Arc<Manifest>> {
        match self.parts.get(&id)? {
            Part::Manifest(manifest) => Some(manifest),
            Part::Node(_) => None,
        }
    }

    /// Remembers a node.
    pub(crate) fn insert_node(&self, id: ChunkId, node: &Arc<Node>) {
        self.parts.insert(id, Part::Node(Arc::clone(node)));
    }

    /// Remembers a manifest.
    pub(crate) fn insert_manifest(&self, id: ChunkId, manifest: &Arc<Manifest>) {
        self.parts.insert(id, Part::Manifest(Arc::clone(manifest)));
    }
}

/// What a part costs besides its children or extents: its id, the entry and the part's own fields.
const ENTRY_BYTES: usize = 200;

/// A node that is full, and a manifest of imported data, are of a few KiB; most are smaller.
const TYPICAL_PART_BYTES: u64 = 1 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk_store::chunk_id;
    use crate::map::node::{FAN_OUT, Level};

    fn node(number: u64) -> (ChunkId, Arc<Node>) {
        let mut slots = [None; FAN_OUT];
        slots[0] = Some(chunk_id(&number.to_le_bytes()));
        let node = Node::of(Level::BOTTOM, &slots).unwrap();
        (chunk_id(&node.encode()), Arc::new(node))
    }

    #[test]
    fn what_was_put_in_is_found_as_what_it_is() {
        let cache = NodeCache::new(1 << 20);
        let ((first, node), (second, _)) = (node(1), node(2));
        assert_eq!(cache.node(first), None);
        cache.insert_node(first, &node);
        assert_eq!(cache.node(first), Some(node));
        assert_eq!(cache.node(second), None);
        assert_eq!(cache.manifest(first), None, "a node is no manifest");
    }

    #[test]
    fn a_part_weighs_what_its_children_do() {
        let (id, node) = node(1);
        assert_eq!(ByBytes.weight(&id, &Part::Node(node)), 232);
    }
}
