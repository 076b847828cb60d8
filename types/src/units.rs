//! Bytes, blocks and segments as types of their own.
//!
//! Invariants:
//! * a [`ByteRange`] never wraps: `start + length <= u64::MAX`;
//! * a [`VolumeSize`] is a whole number of blocks, at least one, at most [`VolumeSize::MAX`].

use std::fmt;
use std::str::FromStr;

/// Bytes in a block, the unit of a volume's map: 4 KiB.
pub const BLOCK_SIZE: u64 = 4096;
/// Bytes in a segment: 4 MiB, that is [`BLOCKS_PER_SEGMENT`] blocks.
pub const SEGMENT_SIZE: u64 = BLOCKS_PER_SEGMENT * BLOCK_SIZE;
/// Blocks in a segment.
pub const BLOCKS_PER_SEGMENT: u64 = 1024;

/// A place in a device, in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteOffset(pub u64);

impl ByteOffset {
    /// The block that this byte lies in.
    pub fn block(self) -> BlockIndex {
        BlockIndex(self.0 / BLOCK_SIZE)
    }

    /// The segment that this byte lies in.
    pub fn segment(self) -> SegmentIndex {
        SegmentIndex(self.0 / SEGMENT_SIZE)
    }
}

impl fmt::Display for ByteOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A block of a device, counted from its start in units of [`BLOCK_SIZE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BlockIndex(pub u64);

/// A segment of a device, counted from its start in units of [`SEGMENT_SIZE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SegmentIndex(pub u64);

impl SegmentIndex {
    /// The first byte of the segment.
    pub fn start(self) -> ByteOffset {
        ByteOffset(self.0 * SEGMENT_SIZE)
    }
}

/// A run of bytes of a device that does not wrap around.
///
/// ```
/// use sterna_types::{ByteOffset, ByteRange, ByteSize};
///
/// let range = ByteRange::new(ByteOffset(4096), 8192)?;
/// assert!(range.is_within(ByteSize(12288)) && !range.is_within(ByteSize(12287)));
/// assert!(ByteRange::new(ByteOffset(u64::MAX), 2).is_err());
/// # Ok::<(), sterna_types::units::RangeOverflow>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ByteRange {
    start: u64,
    length: u64,
}

/// A range whose end is beyond the last byte that 64 bits can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the range of {length} bytes at {start:#x} ends beyond 2^64 bytes")]
pub struct RangeOverflow {
    /// Where the range would have begun, in bytes.
    pub start: u64,
    /// How long it would have been, in bytes.
    pub length: u64,
}

impl ByteRange {
    /// The `length` bytes from `start` on.
    ///
    /// # Errors
    /// [`RangeOverflow`] where the end does not fit 64 bits.
    pub fn new(start: ByteOffset, length: u64) -> Result<Self, RangeOverflow> {
        match start.0.checked_add(length) {
            Some(_) => Ok(Self { start: start.0, length }),
            None => Err(RangeOverflow { start: start.0, length }),
        }
    }

    /// The bytes from `start` up to and without `end`; empty where `end` is not behind `start`.
    pub fn between(start: ByteOffset, end: ByteOffset) -> Self {
        Self { start: start.0, length: end.0.saturating_sub(start.0) }
    }

    /// The first byte.
    pub fn start(self) -> ByteOffset {
        ByteOffset(self.start)
    }

    /// The byte behind the last one.
    pub fn end(self) -> ByteOffset {
        ByteOffset(self.start + self.length)
    }

    /// How many bytes.
    pub fn length(self) -> u64 {
        self.length
    }

    /// Whether it has no byte.
    pub fn is_empty(self) -> bool {
        self.length == 0
    }

    /// Whether all of it lies within a device of `size` bytes. An empty range does so up to and at the very end.
    pub fn is_within(self, size: ByteSize) -> bool {
        self.start <= size.0 && self.length <= size.0 - self.start
    }

    /// Whether its start and length are multiples of `unit`, which is not 0.
    pub fn is_aligned_to(self, unit: u64) -> bool {
        self.start.is_multiple_of(unit) && self.length.is_multiple_of(unit)
    }

