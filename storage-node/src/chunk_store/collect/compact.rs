//! Step 5: what lives in a pack is moved to another.

use super::sweep::Living;
use super::{CollectOptions, Run};
use crate::chunk_store::pack::{
    FramePlace, MAX_PAYLOAD_BYTES, PackId, PackScanner, PackWriter, ScannedFrame, StoredChunk, Verdict, read_stored,
};
use crate::chunk_store::pack_store::{EntryChanges, PackStore, io_at};
use crate::chunk_store::{ChunkKind, Encoding, StoreError};

/// Chunks on their way, with the places that they come from.
#[derive(Default)]
struct Moving {
    chunks: Vec<StoredChunk>,
    from: Vec<FramePlace>,
    stored_bytes: usize,
}

impl PackStore {
    /// Moves what lives in a pack, and removes it if that was everything; `false` where it was cancelled.
    pub(super) fn compact(
        &self,
        pack: PackId,
        living: Living,
        writer: &mut Option<PackWriter>,
        run: &mut Run<'_>,
    ) -> Result<bool, StoreError> {
        let io = io_at(&pack.path());
        let mut scanner = PackScanner::new(pack, self.pack_file(pack)?).map_err(&io)?;
        let (mut moving, mut moved) = (Moving::default(), 0);
        while let Some(scanned) = scanner.next_frame().map_err(&io)? {
            if self.entry(scanned.frame.id)?.is_none_or(|entry| entry.place != scanned.place) {
                continue;
            }
            let Some(chunk) = self.take_up(&scanner, &scanned, run.options)? else { continue };
            let stored_bytes = u64::from(scanned.frame.stored_length());
            let bytes = stored_bytes + chunk.bytes.len() as u64;
            moving.stored_bytes += chunk.bytes.len();
            moving.chunks.push(chunk);
            moving.from.push(scanned.place);
            if moving.stored_bytes >= MAX_PAYLOAD_BYTES / 2 {
                moved += self.put_down(std::mem::take(&mut moving), writer, run)?;
            }
            run.copied(stored_bytes);
            if !run.pass(bytes) {
                return Ok(false);
            }
        }
        moved += self.put_down(moving, writer, run)?;
        if moved == living.chunks {
            self.remove_packs(&[pack], run)?;
            run.report.compacted_packs += 1;
        } else {
            run.report.damaged_packs += 1;
        }
        Ok(!run.is_cancelled())
    }

    /// The chunk of a frame as it is to be written anew, verified; `None` where it is damaged.
    fn take_up(
        &self,
        scanner: &PackScanner,
        scanned: &ScannedFrame,
        options: &CollectOptions,
    ) -> Result<Option<StoredChunk>, StoreError> {
        let frame = &scanned.frame;
        let io = io_at(&scanned.place.pack.path());
        let Verdict::Sound(bytes) = scanner.read(frame).map_err(&io)? else { return Ok(None) };
        if frame.encoding != Encoding::Raw {
            let stored = read_stored(&*self.pack_file(scanned.place.pack)?, frame).map_err(&io)?;
            return Ok(stored.map(|bytes| StoredChunk { frame: frame.clone(), bytes, read_soon: false }));
        }
        let compresses = options.compress || frame.kind != ChunkKind::Data;
        let store = if compresses { StoredChunk::compressed } else { StoredChunk::raw };
        Ok(Some(store(frame.id, frame.kind, bytes)))
    }

    /// Writes chunks to the new pack, syncs it, and lets the index point there; how many.
    fn put_down(&self, moving: Moving, writer: &mut Option<PackWriter>, run: &mut Run<'_>) -> Result<u64, StoreError> {
        if moving.chunks.is_empty() {
            return Ok(0);
        }
        let written = self.write(writer, &moving.chunks)?;
        let mut places: std::collections::HashMap<_, _> =
            moving.chunks.iter().map(|chunk| chunk.frame.id).zip(moving.from).collect();
        let no_append_now = self.marking();
        let (mut changes, mut moved) = (EntryChanges::new(self, &no_append_now), 0);
        for entry in written {
            let id = entry.frame.id;
            let from = places.remove(&id);
            if let Some(now) = self.entry(id)?.filter(|now| Some(now.place) == from) {
                moved += 1;
                run.report.moved_chunks += 1;
                run.report.moved_bytes += u64::from(entry.frame.stored_length());
                changes.put(&entry, Some(&now));
            }
        }
        changes.commit(true)?;
        Ok(moved)
    }
}
