//! PEM (RFC 7468): the sections of a text, in order.

use pem::{EncodeConfig, LineEnding, Pem, encode_config};

/// The label of a certificate's section.
pub(crate) const CERTIFICATE: &str = "CERTIFICATE";
/// The label of a key's section (PKCS#8).
pub(crate) const PRIVATE_KEY: &str = "PRIVATE KEY";

/// A text that is not what it was to be.
#[derive(Debug, thiserror::Error)]
pub enum SectionsError {
    /// It is no PEM, or damaged.
    #[error("the text is not PEM, or damaged")]
    Pem(#[from] pem::PemError),
    /// A section is not there.
    #[error("a section 'BEGIN {expected}' is missing")]
    Missing {
        /// Its label.
        expected: &'static str,
    },
    /// A section is there that does not belong there.
    #[error("there is a section 'BEGIN {found}' where 'BEGIN {expected}' belongs")]
    Unexpected {
        /// The label that is there.
        found: String,
        /// The label that belongs there.
        expected: &'static str,
    },
}

/// One section.
pub(crate) fn encode(label: &str, der: &[u8]) -> String {
    encode_config(&Pem::new(label, der), EncodeConfig::new().set_line_ending(LineEnding::LF))
}

/// A key, and the certificates behind it.
pub(crate) fn key_and_certificates(text: &str) -> Result<(Vec<u8>, Vec<Vec<u8>>), SectionsError> {
    let mut sections = pem::parse_many(text)?.into_iter();
    let key = sections.next().ok_or(SectionsError::Missing { expected: PRIVATE_KEY })?;
    let key = contents(key, PRIVATE_KEY)?;
    let certificates = sections.map(|section| contents(section, CERTIFICATE)).collect::<Result<Vec<_>, _>>()?;
    if certificates.is_empty() {
        Err(SectionsError::Missing { expected: CERTIFICATE })
    } else {
        Ok((key, certificates))
    }
}

fn contents(section: Pem, expected: &'static str) -> Result<Vec<u8>, SectionsError> {
    if section.tag() == expected {
        Ok(section.into_contents())
    } else {
        Err(SectionsError::Unexpected { found: section.tag().to_owned(), expected })
    }
}