    /// The part of it that lies in each segment it touches, in order.
    pub fn per_segment(self) -> impl Iterator<Item = (SegmentIndex, ByteRange)> {
        let end = self.end();
        let mut at = self.start();
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let segment = at.segment();
            let until = ByteOffset(segment.start().0.saturating_add(SEGMENT_SIZE).min(end.0));
            let part = ByteRange::between(at, until);
            at = until;
            Some((segment, part))
        })
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {:#x}", self.length, self.start)
    }
}

/// A number of bytes, written `4096`, `512M`, `20G` or `1T` (powers of 1024).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

/// A text that is not a [`ByteSize`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{text}' is not a size: give bytes, or a number with K, M, G or T behind it (powers of 1024), below 2^64 bytes"
)]
pub struct InvalidByteSize {
    /// What was given.
    pub text: String,
}

impl FromStr for ByteSize {
    type Err = InvalidByteSize;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidByteSize { text: text.to_owned() };
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let shift = match unit {
            "" | "B" => 0,
            "K" | "k" | "KiB" => 10,
            "M" | "m" | "MiB" => 20,
            "G" | "g" | "GiB" => 30,
            "T" | "t" | "TiB" => 40,
            _ => return Err(invalid()),
        };
        let number: u64 = number.parse().map_err(|_| invalid())?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(invalid)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        match units.iter().find(|(shift, _)| self.0 != 0 && self.0.is_multiple_of(1 << shift)) {
            Some((shift, unit)) => write!(f, "{} {unit}", self.0 >> shift),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

/// Bytes in a second; written as bits in a second, `24Mbit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteRate(pub u64);

/// A text that is not a [`ByteRate`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a rate: give bits in a second, such as 50Mbit, from 1Mbit to 1000Gbit")]
pub struct InvalidByteRate {
    /// What was given.
    pub text: String,
}

impl ByteRate {
    /// The least that keeps connections alive for certain, 1 Mbit/s.
    pub const MIN: Self = Self(125_000);
    /// The most, 1,000 Gbit/s.
    pub const MAX: Self = Self(125_000_000_000);
}

/// As lines are sold: bits in a second, `1500kbit`, `50Mbit`, `1Gbit`.
impl FromStr for ByteRate {
    type Err = InvalidByteRate;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let unit = UNITS_OF_RATES.iter().find_map(|(bits, name)| (*name == unit).then_some(*bits));
        let bits = unit.zip(digits.parse::<u64>().ok()).and_then(|(unit, number)| number.checked_mul(unit));
        let rate = bits.map(|bits| Self(bits / 8)).filter(|rate| (Self::MIN..=Self::MAX).contains(rate));
        rate.ok_or_else(|| InvalidByteRate { text: text.to_owned() })
    }
}

/// As it is read, in the largest unit of which it is a whole number.
impl fmt::Display for ByteRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.0.saturating_mul(8);
        match UNITS_OF_RATES.iter().find(|(unit, _)| bits > 0 && bits.is_multiple_of(*unit)) {
            Some((unit, name)) => write!(f, "{}{name}", bits / unit),
            None => write!(f, "{bits}bit"),
        }
    }
}

const UNITS_OF_RATES: [(u64, &str); 3] = [(1_000_000_000, "Gbit"), (1_000_000, "Mbit"), (1_000, "kbit")];

/// The size of a volume: whole blocks, at least one, at most 64 TiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeSize(ByteSize);

/// A size that no volume can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidVolumeSize {
    /// A volume has at least one block.
    #[error("a volume cannot be empty: give a size of at least {BLOCK_SIZE} bytes")]
    Zero,
    /// A volume is a whole number of blocks.
    #[error("{0} is not a multiple of {BLOCK_SIZE} bytes, the block of a volume")]
    NotWholeBlocks(ByteSize),
    /// A volume has a bounded map.
    #[error("{0} is more than the largest volume, {max}", max = VolumeSize::MAX)]
    TooLarge(ByteSize),
}

