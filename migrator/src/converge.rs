//! When a VM is stopped for the last of its memory.
//!
//! Memory is sent in rounds: each sends what was written during the one before. Where the VM writes less than the link carries, the rounds
//! grow shorter, and some day the rest takes no time worth speaking of. Where it writes more they never do; but what is left goes up and
//! down, as the VM's work does, and a low point is a better moment than any other. This is CloudNet's rule (Wood et al., "CloudNet: Dynamic
//! Pooling of Cloud Resources by Live WAN Migration of Virtual Machines", VEE 2011, section 3.3, "smart stop and copy"): stop when what is
//! left is little, or else, once it does not shrink any more, at a point as low as the lowest of the last rounds.

use std::collections::VecDeque;
use std::time::Duration;

/// What is known of the rounds of one migration.
#[derive(Clone, Debug, Default)]
pub struct Rounds {
    /// What was left at the ends of the last rounds, in bytes, the newest last.
    last: VecDeque<u64>,
    /// How many have ended.
    count: u64,
}

/// What is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Another round.
    GoOn,
    /// What is left is sent in a moment.
    LittleIsLeft,
    /// It will not become less than this.
    AsLowAsItGets,
}

impl Rounds {
    /// Before the first.
    pub fn new() -> Self {
        Self::default()
    }

    /// A round has ended with so much left, over a link of this rate in bytes a second; 0 where that is not known yet.
    pub fn ended(&mut self, left_bytes: u64, rate: u64) -> Advice {
        self.count += 1;
        let advice = self.advice(left_bytes, rate);
        self.last.push_back(left_bytes);
        if self.last.len() > WINDOW {
            self.last.pop_front();
        }
        advice
    }

    fn advice(&self, left_bytes: u64, rate: u64) -> Advice {
        if left_bytes == 0 || rate > 0 && sent_in(left_bytes, rate) <= LITTLE {
            return Advice::LittleIsLeft;
        }
        let lowest = self.last.iter().min().copied();
        let is_full = self.last.len() == WINDOW;
        // As long as one of the last is lower than all before it, the rounds still shrink.
        let oldest = self.last.front().copied();
        let shrinks = lowest < oldest;
        match lowest {
            Some(lowest) if is_full && left_bytes <= lowest && !shrinks => Advice::AsLowAsItGets,
            Some(lowest) if self.count >= MOST_ROUNDS && left_bytes <= lowest => Advice::AsLowAsItGets,
            _ if self.count >= 2 * MOST_ROUNDS => Advice::AsLowAsItGets,
            _ => Advice::GoOn,
        }
    }
}

/// How long it takes a link to carry this.
pub fn sent_in(bytes: u64, rate: u64) -> Duration {
    let micros = u128::from(bytes) * 1_000_000 / u128::from(rate.max(1));
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

/// How many rounds are looked back at.
const WINDOW: usize = 5;

/// After so many, any low point will do; after twice as many, any point.
const MOST_ROUNDS: u64 = 30;

/// What adds less to the pause than a guest's own timer does is not worth another round.
const LITTLE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u64 = 12_500_000;

    /// In which round it is stopped, from 1, and why.
    fn stopped(left: impl IntoIterator<Item = u64>) -> Option<(usize, Advice)> {
        let mut rounds = Rounds::new();
        let mut advice = left.into_iter().map(|left| rounds.ended(left, RATE)).enumerate();
        advice.find(|(_, advice)| *advice != Advice::GoOn).map(|(at, advice)| (at + 1, advice))
    }

    #[test]
    fn a_vm_that_writes_little_is_stopped_when_little_is_left() {
        let halves = std::iter::successors(Some(100_000_000_u64), |left| Some(left / 2));
        assert_eq!(stopped(halves), Some((10, Advice::LittleIsLeft)), "200 KB are 16 ms of 100 Mbit/s");
        assert_eq!(stopped([0]), Some((1, Advice::LittleIsLeft)));
        assert_eq!(Rounds::new().ended(1, 0), Advice::GoOn, "the link is not known");
    }

    #[test]
    fn one_that_writes_much_is_stopped_at_a_low_point() {
        let left = [90, 60, 40, 41, 45, 44, 48, 43, 40, 39].map(|left| left * 1_000_000);
        assert_eq!(stopped(left), Some((9, Advice::AsLowAsItGets)));
        let grows = (1..).map(|round| round * 10_000_000);
        let (round, advice) = stopped(grows).unwrap();
        assert_eq!((round, advice), (60, Advice::AsLowAsItGets), "some day it is any point");
    }

    #[test]
    fn as_long_as_the_rounds_shrink_there_is_another() {
        let shrinks = (0..20).map(|round| 100_000_000 - round * 1_000_000);
        assert_eq!(stopped(shrinks), None);
    }
}
