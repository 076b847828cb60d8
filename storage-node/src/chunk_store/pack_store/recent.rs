//! What was used most recently, up to a weight.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// A map that forgets what was not used for longest once its values weigh too much. Invariants: it weighs at most `limit`,
/// and `ages` has exactly the keys of `values`, each under its age.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    values: HashMap<K, Held<V>>,
    ages: BTreeMap<u64, K>,
    weight: usize,
    limit: usize,
    clock: u64,
}

#[derive(Debug)]
struct Held<V> {
    value: V,
    weight: usize,
    age: u64,
}

impl<K: Copy + Eq + Hash, V: Clone> Recent<K, V> {
    pub(super) fn new(limit: usize) -> Self {
        Self { values: HashMap::new(), ages: BTreeMap::new(), weight: 0, limit, clock: 0 }
    }

    pub(super) fn get(&mut self, key: K) -> Option<V> {
        let held = self.values.get_mut(&key)?;
        self.ages.remove(&held.age);
        self.clock += 1;
        held.age = self.clock;
        self.ages.insert(held.age, key);
        Some(held.value.clone())
    }

    /// Keeps a value; one that is too heavy by itself is not kept.
    pub(super) fn insert(&mut self, key: K, value: V, weight: usize) {
        self.remove(key);
        if weight > self.limit {
            return;
        }
        while self.weight + weight > self.limit {
            let Some((_, oldest)) = self.ages.first_key_value() else { break };
            self.remove(*oldest);
        }
        self.clock += 1;
        self.values.insert(key, Held { value, weight, age: self.clock });
        self.ages.insert(self.clock, key);
        self.weight += weight;
    }

    pub(super) fn remove(&mut self, key: K) {
        if let Some(held) = self.values.remove(&key) {
            self.ages.remove(&held.age);
            self.weight -= held.weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let mut recent = Recent::new(10);
        for key in 0..5 {
            recent.insert(key, key, 2);
        }
        assert_eq!(recent.get(0), Some(0));
        recent.insert(5, 5, 3);
        recent.insert(6, 6, 11);
        let kept: Vec<i32> = (0..7).filter_map(|key| recent.get(key)).collect();
        assert_eq!(kept, [0, 3, 4, 5]);
        recent.remove(0);
        assert_eq!((recent.get(0), recent.weight, recent.ages.len()), (None, 7, 3));
    }
}
