//! A join token: the text that a person copies from the cluster to a node that is to join it.
//!
//! ```text
//! sterna-join-1-<hexadecimal digits, lower case, of:>
//!
//! | bytes | what |
//! |---|---|
//! | 16 | the cluster's id |
//! | 32 | the fingerprint of the authority that the cluster's nodes are certified by |
//! | 8 | the token's id, big-endian |
//! | 16 | the secret |
//! | 1 | how many addresses, 1 to 8 |
//! | 7 or 19 each | 4 or 6, the 4 or 16 bytes of the IP address, the port, big-endian |
//! | 4 | CRC-32C of everything before, big-endian |
//! ```
//!
//! The fingerprint keeps whoever is in between from being taken for the cluster; the secret proves to the cluster that
//! the node was invited. The cluster keeps only a [hash](SecretHash) of it. The checksum finds what was lost in
//! copying, any single wrong character for certain; it protects from nobody.

use std::fmt;
use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use sterna_runtime::chance::{self, NoRandomBytes};
use sterna_types::{ClusterId, TokenId};

use crate::fingerprint::{Fingerprint, sha256};
use crate::hex;
use crate::limits::{MAX_TOKEN_ADDRESSES, MAX_TOKEN_BYTES};

/// What proves that a node was invited: 128 random bits. Neither shown nor compared; see [`SecretHash::matches`].
#[derive(Clone)]
pub struct TokenSecret([u8; 16]);

impl TokenSecret {
    /// A new one.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub fn generate() -> Result<Self, NoRandomBytes> {
        chance::bytes().map(Self)
    }

    /// The secret that these 16 bytes are.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its 16 bytes, for the one who checks it.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// What the cluster keeps of it.
    pub fn hash(&self) -> SecretHash {
        SecretHash(sha256(&[HASH_PURPOSE, self.0.as_slice()].concat()))
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(…)")
    }
}

/// What the cluster keeps of a token's secret: a SHA-256, from which the secret cannot be found, having 128 random
/// bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// The hash that these 32 bytes are.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether it is the hash of this secret. It takes as long, whatever the answer.
    pub fn matches(&self, secret: &TokenSecret) -> bool {
        let pairs = self.0.iter().zip(secret.hash().0);
        pairs.fold(0, |differences, (one, other)| black_box(differences | (one ^ other))) == 0
    }
}

/// What a node needs to join a cluster. It is a secret: it has no `Display`, and its `Debug` leaves the secret out.
#[derive(Clone, Debug)]
pub struct JoinToken {
    cluster: ClusterId,
    authority: Fingerprint,
    id: TokenId,
    secret: TokenSecret,
    addresses: Vec<SocketAddr>,
}

/// Parts of which no token can be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a join token holds 1 to {MAX_TOKEN_ADDRESSES} addresses, and {count} were given")]
pub struct InvalidTokenAddresses {
    /// How many.
    pub count: usize,
}

/// A text that is not a token. None of these shows the text: most of it may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// It is something else.
    #[error("this is not a join token: one begins with '{PREFIX}'; `sterna token create` prints one")]
    NotAToken,
    /// A newer Sterna made it.
    #[error(
        "this join token has version {version}, and this program knows version {VERSION}; install the cluster's version"
    )]
    Newer {
        /// Its version.
        version: u32,
    },
    /// It was changed on the way.
    #[error("this join token is damaged: a character of it is wrong, missing or too many; copy it again, as one line")]
    Damaged,
}

impl JoinToken {
    /// Puts a token together.
    ///
    /// # Errors
    /// There are no addresses, or too many. An IPv6 address loses its scope and flow label, which mean nothing
    /// elsewhere.
    pub fn new(
        cluster: ClusterId,
        authority: Fingerprint,
        id: TokenId,
        secret: TokenSecret,
        addresses: Vec<SocketAddr>,
    ) -> Result<Self, InvalidTokenAddresses> {
        if addresses.is_empty() || addresses.len() > MAX_TOKEN_ADDRESSES {
            return Err(InvalidTokenAddresses { count: addresses.len() });
        }
        let addresses = addresses.into_iter().map(|address| SocketAddr::new(address.ip(), address.port())).collect();
        Ok(Self { cluster, authority, id, secret, addresses })
    }

