//! Bounds that more than one crate relies on, each with its reason. What only one crate needs stands in that crate.

/// The longest name of a volume, site or node, in bytes: that of a DNS label, so that a name can be one.
pub const MAX_NAME_BYTES: usize = 63;

/// The most runs that one question for allocation or residency is answered with: 2^16. The NBD specification advises
/// against more than 2^20 in one reply; this many take 1 MiB there, and a client asks again for the rest.
pub const MAX_STATUS_RUNS: usize = 1 << 16;
