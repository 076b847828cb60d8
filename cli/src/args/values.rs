//! Values that several commands take: contents by name, sizes, rates.

use std::fmt;
use std::str::FromStr;

use sterna_types::limits::MAX_NAME_BYTES;
use sterna_types::names::InvalidName;
use sterna_types::units::{InvalidByteRate, InvalidByteSize, InvalidVolumeSize};
use sterna_types::{BLOCK_SIZE, ByteRate, ByteSize, SnapshotName, VolumeName, VolumeSize};

/// What a volume holds now, or what it held at a snapshot: `NAME` or `NAME@SNAPSHOT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) volume: VolumeName,
    pub(crate) snapshot: Option<SnapshotName>,
}

impl FromStr for Contents {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('@') {
            Some((volume, snapshot)) => Ok(Self { volume: volume.parse()?, snapshot: Some(snapshot.parse()?) }),
            None => Ok(Self { volume: text.parse()?, snapshot: None }),
        }
    }
}

impl fmt::Display for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.snapshot {
            Some(snapshot) => write!(f, "{}@{snapshot}", self.volume),
            None => self.volume.fmt(f),
        }
    }
}

/// What has to be at another site before a volume goes on there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Requirement {
    /// What its clients read most.
    #[default]
    Hot,
    /// All of it.
    All,
    /// Nothing: it is fetched as it is needed.
    None,
}

/// A text that is not a [`Requirement`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is nothing that can be required to be there: 'hot', 'all' and 'none' are")]
pub(crate) struct InvalidRequirement(String);

impl FromStr for Requirement {
    type Err = InvalidRequirement;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "hot" => Ok(Self::Hot),
            "all" => Ok(Self::All),
            "none" => Ok(Self::None),
            _ => Err(InvalidRequirement(text.to_owned())),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hot => "hot",
            Self::All => "all",
            Self::None => "none",
        })
    }
}

/// A limit that is set or lifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// So much at most.
    AtMost(ByteRate),
    /// As much as there is.
    None,
}

/// A text that is not a [`Limit`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}; or 'none'")]
pub(crate) struct InvalidLimit(InvalidByteRate);

impl FromStr for Limit {
    type Err = InvalidLimit;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self::None),
            rate => rate.parse().map(Self::AtMost).map_err(InvalidLimit),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(rate) => rate.fmt(f),
            Self::None => f.write_str("none"),
        }
    }
}

/// What the volume is called that an image on its way in is written to, behind the name that it will have.
pub(crate) const IMPORTING_SUFFIX: &str = ".importing";

/// A text that cannot name a new volume.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidNewName {
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error("'{0}' ends in '{IMPORTING_SUFFIX}', which is kept for images on their way in: choose another name")]
    Reserved(VolumeName),
    #[error(
        "'{0}' is too long for a volume that is imported: '{IMPORTING_SUFFIX}' has to fit behind it in {MAX_NAME_BYTES} bytes"
    )]
    NoPlaceForSuffix(VolumeName),
}

/// The name of a new volume.
pub(crate) fn new_volume_name(text: &str) -> Result<VolumeName, InvalidNewName> {
    let name: VolumeName = text.parse()?;
    if text.ends_with(IMPORTING_SUFFIX) { Err(InvalidNewName::Reserved(name)) } else { Ok(name) }
}

/// The name of a new volume that begins as an image.
pub(crate) fn imported_volume_name(text: &str) -> Result<VolumeName, InvalidNewName> {
    let name = new_volume_name(text)?;
    let fits = text.len() + IMPORTING_SUFFIX.len() <= MAX_NAME_BYTES;
    if fits { Ok(name) } else { Err(InvalidNewName::NoPlaceForSuffix(name)) }
}

/// A text that is not the size of a volume.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidSize {
    #[error(transparent)]
    Text(#[from] InvalidByteSize),
    #[error("{error}: give {} for the next one that is", .next.0)]
    NotWholeBlocks { error: InvalidVolumeSize, next: ByteSize },
    #[error(transparent)]
    Volume(#[from] InvalidVolumeSize),
}

/// The size of a volume.
pub(crate) fn volume_size(text: &str) -> Result<VolumeSize, InvalidSize> {
    let size: ByteSize = text.parse()?;
    if size > VolumeSize::MAX {
        return Err(InvalidVolumeSize::TooLarge(size).into());
    }
    VolumeSize::try_from(size).map_err(|error| match error {
        InvalidVolumeSize::NotWholeBlocks(_) => {
            InvalidSize::NotWholeBlocks { error, next: ByteSize(size.0.next_multiple_of(BLOCK_SIZE)) }
        }
        error => error.into(),
    })
}

/// Bytes in a second, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate(ByteSize);

/// A text that is not a [`Rate`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidRate {
    #[error(transparent)]
    Text(#[from] InvalidByteSize),
    #[error("at 0 bytes in a second it would never end: leave it out for no limit")]
    Zero,
}

impl Rate {
    pub(crate) fn bytes_per_second(self) -> u64 {
        self.0.0
    }
}

impl FromStr for Rate {
    type Err = InvalidRate;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse()? {
            ByteSize(0) => Err(InvalidRate::Zero),
            size => Ok(Self(size)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_a_volume_and_perhaps_a_snapshot() {
        for text in ["web-1", "web-1@before.upgrade"] {
            assert_eq!(text.parse::<Contents>().map(|contents| contents.to_string()), Ok(text.to_owned()));
        }
        for (bad, what) in
            [("", "volume"), ("@a", "volume"), ("a@", "snapshot"), ("a@b@c", "snapshot"), ("A", "volume")]
        {
            assert_eq!(bad.parse::<Contents>().expect_err(bad).what, what);
        }
    }

    #[test]
    fn names_of_images_on_their_way_in_are_not_given_to_others() {
        assert!(matches!(new_volume_name("web.importing"), Err(InvalidNewName::Reserved(_))));
        assert!(new_volume_name("importing").is_ok() && new_volume_name(&"a".repeat(63)).is_ok());
        assert!(imported_volume_name(&"a".repeat(53)).is_ok());
        assert!(matches!(imported_volume_name(&"a".repeat(54)), Err(InvalidNewName::NoPlaceForSuffix(_))));
    }

    #[test]
    fn a_size_that_is_refused_is_answered_with_one_that_is_not() {
        assert_eq!(volume_size("20G").map(|size| size.bytes()), Ok(ByteSize(20 << 30)));
        for (bad, words) in [
            ("0", "at least 4096"),
            ("4097", "give 8192"),
            ("65T", "64 TiB"),
            ("18446744073709551615", "64 TiB"),
            ("1.5G", "not a size"),
        ] {
            let message = volume_size(bad).expect_err(bad).to_string();
            assert!(message.contains(words), "{bad}: {message}");
        }
    }

    #[test]
    fn a_rate_is_not_zero() {
        assert_eq!("50M".parse::<Rate>().map(Rate::bytes_per_second), Ok(50 << 20));
        assert_eq!("0K".parse::<Rate>(), Err(InvalidRate::Zero));
    }
}
