//! What a migration would take, before it is begun.
//!
//! Memory is gone through in rounds as a migration does it ([`Rounds`]), with what is known of the VM and of the link: how much memory there is, how
//! fast it is written, how fast it can be sent. All of the memory is taken to be sent, while pages of zeros take next to nothing: so bytes
//! and time are at most what is predicted, for a VM that goes on as it does now.

use std::time::Duration;

use crate::converge::{Advice, Rounds, sent_in};

/// What is known of a VM, and of the link that it would go over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its memory, in bytes.
    pub memory_bytes: u64,
    /// How much of that it writes, in bytes a second.
    pub dirtied_per_second: u64,
    /// What of its volumes is to be brought there first, in bytes.
    pub hot_bytes: u64,
    /// The link's, in bytes a second.
    pub rate: u64,
    /// There and back.
    pub round_trip: Duration,
    /// Whether it is stopped before any of its memory is sent.
    pub is_offline: bool,
}

/// What a migration would take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prediction {
    /// What of memory would be sent, in bytes, and each page as often as it would be.
    pub sent_bytes: u64,
    /// From its beginning to its end.
    pub took: Duration,
    /// How long the VM would stand.
    pub pause: Duration,
    /// Whether it would be stopped with more left than a moment takes, because it writes its memory too fast for this link.
    pub is_forced: bool,
}

/// What a migration of this VM over this link would take.
pub fn predict(known: &Known) -> Prediction {
    let Known { memory_bytes, dirtied_per_second, hot_bytes, rate, round_trip, is_offline } = *known;
    let mut rounds = Rounds::new();
    let (mut sent_bytes, mut left) = (0_u64, memory_bytes);
    // Offline there is no round: all of it is the rest.
    let mut advice = if is_offline { Advice::LittleIsLeft } else { Advice::GoOn };
    while advice == Advice::GoOn {
        sent_bytes = sent_bytes.saturating_add(left);
        left = memory_bytes.min(written_in(sent_in(left, rate), dirtied_per_second));
        advice = rounds.ended(left, rate);
    }
    let pause = sent_in(left, rate) + round_trip / 2 + DEVICES;
    let before = sent_in(sent_bytes.saturating_add(hot_bytes), rate) + START + PREPARING * round_trip;
    let is_forced = advice == Advice::AsLowAsItGets;
    Prediction { sent_bytes: sent_bytes.saturating_add(left), took: before.saturating_add(pause), pause, is_forced }
}

fn written_in(time: Duration, per_second: u64) -> u64 {
    let bytes = u128::from(per_second) * time.as_millis() / 1000;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// What a VM without much memory left stands for all the same, measured with software emulation: its devices are saved and loaded, disks
/// are flushed, commands are answered.
const DEVICES: Duration = Duration::from_millis(40);

/// Until a QEMU has been started at the destination.
const START: Duration = Duration::from_millis(500);

/// How often something is said and answered before memory is sent, and for the volumes.
const PREPARING: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const LINK: Known = Known {
        memory_bytes: 1024 * MIB,
        dirtied_per_second: 0,
        hot_bytes: 100 * MIB,
        rate: 12_500_000,
        round_trip: Duration::from_millis(100),
        is_offline: false,
    };

    #[test]
    fn a_vm_that_writes_nothing_is_sent_once() {
        let predicted = predict(&LINK);
        assert_eq!(predicted.sent_bytes, 1024 * MIB);
        assert_eq!(predicted.pause, DEVICES + Duration::from_millis(50));
        assert_eq!(predicted.took.as_secs(), 95, "1,124 MiB at 100 Mbit/s, and a second");
        assert!(!predicted.is_forced);
    }

    #[test]
    fn one_that_writes_is_sent_again_until_little_is_left() {
        let predicted = predict(&Known { dirtied_per_second: 1_250_000, ..LINK });
        // A tenth of the round before, each time.
        assert!((1137..1140).contains(&(predicted.sent_bytes / MIB)), "{predicted:?}");
        assert!(predicted.pause < DEVICES + Duration::from_millis(70) && !predicted.is_forced, "{predicted:?}");
    }

    #[test]
    fn one_that_writes_faster_than_the_link_is_stopped_all_the_same() {
        let predicted = predict(&Known { dirtied_per_second: 50_000_000, ..LINK });
        assert!(predicted.is_forced && predicted.pause > Duration::from_secs(80), "{predicted:?}");
        let stopped = predict(&Known { dirtied_per_second: 50_000_000, is_offline: true, ..LINK });
        assert_eq!(stopped.sent_bytes, 1024 * MIB, "each page once");
        assert!(stopped.took < predicted.took && stopped.pause.as_secs() == 85, "{stopped:?}");
    }

    #[test]
    fn what_is_not_known_is_no_division_by_zero() {
        let unknown =
            Known { memory_bytes: u64::MAX, dirtied_per_second: u64::MAX, hot_bytes: u64::MAX, rate: 0, ..LINK };
        assert!(predict(&unknown).is_forced);
    }
}
