//! What a run is of: how many sites and volumes, how busy, how long.

use std::time::Duration;

use sterna_tests::random::Random;

/// What a run is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) seed: u64,
    /// How many of them, with a node each.
    pub(super) sites: usize,
    /// How many volumes there are at a time. Where one is deleted, the next takes its place.
    pub(super) places: u8,
    /// How many volumes have a place one after the other, at most.
    pub(super) generations: u8,
    /// Of each volume.
    pub(super) blocks: u64,
    /// Whether power is lost: then clients have all durable before they believe it.
    pub(super) power_is_lost: bool,
    pub(super) faults: u32,
    /// How many times as far apart they are as in a plan.
    pub(super) stretch: u32,
    /// The longest that a client waits between two requests.
    pub(super) between_requests: Duration,
    /// The same between two attempts to be let in.
    pub(super) between_attaches: Duration,
    /// The same for an administrator between two moves of a volume.
    pub(super) between_moves: Duration,
    /// Whether snapshots are taken and given up, volumes deleted, and garbage collected; and whether the sites are emptied at the end.
    pub(super) is_cared_for: bool,
    /// The whole run is over before.
    pub(super) longest: Duration,
}

/// How many nodes have what is flushed before that is acknowledged, and how many there are beside the owner that may be in sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Copies {
    pub(super) count: u8,
    pub(super) candidates: usize,
}

impl Shape {
    /// Three sites or five, a volume at each of the first three, written all the time, and one fault upon the other.
    pub(super) fn cluster(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x0077_6f72_6c64);
        let sites = if random.below(4) == 0 { 5 } else { 3 };
        Self {
            seed,
            sites,
            places: 3,
            generations: 1,
            // So few that each is often written, and all are often read.
            blocks: 128,
            power_is_lost: random.below(2) == 0,
            faults: 24,
            stretch: 1,
            between_requests: Duration::from_millis(80),
            between_attaches: Duration::from_millis(600),
            between_moves: Duration::from_secs(8),
            is_cared_for: false,
            longest: Duration::from_secs(3_600),
        }
    }

    /// Three sites, twenty volumes and an administrator, for so long that there is time for so many faults: one in some thirteen seconds.
    pub(super) fn soak(seed: u64, faults: u32) -> Self {
        Self {
            sites: 3,
            places: 20,
            generations: 8,
            faults,
            stretch: 12,
            between_requests: Duration::from_secs(4),
            between_attaches: Duration::from_secs(10),
            between_moves: Duration::from_secs(600),
            is_cared_for: true,
            longest: Duration::from_secs(7 * 24 * 3_600),
            ..Self::cluster(seed)
        }
    }

    /// Of the volumes that have a place.
    pub(super) fn copies(&self, place: u8) -> Copies {
        if self.is_cared_for {
            let count = [1, 2, 1, 3][usize::from(place % 4)];
            return Copies { count, candidates: if count > 1 { self.sites } else { 0 } };
        }
        // Of one volume, in one of two clusters. Where nobody is to spare, a flush waits for who has fallen behind.
        let (count, candidates) = match (self.seed.is_multiple_of(2) && place == SYNC_VOLUME, self.seed / 2 % 4) {
            (false, _) => (1, 0),
            (true, 0) => (2, self.sites),
            (true, 1) => (3, 2),
            (true, 2) => (2, 1),
            (true, _) => (3, self.sites),
        };
        Copies { count, candidates }
    }

    /// Whether another site has of a volume in this place what it happens to have, and follows only its map, and all is fetched slowly:
    /// what is handed over there lacks much for long. So in two of three clusters.
    pub(super) fn is_cached(&self, place: u8) -> bool {
        !self.is_cared_for && place == CACHED_VOLUME && !self.seed.is_multiple_of(3)
    }

    /// How many volumes there ever are, at most.
    pub(super) fn volumes(&self) -> u8 {
        self.places * self.generations
    }

    /// Which place a volume has.
    pub(super) fn place_of(&self, volume: u8) -> u8 {
        volume % self.places
    }
}

/// The one whose flushes wait for another node, in clusters in which any do.
const SYNC_VOLUME: u8 = 1;
/// The one that a site caches, in clusters in which any is.
const CACHED_VOLUME: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_volumes_that_ever_are_have_a_number() {
        for shape in [Shape::cluster(1), Shape::soak(1, 540)] {
            assert_eq!(u32::from(shape.volumes()), u32::from(shape.places) * u32::from(shape.generations), "{shape:?}");
        }
    }
}
