//! A disk image in a file: what format it has, and whether all of it is there.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use sterna_types::units::InvalidVolumeSize;
use sterna_types::{BLOCK_SIZE, ByteSize, VolumeSize};

use crate::args::volume::ImageFormat;

/// An image that the caller may read.
#[derive(Debug)]
pub(crate) struct Image {
    /// Where it is: an absolute path.
    pub(crate) path: PathBuf,
    pub(crate) format: ImageFormat,
    /// Of the file; only a raw image is as long as its disk.
    length: u64,
}

/// Why a file is not taken for an image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    #[error("cannot read the image {path}")]
    Unreadable { path: String, source: io::Error },
    #[error("{path} is a directory: give the image itself")]
    Directory { path: String },
    #[error(
        "the image {path} is compressed with {with}: unpack it first, or say --format raw if it is a disk all the same"
    )]
    Compressed { path: String, with: &'static str },
    #[error(
        "the image {path} is truncated: its disk would have {bytes} bytes, and a disk is a whole number of {SECTOR_BYTES}-byte \
         sectors; get all of it again"
    )]
    Truncated { path: String, bytes: u64 },
    #[error("the image {path} cannot be a volume: {source}")]
    Size { path: String, source: InvalidVolumeSize },
}

/// How large a volume has to be to hold a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fit {
    pub(crate) size: VolumeSize,
    /// The zeroes behind the disk, in bytes.
    pub(crate) padding: u64,
}

impl Image {
    /// Looks at the file `path`; its first bytes say what it is, unless `format` does.
    ///
    /// # Errors
    /// It cannot be read, or is no image.
    pub(crate) fn open(path: &Path, format: Option<ImageFormat>) -> Result<Self, ImageError> {
        let shown = path.display().to_string();
        let unreadable = |source| ImageError::Unreadable { path: shown.clone(), source };
        let mut file = File::open(path).map_err(unreadable)?;
        if file.metadata().map_err(unreadable)?.is_dir() {
            return Err(ImageError::Directory { path: shown });
        }
        // A block device has no length in its metadata, but an end.
        let length = file.seek(SeekFrom::End(0)).map_err(unreadable)?;
        let format = match format {
            Some(format) => format,
            None => {
                let head = part(&mut file, 0).map_err(unreadable)?;
                if let Some(with) = compression(&head) {
                    return Err(ImageError::Compressed { path: shown, with });
                }
                let tail = part(&mut file, length.saturating_sub(SECTOR_BYTES)).map_err(unreadable)?;
                detect(&head, &tail)
            }
        };
        let path = std::path::absolute(path).map_err(unreadable)?;
        Ok(Self { path, format, length })
    }

    /// The volume that holds a raw image.
    ///
    /// # Errors
    /// See [`Image::fit`].
    pub(crate) fn fit_raw(&self) -> Result<Fit, ImageError> {
        self.fit(self.length)
    }

    /// The volume that holds a disk of so many bytes.
    ///
    /// # Errors
    /// [`ImageError::Truncated`], and [`ImageError::Size`].
    pub(crate) fn fit(&self, disk_bytes: u64) -> Result<Fit, ImageError> {
        let path = || self.path.display().to_string();
        if !disk_bytes.is_multiple_of(SECTOR_BYTES) {
            return Err(ImageError::Truncated { path: path(), bytes: disk_bytes });
        }
        let too_large = || InvalidVolumeSize::TooLarge(ByteSize(disk_bytes));
        let whole = disk_bytes.checked_next_multiple_of(BLOCK_SIZE).ok_or_else(too_large);
        let size = whole.and_then(|whole| VolumeSize::try_from(ByteSize(whole)));
        let size = size.map_err(|source| ImageError::Size { path: path(), source })?;
        Ok(Fit { size, padding: size.bytes().0 - disk_bytes })
    }
}

