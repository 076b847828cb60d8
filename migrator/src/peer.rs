//! The messages between two migrators, as what they mean; and their carriers, over a call.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use sterna_proto::migrator::carry_reply::Step as Reply;
use sterna_proto::migrator::carry_request::Step as Request;
use sterna_proto::migrator::migrations_client::MigrationsClient;
use sterna_proto::migrator::{self as wire, CarryFrom, CarryReply, CarryRequest, Piece};
use sterna_runtime::chance::NoRandomBytes;
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::carry::{Carrier, CarryEnd, Frame, Offset};
use crate::phase::Verdict;

/// A migration, among all that there ever were.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MigrationId(pub [u8; 16]);

/// A text or bytes that are no [`MigrationId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is no migration: it takes 32 hexadecimal digits")]
pub struct InvalidMigrationId {
    /// What was given.
    pub text: String,
}

impl MigrationId {
    /// A new one.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub fn random() -> Result<Self, NoRandomBytes> {
        sterna_runtime::chance::bytes().map(Self)
    }

    /// From a message.
    ///
    /// # Errors
    /// These are not 16 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidMigrationId> {
        bytes.try_into().map(Self).map_err(|_| InvalidMigrationId { text: bytes.escape_ascii().to_string() })
    }
}

impl fmt::Display for MigrationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for MigrationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MigrationId({self})")
    }
}

impl FromStr for MigrationId {
    type Err = InvalidMigrationId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidMigrationId { text: text.to_owned() };
        let digits = text.as_bytes();
        if digits.len() != 32 || !digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(invalid());
        }
        let mut id = [0; 16];
        for (byte, digits) in id.iter_mut().zip(digits.chunks_exact(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| invalid())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| invalid())?;
        }
        Ok(Self(id))
    }
}

/// What has become of a migration at its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Nobody there knows of it.
    Unknown,
    /// It takes memory, or waits for the volumes.
    UnderWay,
    /// It is decided.
    Decided(Verdict),
    /// The VM ran there, or was about to, and its QEMU has ended.
    Lost,
}

impl From<wire::Outcome> for Outcome {
    fn from(outcome: wire::Outcome) -> Self {
        match outcome {
            wire::Outcome::Unknown => Self::Unknown,
            wire::Outcome::UnderWay => Self::UnderWay,
            wire::Outcome::Runs => Self::Decided(Verdict::Runs),
            wire::Outcome::Declined => Self::Decided(Verdict::Declined),
            wire::Outcome::Lost => Self::Lost,
        }
    }
}

impl From<Outcome> for wire::Outcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Unknown => Self::Unknown,
            Outcome::UnderWay => Self::UnderWay,
            Outcome::Decided(Verdict::Runs) => Self::Runs,
            Outcome::Decided(Verdict::Declined) => Self::Declined,
            Outcome::Lost => Self::Lost,
        }
    }
}

/// Carries a migration over one call to the destination, until that ends. `told` hears what has become of it there.
///
/// # Cancel safety
/// As of [`Carrier::carry`].
pub async fn carry_there(
    client: &mut MigrationsClient<Channel>,
    migration: MigrationId,
    carrier: &Carrier,
    told: &watch::Sender<Outcome>,
) -> CarryEnd {
    let (send, sent) = mpsc::channel(FRAMES);
    let mut is_first = true;
    let requests =
        ReceiverStream::new(sent).map(move |frame| request_of(frame, migration, std::mem::take(&mut is_first)));
    let (hand, receive) = mpsc::channel(FRAMES);
    let calling = async {
        let mut replies = match client.carry(requests).await {
            Ok(replies) => replies.into_inner(),
            Err(status) => return ended(&status),
        };
        loop {
            let frame = match replies.message().await {
                Ok(Some(CarryReply { step: Some(Reply::Outcome(outcome)) })) => {
                    if let Ok(outcome) = wire::Outcome::try_from(outcome) {
                        told.send_replace(outcome.into());
                    }
                    None
                }
                Ok(Some(CarryReply { step: Some(Reply::TakenBytes(bytes)) })) => Some(Frame::Taken(Offset(bytes))),
                Ok(Some(CarryReply { step: Some(Reply::Piece(piece)) })) => Some(frame_of(piece)),
                Ok(Some(CarryReply { step: None })) => None,
                Ok(None) => return CarryEnd::Disconnected,
                Err(status) => return ended(&status),
            };
            if let Some(frame) = frame
                && hand.send(frame).await.is_err()
            {
                return CarryEnd::Disconnected;
            }
        }
    };
    tokio::select! {
        end = calling => end,
        end = carrier.carry(send, receive) => end,
    }
}

