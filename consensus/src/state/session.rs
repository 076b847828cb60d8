//! A node's session: its liveness as the metadata knows it (design section 5).
//!
//! ```text
//! none ──open──> Live(1) ──lapse──> Lapsed(1) ──open──> Live(2) ──open──> Live(3) …
//!                 └─renew─┘ └─close──> Closed(1) ──open──┘
//! ```
//!
//! The two clocks that a session lives by are not here. The node counts from the moment before it sent a renewal, and
//! acknowledges nothing once its own count has run out. Whoever leads counts from the moment it applied the renewal, or from the
//! one it began to lead, whichever is later, and waits longer than the node does; only then does it propose that the session has
//! lapsed, naming the last renewal that it knows, so that one that came in between wins. So a session that is lapsed here
//! has ended at its node.
//!
//! Invariants: a node's session numbers never fall; a lapsed session is never renewed.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The newest session of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// Which of this node's sessions it is.
    pub number: SessionNumber,
    /// How often it was renewed.
    pub renewals: u64,
    /// How long it lasts after each renewal.
    pub length: SessionLength,
    /// Whether it has ended.
    pub state: SessionState,
}

/// Counts the sessions of one node, from 1: each start of the node opens another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionNumber(pub u64);

impl fmt::Display for SessionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Whether a session has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// The node may acknowledge what clients ask for, as long as its own clock says so too.
    Live,
    /// It may not, and does not; what it owned may be taken over.
    Lapsed,
    /// The same; and all that it ever acknowledged is published. Since version 3 of the metadata.
    Closed,
}

/// How long a session lasts after a renewal, in milliseconds: 1 s to 10 min.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct SessionLength(u32);

/// A number of milliseconds that no session can last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a session cannot last {ms} ms: give 1 s to 10 min")]
pub struct InvalidSessionLength {
    /// What was given.
    pub ms: u128,
}

impl SessionLength {
    /// That of a cluster for which nobody has chosen another: 15 s.
    pub const DEFAULT: Self = Self(15_000);

    /// How long that is.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0 as u64)
    }
}

impl Default for SessionLength {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl TryFrom<u32> for SessionLength {
    type Error = InvalidSessionLength;

    fn try_from(ms: u32) -> Result<Self, InvalidSessionLength> {
        if (1_000..=600_000).contains(&ms) { Ok(Self(ms)) } else { Err(InvalidSessionLength { ms: ms.into() }) }
    }
}

impl TryFrom<Duration> for SessionLength {
    type Error = InvalidSessionLength;

    fn try_from(duration: Duration) -> Result<Self, InvalidSessionLength> {
        let ms = duration.as_millis();
        u32::try_from(ms).map_err(|_| InvalidSessionLength { ms })?.try_into()
    }
}

impl From<SessionLength> for u32 {
    fn from(length: SessionLength) -> Self {
        length.0
    }
}

impl fmt::Display for SessionLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.duration())
    }
}

/// Why a session is not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotChange {
    /// It has ended.
    #[error("the session has ended")]
    Over,
    /// It was renewed since the one who ends it looked.
    #[error("the session was renewed")]
    Renewed,
}

impl Session {
    /// Whether it has not ended.
    pub fn is_live(&self) -> bool {
        self.state == SessionState::Live
    }

    /// The next session of a node, after the one `before`.
    #[must_use]
    pub fn open(before: Option<Self>, length: SessionLength) -> Self {
        let number = before.map_or(1, |before| before.number.0.saturating_add(1));
        Self { number: SessionNumber(number), renewals: 0, length, state: SessionState::Live }
    }

    /// The session once it is renewed, from when on it lasts for `length`.
    ///
    /// # Errors
    /// It has ended.
    pub fn renew(self, length: SessionLength) -> Result<Self, CannotChange> {
        if self.is_live() { Ok(Self { renewals: self.renewals + 1, length, ..self }) } else { Err(CannotChange::Over) }
    }

    /// The session once it has ended as `state` says; one that has ended stays as it is. With `renewals`, only one that was not
    /// renewed since it was renewed so often.
    ///
    /// # Errors
    /// It was renewed since.
    pub fn end(self, state: SessionState, renewals: Option<u64>) -> Result<Self, CannotChange> {
        if renewals.is_some_and(|known| known != self.renewals) {
            return Err(CannotChange::Renewed);
        }
        Ok(if self.is_live() { Self { state, ..self } } else { self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_lasts_a_second_at_least_and_ten_minutes_at_most() {
        for good in [1_000, 15_000, 600_000] {
            assert_eq!(
                SessionLength::try_from(Duration::from_millis(good)).map(SessionLength::duration),
                Ok(Duration::from_millis(good))
            );
        }
        for bad in [0, 999, 600_001, u64::MAX] {
            assert!(SessionLength::try_from(Duration::from_millis(bad)).is_err(), "{bad} ms");
        }
        assert!(serde_json::from_str::<SessionLength>("5").is_err());
    }
}
