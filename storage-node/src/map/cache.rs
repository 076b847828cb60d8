//! Nodes and manifests that were decoded lately, for all volumes of a node together.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sterna_types::ChunkId;

use super::manifest::Manifest;
use super::node::Node;

/// Decoded nodes of maps, and the manifests below them, by their ids. They never change, so nothing here can be stale; it
/// can be shared by any number of volumes and threads, and a part that maps share is here once.
///
/// Bounded in bytes. What goes first is what was not used since it was last considered ("second chance"). Invariant: the
/// parts of a shard have at most the shard's share of the bytes.
pub struct NodeCache {
    shards: [Mutex<Shard>; SHARDS],
    hits: AtomicU64,
    misses: AtomicU64,
}

/// How a cache has served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CacheStatistics {
    /// Questions that it could answer.
    pub hits: u64,
    /// Questions that it could not.
    pub misses: u64,
    /// Parts that it holds.
    pub parts: u64,
    /// Their bytes, by the cache's account.
    pub bytes: u64,
}

impl NodeCache {
    /// A cache that holds at most `limit_bytes` of parts.
    pub fn new(limit_bytes: usize) -> Self {
        let shard = || Mutex::new(Shard { limit_bytes: limit_bytes / SHARDS, ..Shard::default() });
        Self { shards: std::array::from_fn(|_| shard()), hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    /// How it has served so far.
    pub fn statistics(&self) -> CacheStatistics {
        let mut statistics = CacheStatistics {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            ..CacheStatistics::default()
        };
        for shard in &self.shards {
            let shard = lock(shard);
            statistics.parts += shard.entries.len() as u64;
            statistics.bytes += shard.bytes as u64;
        }
        statistics
    }

    /// The node `id`, if it is here.
    pub(crate) fn node(&self, id: ChunkId) -> Option<Arc<Node>> {
        self.look_up(id, |part| match part {
            Cached::Node(node) => Some(Arc::clone(node)),
            Cached::Manifest(_) => None,
        })
    }

    /// The manifest `id`, if it is here.
    pub(crate) fn manifest(&self, id: ChunkId) -> Option<Arc<Manifest>> {
        self.look_up(id, |part| match part {
            Cached::Manifest(manifest) => Some(Arc::clone(manifest)),
            Cached::Node(_) => None,
        })
    }

    /// Remembers a node.
    pub(crate) fn insert_node(&self, id: ChunkId, node: &Arc<Node>) {
        let bytes = ENTRY_BYTES + size_of_val(node.children());
        lock(self.shard(id)).insert(id, Cached::Node(Arc::clone(node)), bytes);
    }

    /// Remembers a manifest.
    pub(crate) fn insert_manifest(&self, id: ChunkId, manifest: &Arc<Manifest>) {
        let bytes = ENTRY_BYTES + size_of_val(manifest.extents());
        lock(self.shard(id)).insert(id, Cached::Manifest(Arc::clone(manifest)), bytes);
    }

    fn look_up<T>(&self, id: ChunkId, take: impl FnOnce(&Cached) -> Option<T>) -> Option<T> {
        let found = lock(self.shard(id)).entries.get_mut(&id).and_then(|entry| {
            entry.was_used = true;
            take(&entry.part)
        });
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    fn shard(&self, id: ChunkId) -> &Mutex<Shard> {
        &self.shards[usize::from(id.as_bytes()[0]) % SHARDS]
    }
}

impl fmt::Debug for NodeCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeCache").field("statistics", &self.statistics()).finish_non_exhaustive()
    }
}

/// A part of the cache under a lock of its own, so that readers rarely meet. The first byte of an id says which.
#[derive(Default)]
struct Shard {
    limit_bytes: usize,
    bytes: usize,
    entries: HashMap<ChunkId, Entry>,
    /// The ids of all entries, the one to be considered next in front.
    queue: VecDeque<ChunkId>,
}

struct Entry {
    part: Cached,
    bytes: usize,
    /// Whether it was asked for since it was last considered.
    was_used: bool,
}

enum Cached {
    Node(Arc<Node>),
    Manifest(Arc<Manifest>),
}

impl Shard {
    fn insert(&mut self, id: ChunkId, part: Cached, bytes: usize) {
        if bytes > self.limit_bytes || self.entries.contains_key(&id) {
            return;
        }
        self.make_room(bytes);
        self.bytes += bytes;
        self.entries.insert(id, Entry { part, bytes, was_used: false });
        self.queue.push_back(id);
    }

    /// Lets go of parts until `bytes` fit. Each turn either clears a mark or removes an entry, so it comes to an end.
    fn make_room(&mut self, bytes: usize) {
        while self.bytes + bytes > self.limit_bytes {
            let Some(id) = self.queue.pop_front() else { return };
            match self.entries.get_mut(&id) {
                Some(entry) if entry.was_used => {
                    entry.was_used = false;
                    self.queue.push_back(id);
                }
                _ => self.bytes -= self.entries.remove(&id).map_or(0, |entry| entry.bytes),
            }
        }
    }
}

/// What a panic of another thread has left is whole: each entry is put in or taken out in steps that cannot fail.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// So many that two threads seldom want the same one, and so few that the share of each is large beside a manifest.
const SHARDS: usize = 16;
/// What a part costs besides its children or extents: its id in two collections, the entry and the part's own fields.
const ENTRY_BYTES: usize = 240;

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
    fn what_was_put_in_is_found_and_counted() {
        let cache = NodeCache::new(1 << 20);
        let ((first, node), (second, _)) = (node(1), node(2));
        assert_eq!(cache.node(first), None);
        cache.insert_node(first, &node);
        cache.insert_node(first, &node);
        assert_eq!(cache.node(first), Some(node));
        assert_eq!(cache.node(second), None);
        assert_eq!(cache.manifest(first), None, "a node is no manifest");
        let statistics = cache.statistics();
        assert_eq!((statistics.hits, statistics.misses, statistics.parts), (1, 3, 1));
        assert_eq!(statistics.bytes, 272);
    }

    #[test]
    fn it_never_holds_more_than_its_limit() {
        let limit = 40 << 10;
        let cache = NodeCache::new(limit);
        for number in 0..10_000 {
            let (id, node) = node(number);
            cache.insert_node(id, &node);
            assert!(cache.statistics().bytes <= limit as u64);
        }
        assert!(cache.statistics().parts > 100, "{:?}", cache.statistics());
    }

    #[test]
    fn what_is_used_again_and_again_stays() {
        let cache = NodeCache::new(40 << 10);
        let (popular, popular_node) = node(0);
        cache.insert_node(popular, &popular_node);
        for number in 1..10_000 {
            let (id, node) = node(number);
            cache.insert_node(id, &node);
            assert!(cache.node(popular).is_some(), "gone after {number} others");
        }
        assert!(cache.node(node(1).0).is_none());
    }

    #[test]
    fn what_is_larger_than_a_share_is_not_kept() {
        let cache = NodeCache::new(0);
        let (id, node) = node(1);
        cache.insert_node(id, &node);
        assert_eq!(cache.statistics().parts, 0);
    }
}
