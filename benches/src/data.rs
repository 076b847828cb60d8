//! Data for disks that nothing can make smaller: no two blocks are alike, and none can be compressed.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Result;
use sterna_tests::random::Random;

/// Writes a file of so many MiB; the same each time.
///
/// # Errors
/// It cannot be written.
pub(crate) fn write(path: &Path, size_mib: u32) -> Result<()> {
    let mut random = Random::new(1);
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    for _ in 0..u64::from(size_mib) << 17 {
        file.write_all(&random.bits().to_le_bytes())?;
    }
    file.into_inner()?.sync_all()?;
    Ok(())
}
