//! Images in and out, and what verification says of them.

use std::fs::File;
use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use sterna_types::{ByteSize, Root, VolumeSize};

use super::{ImportError, Imported, export, import};
use crate::chunk_store::MemoryChunkStore;
use crate::chunk_store::index::{MemoryIndex, VolumeRecords};
use crate::chunking::ChunkingParameters;
use crate::disk::SimulatedDisk;
use crate::journal::SaltSource;
use crate::progress::Progress;
use crate::verify::{Damage, Verified, VerifyWatcher, verify};
use crate::volume::{Storage, StorageOptions};

struct Fixture {
    chunks: Arc<MemoryChunkStore>,
    storage: Arc<Storage>,
}

impl Fixture {
    fn new() -> Self {
        let chunks = Arc::new(MemoryChunkStore::new());
        let disk = Arc::new(SimulatedDisk::new());
        let records = VolumeRecords::new(Arc::new(MemoryIndex::new()));
        let salts = SaltSource::new([1; 32]);
        let storage = Storage::new(disk, chunks.clone(), records, salts, StorageOptions::default());
        Self { chunks, storage: storage.expect("an empty data directory") }
    }

    fn import(&self, image: &File) -> Result<Imported, ImportError> {
        import(&self.storage, &ChunkingParameters::default(), image, &mut |_| ControlFlow::Continue(()))
    }

    fn export(&self, root: Root, size: VolumeSize) -> File {
        let image = tempfile::tempfile().expect("a temporary file");
        export(&self.storage, root, size, &image, &mut |_| ControlFlow::Continue(())).expect("an export");
        image
    }

    fn verify(&self, root: Root) -> (Verified, Vec<Damage>) {
        let mut heard = Heard(Vec::new());
        let verified = verify(&*self.chunks, self.storage.nodes(), root, 0, &mut heard);
        (verified, heard.0)
    }
}

struct Heard(Vec<Damage>);

impl VerifyWatcher for Heard {
    fn progress(&mut self, _progress: Progress) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn damage(&mut self, damage: Damage) {
        self.0.push(damage);
    }
}

/// A sparse image: data that repeats itself nowhere at its start, in its middle and at its end.
fn image(length: u64) -> File {
    let image = tempfile::tempfile().expect("a temporary file");
    image.set_len(length).expect("a sparse file");
    for at in [0, length / 2, length - 300_000] {
        let mut data = vec![0; 300_000];
        blake3::Hasher::new().update(&at.to_le_bytes()).finalize_xof().fill(&mut data);
        image.write_all_at(&data, at).expect("space for a test");
    }
    image
}

fn bytes(file: &File, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(length).expect("a small image")];
    file.read_exact_at(&mut bytes, 0).expect("an image that is as long");
    bytes
}

#[test]
fn an_image_comes_out_as_it_went_in_and_as_sparse() {
    let fixture = Fixture::new();
    // Not whole segments, and not whole blocks.
    let length = 21 * 1024 * 1024 + 512;
    let source = image(length);
    let imported = fixture.import(&source).expect("an import");
    assert_eq!(imported.size.bytes(), ByteSize(21 * 1024 * 1024 + 4096));
    let exported = fixture.export(imported.root, imported.size);
    assert!(bytes(&exported, length) == bytes(&source, length), "the image has changed on its way");
    let blocks = exported.metadata().expect("metadata").blocks();
    assert!(blocks * 512 < 2 << 20, "{blocks} sectors of an image that is mostly holes");
    let (verified, damages) = fixture.verify(imported.root);
    assert!(damages.is_empty(), "{damages:?}");
    assert_eq!(verified.sound_bytes, imported.data_bytes);
}

#[test]
fn a_second_import_of_an_image_stores_nothing_and_is_equal() {
    let fixture = Fixture::new();
    let first = fixture.import(&image(9 << 20)).expect("an import");
    let chunks = fixture.chunks.len();
    let second = fixture.import(&image(9 << 20)).expect("an import");
    assert_eq!((second.root, second.new_bytes, fixture.chunks.len()), (first.root, 0, chunks));
}

#[test]
fn a_stopped_import_goes_on_where_it_was_when_it_is_begun_again() {
    let fixture = Fixture::new();
    let source = image(40 << 20);
    let mut calls = 0;
    let mut stop = |_| {
        calls += 1;
        if calls > 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let stopped = import(&fixture.storage, &ChunkingParameters::default(), &source, &mut stop);
    assert!(matches!(stopped, Err(ImportError::Stopped)), "{stopped:?}");
    let imported = fixture.import(&source).expect("an import");
    let exported = fixture.export(imported.root, imported.size);
    assert!(bytes(&exported, 40 << 20) == bytes(&source, 40 << 20), "the image has changed on its way");
}

#[test]
fn an_empty_file_is_no_volume() {
    let fixture = Fixture::new();
    let refused = fixture.import(&tempfile::tempfile().expect("a temporary file"));
    assert!(matches!(refused, Err(ImportError::Size(_))), "{refused:?}");
}

#[test]
fn an_image_of_zeroes_is_the_empty_root() {
    let fixture = Fixture::new();
    let mut zeroes = tempfile::tempfile().expect("a temporary file");
    zeroes.write_all(&vec![0; 5 << 20]).expect("space for a test");
    let imported = fixture.import(&zeroes).expect("an import");
    assert_eq!((imported.root, imported.data_bytes), (Root::EMPTY, 0));
}

#[test]
fn verification_names_what_is_missing_and_goes_on() {
    let fixture = Fixture::new();
    let imported = fixture.import(&image(24 << 20)).expect("an import");
    let (whole, _) = fixture.verify(imported.root);
    let manifest = crate::map::manifest_of(
        &*fixture.chunks,
        fixture.storage.nodes(),
        imported.root,
        sterna_types::SegmentIndex(0),
    );
    let manifest = manifest.expect("a map").expect("data in the first segment");
    let extents =
        crate::map::manifest(&*fixture.chunks, fixture.storage.nodes(), manifest, sterna_types::SegmentIndex(0));
    let lost = *extents.expect("a manifest").extents().first().expect("an extent");
    assert!(fixture.chunks.lose(lost.chunk));
    let (verified, damages) = fixture.verify(imported.root);
    assert_eq!(damages.len(), 1, "{damages:?}");
    assert_eq!(damages[0].chunk, Some(lost.chunk));
    assert_eq!(damages[0].range.length(), u64::from(lost.block_count) * 4096);
    assert_eq!(verified.sound_bytes + damages[0].range.length(), whole.sound_bytes);
}
