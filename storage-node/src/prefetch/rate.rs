//! How fast what is ordered arrives: over the time in which something was under way.

/// What has arrived lately, and in how much time.
#[derive(Debug, Default)]
pub(super) struct Rate {
    blocks: u64,
    busy_ms: u64,
    /// Until when time was counted.
    counted_to_ms: u64,
}

impl Rate {
    /// An order begins; whether it is the only one.
    pub(super) fn begins(&mut self, now_ms: u64, is_only: bool) {
        if is_only {
            self.counted_to_ms = now_ms;
        }
    }

    /// An order has ended, by which so many blocks have arrived; whether it was the last one. Time in which nothing has come that was not here
    /// counts for nothing.
    pub(super) fn ends(&mut self, now_ms: u64, blocks: u64, is_last: bool) {
        if blocks > 0 {
            self.busy_ms += now_ms.saturating_sub(self.counted_to_ms);
            self.blocks += blocks;
            self.counted_to_ms = now_ms;
        } else if is_last {
            self.counted_to_ms = now_ms;
        }
        if self.busy_ms > MEMORY_MS {
            self.busy_ms /= 2;
            self.blocks /= 2;
        }
    }

    /// How many blocks arrive in so much time; none as long as nothing is known.
    pub(super) fn blocks_in(&self, ms: u64) -> u64 {
        if self.blocks == 0 { 0 } else { self.blocks.saturating_mul(ms) / self.busy_ms.max(1) }
    }
}

/// What is older counts half.
const MEMORY_MS: u64 = 8_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_arrives_while_something_is_under_way() {
        let mut rate = Rate::default();
        assert_eq!(rate.blocks_in(1000), 0);
        rate.begins(5_000, true);
        rate.begins(5_100, false);
        rate.ends(5_500, 256, false);
        rate.ends(6_000, 256, true);
        assert_eq!(rate.blocks_in(1000), 512);
        // Nothing was under way for a minute, and then what was here.
        rate.begins(66_000, true);
        rate.ends(66_500, 0, true);
        rate.begins(70_000, true);
        rate.ends(71_000, 512, true);
        assert_eq!(rate.blocks_in(1000), 512);
        for second in 0..60 {
            rate.begins(80_000 + second * 1000, true);
            rate.ends(81_000 + second * 1000, 2048, true);
        }
        assert!((2000..=2048).contains(&rate.blocks_in(1000)), "{rate:?}");
    }
}