/// The bytes of the file from this place on, as many as [`detect`] wants to see.
fn part(file: &mut File, at: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    match file.take(SECTOR_BYTES).read_to_end(&mut bytes) {
        Err(error) if error.kind() != ErrorKind::UnexpectedEof => Err(error),
        _ => Ok(bytes),
    }
}

/// What an image is, from its first and last sector. Whatever says nothing about itself is raw.
fn detect(head: &[u8], tail: &[u8]) -> ImageFormat {
    let magics: [(usize, &[u8], ImageFormat); 6] = [
        (0, b"QFI\xfb", ImageFormat::Qcow2),
        (0, b"KDMV", ImageFormat::Vmdk),
        (0, b"# Disk DescriptorFile", ImageFormat::Vmdk),
        (0, b"vhdxfile", ImageFormat::Vhdx),
        (64, b"\x7f\x10\xda\xbe", ImageFormat::Vdi),
        (0, b"conectix", ImageFormat::Vpc),
    ];
    let is_at = |at: usize, magic: &[u8]| head.get(at..).is_some_and(|rest| rest.starts_with(magic));
    match magics.iter().find(|(at, magic, _)| is_at(*at, magic)) {
        Some((_, _, format)) => *format,
        // One of fixed size has its header behind the disk.
        None if tail.starts_with(b"conectix") => ImageFormat::Vpc,
        None => ImageFormat::Raw,
    }
}

fn compression(head: &[u8]) -> Option<&'static str> {
    let magics: [(&[u8], &str); 3] = [(b"\x1f\x8b\x08", "gzip"), (b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd")];
    magics.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, with)| *with)
}

/// What disks are counted in by everybody who makes images.
const SECTOR_BYTES: u64 = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn image(length: u64) -> Image {
        Image { path: PathBuf::from("/disk.raw"), format: ImageFormat::Raw, length }
    }

    #[test]
    fn images_are_known_by_their_first_bytes() {
        let with = |at: usize, magic: &[u8]| {
            let mut head = vec![0; 512];
            head[at..at + magic.len()].copy_from_slice(magic);
            head
        };
        let cases: [(Vec<u8>, ImageFormat); 7] = [
            (with(0, b"QFI\xfb\0\0\0\x03"), ImageFormat::Qcow2),
            (with(0, b"KDMV"), ImageFormat::Vmdk),
            (with(0, b"# Disk DescriptorFile\n"), ImageFormat::Vmdk),
            (with(0, b"vhdxfile"), ImageFormat::Vhdx),
            (with(64, b"\x7f\x10\xda\xbe"), ImageFormat::Vdi),
            (with(1, b"QFI\xfb"), ImageFormat::Raw),
            (Vec::new(), ImageFormat::Raw),
        ];
        for (head, format) in cases {
            assert_eq!(detect(&head, &[]), format, "{head:?}");
        }
        assert_eq!(detect(&[0; 512], &with(0, b"conectix")), ImageFormat::Vpc);
        assert_eq!(compression(&with(0, b"\x1f\x8b\x08")), Some("gzip"));
    }

    #[test]
    fn a_disk_of_whole_sectors_is_filled_up_to_whole_blocks() {
        for (length, size, padding) in [(4096, 4096, 0), (512, 4096, 3584), (64 << 40, 64 << 40, 0)] {
            let fit = image(length).fit_raw().expect("an image that fits");
            assert_eq!((fit.size.bytes(), fit.padding), (ByteSize(size), padding));
        }
    }

    #[test]
    fn a_disk_that_no_volume_can_hold_is_refused() {
        for length in [1, 511, 4097] {
            assert!(matches!(image(length).fit_raw(), Err(ImageError::Truncated { bytes, .. }) if bytes == length));
        }
        for length in [0, (64 << 40) + 512, u64::MAX - 511] {
            assert!(matches!(image(length).fit_raw(), Err(ImageError::Size { .. })), "{length}");
        }
    }
}
