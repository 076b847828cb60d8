//! Small objects that are text: a line that says what it is, its version and its checksum, and JSON behind it, so that people can read
//! it when everything else has failed.
//!
//! ```text
//! sterna-volume 1 1f0a27c3
//! {"cluster": …}
//! ```
//!
//! The number behind the version is the CRC-32C of all that follows the line, in hexadecimal.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::BucketError;

/// What kind of text it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// The first word.
    pub(crate) magic: &'static str,
    /// The version that is written, and the latest that is read.
    pub(crate) version: u32,
}

/// The object.
///
/// # Errors
/// It cannot be written as JSON.
pub(crate) fn seal(kind: Kind, name: &str, value: &impl Serialize) -> Result<Bytes, BucketError> {
    let body = serde_json::to_string_pretty(value).map_err(|error| BucketError::damaged(name, error))?;
    let crc = crc32c::crc32c(body.as_bytes());
    Ok(format!("{} {} {crc:08x}\n{body}", kind.magic, kind.version).into())
}

/// What an object says.
///
/// # Errors
/// [`BucketError::Damaged`] and [`BucketError::Version`].
pub(crate) fn unseal<T: DeserializeOwned>(kind: Kind, name: &str, object: &[u8]) -> Result<T, BucketError> {
    let damaged = |what: &str| BucketError::damaged(name, what);
    let text = std::str::from_utf8(object).map_err(|_| damaged("it is no text"))?;
    let (line, body) = text.split_once('\n').ok_or_else(|| damaged("it has no first line"))?;
    let words: Vec<&str> = line.split(' ').collect();
    let [magic, version, crc] = words[..] else { return Err(damaged("its first line is not three words")) };
    if magic != kind.magic {
        return Err(damaged("it is something else"));
    }
    let found: u32 = version.parse().map_err(|_| damaged("its version is no number"))?;
    if found > kind.version {
        return Err(BucketError::Version { name: name.to_owned(), found, known: kind.version });
    }
    if u32::from_str_radix(crc, 16).ok() != Some(crc32c::crc32c(body.as_bytes())) {
        return Err(damaged("its checksum is another one"));
    }
    serde_json::from_str(body).map_err(|error| BucketError::damaged(name, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind { magic: "sterna-test", version: 2 };

    #[test]
    fn what_was_sealed_reads_back_and_no_bit_may_differ() {
        let value = vec!["one".to_owned(), "two".to_owned()];
        let object = seal(KIND, "x", &value).expect("a text");
        assert_eq!(unseal::<Vec<String>>(KIND, "x", &object).expect("it is whole"), value);
        for byte in 0..object.len() {
            for bit in 0..8 {
                let mut altered = object.to_vec();
                altered[byte] ^= 1 << bit;
                let Ok(read) = unseal::<Vec<String>>(KIND, "x", &altered) else { continue };
                // An earlier version, or a hexadecimal digit in the other case.
                assert_eq!(read, value, "bit {bit} of byte {byte}");
            }
        }
        assert!(unseal::<Vec<String>>(KIND, "x", &object[..object.len() - 1]).is_err());
    }

    #[test]
    fn a_later_version_is_said_to_be_one() {
        let object = seal(Kind { version: 3, ..KIND }, "x", &1).expect("a text");
        let error = unseal::<u32>(KIND, "x", &object).expect_err("it is not known");
        assert!(matches!(error, BucketError::Version { found: 3, known: 2, .. }), "{error}");
    }
}
