//! How much may be on the way.
//!
//! QEMU decides by the rate at which its socket takes bytes how long the rest of its memory will take. If a migrator took all at once,
//! QEMU would measure memory and not the link. If it took too little, the link would stand idle for a round trip now and then. So it takes
//! what the link carries in one round trip and a little: the bandwidth-delay product, and what [`AHEAD`] adds.
//!
//! Both are estimated as BBR does it (Cardwell et al., "BBR: Congestion-Based Congestion Control", ACM Queue 14(5), 2016, section "Track
//! windowed maximum delivery rate"): the link's rate is the highest at which bytes were acknowledged lately, from when a piece was sent to
//! when it was acknowledged; where there was nothing else to send a rate counts only if it is higher. The round trip is the shortest there
//! was.

use std::collections::VecDeque;
use std::time::Duration;

/// Bounds what is sent and not acknowledged. Time is given to it, from any fixed moment.
#[derive(Clone, Debug, Default)]
pub struct Window {
    round_trip: Option<Duration>,
    /// How many bytes were acknowledged in all.
    delivered: u64,
    /// Rates of lately, in bytes a second, and when they were: each is lower than those before it.
    rates: VecDeque<(Duration, u64)>,
}

/// What there was when a piece was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    at: Duration,
    delivered: u64,
    is_last: bool,
}

impl Window {
    /// Of a link of which nothing is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes may be sent and not acknowledged.
    pub fn limit_bytes(&self) -> u64 {
        let moment = self.round_trip.unwrap_or_default() + AHEAD;
        let carried = u128::from(self.rate()) * moment.as_micros() / 1_000_000;
        u64::try_from(carried).unwrap_or(u64::MAX).clamp(LEAST_BYTES, MOST_BYTES)
    }

    /// The rate of the link, in bytes a second; 0 where nothing was measured.
    pub fn rate(&self) -> u64 {
        self.rates.front().map_or(0, |(_, rate)| *rate)
    }

    /// A piece is sent. Whether it `is_last`: there is nothing else, because nobody has written more.
    pub fn sent(&self, is_last: bool, at: Duration) -> Sent {
        Sent { at, delivered: self.delivered, is_last }
    }

    /// So many bytes were acknowledged since the last acknowledgement, the last of them of this piece.
    pub fn acknowledged(&mut self, bytes: u64, piece: Sent, at: Duration) {
        self.delivered = self.delivered.saturating_add(bytes);
        let after = at.saturating_sub(piece.at);
        self.round_trip = Some(self.round_trip.map_or(after, |before| before.min(after)));
        let carried = u128::from(self.delivered - piece.delivered) * 1_000_000 / after.as_micros().max(1);
        let rate = u64::try_from(carried).unwrap_or(u64::MAX);
        // One that is all there is stays, however old it is, until there is another.
        while self.rates.len() > 1 && self.rates.front().is_some_and(|(then, _)| *then + LATELY < at) {
            self.rates.pop_front();
        }
        if piece.is_last && rate <= self.rate() {
            return;
        }
        let is_old = |then: Duration| then + LATELY < at;
        while self.rates.back().is_some_and(|(then, lower)| *lower <= rate || is_old(*then)) {
            self.rates.pop_back();
        }
        self.rates.push_back((at, rate));
    }
}

/// What is taken beyond one round trip, so that a link never waits: two of QEMU's slices of 50 ms.
pub const AHEAD: Duration = Duration::from_millis(100);

/// For how long a rate counts: links that change do so within seconds.
const LATELY: Duration = Duration::from_secs(2);

/// Before a rate is known, and on the slowest of links.
pub const LEAST_BYTES: u64 = 256 << 10;

/// Two migrators hold no more than this for one VM: 10 Gbit/s for 50 ms.
pub const MOST_BYTES: u64 = 64 << 20;
