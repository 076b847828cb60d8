//! Three sites, and what tests write to a volume there: each block says which write it is from.

/// Where the three nodes of a cluster are.
pub const SITES: [&str; 3] = ["ams", "chi", "icn"];
/// Which of the nodes is at the first of them.
pub const AMS: usize = 0;
/// At the second.
pub const CHI: usize = 1;
/// At the third.
pub const ICN: usize = 2;
/// Bytes that one write writes.
pub const BLOCK: u64 = 4096;

/// What write `number` writes, to block `number`.
pub fn contents(number: u64) -> Vec<u8> {
    let mut block = vec![0; 4096];
    for (at, place) in block.chunks_mut(8).enumerate() {
        place.copy_from_slice(&(number * 1000 + at as u64 + 1).to_le_bytes());
    }
    block
}
