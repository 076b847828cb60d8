//! Heat as bytes: kept with the volume, and sent ahead of it where it goes. What was counted then is taken for counted at the moment at
//! which it is read.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | version: 1 |
//! | 1 | 1 | blocks of a region, as a power of two |
//! | 2 | 2 | zero |
//! | 4 | | regions, 12 bytes each, in order: which (4), reads (4), writes (4), both in sixteenths of blocks and decayed |
//!
//! Integers are little-endian. There are at most 32,768 regions, those that are used most: 384 KiB.

use sterna_runtime::BootTime;

use super::{Heat, MAX_COUNT, PER_BLOCK, Region, SMALLEST_SHIFT, minute_of};

/// Bytes that are no heat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHeat {
    /// There is no such format, or a later program has made it.
    #[error("what it begins with is not known here")]
    Header,
    /// Regions have 12 bytes each, and there are at most 32,768.
    #[error("{0} bytes of regions are no whole number of them, or of too many")]
    Length(usize),
    /// A region that is not behind the one before it, or is not used, or more than can be counted.
    #[error("region {0} is out of order, not used, or used more than can be counted")]
    Region(usize),
}

impl Heat {
    /// It as bytes, as of now; at most [`MAX_KEPT_BYTES`].
    pub fn encode(&self, now: BootTime) -> Vec<u8> {
        let mut regions: Vec<_> = self.regions(now).collect();
        if regions.len() > MAX_KEPT_REGIONS {
            regions.sort_by_key(|region| std::cmp::Reverse(region.reads.saturating_add(region.writes)));
            regions.truncate(MAX_KEPT_REGIONS);
            regions.sort_by_key(|region| region.blocks.start);
        }
        let mut bytes = vec![VERSION, u8::try_from(self.shift).unwrap_or(u8::MAX), 0, 0];
        for Region { blocks, reads, writes } in regions {
            let region = u32::try_from(blocks.start >> self.shift).unwrap_or(u32::MAX);
            [region, reads, writes].into_iter().for_each(|number| bytes.extend(number.to_le_bytes()));
        }
        bytes
    }

    /// Adds what was kept, as if it were counted now. Regions of another size share what they had.
    ///
    /// # Errors
    /// [`InvalidHeat`]; then nothing is added.
    pub fn adopt(&self, bytes: &[u8], now: BootTime) -> Result<(), InvalidHeat> {
        let minute = minute_of(now);
        for Region { blocks, reads, writes } in parse(bytes)? {
            // Of both sizes the smaller one: a part of one region on either side.
            let step = (blocks.end - blocks.start).min(1 << self.shift);
            let parts = u32::try_from((blocks.end - blocks.start) / step).unwrap_or(u32::MAX);
            for from in blocks.step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
                let share = (reads.div_ceil(parts), writes.div_ceil(parts));
                if self.add(from >> self.shift, minute, share).is_none() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Whether these bytes are heat.
    ///
    /// # Errors
    /// [`InvalidHeat`].
    pub fn check(bytes: &[u8]) -> Result<(), InvalidHeat> {
        parse(bytes).map(drop)
    }
}

fn parse(bytes: &[u8]) -> Result<Vec<Region>, InvalidHeat> {
    let Some(([VERSION, shift, 0, 0], rest)) = bytes.split_first_chunk::<4>() else { return Err(InvalidHeat::Header) };
    let shift = u32::from(*shift);
    if !(SMALLEST_SHIFT..=LARGEST_SHIFT).contains(&shift) {
        return Err(InvalidHeat::Header);
    }
    let (regions, []) = rest.as_chunks::<REGION_BYTES>() else { return Err(InvalidHeat::Length(rest.len())) };
    if regions.len() > MAX_KEPT_REGIONS {
        return Err(InvalidHeat::Length(rest.len()));
    }
    let (mut parsed, mut next) = (Vec::with_capacity(regions.len()), 0);
    for (at, region) in regions.iter().enumerate() {
        let number = |field: usize| region.as_chunks::<4>().0[field];
        let [region, reads, writes] = [0, 1, 2].map(|field| u32::from_le_bytes(number(field)));
        let region = u64::from(region);
        if region < next || reads | writes == 0 || reads.max(writes) > MAX_COUNT {
            return Err(InvalidHeat::Region(at));
        }
        next = region + 1;
        parsed.push(Region { blocks: region << shift..next << shift, reads, writes });
    }
    Ok(parsed)
}

const VERSION: u8 = 1;
const REGION_BYTES: usize = 12;
/// 8 GiB of regions of 256 KiB.
pub(super) const MAX_KEPT_REGIONS: usize = 32_768;
/// The most bytes that [`Heat::encode`] gives.
pub const MAX_KEPT_BYTES: usize = 4 + MAX_KEPT_REGIONS * REGION_BYTES;
/// 1 TiB: no volume has larger regions, and no number of blocks is beyond 64 bits.
const LARGEST_SHIFT: u32 = 28;
const _: () = assert!(MAX_COUNT / PER_BLOCK > 1 << SMALLEST_SHIFT, "a region that is read as a whole can be counted");
