//! A volume as it has to be known to be made again somewhere else: an object of text, written once all chunks that it needs are there.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sterna_types::{ClusterId, Epoch, NodeName, Root, SiteName, SnapshotName, VolumeId, VolumeName, VolumeSize};

use crate::error::BucketError;
use crate::names::{RecordKey, VolumeKey};
use crate::sealed::{self, Kind};

/// A volume, at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeRecord {
    /// The cluster that it is of.
    pub cluster: ClusterId,
    /// Which one it is there.
    pub volume: VolumeId,
    /// What it is called.
    pub name: VolumeName,
    /// Its size.
    pub size: VolumeSize,
    /// How its contents are cut and written down, as the metadata has it.
    pub format: u32,
    /// What its flushes wait for, as the metadata writes it.
    pub durability: String,
    /// Who may attach it where, as the metadata writes it.
    pub attach: String,
    /// The epoch in which the contents were published.
    pub epoch: Epoch,
    /// The contents.
    pub root: Root,
    /// How often it had been sealed.
    pub generation: u64,
    /// How many blocks of data the writes had that are in it, over all of the volume's life.
    pub written_blocks: u64,
    /// When the contents were published, in milliseconds since 1970, by the clock of the owner; `None` where it is not known.
    pub published_ms: Option<u64>,
    /// The node that has sent this.
    pub node: NodeName,
    /// Where that is.
    pub site: SiteName,
    /// Its snapshots that the node has.
    pub snapshots: BTreeMap<SnapshotName, SnapshotRecord>,
}

/// A snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotRecord {
    /// The contents.
    pub root: Root,
    /// The size of the volume then.
    pub size: VolumeSize,
    /// How often it had been sealed.
    pub generation: u64,
    /// When it was asked for, in milliseconds since 1970.
    pub created_ms: u64,
}

impl VolumeRecord {
    /// Which record it is.
    pub fn key(&self) -> RecordKey {
        let of = VolumeKey { cluster: self.cluster, volume: self.volume };
        RecordKey { of, epoch: self.epoch, generation: self.generation }
    }

    /// All that has to be here: its contents, and those of its snapshots.
    pub fn roots(&self) -> impl Iterator<Item = Root> + '_ {
        std::iter::once(self.root).chain(self.snapshots.values().map(|snapshot| snapshot.root))
    }

    /// As an object.
    pub(crate) fn seal(&self) -> Result<Bytes, BucketError> {
        sealed::seal(KIND, &self.key().object(), self)
    }

    /// From an object, which has to be the one of this key.
    pub(crate) fn unseal(key: &RecordKey, object: &[u8]) -> Result<Self, BucketError> {
        let name = key.object();
        let record: Self = sealed::unseal(KIND, &name, object)?;
        if record.key() != *key {
            return Err(BucketError::damaged(name, "it is the record of something else"));
        }
        if record.snapshots.values().any(|snapshot| snapshot.size > record.size) {
            return Err(BucketError::damaged(name, "a snapshot is larger than the volume"));
        }
        Ok(record)
    }
}

const KIND: Kind = Kind { magic: "sterna-volume", version: 1 };
/// The most bytes of a record: more snapshots than a volume can have, with long names.
pub(crate) const MAX_RECORD_BYTES: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::record;

    #[test]
    fn a_record_reads_back_as_it_was_written_and_is_that_of_its_name() {
        let record = record("disk", Root::EMPTY, 7);
        let object = record.seal().expect("a record");
        assert_eq!(VolumeRecord::unseal(&record.key(), &object).expect("a record"), record);
        let other = RecordKey { generation: 8, ..record.key() };
        assert!(matches!(VolumeRecord::unseal(&other, &object), Err(BucketError::Damaged { .. })));
        let text = std::str::from_utf8(&object).expect("a text");
        assert!(text.starts_with("sterna-volume 1 ") && text.contains("\"name\": \"disk\""), "{text}");
    }

    #[test]
    fn a_field_that_is_not_known_is_refused() {
        let record = record("disk", Root::EMPTY, 7);
        let mut json = serde_json::to_value(&record).expect("JSON");
        json["encrypted"] = true.into();
        let object = sealed::seal(KIND, "x", &json).expect("a text");
        assert!(VolumeRecord::unseal(&record.key(), &object).is_err());
    }
}
