//! A token with the signature of whoever has issued it: as bytes that go along with a migration, and as a file.
//!
//! The file is PEM (RFC 7468), so that it can be pasted:
//!
//! ```text
//! -----BEGIN STERNA MIGRATION TOKEN-----
//! base64 of a SignedMigrationToken (proto/migrator.proto)
//! -----END STERNA MIGRATION TOKEN-----
//! ```
//!
//! It is no secret that lasts: whoever has it can have the one VM moved that it is for, once, from where it is to where it may go.

use pem::{EncodeConfig, LineEnding, Pem, encode_config};
use prost::Message;
use sterna_proto::migrator as wire;
use sterna_runtime::chance::NoRandomBytes;
use sterna_transport::certificate::InvalidCertificate;
use sterna_transport::key::KeyError;
use sterna_transport::{Credentials, Identity, Purpose, Role, SignedCertificate, Subject};
use sterna_types::names::InvalidName;
use sterna_types::{ByteRate, ClusterId, Epoch, VolumeId};

use super::{InvalidTerms, MigrationToken, MigrationTokenId, Terms, Volumes, Window};

/// A token, and who has signed it. That it was signed by them is known by [`SignedToken::check`] and by nothing else.
///
/// What is never false: there is one sequence of bytes that is read as it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedToken {
    pub(super) token: MigrationToken,
    pub(super) payload: Vec<u8>,
    pub(super) certificate: SignedCertificate,
    pub(super) signature: Vec<u8>,
}

/// Why a token cannot be issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// No token has such terms.
    #[error(transparent)]
    Terms(#[from] InvalidTerms),
    /// The system has no random bytes.
    #[error(transparent)]
    Chance(#[from] NoRandomBytes),
    /// It is not theirs to issue.
    #[error(
        "{signer} may not issue migration tokens: it takes an administrator of role 'operator' or 'admin' (sterna cluster admin create)"
    )]
    NotAnOperator {
        /// Whose credentials these are.
        signer: Identity,
    },
    /// They are of another cluster.
    #[error("the token is for cluster {cluster}, and {signer} is of another one: take an identity of that cluster")]
    OtherCluster {
        /// The token's.
        cluster: ClusterId,
        /// Whose credentials these are.
        signer: Identity,
    },
    /// The key does not sign.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// A text or bytes that are no token. What is wrong with one that is, [`TokenRefusal`](super::TokenRefusal) says.
