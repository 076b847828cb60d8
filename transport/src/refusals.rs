//! Connections that were not let in, and calls that were not carried out: counted by reason, and logged, though not as often as a
//! stranger likes.

use std::array;
use std::error::Error;
use std::fmt::{self, Display};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::limits::{REFUSAL_LOG_PERIOD, REFUSALS_LOGGED};

/// Why a connection was not let in, or was cut, or a call on it refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefusalReason {
    /// What came is not TLS.
    NotTls,
    /// It is TLS, but not 1.3 with HTTP/2 inside.
    Incompatible,
    /// The certificate is by an authority that we do not trust: of another cluster, or an old one of ours.
    OtherAuthority,
    /// The certificate is no longer valid.
    Expired,
    /// The certificate is not valid yet: a clock is wrong.
    NotYetValid,
    /// The certificate is not for this end of a connection.
    WrongUse,
    /// The certificate is wrong in another way, or of nobody that we know.
    BadCertificate,
    /// The peer did not accept our certificate.
    RefusedUs,
    /// The handshake took too long.
    TooSlow,
    /// The peer went away in the middle of the handshake; whoever looks what listens here does.
    Departed,
    /// There are too many connections.
    TooMany,
    /// There are too many connections of this address.
    TooManyFromAddress,
    /// There are too many connections without a certificate.
    TooManyStrangers,
    /// Behind the handshake came no HTTP/2.
    NotHttp2,
    /// Behind the handshake came nothing, for too long.
    Silent,
    /// The peer broke the rules of HTTP/2: a frame that is too long, or makes no sense.
    BrokeHttp2,
    /// The peer's certificate has expired since it connected.
    Outlived,
    /// A call that this peer may not make.
    NotAllowed,
    /// A call whose message is too long, or cannot be read.
    BadMessage,
    /// A join token that is not known, was used, or has expired; or what came with it cannot be.
    BadToken,
}

impl RefusalReason {
    /// All reasons.
    pub const ALL: [Self; 20] = [
        Self::NotTls,
        Self::Incompatible,
        Self::OtherAuthority,
        Self::Expired,
        Self::NotYetValid,
        Self::WrongUse,
        Self::BadCertificate,
        Self::RefusedUs,
        Self::TooSlow,
        Self::Departed,
        Self::TooMany,
        Self::TooManyFromAddress,
        Self::TooManyStrangers,
        Self::NotHttp2,
        Self::Silent,
        Self::BrokeHttp2,
        Self::Outlived,
        Self::NotAllowed,
        Self::BadMessage,
        Self::BadToken,
    ];

    /// A word for metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotTls => "not_tls",
            Self::Incompatible => "incompatible",
            Self::OtherAuthority => "other_authority",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::WrongUse => "wrong_use",
            Self::BadCertificate => "bad_certificate",
            Self::RefusedUs => "refused_us",
            Self::TooSlow => "too_slow",
            Self::Departed => "departed",
            Self::TooMany => "too_many",
            Self::TooManyFromAddress => "too_many_from_address",
            Self::TooManyStrangers => "too_many_strangers",
            Self::NotHttp2 => "not_http2",
            Self::Silent => "silent",
            Self::BrokeHttp2 => "broke_http2",
            Self::Outlived => "outlived",
            Self::NotAllowed => "not_allowed",
            Self::BadMessage => "bad_message",
            Self::BadToken => "bad_token",
        }
    }
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What was refused since the start, by reason.
#[derive(Debug)]
pub struct Refusals {
    counts: [AtomicU64; RefusalReason::ALL.len()],
    windows: Mutex<[Window; RefusalReason::ALL.len()]>,
}

impl Default for Refusals {
    fn default() -> Self {
        Self { counts: array::from_fn(|_| AtomicU64::new(0)), windows: Mutex::default() }
    }
}

impl Refusals {
    /// How many were refused for this reason.
    pub fn count(&self, reason: RefusalReason) -> u64 {
        self.counts[reason as usize].load(Ordering::Relaxed)
    }

    /// Counts a connection that was refused or cut, and logs it unless there were too many of its kind within the last minute.
    pub(crate) fn record(&self, reason: RefusalReason, address: &dyn Display, error: &(dyn Error + 'static)) {
        if reason == RefusalReason::Departed {
            self.counts[reason as usize].fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%address, error, "a peer went away in the middle of its handshake");
        } else if let Some(left_out) = self.admit(reason) {
            tracing::warn!(%address, %reason, left_out, error, "a connection was refused");
        }
    }

    /// Counts a call that was refused, and logs it unless there were too many of its kind within the last minute.
    pub fn record_call(
        &self,
        reason: RefusalReason,
        peer: &dyn Display,
        address: &dyn Display,
        call: &str,
        what: &dyn Display,
    ) {
        if let Some(left_out) = self.admit(reason) {
            tracing::warn!(%peer, %address, %reason, call, left_out, "a call was refused: {what}");
        }
    }

    /// Counts one; if it may be logged, how many were left out since the last.
    fn admit(&self, reason: RefusalReason) -> Option<u64> {
        self.counts[reason as usize].fetch_add(1, Ordering::Relaxed);
        // Nothing panics while it is held.
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)[reason as usize].admit(Instant::now())
    }
}

/// How many lines of one reason were logged in the period that runs.
#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    logged: u32,
    left_out: u64,
}

impl Window {
    /// Whether one more line may be logged; if so, how many were left out since the last.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.began.is_none_or(|began| now.saturating_duration_since(began) >= REFUSAL_LOG_PERIOD) {
            (self.began, self.logged) = (Some(now), 0);
        }
        if self.logged == REFUSALS_LOGGED {
            self.left_out += 1;
            return None;
        }
        self.logged += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_stranger_cannot_fill_the_log() {
        let (mut window, start) = (Window::default(), Instant::now());
        let lines = |window: &mut Window, from: Instant| {
            (0..1000).filter_map(|n| window.admit(from + Duration::from_millis(n))).collect::<Vec<_>>()
        };
        assert_eq!(lines(&mut window, start), [0, 0, 0]);
        assert_eq!(lines(&mut window, start + REFUSAL_LOG_PERIOD / 2), []);
        assert_eq!(lines(&mut window, start + REFUSAL_LOG_PERIOD), [1997, 0, 0]);
    }

    #[test]
    fn each_reason_is_counted_by_itself() {
        let refusals = Refusals::default();
        for (index, reason) in RefusalReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            (0..=index).for_each(|_| refusals.record(reason, &"here", &std::io::Error::other("a test")));
        }
        for (index, reason) in RefusalReason::ALL.into_iter().enumerate() {
            assert_eq!(refusals.count(reason), index as u64 + 1);
        }
    }
}