    /// Which cluster it is for.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The authority of that cluster.
    pub fn authority(&self) -> Fingerprint {
        self.authority
    }

    /// Which token it is.
    pub fn id(&self) -> TokenId {
        self.id
    }

    /// What proves that it was given to us.
    pub fn secret(&self) -> &TokenSecret {
        &self.secret
    }

    /// Where nodes of the cluster may be found: at least one.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The text that a person copies.
    pub fn to_text(&self) -> String {
        let mut bytes = Vec::with_capacity(MAX_TOKEN_BYTES / 2);
        bytes.extend(self.cluster.as_bytes());
        bytes.extend(self.authority.as_bytes());
        bytes.extend(self.id.0.to_be_bytes());
        bytes.extend(self.secret.0);
        bytes.push(u8::try_from(self.addresses.len()).expect("a token has at most 8 addresses"));
        for address in &self.addresses {
            match address.ip() {
                IpAddr::V4(ip) => bytes.extend([4].into_iter().chain(ip.octets())),
                IpAddr::V6(ip) => bytes.extend([6].into_iter().chain(ip.octets())),
            }
            bytes.extend(address.port().to_be_bytes());
        }
        bytes.extend(crc32c::crc32c(&bytes).to_be_bytes());
        format!("{PREFIX}{VERSION}-{}", hex::encode(&bytes))
    }
}

impl FromStr for JoinToken {
    type Err = InvalidToken;

    /// Reads a token; space around it is no matter.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let rest = text.strip_prefix(PREFIX).ok_or(InvalidToken::NotAToken)?;
        let (version, digits) = rest.split_once('-').ok_or(InvalidToken::Damaged)?;
        let is_number = !version.is_empty() && version.bytes().all(|c| c.is_ascii_digit()) && !version.starts_with('0');
        match version.parse::<u32>() {
            Ok(VERSION) if is_number && text.len() <= MAX_TOKEN_BYTES => {}
            Ok(version) if is_number && version > VERSION => return Err(InvalidToken::Newer { version }),
            _ => return Err(InvalidToken::Damaged),
        }
        let bytes = hex::decode(digits).ok_or(InvalidToken::Damaged)?;
        read(&bytes).ok_or(InvalidToken::Damaged)
    }
}

fn read(bytes: &[u8]) -> Option<JoinToken> {
    let (bytes, checksum) = bytes.split_last_chunk::<4>()?;
    if crc32c::crc32c(bytes) != u32::from_be_bytes(*checksum) {
        return None;
    }
    let mut rest = bytes;
    let cluster = ClusterId::from_bytes(take(&mut rest)?);
    let authority = Fingerprint::from_bytes(take(&mut rest)?);
    let id = TokenId(u64::from_be_bytes(take(&mut rest)?));
    let secret = TokenSecret(take(&mut rest)?);
    let [count] = take(&mut rest)?;
    let addresses = (0..count).map(|_| address(&mut rest)).collect::<Option<Vec<_>>>()?;
    let token = JoinToken::new(cluster, authority, id, secret, addresses).ok()?;
    if rest.is_empty() { Some(token) } else { None }
}

fn address(rest: &mut &[u8]) -> Option<SocketAddr> {
    let ip = match take(rest)? {
        [4] => IpAddr::from(take::<4>(rest)?),
        [6] => IpAddr::from(take::<16>(rest)?),
        [_] => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes(take(rest)?)))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*taken)
}

/// What every token begins with; its version follows.
const PREFIX: &str = "sterna-join-";
/// The version that is written, and read.
const VERSION: u32 = 1;
/// So that no other hash of the same bytes is this one.
const HASH_PURPOSE: &[u8] = b"sterna join token secret\0";

#[cfg(test)]
mod tests;