/// The same at the destination: answers a call, until that ends. The first request is what the call has begun with. The caller is told what
/// becomes of the migration here.
///
/// # Cancel safety
/// As of [`Carrier::carry`].
pub async fn carry_here(
    from: &CarryFrom,
    mut requests: Streaming<CarryRequest>,
    replies: mpsc::Sender<Result<CarryReply, Status>>,
    carrier: &Carrier,
    mut outcome: watch::Receiver<Outcome>,
) -> CarryEnd {
    let (send, mut sent) = mpsc::channel(FRAMES);
    let (hand, receive) = mpsc::channel(FRAMES);
    let first = Frame::Taken(Offset(from.returned_bytes));
    let hearing = async {
        if hand.send(first).await.is_err() {
            return CarryEnd::Disconnected;
        }
        loop {
            let frame = match requests.message().await {
                Ok(Some(CarryRequest { step: Some(Request::Piece(piece)) })) => frame_of(piece),
                Ok(Some(CarryRequest { step: Some(Request::ReturnedBytes(bytes)) })) => Frame::Taken(Offset(bytes)),
                Ok(Some(CarryRequest { step: Some(Request::From(_)) })) => {
                    return CarryEnd::Unexpected("it begins twice".to_owned());
                }
                Ok(Some(CarryRequest { step: None })) => continue,
                Ok(None) => return CarryEnd::Disconnected,
                Err(status) => return ended(&status),
            };
            if hand.send(frame).await.is_err() {
                return CarryEnd::Disconnected;
            }
        }
    };
    let saying = async {
        outcome.mark_changed();
        loop {
            let step = tokio::select! {
                Ok(()) = outcome.changed() => Reply::Outcome(wire::Outcome::from(*outcome.borrow_and_update()).into()),
                frame = sent.recv() => match frame {
                    Some(Frame::Taken(to)) => Reply::TakenBytes(to.0),
                    Some(Frame::Piece(at, bytes)) => Reply::Piece(piece_of(at, &bytes)),
                    None => break,
                },
            };
            if replies.send(Ok(CarryReply { step: Some(step) })).await.is_err() {
                break;
            }
        }
        CarryEnd::Disconnected
    };
    tokio::select! {
        end = hearing => end,
        end = saying => end,
        end = carrier.carry(send, receive) => end,
    }
}

fn request_of(frame: Frame, migration: MigrationId, is_first: bool) -> CarryRequest {
    let step = match frame {
        Frame::Taken(to) if is_first => {
            Request::From(CarryFrom { migration: migration.0.to_vec(), returned_bytes: to.0 })
        }
        Frame::Taken(to) => Request::ReturnedBytes(to.0),
        Frame::Piece(at, bytes) => Request::Piece(piece_of(at, &bytes)),
    };
    CarryRequest { step: Some(step) }
}

fn piece_of(at: Offset, bytes: &Bytes) -> Piece {
    Piece { at_bytes: at.0, bytes: bytes.to_vec() }
}

fn frame_of(piece: Piece) -> Frame {
    Frame::Piece(Offset(piece.at_bytes), piece.bytes.into())
}

fn ended(status: &Status) -> CarryEnd {
    match status.code() {
        tonic::Code::InvalidArgument | tonic::Code::FailedPrecondition => {
            CarryEnd::Unexpected(status.message().to_owned())
        }
        _ => CarryEnd::Disconnected,
    }
}

/// What is between a carrier and its call: the next one, while this is sent.
const FRAMES: usize = 1;
