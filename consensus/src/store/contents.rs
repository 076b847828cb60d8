//! What a snapshot holds: the metadata as JSON, compressed (zstd) where every node of the cluster can read that.
//!
//! The metadata is compressed from version [`MetadataVersion::REPLICAS`] on: a leader raises the version only once all nodes know
//! it, and only then sends such snapshots. What is read is told apart by its first bytes, so that what earlier versions
//! wrote is read for ever. The figures are in `docs/scale.md`.

use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use super::StoreError;
use super::record::from_json;
use crate::limits::MAX_SNAPSHOT_BYTES;
use crate::state::Metadata;
use crate::state::cluster::MetadataVersion;

/// The contents of a snapshot of `metadata`.
///
/// # Errors
/// There is no memory for it.
pub(crate) fn encode(metadata: &Metadata) -> io::Result<Vec<u8>> {
    if metadata.version() < MetadataVersion::REPLICAS {
        return Ok(serde_json::to_vec(metadata)?);
    }
    // Compressed as it is written: the text of a large cluster is many times as long.
    let mut text = BufWriter::with_capacity(BUFFER_BYTES, zstd::Encoder::new(Vec::new(), LEVEL)?);
    serde_json::to_writer(&mut text, metadata)?;
    text.flush()?;
    text.into_inner().map_err(io::IntoInnerError::into_error)?.finish()
}

/// The metadata that the contents of a snapshot in `dir` hold.
///
/// # Errors
/// [`StoreError::Damaged`] where they hold none, or more than any metadata can be.
pub(crate) fn decode(dir: &Path, contents: &[u8]) -> Result<Metadata, StoreError> {
    if !contents.starts_with(&ZSTD_MAGIC) {
        return from_json(dir, WHAT, contents);
    }
    let text = decompress(contents)
        .map_err(|error| StoreError::Damaged { dir: dir.to_owned(), what: format!("{WHAT}: {error}") })?;
    from_json(dir, WHAT, &text)
}

fn decompress(contents: &[u8]) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    zstd::Decoder::new(contents)?.take(MAX_SNAPSHOT_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_SNAPSHOT_BYTES {
        let what = format!("it has more than the {MAX_SNAPSHOT_BYTES} bytes that any metadata can have");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok(text)
}

const WHAT: &str = "the snapshot";
/// How a frame of zstd begins; JSON begins with another byte.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The fastest: what is left are hashes and numbers, of which no other level makes much less.
const LEVEL: i32 = 1;
const BUFFER_BYTES: usize = 128 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::command::Command;
    use crate::state::request::Request;
    use crate::state::tests::{bootstrap_command, create_volume};

    fn metadata(version: MetadataVersion) -> Metadata {
        let mut metadata = Metadata::default();
        let mut apply = |command| metadata.apply(&Request { id: None, command }).unwrap();
        apply(bootstrap_command());
        apply(Command::RaiseVersion { version });
        for number in 0..100 {
            apply(create_volume(&format!("volume-{number}")));
        }
        metadata
    }

    #[test]
    fn a_snapshot_is_compressed_once_all_nodes_can_read_that() {
        let old = metadata(MetadataVersion::MANY_NODES);
        let plain = encode(&old).unwrap();
        assert_eq!(plain, serde_json::to_vec(&old).unwrap());
        let new = metadata(MetadataVersion::REPLICAS);
        let compressed = encode(&new).unwrap();
        assert!(compressed.len() * 4 < plain.len(), "{} of {} bytes", compressed.len(), plain.len());
        let dir = Path::new("here");
        assert_eq!(decode(dir, &plain).unwrap(), old);
        assert_eq!(decode(dir, &compressed).unwrap(), new);
    }

    #[test]
    fn contents_that_are_cut_off_or_altered_are_called_damaged() {
        let contents = encode(&metadata(MetadataVersion::REPLICAS)).unwrap();
        let mut altered = contents.clone();
        altered[4] ^= 0xff;
        for bad in [&contents[..contents.len() / 2], &contents[..4], &altered, b"", b"{"] {
            let error = decode(Path::new("/there"), bad).expect_err("damage");
            assert!(error.to_string().starts_with("the metadata in /there is damaged: the snapshot: "), "{error}");
        }
    }

    #[test]
    fn contents_that_swell_beyond_any_metadata_are_refused() {
        let size = usize::try_from(MAX_SNAPSHOT_BYTES).unwrap() + 1;
        let bomb = zstd::encode_all(io::repeat(b' ').take(size as u64), LEVEL).unwrap();
        let error = decode(Path::new("/there"), &bomb).expect_err("too much");
        assert!(error.to_string().contains("more than the"), "{error}");
    }
}
