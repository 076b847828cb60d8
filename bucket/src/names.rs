//! What the objects of a bucket are called, below the prefix that its address gives.
//!
//! | name | what |
//! |---|---|
//! | `terms` | what all who use the bucket agree on |
//! | `packs/PACK` | a pack; PACK has 32 hexadecimal digits |
//! | `doomed/PACK` | says since when nothing needs that pack |
//! | `volumes/CLUSTER/VOLUME/EPOCH-GENERATION` | a record of a volume: CLUSTER has 32 hexadecimal digits, the others 16 |
//! | `clock` | written and looked at to learn what time it is there |

use std::fmt;
use std::str::FromStr;

use sterna_types::{ClusterId, Epoch, VolumeId};

/// What says what all agree on.
pub(crate) const TERMS: &str = "terms";
/// What tells the time.
pub(crate) const CLOCK: &str = "clock";
/// Under which packs are.
pub(crate) const PACKS: &str = "packs";
/// Under which it is said that nothing needs a pack.
pub(crate) const DOOMED: &str = "doomed";
/// Under which the records of volumes are.
pub(crate) const VOLUMES: &str = "volumes";

/// A pack: 16 random bytes, written as 32 hexadecimal digits in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackId([u8; 16]);

impl PackId {
    /// Its bytes.
    pub const BYTES: usize = 16;

    /// One that no other pack has.
    ///
    /// # Errors
    /// The operating system gives no random bytes.
    pub(crate) fn new() -> Result<Self, sterna_runtime::chance::NoRandomBytes> {
        sterna_runtime::chance::bytes().map(Self)
    }

    /// The pack of these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Its object.
    pub(crate) fn object(self) -> String {
        format!("{PACKS}/{self}")
    }

    /// The object that says since when nothing needs it.
    pub(crate) fn doom(self) -> String {
        format!("{DOOMED}/{self}")
    }
}

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A name that is not of its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{name}' is no name of Sterna's")]
pub struct ForeignName {
    /// It.
    pub name: String,
}

impl FromStr for PackId {
    type Err = ForeignName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = (text.len() == 32).then(|| lower_hex(text)).flatten();
        number.map(|number| Self(number.to_be_bytes())).ok_or_else(|| ForeignName { name: text.to_owned() })
    }
}

/// A volume of a cluster: whatever it is called, no other one is this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeKey {
    /// The cluster.
    pub cluster: ClusterId,
    /// The volume there.
    pub volume: VolumeId,
}

/// Which record of a volume: the newest is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey {
    /// Of which volume.
    pub of: VolumeKey,
    /// The epoch in which its contents were published.
    pub epoch: Epoch,
    /// And their generation.
    pub generation: u64,
}

impl RecordKey {
    /// Its object.
    pub(crate) fn object(&self) -> String {
        let Self { of, epoch, generation } = self;
        format!("{}/{:016x}-{generation:016x}", of.object(), epoch.number())
    }
}

impl VolumeKey {
    /// Under which its records are.
    pub(crate) fn object(&self) -> String {
        format!("{VOLUMES}/{}/{:016x}", self.cluster, self.volume.0)
    }
}

/// As people give it: CLUSTER/VOLUME.
impl fmt::Display for VolumeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.cluster, self.volume.0)
    }
}

impl FromStr for VolumeKey {
    type Err = ForeignName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let foreign = || ForeignName { name: text.to_owned() };
        let (cluster, volume) = text.split_once('/').ok_or_else(foreign)?;
        let cluster = cluster.parse().map_err(|_| foreign())?;
        Ok(Self { cluster, volume: VolumeId(volume.parse().map_err(|_| foreign())?) })
    }
}

/// From an object's name.
impl FromStr for RecordKey {
    type Err = ForeignName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (cluster, rest) = text.strip_prefix(VOLUMES)?.strip_prefix('/')?.split_once('/')?;
            let (volume, state) = rest.split_once('/')?;
            let (epoch, generation) = state.split_once('-')?;
            let number = |text: &str| {
                let number = (text.len() == 16).then(|| lower_hex(text)).flatten()?;
                u64::try_from(number).ok()
            };
            let is_lower = !cluster.bytes().any(|c| c.is_ascii_uppercase());
            let cluster = cluster.parse().ok().filter(|_| is_lower)?;
            let of = VolumeKey { cluster, volume: VolumeId(number(volume)?) };
            Some(Self { of, epoch: Epoch::from_number(number(epoch)?)?, generation: number(generation)? })
        };
        parse().ok_or_else(|| ForeignName { name: text.to_owned() })
    }
}

fn lower_hex(text: &str) -> Option<u128> {
    let is_lower_hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    let is_all = text.bytes().all(is_lower_hex);
    is_all.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;

    proptest! {
        #[test]
        fn names_read_back_as_they_were_written(
            cluster in any::<[u8; 16]>(), volume in any::<u64>(), epoch in 1..u64::MAX, generation in any::<u64>(),
        ) {
            let of = VolumeKey { cluster: ClusterId::from_bytes(cluster), volume: VolumeId(volume) };
            let epoch = Epoch::from_number(epoch).expect("an epoch");
            let key = RecordKey { of, epoch, generation };
            prop_assert_eq!(key.object().parse::<RecordKey>(), Ok(key));
            prop_assert_eq!(of.to_string().parse::<VolumeKey>(), Ok(of));
            let pack = PackId(cluster);
            prop_assert_eq!(pack.to_string().parse::<PackId>(), Ok(pack));
        }
    }

    #[test]
    fn what_is_not_ours_is_told_apart() {
        let cluster = "07".repeat(16);
        for text in ["", "x", &"0".repeat(31), &"0".repeat(33), &"A".repeat(32), &"+".repeat(32)] {
            assert!(text.parse::<PackId>().is_err(), "{text}");
        }
        let (volume, state) = (format!("{:016x}", 7), format!("{:016x}-{:016x}", 1, 2));
        assert!(format!("volumes/{cluster}/{volume}/{state}").parse::<RecordKey>().is_ok());
        for text in [
            format!("volumes/{cluster}/7/{state}"),
            format!("volumes/{cluster}/{volume}/{:016x}-{:016x}", 0, 2),
            format!("volumes/{cluster}/{volume}/{state}/x"),
            format!("packs/{cluster}/{volume}/{state}"),
        ] {
            assert!(text.parse::<RecordKey>().is_err(), "{text}");
        }
    }

    #[test]
    fn later_records_are_greater() {
        let of = VolumeKey { cluster: ClusterId::from_bytes([1; 16]), volume: VolumeId(1) };
        let key = |epoch, generation| RecordKey { of, epoch: Epoch::from_number(epoch).expect("an epoch"), generation };
        assert!(key(1, 9) < key(1, 10) && key(1, 10) < key(2, 3));
        assert!(key(1, 9).object() < key(1, 10).object());
    }
}
