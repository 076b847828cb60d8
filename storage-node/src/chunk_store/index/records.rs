//! What the index keeps of each volume: two small typed tables.

use std::fmt;
use std::sync::Arc;

use sterna_types::VolumeId;

use super::{Batch, Index, IndexError, Space};

/// One record per volume, and one pledge: what the node has promised about the volume, whoever owns it. The contents of both
/// are their owners'. The key is the table, one byte, and the volume's id, eight bytes, the highest first.
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

    /// What the node has promised last about a volume; `None` where it is nothing. As with [`VolumeRecords::get`].
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn pledge(&self, volume: VolumeId) -> Result<Option<Vec<u8>>, IndexError> {
        self.index.check_sound()?;
        self.index.get(Space::Records, &key_in(PLEDGES, volume))
    }

    /// Makes a promise about a volume, in place of the last one, and gives the volume a record, where one is given. Durable
    /// on return, both or neither.
    ///
    /// # Errors
    /// [`IndexError`]; whether it was made is then unknown until the index has been opened anew.
    pub fn make_pledge(&self, volume: VolumeId, pledge: Vec<u8>, record: Option<Vec<u8>>) -> Result<(), IndexError> {
        let mut batch = Batch::new();
        batch.put(Space::Records, &key_in(PLEDGES, volume), pledge);
        if let Some(record) = record {
            batch.put(Space::Records, &key_of(volume), record);
        }
        self.index.commit(batch, true)
    }

    /// Forgets what was promised about a volume that there is not any more. Durable on return.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn remove_pledge(&self, volume: VolumeId) -> Result<(), IndexError> {
        let mut batch = Batch::new();
        batch.delete(Space::Records, &key_in(PLEDGES, volume));
        self.index.commit(batch, true)
    }

    /// The volumes about which something was promised, in order. As with [`VolumeRecords::get`].
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn pledged(&self) -> Result<Vec<VolumeId>, IndexError> {
        Ok(self.table(PLEDGES)?.into_iter().map(|(volume, _)| volume).collect())
    }

    /// How the parts of a volume were used, as it was kept last; `None` where it was not. As with [`VolumeRecords::get`].
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn heat(&self, volume: VolumeId) -> Result<Option<Vec<u8>>, IndexError> {
        self.index.check_sound()?;
        self.index.get(Space::Records, &key_in(HEAT, volume))
    }

    /// Keeps how the parts of a volume were used. Not durable: a crash may leave what was kept before.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn put_heat(&self, volume: VolumeId, heat: Vec<u8>) -> Result<(), IndexError> {
        let mut batch = Batch::new();
        batch.put(Space::Records, &key_in(HEAT, volume), heat);
        self.index.commit(batch, false)
    }

    /// The traces of a volume, as they were kept last; `None` where they were not. As with [`VolumeRecords::get`].
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn traces(&self, volume: VolumeId) -> Result<Option<Vec<u8>>, IndexError> {
        self.index.check_sound()?;
        self.index.get(Space::Records, &key_in(TRACES, volume))
    }

    /// Keeps the traces of a volume. Not durable: a crash may leave what was kept before.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn put_traces(&self, volume: VolumeId, traces: Vec<u8>) -> Result<(), IndexError> {
        let mut batch = Batch::new();
        batch.put(Space::Records, &key_in(TRACES, volume), traces);
        self.index.commit(batch, false)
    }

    /// Removes the record of a volume, and how its parts were used; what is not there is no error. Durable on return.
    ///
    /// # Errors
    /// [`IndexError`]; whether the record is there is then unknown until the index has been opened anew.
    pub fn remove(&self, volume: VolumeId) -> Result<(), IndexError> {
        let mut batch = Batch::new();
        batch.delete(Space::Records, &key_of(volume));
        batch.delete(Space::Records, &key_in(HEAT, volume));
        batch.delete(Space::Records, &key_in(TRACES, volume));
        self.index.commit(batch, true)
    }

    /// All records, by the id of their volume. As with [`VolumeRecords::get`].
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn list(&self) -> Result<Vec<(VolumeId, Vec<u8>)>, IndexError> {
        self.table(VOLUMES)
    }

    fn table(&self, table: u8) -> Result<Vec<(VolumeId, Vec<u8>)>, IndexError> {
        self.index.check_sound()?;
        let (mut records, mut after) = (Vec::new(), None);
        loop {
            let page = self.index.page(Space::Records, &[table], after.as_deref(), RECORDS_PER_PAGE)?;
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
    key_in(VOLUMES, volume)
}

fn key_in(table: u8, volume: VolumeId) -> [u8; 9] {
    let mut key = [table; 9];
    key[1..].copy_from_slice(&volume.0.to_be_bytes());
    key
}

/// The table of volumes.
const VOLUMES: u8 = b'v';
/// The table of heat.
const HEAT: u8 = b'h';
/// The table of traces.
const TRACES: u8 = b'f';
/// The table of pledges.
const PLEDGES: u8 = b'p';
const RECORDS_PER_PAGE: usize = 256;
