//! The time of day, for what people read and for when tokens expire. Nothing about who owns what is decided by it.

use std::time::UNIX_EPOCH;

use sterna_consensus::state::volume::UnixTime;
use sterna_runtime::clock::wall_time;

/// Now, by this machine's clock. One that is before 1970 is wrong, and taken for 1970.
pub(super) fn now() -> UnixTime {
    let since = wall_time().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixTime { unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX) }
}
