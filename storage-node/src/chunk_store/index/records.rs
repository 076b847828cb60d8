//! Records of volumes in the index: a small typed table.

use std::fmt;
use std::sync::Arc;

use sterna_types::VolumeId;

use super::{Batch, Index, IndexError, Space};

/// One record per volume, whose contents are their owner's. The key is the table, one byte, and the volume's id, eight
/// bytes, the highest first.
#[derive(Clone)]
pub struct VolumeRecords {
    index: Arc<dyn Index>,
}

impl fmt::Debug for VolumeRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VolumeRecords").finish_non_exhaustive()
    }
}

impl VolumeRecords {
    /// The records that this index keeps.
    pub fn new(index: Arc<dyn Index>) -> Self {
        Self { index }
    }

    /// The record of a volume; `None` where it has none. It is the one that will be found after a crash: whoever reads it goes
    /// on to remove what it does not name.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn get(&self, volume: VolumeId) -> Result<Option<Vec<u8>>, IndexError> {
        self.index.check_sound()?;
        self.index.get(Space::Records, &key_of(volume))
    }

    /// Gives a volume a record, in place of any that it has. Durable on return.
    ///
    /// # Errors
    /// [`IndexError`]; which of the two records is there is then unknown until the index has been opened anew.
    pub fn put(&self, volume: VolumeId, record: Vec<u8>) -> Result<(), IndexError> {
        let mut batch = Batch::new();
        batch.put(Space::Records, &key_of(volume), record);
        self.index.commit(batch, true)
    }

    /// Removes the record of a volume; one that is not there is no error. Durable on return.
    ///
    /// # Errors
    /// [`IndexError`]; whether the record is there is then unknown until the index has been opened anew.
    pub fn remove(&self, volume: VolumeId) -> Result<(), IndexError> {
        let mut batch = Batch::new();
        batch.delete(Space::Records, &key_of(volume));
        self.index.commit(batch, true)
    }

    /// All records, by the id of their volume. As with [`VolumeRecords::get`].
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn list(&self) -> Result<Vec<(VolumeId, Vec<u8>)>, IndexError> {
        self.index.check_sound()?;
        let (mut records, mut after) = (Vec::new(), None);
        loop {
            let page = self.index.page(Space::Records, &[VOLUMES], after.as_deref(), RECORDS_PER_PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(records) };
            after = Some(last.clone());
            for (key, record) in page {
                let id = key.get(1..).and_then(|id| <[u8; 8]>::try_from(id).ok());
                let id = id.ok_or_else(|| IndexError::Damaged { what: format!("{key:02x?} is no key of a volume") })?;
                records.push((VolumeId(u64::from_be_bytes(id)), record));
            }
        }
    }
}

fn key_of(volume: VolumeId) -> [u8; 9] {
    let mut key = [VOLUMES; 9];
    key[1..].copy_from_slice(&volume.0.to_be_bytes());
    key
}

/// The table of volumes.
const VOLUMES: u8 = b'v';
const RECORDS_PER_PAGE: usize = 256;