impl TryFrom<ByteSize> for VolumeSize {
    type Error = InvalidVolumeSize;

    fn try_from(size: ByteSize) -> Result<Self, Self::Error> {
        match size {
            ByteSize(0) => Err(InvalidVolumeSize::Zero),
            _ if !size.0.is_multiple_of(BLOCK_SIZE) => Err(InvalidVolumeSize::NotWholeBlocks(size)),
            _ if size > VolumeSize::MAX => Err(InvalidVolumeSize::TooLarge(size)),
            _ => Ok(Self(size)),
        }
    }
}

impl VolumeSize {
    /// The largest volume: 64 TiB. It bounds the depth of a volume's map, and is the largest disk that the hypervisors
    /// Sterna serves are run with.
    pub const MAX: ByteSize = ByteSize(64 << 40);

    /// The size in bytes.
    pub fn bytes(self) -> ByteSize {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    #[test]
    fn a_rate_reads_back_as_it_was_written() {
        let rates =
            [("1500kbit", 187_500), ("50Mbit", 6_250_000), ("1Gbit", 125_000_000), ("1000Gbit", 125_000_000_000)];
        for (text, bytes) in rates {
            assert_eq!(text.parse(), Ok(ByteRate(bytes)), "{text}");
            assert_eq!(ByteRate(bytes).to_string(), text);
        }
        assert_eq!(ByteRate(33).to_string(), "264bit");
        let many = "99999999999999999999Mbit";
        for bad in
            ["", "Mbit", "50", "50M", "50MB", "-1Mbit", "+1Mbit", "0Mbit", "999kbit", "1001Gbit", "1.5Mbit", many]
        {
            assert!(bad.parse::<ByteRate>().is_err(), "{bad} was taken for a rate");
        }
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!("20G".parse(), Ok(ByteSize(20 << 30)));
        assert_eq!("4096".parse(), Ok(ByteSize(4096)));
        assert_eq!("64TiB".parse(), Ok(ByteSize(64 << 40)));
        for bad in ["", "G", "-1", "1.5G", "20X", "99999999999T", "١"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad} was taken for a size");
        }
        assert_eq!(ByteSize(20 << 30).to_string(), "20 GiB");
        assert_eq!(ByteSize(4097).to_string(), "4097 bytes");
    }

    #[test]
    fn volumes_are_whole_blocks_and_bounded() {
        assert_eq!(VolumeSize::try_from(ByteSize(0)), Err(InvalidVolumeSize::Zero));
        assert_eq!(VolumeSize::try_from(ByteSize(4095)), Err(InvalidVolumeSize::NotWholeBlocks(ByteSize(4095))));
        assert!(VolumeSize::try_from(ByteSize(64 << 40)).is_ok());
        let beyond = ByteSize((64 << 40) + 4096);
        assert_eq!(VolumeSize::try_from(beyond), Err(InvalidVolumeSize::TooLarge(beyond)));
    }

    proptest! {
        #[test]
        fn a_range_is_within_a_size_exactly_if_its_last_byte_is(start in any::<u64>(), length in any::<u64>(), size in any::<u64>()) {
            let within = u128::from(start) + u128::from(length) <= u128::from(size);
            match ByteRange::new(ByteOffset(start), length) {
                Ok(range) => prop_assert_eq!(range.is_within(ByteSize(size)), within),
                Err(_) => prop_assert!(!within),
            }
        }

        #[test]
        fn the_parts_of_a_range_are_the_range(start in 0u64..1 << 40, length in 0u64..1 << 26) {
            let range = ByteRange::new(ByteOffset(start), length)?;
            let mut at = range.start();
            for (segment, part) in range.per_segment() {
                prop_assert_eq!(part.start(), at);
                prop_assert!(!part.is_empty());
                prop_assert_eq!(part.start().segment(), segment);
                prop_assert_eq!(ByteOffset(part.end().0 - 1).segment(), segment);
                at = part.end();
            }
            prop_assert_eq!(at, range.end());
        }
    }
}
