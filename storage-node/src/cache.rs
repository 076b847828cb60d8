//! The one kind of cache there is here: bounded by weight, shared by threads, and the same on every machine.

use std::fmt;
use std::hash::{BuildHasherDefault, DefaultHasher, Hash};

use quick_cache::sync::{Cache as Sharded, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

/// A cache that forgets what is used least once it would weigh more than its limit (S3-FIFO: Yang et al., "FIFO queues are
/// all you need for cache eviction", SOSP 2023).
///
/// What is forgotten depends on the order of the calls alone, not on the machine, nor on the run: number of shards and hash
/// are fixed, so that a simulation can be repeated.
pub(crate) struct Cache<K, V, W>(Sharded<K, V, W, Hasher, DefaultLifecycle<K, V>>);

type Hasher = BuildHasherDefault<DefaultHasher>;

impl<K: Hash + Eq + Clone, V: Clone, W: Weighter<K, V> + Clone> Cache<K, V, W> {
    /// A cache that holds at most `limit`, of values that usually weigh `typical` each. A value that weighs more than its
    /// share, a sixteenth of the limit, may not be kept.
    pub(crate) fn new(limit: u64, typical: u64, weighter: W) -> Self {
        let items = usize::try_from(limit / typical).unwrap_or(usize::MAX).max(LEAST_ITEMS);
        let mut options = OptionsBuilder::new();
        let options = options.shards(SHARDS).estimated_items_capacity(items).weight_capacity(limit).build();
        // Only a missing capacity, or shares that are no shares, are refused.
        let options = options.expect("capacities are given");
        Self(Sharded::with_options(options, weighter, Hasher::default(), DefaultLifecycle::default()))
    }

    pub(crate) fn get(&self, key: &K) -> Option<V> {
        self.0.get(key)
    }

    pub(crate) fn insert(&self, key: K, value: V) {
        self.0.insert(key, value);
    }

    pub(crate) fn remove(&self, key: &K) {
        self.0.remove(key);
    }

    /// Forgets all but those of which `keep` is true.
    pub(crate) fn retain(&self, keep: impl Fn(&K) -> bool) {
        self.0.retain(|key, _| keep(key));
    }
}

impl<K, V, W> fmt::Debug for Cache<K, V, W>
where
    K: Hash + Eq + Clone,
    V: Clone,
    W: Weighter<K, V> + Clone,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (values, weight, limit) = (self.0.len(), self.0.weight(), self.0.capacity());
        write!(f, "{values} values that weigh {weight} of {limit}")
    }
}

/// So many that threads seldom want the same one, and so few that the share of each is large beside a value.
const SHARDS: usize = 16;

/// Fewer are not worth a shard.
const LEAST_ITEMS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone)]
    struct ByValue;

    impl Weighter<u64, u64> for ByValue {
        fn weight(&self, _key: &u64, value: &u64) -> u64 {
            *value
        }
    }

    #[test]
    fn it_never_holds_more_than_its_limit() {
        let cache = Cache::new(4000, 2, ByValue);
        for key in 0..10_000 {
            cache.insert(key, 1 + key % 3);
            assert!(cache.0.weight() <= 4000);
        }
        assert!(cache.0.len() > 1000, "{cache:?}");
    }

    #[test]
    fn what_is_used_again_and_again_stays() {
        let cache = Cache::new(4000, 2, ByValue);
        cache.insert(0, 2);
        for key in 1..10_000 {
            cache.insert(key, 2);
            assert_eq!(cache.get(&0), Some(2), "gone after {key} others");
        }
        let kept = (1..10_000).filter(|key| cache.get(key).is_some()).count();
        assert!(kept < 2000, "{kept} of the others are left");
    }

    #[test]
    fn what_weighs_too_much_is_not_kept() {
        for limit in [0, 100] {
            let cache = Cache::new(limit, 1, ByValue);
            cache.insert(1, 101);
            assert_eq!(cache.get(&1), None);
        }
    }

    #[test]
    fn two_of_them_forget_the_same() {
        let kept = || {
            let cache = Cache::new(1000, 1, ByValue);
            for key in 0..5000 {
                cache.insert(key, 1 + key % 7);
                cache.get(&(key / 3));
            }
            (0..5000).filter(|key| cache.get(key).is_some()).collect::<Vec<_>>()
        };
        let (one, other) = (kept(), kept());
        assert_eq!(one, other);
        assert!(!one.is_empty());
    }

    #[test]
    fn what_is_to_be_forgotten_is() {
        let cache = Cache::new(1000, 1, ByValue);
        (0..20).for_each(|key| cache.insert(key, 1));
        cache.remove(&3);
        cache.retain(|key| key % 2 == 1);
        let kept: Vec<u64> = (0..20).filter(|key| cache.get(key).is_some()).collect();
        assert_eq!(kept, [1, 5, 7, 9, 11, 13, 15, 17, 19]);
    }
}
