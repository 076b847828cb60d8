//! Join tokens: what lets a new node in, once.
//!
//! The metadata never holds a token's secret, only its hash: whoever reads the metadata cannot join by it. A used token is
//! remembered until it would have expired, so that who tries it again hears what has become of it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sterna_types::{NodeId, SiteName};

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

/// The name of a token: 8 random bytes, written as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub u64);

/// A text that is not a [`TokenId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a token's id: it takes 16 hexadecimal digits")]
pub struct InvalidTokenId {
    /// What was given.
    pub text: String,
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for TokenId {
    type Err = InvalidTokenId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.len() == 16 && text.bytes().all(|c| c.is_ascii_hexdigit());
        let number = if digits { u64::from_str_radix(text, 16).ok() } else { None };
        number.map(Self).ok_or_else(|| InvalidTokenId { text: text.to_owned() })
    }
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

as_text!(TokenId, Digest);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_hashes_read_back_as_they_were_written() {
        let (id, digest) = (TokenId(0x1f), Digest([0xa7; 32]));
        assert_eq!((id.to_string().parse(), digest.to_string().parse()), (Ok(id), Ok(digest)));
        for bad in ["", "1f", "000000000000001g", "+00000000000001f"] {
            assert!(bad.parse::<TokenId>().is_err() && bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