#[derive(Debug, thiserror::Error)]
pub enum InvalidToken {
    /// There is too much of it.
    #[error("this is no migration token: it has {bytes} bytes, and one has {MAX_BYTES} at most")]
    TooLong {
        /// How much, in bytes.
        bytes: usize,
    },
    /// It is something else.
    #[error(
        "this is no migration token: one stands between lines 'BEGIN {LABEL}' and 'END {LABEL}' ('sterna vm token' writes it)"
    )]
    NotAToken,
    /// It cannot be read.
    #[error("this migration token is damaged ({what}): copy it again, or have another one issued")]
    Damaged {
        /// What cannot be.
        what: &'static str,
    },
    /// It has a name that nothing has.
    #[error("this migration token is damaged: {0}")]
    Name(#[from] InvalidName),
    /// It has terms that no token has.
    #[error(transparent)]
    Terms(#[from] InvalidTerms),
    /// The certificate is none.
    #[error("the certificate in this migration token is damaged: {0}")]
    Certificate(#[from] InvalidCertificate),
}

impl MigrationToken {
    /// Signs it as whoever these credentials are of.
    ///
    /// # Errors
    /// [`IssueError`], so where nobody would accept it.
    pub fn sign(self, signer: &Credentials) -> Result<SignedToken, IssueError> {
        let identity = || signer.identity().clone();
        if !may_issue(signer.subject()) {
            return Err(IssueError::NotAnOperator { signer: identity() });
        }
        if self.cluster != signer.cluster() {
            return Err(IssueError::OtherCluster { cluster: self.cluster, signer: identity() });
        }
        self.sign_as(signer)
    }

    /// The same, whoever that is.
    pub(super) fn sign_as(self, signer: &Credentials) -> Result<SignedToken, IssueError> {
        let payload = self.to_message().encode_to_vec();
        let signature = signer.sign_statement(PURPOSE, &payload)?;
        Ok(SignedToken { token: self, payload, certificate: signer.certificate().clone(), signature })
    }

    fn to_message(&self) -> wire::MigrationToken {
        let volume =
            |(volume, epoch): (&VolumeId, &Epoch)| wire::TokenVolume { volume: volume.0, epoch: epoch.number() };
        wire::MigrationToken {
            id: self.id.0.to_vec(),
            cluster: self.cluster.as_bytes().to_vec(),
            vm: self.vm.to_string(),
            volumes: self.volumes.iter().map(volume).collect(),
            from_site: self.from.to_string(),
            to_site: self.to.to_string(),
            not_before_ms: self.window.not_before_ms,
            not_after_ms: self.window.not_after_ms,
            max_rate: self.max_rate.map_or(0, |rate| rate.0),
        }
    }

    fn from_message(message: wire::MigrationToken) -> Result<Self, InvalidToken> {
        let wire::MigrationToken {
            id,
            cluster,
            vm,
            volumes,
            from_site,
            to_site,
            not_before_ms,
            not_after_ms,
            max_rate,
        } = message;
        let damaged = |what| move || InvalidToken::Damaged { what };
        let id = id.try_into().map_err(|_| damaged("its id has not 16 bytes")())?;
        let cluster = cluster.try_into().map_err(|_| damaged("its cluster has not 16 bytes")())?;
        let volume = |volume: wire::TokenVolume| Some((VolumeId(volume.volume), Epoch::from_number(volume.epoch)?));
        let volumes: Option<Volumes> = volumes.into_iter().map(volume).collect();
        let terms = Terms {
            vm: vm.parse()?,
            volumes: volumes.ok_or_else(damaged("no volume has epoch 0"))?,
            from: from_site.parse()?,
            to: to_site.parse()?,
            window: Window { not_before_ms, not_after_ms },
            max_rate: rate(max_rate).map_err(|_| damaged("its rate is none that a line has")())?,
        };
        Ok(Self::with_id(MigrationTokenId(id), ClusterId::from_bytes(cluster), terms)?)
    }
}

impl SignedToken {
    /// What was signed, as it claims.
    pub fn token(&self) -> &MigrationToken {
        &self.token
    }

    /// Who has signed it, as it claims.
    pub fn signer(&self) -> &Identity {
        self.certificate.identity()
    }

    /// The bytes that go along with a migration.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Self { payload, certificate, signature, .. } = self;
        let (token, certificate) = (payload.clone(), certificate.der().to_vec());
        wire::SignedMigrationToken { token, certificate, signature: signature.clone() }.encode_to_vec()
    }

    /// Reads what [`SignedToken::to_bytes`] has written, and nothing else: an encoding that says the same in another way is refused, and so
    /// is one that says more.
    ///
    /// # Errors
    /// [`InvalidToken`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidToken> {
        if bytes.len() > MAX_BYTES {
            return Err(InvalidToken::TooLong { bytes: bytes.len() });
        }
        let damaged = |what| InvalidToken::Damaged { what };
        let signed = wire::SignedMigrationToken::decode(bytes).map_err(|_| damaged("its parts cannot be read"))?;
        let wire::SignedMigrationToken { token: payload, certificate, signature } = signed;
        let message =
            wire::MigrationToken::decode(payload.as_slice()).map_err(|_| damaged("what was signed cannot be read"))?;
        let token = MigrationToken::from_message(message)?;
        let certificate = SignedCertificate::from_der(&certificate)?;
        let read = Self { token, payload, certificate, signature };
        // What this program does not know of may be a condition, so it is not passed over.
        let is_canonical = read.token.to_message().encode_to_vec() == read.payload && read.to_bytes() == bytes;
        if is_canonical { Ok(read) } else { Err(damaged("it holds what this program does not know")) }
    }

    /// As a file.
    pub fn to_text(&self) -> String {
        encode_config(&Pem::new(LABEL, self.to_bytes()), EncodeConfig::new().set_line_ending(LineEnding::LF))
    }

    /// Reads what [`SignedToken::to_text`] has written; text around it is no matter.
    ///
    /// # Errors
    /// [`InvalidToken`].
    pub fn from_text(text: &str) -> Result<Self, InvalidToken> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(InvalidToken::TooLong { bytes: text.len() });
        }
        let section = pem::parse(text).ok().filter(|section| section.tag() == LABEL);
        Self::from_bytes(section.ok_or(InvalidToken::NotAToken)?.contents())
    }
}

/// A rate in a message, which has 0 for none.
///
/// # Errors
/// No line has it.
pub fn rate(bytes_per_second: u64) -> Result<Option<ByteRate>, ByteRate> {
    match ByteRate(bytes_per_second) {
        ByteRate(0) => Ok(None),
        rate if (ByteRate::MIN..=ByteRate::MAX).contains(&rate) => Ok(Some(rate)),
        rate => Err(rate),
    }
}

/// Whether tokens are theirs to issue: those who may move volumes may.
pub(super) fn may_issue(subject: &Subject) -> bool {
    matches!(subject, Subject::Administrator { role, .. } if *role >= Role::Operator)
}

/// What is signed is this, and nothing else that the same key signs.
pub(super) const PURPOSE: Purpose = Purpose::new("migration token 1");

/// What a file says that it is.
const LABEL: &str = "STERNA MIGRATION TOKEN";

/// The longest token, in bytes: the most volumes take 6 KiB, names less than 1, and the longest certificate 8.
pub const MAX_BYTES: usize = 16 << 10;

/// The longest file that is read as one, in bytes: base64 takes a third more, lines and what stands around it the rest.
pub const MAX_TEXT_BYTES: usize = 32 << 10;
