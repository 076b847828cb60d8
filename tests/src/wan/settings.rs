//! What is set of one direction between two sites, and changes to it.

use serde::{Deserialize, Serialize};

use super::quantity::{Delay, Loss, Rate, Size};

/// What is set of one direction. By itself: no delay, no limit, no loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// From when the last bit of a packet has left to when the packet arrives.
    pub delay: Delay,
    /// How fast bits leave.
    pub rate: Rate,
    /// How many packets are dropped at random.
    pub loss: Loss,
    /// How much may wait to leave. Without it: what leaves in 100 ms, and at least 128 KiB.
    pub queue: Option<Size>,
}

/// What is to be set anew; the rest stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The delay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Delay>,
    /// The rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// The loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Loss>,
    /// How much may wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<Size>,
}

impl Settings {
    /// The same with this change.
    #[must_use]
    pub fn with(self, change: &Change) -> Self {
        Self {
            delay: change.delay.unwrap_or(self.delay),
            rate: change.rate.unwrap_or(self.rate),
            loss: change.loss.unwrap_or(self.loss),
            queue: change.queue.or(self.queue),
        }
    }

    /// How much may wait to leave, in bytes; `None` where there is no rate, since nothing waits then.
    pub fn queue_bytes(&self) -> Option<u64> {
        let by_itself = self.rate.bytes_in_ns(QUEUE_NS)?.max(LEAST_QUEUE_BYTES);
        Some(self.queue.map_or(by_itself, Size::bytes))
    }

    /// Whether packets of 64 KiB serve as well as those that a real network carries: none is lost, and each is gone in about
    /// a millisecond.
    pub(super) fn suits_super_packets(&self) -> bool {
        self.loss == Loss::NONE && self.rate.bits_per_second().is_none_or(|rate| rate >= SUPER_PACKET_RATE)
    }
}

impl Change {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What waits longer than this is more than a queue at most places has.
const QUEUE_NS: u64 = 100_000_000;
/// Two packets as TCP hands them to a device with segmentation offload.
const LEAST_QUEUE_BYTES: u64 = 128 << 10;
/// 64 KiB take 1.05 ms.
const SUPER_PACKET_RATE: u64 = 500_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_leaves_the_rest() {
        let settings = Settings { delay: "5ms".parse().unwrap(), queue: "1MiB".parse().ok(), ..Settings::default() };
        let change = Change { rate: "10M".parse().ok(), ..Change::default() };
        let changed = settings.with(&change);
        assert_eq!(changed, Settings { rate: "10M".parse().unwrap(), ..settings });
        assert!(Change::default().is_empty() && !change.is_empty());
    }

    #[test]
    fn a_queue_is_100_ms_long_by_itself() {
        let of = |rate: &str| Settings { rate: rate.parse().unwrap(), ..Settings::default() }.queue_bytes();
        assert_eq!(of("1G"), Some(12_500_000));
        assert_eq!(of("1M"), Some(128 << 10));
        assert_eq!(of("unlimited"), None);
    }

    #[test]
    fn super_packets_suit_links_that_are_fast_and_lose_nothing() {
        let suits = |rate: &str, loss: &str| {
            let settings = Settings { rate: rate.parse().unwrap(), loss: loss.parse().unwrap(), ..Settings::default() };
            settings.suits_super_packets()
        };
        assert!(suits("unlimited", "0%") && suits("1G", "0%"));
        assert!(!suits("unlimited", "0.1%") && !suits("100M", "0%"));
    }
}
