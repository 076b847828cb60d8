//! Any bytes as a manifest: refused, or the one way to write what they say. What was read can be altered and looked up.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sterna_storage_node::map::{Manifest, SEGMENT_BLOCKS};

fuzz_target!(|data: &[u8]| {
    let Ok(mut manifest) = Manifest::decode(data) else { return };
    assert_eq!(manifest.encode().as_deref(), Some(data));
    assert_eq!(Manifest::from_extents(manifest.extents().iter().copied()).as_ref(), Ok(&manifest));

    let covered: u32 = manifest.lookup(0, SEGMENT_BLOCKS).map(|piece| u32::from(piece.block_count())).sum();
    assert_eq!(covered, u32::from(SEGMENT_BLOCKS));
    let statistics = manifest.statistics();
    let middle = SEGMENT_BLOCKS / 2;
    manifest.replace(middle, 1, None).expect("the block is in the segment");
    assert!(statistics.mapped_blocks - manifest.statistics().mapped_blocks <= 1);
    if let Some(bytes) = manifest.encode() {
        assert_eq!(Manifest::decode(&bytes), Ok(manifest));
    }
});
