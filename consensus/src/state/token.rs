//! Join tokens: what lets a new node in, once.
//!
//! The metadata never holds a token's secret, only its hash: whoever reads the metadata cannot join by it. A used token is
//! remembered until it would have expired, so that who tries it again hears what has become of it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sterna_types::{NodeId, SiteName, TokenId};

use super::text_form::as_text;
use super::volume::UnixTime;

/// A token that was given out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Names it; no secret.
    pub id: TokenId,
    /// The hash of its secret.
    pub secret: Digest,
    /// From when on it lets nobody in, by the clocks of the nodes that let others in.
    pub expires: UnixTime,
    /// The one site at which it lets a node in; `None` for any, also a new one.
    pub site: Option<SiteName>,
    /// Who came in by it.
    pub used_by: Option<NodeId>,
}

/// The 32 bytes of a hash, written as 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

/// A text that is not a [`Digest`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a hash: it takes 64 hexadecimal digits")]
pub struct InvalidDigest {
    /// What was given.
    pub text: String,
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let id: Result<sterna_types::ChunkId, _> = text.parse();
        id.map(|id| Self(*id.as_bytes())).map_err(|_| InvalidDigest { text: text.to_owned() })
    }
}

as_text!(Digest);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_reads_back_as_it_was_written() {
        let digest = Digest([0xa7; 32]);
        assert_eq!(digest.to_string().parse(), Ok(digest));
        for bad in ["", "a7", &"g".repeat(64)] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
