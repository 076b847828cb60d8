//! How the values of this crate stand in self-describing formats such as JSON (feature `serde`).
//!
//! Names and hashes are the text that people read; ids that are counters, epochs and sizes are numbers. What is read is
//! checked as it is where people type it, so a value that cannot be is refused.

use std::fmt::Display;
use std::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::{ChunkId, ClusterId, Epoch, NodeId, Root, TokenId, VolumeId};
use crate::names::{NodeName, SiteName, SnapshotName, VolumeName};
use crate::units::{ByteRate, ByteSize, VolumeSize};

macro_rules! as_text {
    ($($type:ty),*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                from_text(deserializer)
            }
        }
    )*};
}

as_text!(ChunkId, ClusterId, Root, TokenId, VolumeName, SnapshotName, SiteName, NodeName);

fn from_text<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: FromStr,
    T::Err: Display,
    D: Deserializer<'de>,
{
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

macro_rules! as_number {
    ($($type:ty: $to:expr, $from:expr;)*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let number: fn(&$type) -> u64 = $to;
                serializer.serialize_u64(number(self))
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let value: fn(u64) -> Result<$type, String> = $from;
                value(u64::deserialize(deserializer)?).map_err(D::Error::custom)
            }
        }
    )*};
}

as_number! {
    VolumeId: |id| id.0, |number| Ok(VolumeId(number));
    NodeId: |id| id.0, |number| Ok(NodeId(number));
    ByteSize: |size| size.0, |bytes| Ok(ByteSize(bytes));
    ByteRate: |rate| rate.0, |bytes| Ok(ByteRate(bytes));
    VolumeSize: |size| size.bytes().0, |bytes| VolumeSize::try_from(ByteSize(bytes)).map_err(|error| error.to_string());
    Epoch: |epoch| epoch.number(), |number| Epoch::from_number(number).ok_or_else(|| "no volume has epoch 0".to_owned());
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt::Debug;

    use serde::de::DeserializeOwned;

    use super::*;

    fn stands_as<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T, json: &str) {
        assert_eq!(serde_json::to_string(&value).unwrap(), json);
        assert_eq!(serde_json::from_str::<T>(json).unwrap(), value);
    }

    #[test]
    fn names_and_hashes_are_text_and_counters_are_numbers() {
        let hash = ChunkId::from_bytes([0xab; 32]);
        stands_as(hash, &format!("\"{}\"", "ab".repeat(32)));
        stands_as(Root::at(hash), &format!("\"{}\"", "ab".repeat(32)));
        stands_as(Root::EMPTY, "\"empty\"");
        stands_as(ClusterId::from_bytes([1; 16]), &format!("\"{}\"", "01".repeat(16)));
        stands_as("root-disk".parse::<VolumeName>().unwrap(), "\"root-disk\"");
        stands_as(NodeId::FIRST, "1");
        stands_as(Epoch::FIRST, "1");
        stands_as(VolumeSize::try_from(ByteSize(8192)).unwrap(), "8192");
        stands_as(BTreeMap::from([(VolumeId(u64::MAX), ByteSize(1))]), "{\"18446744073709551615\":1}");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert!(serde_json::from_str::<VolumeName>("\"No!\"").is_err());
        assert!(serde_json::from_str::<Root>("\"nothing\"").is_err());
        assert!(serde_json::from_str::<VolumeSize>("4097").is_err());
        assert!(serde_json::from_str::<Epoch>("0").is_err());
        assert!(serde_json::from_str::<NodeId>("-1").is_err());
    }
}
