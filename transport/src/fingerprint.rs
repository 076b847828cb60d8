//! The fingerprint of a certificate: what two people read to each other, and what a join token pins.

use std::fmt;
use std::str::FromStr;

use ring::digest::{SHA256, digest};
use tokio_rustls::rustls::pki_types::CertificateDer;

use crate::hex;

/// The SHA-256 of a certificate's DER form, written as `openssl x509 -fingerprint -sha256` does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

/// A text that is not a [`Fingerprint`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a fingerprint: it takes 64 hexadecimal digits, with or without a ':' between each two pairs")]
pub struct InvalidFingerprint {
    /// What was given.
    pub text: String,
}

impl Fingerprint {
    /// The fingerprint of a certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(sha256(certificate))
    }

    /// The fingerprint that these 32 bytes are.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The SHA-256 of these bytes.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("a SHA-256 has 32 bytes")
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02X}", if index == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl FromStr for Fingerprint {
    type Err = InvalidFingerprint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let pairs = text.split(':').map(str::len);
        let digits = match text.contains(':') {
            true if pairs.clone().all(|length| length == 2) => text.replace(':', ""),
            true => String::new(),
            false => text.to_owned(),
        };
        let bytes = hex::decode(&digits.to_ascii_lowercase()).and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| InvalidFingerprint { text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_written_as_openssl_does_and_read_either_way() {
        let fingerprint = Fingerprint::of(&CertificateDer::from(b"abc".as_slice()));
        let text = "BA:78:16:BF:8F:01:CF:EA:41:41:40:DE:5D:AE:22:23:B0:03:61:A3:96:17:7A:9C:B4:10:FF:61:F2:00:15:AD";
        assert_eq!(fingerprint.to_string(), text);
        for text in [text.to_owned(), text.to_lowercase(), text.replace(':', "")] {
            assert_eq!(text.parse(), Ok(fingerprint));
        }
    }

    #[test]
    fn what_is_not_32_bytes_is_no_fingerprint() {
        let one_missing = ["AB"; 31].join(":");
        let shifted = format!("A:{}:B", ["BA"; 31].join(":"));
        for text in ["", ":", "AB", &one_missing, &shifted, &"é".repeat(32), &"g".repeat(64)] {
            assert!(text.parse::<Fingerprint>().is_err(), "{text} was taken for a fingerprint");
        }
    }
}
